// Which channels are listed, in which order. The order is frozen: it changes by a heading, a filter, or on entering the place.
import { call } from './api.js';
import { changed, settings, state } from './store.js';
import { NEEDS } from './words.js';
import { say } from './actions.js';

const CHUNK = 200;
const COMPACT_FROM = 100;

export const FILTERS = {
  all: [],
  new: ['new'],
  arriving: ['arriving'],
  needs: NEEDS,
};

// Words that a search understands beside titles and keys.
const IS = {
  new: ['new'], arriving: ['arriving'], waiting: ['waiting_for_peers'], paused: ['paused'], looking: ['looking'], needs: NEEDS,
  conflict: ['conflict'], old: ['not_asked_lately'],
};

export const list = {
  filter: 'all', search: '', sort: 'changed', descending: true,
  order: null,
  // Channels that have come since, and whether the node would sort otherwise.
  more: [], isMoved: false,
  selected: new Set(), focus: null, anchor: null,
  over: false,
};

function wanted() {
  const states = [];
  const words = list.search.split(/\s+/).filter((word) => {
    const found = word.startsWith('is:') && IS[word.slice(3)];
    if (found) states.push(...found);
    return !found;
  });
  const filter = FILTERS[list.filter];
  const both = states.length && filter.length ? filter.filter((it) => states.includes(it)) : [...filter, ...states];
  return { states: both, search: words.join(' ') };
}

state.listing = () => ({ sort: list.sort, descending: list.descending, ...wanted() });

state.onSnapshot = (first, isWhole) => {
  const keys = [...state.channels.keys()];
  if (list.order === null) {
    list.order = first.total === keys.length || !isWhole ? keys : keys.slice(0, first.total);
    list.isWhole = isWhole;
  } else if (!list.isWhole && isWhole) {
    const known = new Set(list.order);
    list.order = [...list.order, ...keys.slice(0, first.total).filter((key) => !known.has(key))];
    list.isWhole = true;
  } else if (isWhole) {
    const known = new Set(list.order);
    list.more = keys.filter((key) => !known.has(key) && matches(state.channels.get(key)));
    const there = keys.slice(0, first.total).filter((key) => known.has(key));
    const order = list.order.filter((key) => state.channels.has(key));
    list.isMoved = there.length === order.length && there.some((key, index) => key !== order[index]);
  }
};

// Whether a channel fits what is listed now.
export function matches(channel) {
  if (!channel) return false;
  const { states, search } = wanted();
  const text = search.toLowerCase();
  return (states.length === 0 || states.includes(channel.state))
    && (!text || channel.title.toLowerCase().includes(text) || channel.channel.includes(text));
}

let turn = 0;

// Asks the node for the order anew.
export async function sortAgain() {
  turn += 1;
  const mine = turn;
  try {
    const order = [];
    let total = 1;
    while (order.length < total) {
      const found = await call('getSubscriptions', { ...state.listing(), offset: order.length, limit: CHUNK });
      if (mine !== turn) return;
      total = found.total;
      if (found.subscriptions.length === 0) break;
      for (const one of found.subscriptions) {
        state.channels.set(one.channel, one);
        order.push(one.channel);
      }
      if (order.length === found.subscriptions.length) put([...order]);
    }
    put(order);
  } catch (error) {
    say(error.message);
  }
}

function put(order) {
  if (list.isBack && list.focus) {
    // Back from a channel, the focus is where it was.
    list.isBack = false;
    requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(`.row[data-key="${list.focus}"]`)?.focus({ preventScroll: true })));
  }
  list.order = order;
  list.isWhole = true;
  list.more = [];
  list.isMoved = false;
  changed();
}

// The place is entered: the order may be another one now.
export function enter(isBack) {
  list.isBack = isBack;
  list.order = null;
  list.isWhole = false;
  list.more = [];
  list.isMoved = false;
  if (state.loaded) sortAgain();
}

export function sortBy(sort) {
  if (list.sort === sort) list.descending = !list.descending;
  else Object.assign(list, { sort, descending: sort === 'changed' || sort === 'here' });
  sortAgain();
}

export function filterBy(filter) {
  list.filter = filter;
  list.selected.clear();
  sortAgain();
}

let typing = 0;

export function search(text) {
  list.search = text;
  clearTimeout(typing);
  typing = setTimeout(sortAgain, 150);
  changed();
}

// Rows that do not fit any more go, when nobody points at them.
export function settle() {
  if (!list.order) return;
  const rest = list.order.filter((key) => !state.channels.has(key) || matches(state.channels.get(key)));
  if (rest.length !== list.order.length) {
    list.order = rest;
    changed();
  }
}

export function isCompact() {
  const chosen = settings.get('density');
  if (chosen) return chosen === 'compact';
  return (state.counts?.all ?? 0) > COMPACT_FROM;
}

export function setCompact(compact) {
  settings.set('density', compact ? 'compact' : 'comfortable');
  changed();
}

export function selected() {
  return [...list.selected].map((key) => state.channels.get(key)).filter(Boolean);
}

// The rows as they are shown.
export function rows() {
  return (list.order ?? []).filter((key) => state.channels.has(key));
}
