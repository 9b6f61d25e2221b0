// Rows of one height, of which only those near the screen are in the document, and the one that has the focus.
import { Component, html } from './html.js';

const ALL_MAX = 100;
const DOM_MAX = 60;
const AROUND = 8;

export class Virtual extends Component {
  componentDidMount() {
    this.onScroll = () => {
      const [first, end] = this.range();
      if (first !== this.first || end !== this.end) this.setState({});
    };
    addEventListener('scroll', this.onScroll, { passive: true });
    addEventListener('resize', this.onScroll);
    this.onScroll();
  }

  componentWillUnmount() {
    removeEventListener('scroll', this.onScroll);
    removeEventListener('resize', this.onScroll);
  }

  // The first row in the document, and the one after the last.
  range() {
    const { count, height } = this.props;
    if (count <= ALL_MAX) return [0, count];
    const top = this.base ? -this.base.getBoundingClientRect().top : 0;
    const first = Math.max(0, Math.floor(top / height) - AROUND);
    const shown = Math.min(DOM_MAX - 1, Math.ceil(innerHeight / height) + 2 * AROUND);
    return [Math.min(first, Math.max(0, count - shown)), Math.min(count, first + shown)];
  }

  render({ count, height, row, focus, seen, role }) {
    const [first, end] = this.range();
    Object.assign(this, { first, end });
    const indexes = [];
    if (focus >= 0 && focus < first && focus < count) indexes.push(focus);
    for (let index = first; index < end; index += 1) indexes.push(index);
    if (focus >= end && focus < count) indexes.push(focus);
    seen?.(indexes);
    return html`<div ref=${this.keep} class="virtual" role=${role ?? "rowgroup"} style=${{ height: `${count * height}px` }}>
      ${indexes.map((index) => row(index, { transform: `translateY(${index * height}px)`, height: `${height}px` }))}
    </div>`;
  }
}

// Brings a row onto the screen, clear of what sticks to its edges.
export function reveal(element) {
  if (!element) return;
  const box = element.getBoundingClientRect();
  const head = (document.querySelector('.head')?.offsetHeight ?? 0) + (document.querySelector('.sticky')?.offsetHeight ?? 0);
  const foot = document.querySelector('.foot')?.offsetHeight ?? 0;
  if (box.top < head + 8) scrollBy(0, box.top - head - 8);
  else if (box.bottom > innerHeight - foot - 8) scrollBy(0, box.bottom - innerHeight + foot + 8);
}
