// Where the page is. A path is `c/12`: it names no key, so that no history or log keeps one.
import { changed, state } from './store.js';

const PLACES = ['c', 'p', 'a', 'n', 'f'];
const enters = [];

export function onEnter(hear) {
  enters.push(hear);
}

// What gets the focus on entering; the content as a whole, where nothing is named.
let target = null;

// Goes to a place. `focus` names what gets the focus there.
export function go(place, number, focus = null) {
  target = focus;
  const path = number === undefined ? place : `${place}/${number}`;
  if (location.hash === `#${path}`) read({});
  else location.hash = path;
}

export function href(place) {
  return `#${place}`;
}

function read(event) {
  const [place, number] = location.hash.slice(1).split('/');
  const before = state.route;
  const known = PLACES.includes(place) ? place : 'c';
  state.route = { place: known, number: /^\d+$/.test(number ?? '') ? Number(number) : null };
  state.menu = null;
  state.problem = null;
  const isNew = before.place !== state.route.place || before.number !== state.route.number;
  enters.forEach((hear) => hear(state.route, before));
  changed();
  const keep = history.state?.top;
  const focus = target;
  target = null;
  // The page itself has the focus at first.
  if (!event && !focus) return;
  requestAnimationFrame(() => {
    if (isNew) scrollTo(0, keep ?? 0);
    const named = focus && document.querySelector(focus);
    if (named || isNew) (named || document.querySelector('main'))?.focus({ preventScroll: !named });
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
