// Keeps what the page knows up to date: one snapshot, and then what events name. Figures change at most once a second, hidden tabs not at all.
import { batch, call } from './api.js';
import { forget, isFresh, onBeat } from './mode.js';
import { changed, state } from './store.js';
import * as stream from './stream.js';

const TICK_MS = 1000;
const SOON_MS = 200;
// Channels that are asked for at once.
const CHUNK = 200;
const LOG_MAX = 500;

// Of those that are not on the screen, some are asked for now and then.
const OTHERS_TICKS = 5;
const OTHERS = 50;
// Times of proof grow old without an event.
const AGAIN_TICKS = 30;

// Channels of which something was told since they were asked for, and those whose state is another.
const dirty = new Set();
const urgent = new Set();
let ticks = 0;
let dirtyStatus = true;
let dirtyJobs = true;
let ticking = 0;
let soon = 0;
let busy = false;
// Those that are on the screen: only they are asked for again at once.
let seen = new Set();
// What a place wants to hear of.
const hearers = new Set();

export function setSeen(keys) {
  seen = keys;
}

export function onEvents(hearer) {
  hearers.add(hearer);
  return () => hearers.delete(hearer);
}

// Begins with a snapshot, or again, as what was heard before may be old.
export function begin() {
  forget();
  stream.start(hear);
  dirtyStatus = true;
  dirtyJobs = true;
  for (const key of state.channels.keys()) dirty.add(key);
  state.stale = true;
  clearInterval(ticking);
  ticking = setInterval(tick, TICK_MS);
  tick();
}

export function end() {
  clearInterval(ticking);
  stream.stop();
  forget();
}

export function refresh() {
  dirtyStatus = true;
  dirtyJobs = true;
  for (const key of seen) dirty.add(key);
  return tick();
}

function hear(name, data, ageMs) {
  if (name === 'beat') {
    const restarted = state.beat && state.beat.started_unix_ms !== data.started_unix_ms;
    const back = !isFresh();
    onBeat(data, ageMs);
    dirtyStatus = true;
    if (restarted || back) state.stale = true;
    if (restarted || back) tick();
    return;
  }
  if (name === 'missed' || name === 'reset') {
    state.stale = true;
    dirtyJobs = true;
    for (const key of state.channels.keys()) dirty.add(key);
    return;
  }
  if (name === 'refused') {
    call('getStatus').catch(() => state.login === 'out' && end());
    return;
  }
  dirtyStatus = true;
  if (data.job !== undefined && data.job !== null) onJob(data);
  if (name === 'followed') state.stale = true;
  if (name === 'unfollowed' && data.channel) {
    state.channels.delete(data.channel);
    dirty.delete(data.channel);
    changed();
  } else if (data.channel) {
    dirty.add(data.channel);
    // The state of what is on the screen is told at once, with those that change in the same moment.
    if ((name === 'changed' || name === 'complete') && seen.has(data.channel)) {
      urgent.add(data.channel);
      soon ||= setTimeout(() => {
        soon = 0;
        tick();
      }, SOON_MS);
    }
  }
  if (data.text) {
    state.log.push(data);
    if (state.log.length > LOG_MAX) state.log.shift();
  }
  for (const hearer of hearers) hearer(name, data);
}

function onJob(data) {
  const job = state.jobs.get(data.job);
  if (!job || data.event !== 'job' || ['done', 'failed', 'cancelled'].includes(data.members.state)) dirtyJobs = true;
  if (job && data.event === 'job') {
    Object.assign(job, data.members);
    changed();
  }
}

state.log = [];
state.stale = true;

async function tick() {
  if (busy || document.hidden || state.login === 'out') return;
  busy = true;
  try {
    if (state.stale) await snapshot();
    ticks += 1;
    if (ticks % AGAIN_TICKS === 0) seen.forEach((key) => dirty.add(key));
    const wanted = [...dirty].filter((key) => urgent.has(key) || seen.has(key)).slice(0, CHUNK);
    const others = ticks % OTHERS_TICKS === 0 ? [...dirty].filter((key) => !seen.has(key) && !urgent.has(key)).slice(0, OTHERS) : [];
    const keys = [...wanted, ...others];
    const calls = keys.map((key) => ['getSubscription', { channel: key }]);
    const moves = state.status && (state.status.receive_bytes_per_sec > 0 || state.status.send_bytes_per_sec > 0);
    if (dirtyStatus || moves) calls.push(['getStatus']);
    const asksJobs = dirtyJobs;
    if (asksJobs) calls.push(['getJobs']);
    if (calls.length) {
      dirtyStatus = false;
      dirtyJobs = false;
      take(calls, await batch(calls));
    }
  } catch {
    dirtyStatus = true;
  }
  busy = false;
}

function take(calls, answers) {
  answers.forEach((answer, index) => {
    const [method, params] = calls[index];
    if (method === 'getSubscription') {
      dirty.delete(params.channel);
      urgent.delete(params.channel);
      if (answer instanceof Error) state.channels.delete(params.channel);
      else if (!answer.preview) state.channels.set(answer.channel, answer);
    } else if (answer instanceof Error) {
      return;
    } else if (method === 'getStatus') {
      setStatus(answer);
    } else {
      state.jobs = new Map(answer.jobs.map((job) => [job.id, job]));
    }
  });
  changed();
}

function setStatus(status) {
  state.status = status;
  state.counts = status.channels;
}

// All channels, in pieces: the first is shown while the others come.
async function snapshot() {
  state.stale = false;
  try {
    const [status, first] = await batch([['getStatus'], ['getSubscriptions', { ...state.listing(), limit: 60 }]]);
    if (status instanceof Error) throw status;
    if (first instanceof Error) throw first;
    setStatus(status);
    const found = new Map();
    const add = (answer) => answer.subscriptions.forEach((one) => found.set(one.channel, one));
    add(first);
    if (state.channels.size === 0) {
      state.channels = new Map(found);
      state.onSnapshot(first, false);
      changed();
    }
    for (let offset = 60; offset < first.total; offset += CHUNK) {
      add(await call('getSubscriptions', { ...state.listing(), offset, limit: CHUNK }));
    }
    // A filter shows a part of them.
    if (first.total < status.channels.all) {
      for (const [key, one] of state.channels) if (!found.has(key)) found.set(key, one);
      for (let offset = 0; found.size < status.channels.all && offset < status.channels.all; offset += CHUNK) {
        (await call('getSubscriptions', { offset, limit: CHUNK })).subscriptions.forEach((one) => found.has(one.channel) || found.set(one.channel, one));
      }
    }
    state.channels = found;
    dirty.clear();
    state.loaded = true;
    state.onSnapshot(first, true);
    changed();
  } catch (error) {
    state.stale = true;
    throw error;
  }
}
