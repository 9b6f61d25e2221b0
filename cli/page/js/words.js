// One word for each state of a channel, and what comes next.
import { bytes, day, percent, plain, rateText, span, when } from './format.js';
import { state } from './store.js';
import { S } from './strings.js';

export const NEEDS = ['conflict', 'needs_key', 'folder_missing', 'needs_space'];
const STEADY_MS = 20000;

// When a channel began to come at a steady pace.
const steady = new Map();

function timeLeft(channel) {
  const speed = channel.receive_bytes_per_sec;
  const known = steady.get(channel.channel);
  if (speed === 0) {
    steady.delete(channel.channel);
    return '';
  }
  if (!known || speed > known.speed * 3 || speed < known.speed / 3) {
    steady.set(channel.channel, { speed, at: performance.now() });
    return '';
  }
  if (performance.now() - known.at < STEADY_MS) return '';
  return S.left(span(((channel.size_bytes - channel.here_bytes) / speed) * 1000));
}

function filesNew(channel) {
  const { difference } = channel;
  return difference ? difference.added + difference.changed : channel.files;
}

const join = (...parts) => parts.filter(Boolean).join(' · ');

// The glyph, the word and the second line of a channel's state.
export function describe(channel) {
  const word = (icon, title, second, more = {}) => ({ icon, title, second, ...more });
  const free = state.status?.free_bytes;
  const missing = Math.max(0, channel.size_bytes - channel.here_bytes);
  switch (channel.state) {
    case 'conflict':
      return word('octagon', S.conflict, S.conflictText, { tone: 'bad' });
    case 'needs_key':
      return word('key', S.needsKey, S.needsKeyText, { tone: 'warn' });
    case 'folder_missing':
      return word('octagon', S.folderMissing, plain(channel.failure ?? channel.output ?? ''), { tone: 'bad' });
    case 'needs_space':
      return word('triangle', S.needsSpace, needsSpace(missing, free), { tone: 'warn' });
    case 'paused':
      return word('pause', S.paused, S.pausedText);
    case 'looking':
      return word('lens', S.looking, lookingText(channel));
    case 'arriving': {
      const part = channel.blobs_total > 0 ? channel.blobs / channel.blobs_total : 0;
      const isUpdate = channel.difference !== null || channel.completed_unix_ms !== null;
      const title = isUpdate ? S.updateArriving : S.arriving;
      const speed = channel.receive_bytes_per_sec;
      return word('ring', channel.blobs_total > 0 ? S.withPercent(title, percent(channel.blobs, channel.blobs_total)) : title,
        join(speed > 0 && rateText(speed), timeLeft(channel)) || S.beginning, { part, isUpdate });
    }
    case 'waiting_for_peers':
      return word('clock', S.waitingForPeers, join(S.missing(bytes(missing)), plain(channel.waiting ?? '')));
    case 'new':
      return word('dot', S.isNew, join(S.arrivedAt(channel.completed_unix_ms ? day(channel.completed_unix_ms) : ''), kept(channel)),
        { tone: 'accent', bold: true, tail: S.files(filesNew(channel)) });
    case 'not_asked_lately':
      return word('dashed', S.notAskedLately, channel.asked_unix_ms ? S.lastAsked(span(Date.now() - channel.asked_unix_ms)) : S.notAskedYet);
    default:
      return word('check', S.upToDate, join(S.asked(span(Date.now() - (channel.asked_unix_ms ?? Date.now()))), kept(channel)));
  }
}

function kept(channel) {
  return channel.kept_files > 0 && S.yoursKept(channel.kept_files);
}

function needsSpace(missing, free) {
  if (free === null || free === undefined || free > missing) return S.needsSpaceText(bytes(missing));
  return S.tooMuch(bytes(missing), bytes(missing - free));
}

function lookingText(channel) {
  const since = Math.max(channel.added_unix_ms, state.status?.started_unix_ms ?? 0);
  const age = Date.now() - since;
  if (age > 600000 && channel.waiting) return plain(channel.waiting);
  return age < 60000 ? S.lookingNow : S.nobodyAnswered(span(age));
}

// The line below a channel's title.
export function about(channel) {
  const { difference } = channel;
  const private_ = channel.private && S.isPrivate;
  if (channel.files === 0) return join(S.notRead, private_);
  if (difference && difference.added + difference.changed + difference.removed > 0) return join(changes(difference), private_);
  return join(S.files(channel.files), private_);
}

export function changes({ added, changed, removed }) {
  return [added && S.added(added), changed && S.changedFiles(changed), removed && S.removed(removed)].filter(Boolean).join(', ');
}

export function title(channel) {
  return plain(channel.title) || S.untitled;
}

// When a channel's newest version was made: its number is a time, unless its author's clock was wrong.
export function version(channel) {
  const { sequence } = channel;
  return sequence > 1e12 && sequence < Date.now() + 86400000 ? sequence : 0;
}

export function changedAt(channel) {
  if (channel.state === 'arriving') return S.now;
  return when(version(channel));
}

// The one sentence above the list.
export function headline(counts) {
  if (!counts) return S.asking;
  if (counts.new > 0) return S.somethingNew(counts.new);
  const arriving = counts.arriving;
  if (arriving > 0) return S.nothingNewArriving(arriving);
  const asked = counts.up_to_date;
  if (counts.all > 0 && asked === counts.all) return S.nothingNewAllAsked(asked);
  return S.nothingNew;
}
