// The page's beginning.
import { call } from './api.js';
import { html, render } from './html.js';
import { startKeys } from './keys.js';
import { enter } from './listing.js';
import { forget } from './mode.js';
import { onEnter, startRoute } from './route.js';
import { App } from './shell.js';
import { changed, drawNow, onChange, state } from './store.js';
import { begin, end, refresh } from './sync.js';

const root = document.getElementById('page');
let isDrawn = false;
onChange(() => {
  // What stands there until now is the frame alone.
  if (!isDrawn) root.textContent = '';
  isDrawn = true;
  render(html`<${App} />`, root);
});

startRoute();
startKeys();
onEnter((route, before) => {
  if (route.place !== 'c' || route.number !== null || (before.place === 'c' && before.number === null)) return;
  enter(before.place === 'c');
});

begin();
changed();

// What sticks to the edge of the screen sticks below the head, which grows with its words.
const head = new ResizeObserver(([entry]) => document.documentElement.style.setProperty('--head', `${entry.target.offsetHeight}px`));
new MutationObserver(() => {
  const found = document.querySelector('.head');
  if (found && found !== head.of) {
    head.of = found;
    head.observe(found);
  }
}).observe(root, { childList: true, subtree: false });

// A page that was put aside comes back with nothing that it knew.
addEventListener('pagehide', end);
addEventListener('pageshow', (event) => event.persisted && begin());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  drawNow();
  // Another tab may have logged in meanwhile.
  if (state.login === 'out') call('getStatus').then(begin, () => {});
  else refresh();
});
// Files that miss the field are not opened in the page's place.
for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());

// A frozen tab shows no old mode when it is woken.
document.addEventListener('freeze', forget);
