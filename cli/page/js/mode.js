// The mode line: how others see the node, in the words of the node's last beat and for as long as that is fresh. The page has no mode of its own.
import { monotonic } from './clock.js';
import { clock as time } from './format.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { openDialog } from './dialog.js';
import { changed, drawNow, state } from './store.js';
import { S } from './strings.js';

// A beat comes every five seconds.
const FRESH_MS = 8000;
// From strong to weak, for what is announced at once.
const STRENGTH = { blocked: 0, starting: 3, onion: 3, i2p: 3, proxied: 2, direct: 1 };

let timer = 0;

export function isFresh() {
  return monotonic() - state.beatAt < FRESH_MS;
}

export function onBeat(beat, ageMs) {
  const at = monotonic() - ageMs;
  if (at < state.beatAt) return;
  const wasFresh = isFresh() && state.beat;
  const before = state.beat;
  state.beat = beat;
  state.beatAt = at;
  state.beatTime = Date.now() - ageMs;
  if (before?.mode !== beat.mode || before?.pending !== beat.pending) announce(before, beat);
  else if (!wasFresh) state.polite = S.modeBack;
  clearTimeout(timer);
  timer = setTimeout(lapse, FRESH_MS - ageMs + 50);
  changed();
}

// The node has not answered for a while.
function lapse() {
  if (isFresh()) return;
  state.spoken = S.modeUnknown;
  changed();
  timer = setTimeout(lapse, 1000);
}

// What was known is old: after a page was put aside, or a computer slept.
export function forget() {
  state.beatAt = -Infinity;
  drawNow();
}

function announce(before, beat) {
  const words = describe(beat);
  const text = `${words.title}. ${words.text}`;
  const weaker = before && (STRENGTH[beat.mode] ?? 0) < (STRENGTH[before.mode] ?? 0);
  if (weaker || beat.mode === 'blocked') state.spoken = text;
  else state.polite = text;
}

// The words of each state.
function describe(beat) {
  const { mode, enforcement } = beat;
  if (beat.pending && mode === 'direct') {
    return { icon: 'triangle', tone: 'warn', title: S.modeDirectStill, text: S.modeDirectStillText(beat.pending) };
  }
  switch (mode) {
    case 'direct':
      return { icon: 'eye', title: S.modeDirect, text: S.modeDirectText };
    case 'proxied':
      return { icon: 'proxy', title: S.modeProxied, text: S.modeProxiedText };
    case 'onion':
    case 'i2p':
      return {
        icon: 'rings',
        title: mode === 'onion' ? S.modeOnion : S.modeI2p,
        text: enforcement === 'kernel' ? S.modeOnionKernel : S.modeOnionProgram,
      };
    case 'starting':
      return { icon: 'ring', title: S.modeStarting(beat.percent ?? 0), text: S.modeStartingText };
    case 'blocked':
      return { icon: 'octagon', tone: 'bad', title: S.modeBlocked, text: S.modeBlockedText(beat.retry_secs) };
    default:
      return { icon: 'unknown', tone: 'unknown', title: S.modeUnknown, text: S.modeOther };
  }
}

export function ModeLine() {
  const fresh = isFresh();
  let words;
  let age = S.confirmed;
  let short = S.now;
  if (fresh) {
    words = describe(state.beat);
  } else {
    words = { icon: 'unknown', tone: 'unknown', title: S.modeUnknown, text: S.modeAsking };
    age = '';
    short = '';
    if (state.beatTime && state.beatAt > -Infinity) {
      const seconds = Math.round((monotonic() - state.beatAt) / 1000);
      words.text = S.modeSilent(seconds, time(state.beatTime, true));
      short = S.seconds(seconds);
    } else if (state.beatTime) {
      words.text = S.modeAskingAgain(time(state.beatTime, true));
    }
  }
  return html`<section class=${`modeline ${words.tone ?? ''}`} aria-label=${S.modeLabel} id="mode" tabindex="-1">
    <div class="wide">
      <${Icon} name=${words.icon} />
      <p><b>${words.title}.</b> <span>${words.text}</span></p>
      <span class="age desk">${age}</span><span class="age phone">${short}</span>
      <button type="button" class="link desk" onClick=${openOthers} disabled=${!state.beat}>${S.whatOthersSee}</button>
    </div>
  </section>`;
}

// Who sees what in the mode of the last beat.
export function OthersTable() {
  const mode = state.beat?.mode ?? 'direct';
  const rows = S.others[mode] ?? S.others.direct;
  return html`<table class="facts"><thead><tr><th scope="col">${S.who}</th><th scope="col">${S.sees}</th></tr></thead>
    <tbody>${rows.map(([who, what]) => html`<tr><th scope="row">${who}</th><td>${what}</td></tr>`)}</tbody></table>`;
}

export function openOthers() {
  openDialog({ title: S.whatOthersSee, wide: true, body: () => html`<p class="soft">${S.othersOf(describe(state.beat).title)}</p><${OthersTable} />`, keep: S.close });
}
