// What a user does to channels. What can be undone is done at once; the node holds the undo.
import { batch, call } from './api.js';
import { plain } from './format.js';
import { refresh } from './sync.js';
import { changed, state } from './store.js';
import { S } from './strings.js';

let next = 1;

// Offers an undo for as long as the node holds it. While pointer or focus is on it, it stays to be read.
export function offerUndo(text, undo, forMs) {
  const toast = { id: next, text, undo, until: performance.now() + forMs, held: false };
  next += 1;
  state.toasts = [...state.toasts.slice(-2), toast];
  toast.timer = setTimeout(() => drop(toast), forMs);
  changed();
}

export function drop(toast) {
  if (toast.held) {
    toast.timer = setTimeout(() => drop(toast), 500);
    return;
  }
  clearTimeout(toast.timer);
  state.toasts = state.toasts.filter((it) => it !== toast);
  changed();
}

export async function takeBack(toast) {
  toast.held = false;
  drop(toast);
  try {
    await toast.undo();
    state.polite = S.undone;
  } catch (error) {
    say(error.message);
  }
  refresh();
}

// Says what went wrong with what a user has just done, above the place where it was done, until it is closed.
export function say(text) {
  state.problem = text === null ? null : S.errors[text] ?? plain(text);
  changed();
}

const name = (channel) => plain(channel.title) || S.untitled;

function undoAll(found) {
  return async () => {
    for (const answer of await batch(found.map((it) => ['undo', { undo: it.undo }]))) {
      if (answer instanceof Error) throw answer;
    }
  };
}

async function each(channels, method, text) {
  try {
    const answers = await batch(channels.map((channel) => [method, { channel: channel.channel }]));
    const failed = answers.find((answer) => answer instanceof Error);
    const done = answers.filter((answer) => answer?.undo);
    if (done.length && text) offerUndo(text, undoAll(done), Math.min(...done.map((it) => it.for_ms)));
    if (failed) say(failed.message);
  } catch (error) {
    say(error.message);
  }
  refresh();
}

export function pause(channels) {
  const rest = channels.filter((channel) => channel.state !== 'paused');
  if (rest.length === 0) return each(channels, 'resumeSubscription');
  return each(rest, 'pauseSubscription', rest.length === 1 ? S.pausedOne(name(rest[0])) : S.pausedMany(rest.length));
}

export function resume(channels) {
  return each(channels, 'resumeSubscription');
}

// Looks after them now rather than when it is due.
export function check(channels) {
  return each(channels, 'checkSubscription');
}

export function markRead(channels) {
  return each(channels, 'markRead');
}

export function unfollow(channels) {
  return each(channels, 'removeSubscription', channels.length === 1 ? S.unfollowedOne(name(channels[0])) : S.unfollowedMany(channels.length));
}

// A limit is undone by setting the one before again.
export async function setLimits(limits, before) {
  const after = await call('setLimits', limits);
  offerUndo(S.limitsSet, () => call('setLimits', before), 10000);
  return after;
}

// Copies text, also where a browser has no clipboard for a page.
export async function copy(text) {
  let done = false;
  if (navigator.clipboard) {
    done = await navigator.clipboard.writeText(text).then(() => true, () => false);
  }
  if (!done) {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'offscreen';
    area.setAttribute('aria-hidden', 'true');
    const from = document.activeElement;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    done = document.execCommand('copy');
    area.remove();
    from?.focus();
  }
  state.polite = done ? S.copied : S.copyFailed;
  changed();
  return done;
}
