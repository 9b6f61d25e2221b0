// Menus: what a right click or ⋯ offers.
import { Component, html } from './html.js';
import { Icon } from './icons.js';
import { changed, state } from './store.js';

// Opens a menu at a button or a point; `items` are { label, run, off, bad }.
export function openMenu(event, items, label) {
  event.preventDefault();
  event.stopPropagation();
  const from = event.currentTarget;
  const box = from.getBoundingClientRect();
  const point = event.type === 'contextmenu' && event.button === 2;
  state.menu = {
    items: items.filter(Boolean), label, from: point ? document.activeElement : from,
    x: point ? event.clientX : box.right, y: point ? event.clientY : box.bottom + 4, point,
  };
  changed();
}

export function closeMenu(refocus = true) {
  const from = state.menu?.from;
  state.menu = null;
  changed();
  if (refocus) requestAnimationFrame(() => from?.isConnected && from.focus());
}

export class Menu extends Component {
  componentDidMount() {
    this.place();
    this.base.querySelector('button:not([disabled])')?.focus();
    this.away = (event) => !this.base.contains(event.target) && closeMenu(false);
    addEventListener('pointerdown', this.away, true);
  }

  componentWillUnmount() {
    removeEventListener('pointerdown', this.away, true);
  }

  place() {
    const { x, y, point } = this.props.menu;
    const { offsetWidth: width, offsetHeight: height } = this.base;
    const left = point ? x : x - width;
    this.base.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    this.base.style.top = `${Math.max(8, Math.min(y, innerHeight - height - 8))}px`;
  }

  move(event) {
    const all = [...this.base.querySelectorAll('button:not([disabled])')];
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === 'Escape' || event.key === 'Tab') {
      event.preventDefault();
      event.stopPropagation();
      closeMenu();
    } else if (to !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      all[(to + all.length) % all.length]?.focus();
    }
  }

  render({ menu }) {
    return html`<div ref=${this.keep} class="menu" role="menu" aria-label=${menu.label} onKeyDown=${(event) => this.move(event)}>
      ${menu.items.map((item) => html`<button type="button" role="menuitem" class=${item.bad ? 'bad' : ''} disabled=${item.off}
        onClick=${() => { closeMenu(); item.run(); }}>${item.label}</button>`)}
    </div>`;
  }
}

export function MoreButton({ items, label, inList }) {
  return html`<button type="button" class="more" tabindex=${inList ? -1 : undefined} aria-haspopup="menu" aria-label=${label} onClick=${(event) => openMenu(event, items(), label)}><${Icon} name="more" /></button>`;
}
