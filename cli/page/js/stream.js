// One event stream for all tabs: a browser opens few connections to one host, and each stream takes one of them.
//
// The tab that holds a lock reads the stream and tells the others. Without locks (plain HTTP beyond loopback) the tabs agree among
// themselves; without a way to talk, each reads for itself.
import { monotonic } from './clock.js';

const NAME = `megatorrent-events ${location.pathname}`;
const EVENTS = ['head', 'manifest', 'progress', 'file', 'complete', 'withdrawn', 'status', 'loss', 'recovered', 'warning', 'note', 'job',
  'followed', 'unfollowed', 'changed', 'beat', 'missed', 'reset'];
// A leader says something at least with each beat.
const SILENCE_MS = 7000;

let hear = () => {};
let source = null;
let bus = null;
let release = null;
let last = null;
let lastBeat = null;
let heardAt = -Infinity;
let isLeader = false;
let running = false;
let id = Math.random();
let timer = 0;

// Begins; `listener(name, data, ageMs)` hears each event.
export function start(listener) {
  hear = listener;
  if (running) return;
  running = true;
  lastBeat = null;
  if (typeof BroadcastChannel === 'function') {
    bus = new BroadcastChannel(NAME);
    bus.onmessage = (message) => onTold(message.data);
  }
  if (navigator.locks && bus) lead();
  else if (bus) elect();
  else read();
  bus?.postMessage({ say: 'who' });
}

// Ends, as the page is put aside.
export function stop() {
  if (!running) return;
  if (isLeader) bus?.postMessage({ say: 'bye' });
  running = false;
  isLeader = false;
  clearTimeout(timer);
  source?.close();
  source = null;
  release?.();
  release = null;
  bus?.close();
  bus = null;
}

function lead() {
  const mine = bus;
  navigator.locks.request(NAME, () => {
    if (!running || bus !== mine) return undefined;
    read();
    return new Promise((resolve) => {
      release = resolve;
    });
  });
}

function elect() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (!running || isLeader) return;
    if (monotonic() - heardAt > SILENCE_MS) {
      read();
      bus.postMessage({ say: 'leader', id });
    } else {
      elect();
    }
  }, heardAt === -Infinity ? 300 + Math.random() * 400 : SILENCE_MS + Math.random() * 1000);
}

function onTold(told) {
  if (told.say === 'who') {
    if (!isLeader) return;
    bus.postMessage({ say: 'leader', id });
    if (lastBeat) bus.postMessage({ say: 'event', name: 'beat', data: lastBeat.data, age: monotonic() - lastBeat.at });
    return;
  }
  if (told.say === 'bye') {
    heardAt = -Infinity;
    if (!isLeader && !navigator.locks) elect();
    return;
  }
  heardAt = monotonic();
  if (told.say === 'leader') {
    // Two began at once: the higher number goes on alone.
    if (isLeader && !navigator.locks && told.id > id) {
      isLeader = false;
      source?.close();
      source = null;
      elect();
    }
    return;
  }
  if (told.say === 'event' && !isLeader) hear(told.name, told.data, told.age ?? 0);
}

function read() {
  isLeader = true;
  connect();
}

function connect() {
  if (!running) return;
  source?.close();
  source = new EventSource(last === null ? 'api/events' : `api/events?after=${last}`);
  for (const name of EVENTS) source.addEventListener(name, onEvent);
  source.onerror = () => {
    // The browser tries again by itself, unless it was refused.
    if (source?.readyState !== EventSource.CLOSED) return;
    clearTimeout(timer);
    timer = setTimeout(connect, 2000);
    hear('refused', {}, 0);
  };
}

function onEvent(event) {
  const data = JSON.parse(event.data);
  if (event.lastEventId) last = event.lastEventId;
  if (event.type === 'beat') lastBeat = { data, at: monotonic() };
  bus?.postMessage({ say: 'event', name: event.type, data });
  hear(event.type, data, 0);
}
