// The page's beginning.
import { html, render } from './html.js';
import { startKeys } from './keys.js';
import { enter, list } from './listing.js';
import { applyTheme } from './node.js';
import { onEnter, startRoute } from './route.js';
import { App } from './shell.js';
import { changed, onChange, state } from './store.js';
import { begin, end, refresh } from './sync.js';

const root = document.getElementById('page');
onChange(() => render(html`<${App} />`, root));

applyTheme();
startRoute();
startKeys();
onEnter((route, before) => {
  if (route.place !== 'c' || route.number !== null || (before.place === 'c' && before.number === null)) return;
  enter();
  // Back from a channel, the focus is where it was.
  if (list.focus) requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(`.row[data-key="${list.focus}"]`)?.focus({ preventScroll: true })));
});

begin();
changed();

// A page that was put aside comes back with nothing that it knew.
addEventListener('pagehide', end);
addEventListener('pageshow', (event) => event.persisted && begin());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  changed();
  refresh();
});
// Files that miss the field are not opened in the page's place.
for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());

// For a frame, so that a frozen tab shows no old mode when it is woken.
document.addEventListener('freeze', () => {
  state.beatAt = -Infinity;
});
