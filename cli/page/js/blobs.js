// A map of a version's blobs: cells of as many blobs each, in the order of the content. The sentence below it says the same.
import { call } from './api.js';
import { count } from './format.js';
import { html } from './html.js';
import { Polled } from './polled.js';
import { S } from './strings.js';

const GAP = 3;

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

export class Blobs extends Polled {
  static EACH_MS = 2000;

  componentDidMount() {
    super.componentDidMount();
    this.redraw = () => this.draw();
    addEventListener('theme', this.redraw);
    this.scheme = matchMedia('(prefers-color-scheme: dark)');
    this.scheme.addEventListener('change', this.redraw);
    this.sizes = new ResizeObserver(this.redraw);
  }

  componentWillUnmount() {
    super.componentWillUnmount();
    removeEventListener('theme', this.redraw);
    this.scheme.removeEventListener('change', this.redraw);
    this.sizes.disconnect();
  }

  async ask() {
    return { map: await call('getBlobs', { channel: this.props.channel }) };
  }

  loaded() {
    this.draw();
    if (this.base) this.sizes.observe(this.base);
  }

  draw() {
    const canvas = this.base?.querySelector('canvas');
    const { map } = this.state;
    if (!canvas || !map) return;
    const width = canvas.parentElement.clientWidth;
    const cells = map.blobs.length;
    const size = cells > 300 ? 7 : cells > 120 ? 9 : 12;
    const columns = Math.max(1, Math.floor((width + GAP) / (size + GAP)));
    const height = Math.ceil(cells / columns) * (size + GAP);
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const [accent, line, ink, warn] = ['accent', 'line', 'ink', 'warn'].map(color);
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    map.blobs.forEach((all, index) => {
      const x = (index % columns) * (size + GAP);
      const y = Math.floor(index / columns) * (size + GAP);
      const share = map.here[index] / all;
      context.fillStyle = line;
      round(context, x, y, size);
      context.fill();
      if (share > 0) {
        context.globalAlpha = share >= 1 ? 1 : share >= 0.5 ? 0.6 : 0.3;
        context.fillStyle = accent;
        context.fill();
        context.globalAlpha = 1;
      }
      if (map.unseen[index] > 0) hatch(context, x, y, size, warn);
      if (map.under_way[index] > 0) {
        context.strokeStyle = ink;
        context.lineWidth = 1.5;
        round(context, x + 0.75, y + 0.75, size - 1.5);
        context.stroke();
      }
    });
  }

  render(_, { map }) {
    if (!map || map.blobs.length === 0) return null;
    const [all, here, coming, unseen] = [map.blobs, map.here, map.under_way, map.unseen].map(sum);
    const missing = all - here;
    const words = [coming > 0 && S.blobsComing(coming), missing > 0 && (unseen > 0 ? S.blobsUnseen(unseen) : S.blobsSeen), missing === 0 && S.blobsAll].filter(Boolean).join(' ');
    return html`<section ref=${this.keep} aria-labelledby="blobs">
      <h2 id="blobs"><span>${S.blobs}</span><span class="soft figure">${S.ofAll(count(here), count(all))}</span></h2>
      <div class="map"><canvas role="img" aria-label=${`${S.ofAll(here, all)} ${words}`} /></div>
      <p class="soft">${words}</p>
    </section>`;
  }
}

function round(context, x, y, size) {
  context.beginPath();
  context.roundRect(x, y, size, size, 2);
}

function hatch(context, x, y, size, color) {
  context.save();
  context.clip();
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = -size; at < size; at += 4) {
    context.moveTo(x + at, y + size);
    context.lineTo(x + at + size, y);
  }
  context.stroke();
  context.restore();
}
