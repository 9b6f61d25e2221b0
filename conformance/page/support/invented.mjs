// What a stand-in answers: channels that nobody has, as the API would describe them.

import { createHash } from 'node:crypto';

const STATES = ['up_to_date', 'new', 'arriving', 'paused', 'waiting_for_peers', 'looking', 'needs_space', 'needs_key', 'folder_missing', 'conflict', 'not_asked_lately'];
const MIB = 1 << 20;
const DAY_MS = 86_400_000;

export const key = (n) => createHash('sha256').update(`channel ${n}`).digest('hex');

/** One channel; what is `given` holds, the rest is like a channel that is whole. */
export function channel(n, given = {}) {
  const state = given.state ?? 'up_to_date';
  const isWhole = ['up_to_date', 'new', 'not_asked_lately', 'paused'].includes(state);
  const isKnown = !['looking', 'needs_key'].includes(state);
  return {
    channel: key(n), number: n + 1, uri: `megatorrent://${key(n)}`, private: n % 3 === 0, title: isKnown ? `Channel ${String(n).padStart(4, '0')}` : '',
    state, waiting: isWhole ? null : 'no peer is known', failure: state === 'folder_missing' ? 'cannot open /media/disk: it is not there' : null,
    sequence: isKnown ? Date.now() - (n + 1) * 7_000_000 : 0, complete: isWhole, files: isKnown ? 3 : 0, size_bytes: isKnown ? 300 * MIB : 0,
    blobs: isWhole ? 302 : 120, blobs_total: isKnown ? 302 : 0, output: `/home/somebody/downloads/${n}`, copy: false, in_order: false,
    added_unix_ms: Date.now() - 40 * DAY_MS, completed_unix_ms: isWhole ? Date.now() - DAY_MS : null, unread: state === 'new',
    asked_unix_ms: state === 'looking' ? null : Date.now() - 240_000, here_bytes: isWhole ? 300 * MIB : isKnown ? 119 * MIB : 0,
    receive_bytes_per_sec: state === 'arriving' ? 2 * MIB : 0, difference: null, kept_files: 0, preview: false, ...given,
  };
}

/** Channels of every state, mixed. */
export const mixed = (count) => Array.from({ length: count }, (_, n) => channel(n, { state: STATES[n % STATES.length] }));

const counts = (all) => {
  const found = { all: all.length };
  for (const state of STATES) found[state] = all.filter((one) => one.state === state).length;
  return found;
};

const FILES = (title) => [
  { path: `${title}/pictures`, size_bytes: 200 * MIB, folder: true, target: null, state: 'here', change: null, files: 2, files_here: 2 },
  { path: `${title}/notes.txt`, size_bytes: 7000, folder: false, target: '/home/somebody/notes.txt', state: 'here', change: 'new', files: 1, files_here: 1 },
];

const PEER = {
  address: '192.0.2.7:28011', outbound: true, connected_secs: 400, bytes_received: 9 * MIB, bytes_sent: MIB, found: 'dht', ready: true, wanted_of_it: 3, wanted_of_us: 1,
};

/** Answers for as many channels; `of` makes them, `all` is what is shown and may be changed while the page looks. */
export function channels(count, { of = mixed, peer = {}, texts = {} } = {}) {
  const all = of(count);
  const find = (wanted) => all.find((one) => one.channel === wanted.channel) ?? all[0];
  const status = () => ({
    api: '127.0.0.1:3000', bans: 0, bytes_duplicate: 0, bytes_received: 900 * MIB, bytes_sent: 200 * MIB, channels: counts(all), dht: '[::]:28011',
    dht_lag_secs: 0, dht_late: 0, dht_nodes: 120, free_bytes: 214 * 1024 * MIB, home: '/home/somebody/.local/share/megatorrent', inbound: 3, jobs: 0,
    last_event: 1, mode: 'direct', outbound: 5, p2p: '[::]:28011', peers_known: 40, receive_bytes_per_sec: 2 * MIB, send_bytes_per_sec: MIB,
    started_unix_ms: Date.now() - 3_600_000, version: '0.1.0',
  });
  const sorted = ({ sort, descending, search, states, offset = 0, limit }) => {
    let found = all.filter((one) => !search || one.title.toLowerCase().includes(search.toLowerCase()));
    if (states?.length) found = found.filter((one) => states.includes(one.state));
    if (sort === 'title') found = found.toSorted((a, b) => (a.title < b.title ? -1 : 1));
    if (descending) found = found.toReversed();
    return { counts: counts(all), subscriptions: found.slice(offset, limit ? offset + limit : undefined), total: found.length };
  };
  return {
    all,
    getStatus: status,
    getSubscriptions: sorted,
    getSubscription: find,
    getFiles: (wanted) => ({ files: wanted.under ? [] : texts.files ?? FILES(find(wanted).title), sequence: 1, total: 2 }),
    getBlobs: () => ({ blobs: [100, 100, 102], here: [100, 20, 0], under_way: [0, 4, 0], unseen: [0, 0, 12] }),
    getPeers: () => ({ peers: [{ ...PEER, channels: all.slice(0, 1).map((one) => one.channel), ...peer }] }),
    getBans: () => ({ bans: [] }),
    getJobs: () => ({ jobs: [] }),
    getRates: () => ({ step_secs: 1, samples: [] }),
    getEvents: () => ({ events: texts.events ?? [], last: 1, missed: 0, restarted: false }),
    getIdentities: () => ({ identities: [] }),
    getLimits: { download_bytes_per_sec: null, upload_bytes_per_sec: 1_500_000 },
    getSettings: { gateway: false, whole: false },
    getOptions: { dht: 'auto', dht_port: null, download_bytes_per_sec: null, gateway: false, host: null, p2p_port: null, upload_bytes_per_sec: null, whole: false },
    getDoctor: { checks: [{ name: 'dht', good: false, finding: 'no node of the DHT answers', next: 'name one with -b' }, { name: 'disk', good: true, finding: 'it has room', next: null }] },
    markRead: (wanted) => {
      const one = find(wanted);
      Object.assign(one, { unread: false, state: 'up_to_date' });
      return {};
    },
    pauseSubscription: (wanted) => {
      find(wanted).state = 'paused';
      return { undo: 1, for_ms: 10_000 };
    },
    undo: {},
  };
}

/** A node as somebody might have it, for pictures of the page. */
export function lifelike() {
  const titles = [
    ['Field recordings, north coast', 'new', 12, 840], ['Open atlas of rivers', 'arriving', 48, 3100], ['Letters 1901–1914', 'up_to_date', 214, 410],
    ['Slow radio', 'up_to_date', 96, 9200], ['Seed catalogue', 'new', 7, 66], ['Lectures on number theory', 'up_to_date', 31, 14_200],
    ['Night sky, every clear night', 'paused', 180, 22_000], ['A small museum', 'up_to_date', 1204, 5300], ['Kitchen notes', 'up_to_date', 88, 120],
  ];
  const of = () => titles.map(([title, state, files, mib], n) => {
    const size_bytes = mib * MIB;
    const here_bytes = state === 'arriving' ? Math.round(size_bytes * 0.62) : size_bytes;
    const blobs_total = mib + 3;
    return channel(n, {
      title, state, files, size_bytes, here_bytes, blobs_total, blobs: Math.round((blobs_total * here_bytes) / size_bytes), private: n === 2,
      sequence: Date.now() - (n + 1) * 8_000_000, unread: state === 'new', receive_bytes_per_sec: state === 'arriving' ? 4.2 * MIB : 0,
      completed_unix_ms: state === 'arriving' ? null : Date.now() - (n + 1) * 8_000_000,
      difference: state === 'arriving' ? { added: 6, changed: 2, removed: 0 } : null,
    });
  });
  const answers = channels(0, { of });
  const found = ['dht', 'exchanged', 'announced', 'dht'];
  answers.getPeers = () => ({
    peers: found.map((by, n) => ({ ...PEER, found: by, address: `192.0.2.${n * 40 + 7}:${28_011 + n * 77}`, channels: [key(1)], wanted_of_us: n % 2, connected_secs: 300 * (n + 1) })),
  });
  const wave = (n, high, width) => Math.round(high * MIB * Math.max(0, Math.sin(n / width) + 0.3 * Math.sin(n / 7) + 0.4));
  answers.getRates = () => ({
    step_secs: 1,
    samples: Array.from({ length: 600 }, (_, n) => ({
      unix_ms: Date.now() - (600 - n) * 1000, receive_bytes_per_sec: wave(n, 3, 90), send_bytes_per_sec: wave(n + 140, 1, 60),
    })),
  });
  answers.getFiles = (wanted) => ({
    files: wanted.under ? [] : [
      ['2019', 14, 900, null], ['2020', 20, 1400, 'new'], ['overview.pdf', 0, 41, 'changed'], ['read me.txt', 0, 0.01, null], ['sources.bib', 0, 0.2, null],
    ].map(([name, files, mib, change], n) => ({
      path: name, size_bytes: Math.round(mib * MIB), folder: files > 0, target: files > 0 ? null : `/home/somebody/${name}`,
      state: n === 2 ? 'missing' : 'here', change: files > 0 ? null : change, files: files || 1, files_here: n === 1 ? 13 : files || 1,
    })),
    sequence: 1, total: 5,
  });
  answers.getBlobs = () => {
    const blobs = Array.from({ length: 300 }, () => 10);
    return {
      blobs, here: blobs.map((_, n) => (n < 170 ? 10 : (n * 7) % 11)), under_way: blobs.map((_, n) => (n > 170 && n % 23 === 0 ? 2 : 0)), unseen: blobs.map((_, n) => (n > 288 ? 3 : 0)),
    };
  };
  return answers;
}
