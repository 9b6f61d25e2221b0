// Where the page is. A path is `c/12`: it names no key, so that no history or log keeps one.
import { changed, state } from './store.js';

const PLACES = ['c', 'p', 'a', 'n', 'f'];
const enters = [];

export function onEnter(hear) {
  enters.push(hear);
}

export function go(place, number) {
  const path = number === undefined ? place : `${place}/${number}`;
  if (location.hash === `#${path}`) read();
  else location.hash = path;
}

export function href(place) {
  return `#${place}`;
}

function read() {
  const [place, number] = location.hash.slice(1).split('/');
  const before = state.route;
  const known = PLACES.includes(place) ? place : 'c';
  state.route = { place: known, number: /^\d+$/.test(number ?? '') ? Number(number) : null };
  if (state.menu) state.menu = null;
  const isNew = before.place !== state.route.place || before.number !== state.route.number;
  enters.forEach((hear) => hear(state.route, before));
  changed();
  if (!isNew) return;
  const keep = history.state?.top;
  requestAnimationFrame(() => {
    scrollTo(0, keep ?? 0);
    document.querySelector('main')?.focus({ preventScroll: true });
  });
}

export function startRoute() {
  addEventListener('hashchange', read);
  // Where a list was left, it is found again.
  let due = 0;
  addEventListener('scroll', () => {
    clearTimeout(due);
    due = setTimeout(() => history.replaceState({ top: scrollY }, ''), 200);
  }, { passive: true });
  read();
}
