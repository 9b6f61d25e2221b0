// Drawings of 16 by 16, in the colour of the text beside them.
import { html } from './html.js';

const stroke = (body) => html`<g fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round">${body}</g>`;
const path = (d) => stroke(html`<path d=${d} />`);

const OCTAGON = 'M5.5 1.8h5l3.7 3.7v5l-3.7 3.7h-5l-3.7-3.7v-5z';

const SHAPES = {
  eye: () => stroke(html`<path d="M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8z" /><circle cx="8" cy="8" r="1.9" />`),
  proxy: () => stroke(html`<circle cx="2.5" cy="8" r="1.5" /><rect x="6" y="6" width="4" height="4" /><circle cx="13.5" cy="8" r="1.5" /><path d="M4 8h2M10 8h2" />`),
  rings: () => stroke(html`<circle cx="8" cy="8" r="6.2" stroke-dasharray="2.4 2" /><circle cx="8" cy="8" r="3.2" /><path d="M8 8h.01" />`),
  ring: () => stroke(html`<circle cx="8" cy="8" r="5.8" stroke-dasharray="16 40" />`),
  octagon: () => stroke(html`<path d=${OCTAGON} /><path d="M5 8h6" />`),
  triangle: () => stroke(html`<path d="M8 2 14.6 13.6H1.4z" /><path d="M8 6.5v3.2M8 11.7h.01" />`),
  unknown: () => stroke(html`<circle cx="8" cy="8" r="6.2" stroke-dasharray="2.6 2.3" /><path d="M6.4 6.4a1.7 1.7 0 1 1 2.4 1.7c-.6.3-.8.6-.8 1.2M8 11.3h.01" />`),
  dashed: () => stroke(html`<circle cx="8" cy="8" r="5.6" stroke-dasharray="2.6 2.3" />`),
  key: () => stroke(html`<circle cx="5" cy="11" r="2.9" /><path d="m7.2 8.8 6-6M11 5l2 2" />`),
  pause: () => path('M5.5 3.5v9M10.5 3.5v9'),
  lens: () => stroke(html`<circle cx="7" cy="7" r="4.6" /><path d="m10.6 10.6 3.4 3.4" />`),
  clock: () => stroke(html`<circle cx="8" cy="8" r="6.2" /><path d="M8 4.4V8l2.4 1.6" />`),
  dot: () => html`<circle cx="8" cy="8" r="4" fill="currentColor" />`,
  check: () => path('m2.8 8.6 3.4 3.5 7-8'),
  more: () => html`<g fill="currentColor"><circle cx="3" cy="8" r="1.25" /><circle cx="8" cy="8" r="1.25" /><circle cx="13" cy="8" r="1.25" /></g>`,
  rows: () => path('M2.5 3.5h11M2.5 6.5h11M2.5 9.5h11M2.5 12.5h11'),
  list: () => path('M2.5 4.5h11M2.5 11.5h11'),
  down: () => path('M8 2.5v11M3.5 9 8 13.5 12.5 9'),
  up: () => path('M8 13.5v-11M3.5 7 8 2.5 12.5 7'),
  right: () => path('m6 3.5 4.5 4.5L6 12.5'),
  open: () => path('M3.5 6 8 10.5 12.5 6'),
  back: () => path('M10 2.5 4.5 8l5.5 5.5'),
  plus: () => path('M8 2.5v11M2.5 8h11'),
  copy: () => stroke(html`<rect x="5.5" y="5.5" width="8.5" height="8.5" rx="1.5" /><path d="M10.5 2H3.5A1.5 1.5 0 0 0 2 3.5v7" />`),
  upload: () => path('M8 10.5v-8M4.5 6 8 2.5 11.5 6M2 11v2.5h12V11'),
  pulse: () => path('M1.5 8.5h3l2-5 3 9 2-5h3'),
  gear: () => stroke(html`<circle cx="8" cy="8" r="2.3" /><path d="M8 1.5v2.2M8 12.3v2.2M1.5 8h2.2M12.3 8h2.2M3.4 3.4 5 5M11 11l1.6 1.6M12.6 3.4 11 5M5 11l-1.6 1.6" />`),
  folder: () => path('M1.8 3.8h4.4l1.5 1.8h6.5v7.2H1.8z'),
  file: () => path('M3.5 1.8h5.7l3.3 3.3v9.1h-9zM9 2v3.3h3.3'),
  close: () => path('m3.5 3.5 9 9M12.5 3.5l-9 9'),
  circle: () => stroke(html`<circle cx="8" cy="8" r="5.2" />`),
};

export function Icon({ name, size = 16 }) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 16 16" aria-hidden="true">${SHAPES[name]()}</svg>`;
}

// How far something is, where there is no room for a bar.
export function Ring({ part }) {
  const length = 2 * Math.PI * 5.8;
  const dash = `${length * part} ${length}`;
  return html`<svg class="icon ring" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
    <g fill="none" stroke-width="2"><circle class="track" cx="8" cy="8" r="5.8" />
    <circle class="done" cx="8" cy="8" r="5.8" stroke-dasharray=${dash} transform="rotate(-90 8 8)" /></g></svg>`;
}

export function Logo() {
  return html`<svg class="logo" width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">
    <g fill="none" stroke="currentColor" stroke-width="1.9"><circle cx="11" cy="11" r="9.6" /><circle cx="11" cy="11" r="5.4" /></g>
    <circle class="core" cx="11" cy="11" r="2.2" /></svg>`;
}

// Five by five squares, mirrored, from the first 15 bits of a channel's key: a help for the eye, and no proof.
export function Seal({ of, size = 32 }) {
  const bits = parseInt(of.slice(0, 4), 16) >> 1;
  let d = '';
  for (let row = 0; row < 5; row += 1) {
    for (let column = 0; column < 5; column += 1) {
      const place = row * 3 + (column < 3 ? column : 4 - column);
      if ((bits >> (14 - place)) & 1) d += `M${column} ${row}h1v1h-1z`;
    }
  }
  return html`<svg class="seal" width=${size} height=${size} viewBox="-2 -2 9 9" aria-hidden="true"><path d=${d} fill="currentColor" shape-rendering="crispEdges" /></svg>`;
}

export function Bar({ part, label, quiet }) {
  return html`<span class=${quiet ? 'bar quiet' : 'bar'} role="progressbar" aria-label=${label} aria-valuenow=${Math.round(part * 100)} aria-valuemin="0" aria-valuemax="100">
    <span style=${{ width: `${Math.max(0, Math.min(1, part)) * 100}%` }} /></span>`;
}
