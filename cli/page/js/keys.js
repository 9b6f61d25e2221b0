// Keys of the whole page. Single letters can be switched off.
import { markRead, pause, resume, takeBack, unfollow } from './actions.js';
import { find } from './channel.js';
import { onListKey } from './channels.js';
import { openDialog } from './dialog.js';
import { html } from './html.js';
import { isFresh } from './mode.js';
import { go } from './route.js';
import { settings, state } from './store.js';
import { S } from './strings.js';

// How long the second key of two is waited for.
const PAIR_MS = 1500;
const REGIONS = [['#mode'], ['.places', '.foot'], ['#list .row[tabindex="0"]', '[role="tree"] [tabindex="0"]', 'main'], ['aside']];

let pairUntil = 0;

export function openKeys() {
  openDialog({
    title: S.keys, wide: true, keep: S.close,
    body: () => html`<div class="keys">${S.keyTable.map(([keys, what]) => html`<p><span>${keys.map((key) => html`<kbd>${key}</kbd> `)}</span><span>${what}</span></p>`)}</div>`,
  });
}

function isTyping(target) {
  return target.matches?.('input:not([type="checkbox"]):not([type="radio"]), textarea, select');
}

function visible(element) {
  return element && element.getClientRects().length > 0;
}

function nextRegion(back) {
  const all = REGIONS.map((region) => region.map((selector) => document.querySelector(selector)).find(visible)).filter(Boolean);
  const at = all.findIndex((it) => it === document.activeElement || it.contains(document.activeElement));
  const to = all[(at + (back ? -1 : 1) + all.length) % all.length];
  const focusable = to.matches('nav, aside') ? to.querySelector('a[aria-current], a, button') : to;
  if (to.matches('aside') && !focusable) to.tabIndex = -1;
  (focusable ?? to).focus();
}

function onKey(event) {
  if (state.login === 'out' || event.defaultPrevented || state.dialog || state.menu) return;
  if (event.key === 'F6') {
    event.preventDefault();
    nextRegion(event.shiftKey);
    return;
  }
  if (isTyping(event.target)) return;
  const letters = settings.get('letters') !== 'off';
  const plain = letters && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && pairUntil > performance.now()) {
    pairUntil = 0;
    if ('cpan'.includes(event.key)) {
      event.preventDefault();
      go(event.key);
      return;
    }
  }
  if (event.key === 'z' && (plain || event.ctrlKey || event.metaKey) && state.toasts.length) {
    event.preventDefault();
    takeBack(state.toasts.at(-1));
    return;
  }
  const { place, number } = state.route;
  if (place === 'c' && number === null && onListKey(event, letters)) {
    event.preventDefault();
    return;
  }
  if (place === 'c' && number !== null && onChannelKey(event, plain, find(number))) {
    event.preventDefault();
    return;
  }
  if (event.key === 'Escape' && (place === 'f' || number !== null)) {
    go('c');
  } else if (!plain) {
    return;
  } else if (event.key === 'g') {
    pairUntil = performance.now() + PAIR_MS;
  } else if (event.key === '/') {
    event.preventDefault();
    go('c', undefined, '#find');
  } else if (event.key === 'f') {
    event.preventDefault();
    go('f', undefined, '#address');
  } else if (event.key === '?') {
    openKeys();
  }
}

function onChannelKey(event, plain, channel) {
  if (!channel || !isFresh()) return false;
  if (plain && event.key === 'p') (channel.state === 'paused' ? resume : pause)([channel]);
  else if (plain && event.key === 'u') markRead([channel]);
  else if (event.key === 'Delete') {
    unfollow([channel]);
    go('c');
  } else return false;
  return true;
}

export function startKeys() {
  addEventListener('keydown', onKey);
}
