// What the page knows, all of it from the node, and what it shows of it. One object; each change draws the page again, once a frame.

export const state = {
  // Whether a browser is logged in: null is not known yet.
  login: null,
  // What the last beat said, and when it came by the monotonic clock.
  beat: null,
  beatAt: -Infinity,
  // When it came, for people.
  beatTime: null,
  status: null,
  statusAt: 0,
  // Channels by their keys.
  channels: new Map(),
  counts: null,
  jobs: new Map(),
  identities: null,
  route: { place: 'c' },
  // Undos that stand open, dialogs and menus.
  toasts: [],
  dialog: null,
  menu: null,
  spoken: '',
};

let draw = () => {};
let due = false;

export function onChange(render) {
  draw = render;
}

// Says that something has changed.
export function changed() {
  if (due) return;
  due = true;
  const now = () => {
    due = false;
    draw();
  };
  if (document.hidden) setTimeout(now, 1000);
  else requestAnimationFrame(now);
}

// Draws at once: what is not true any more must not be seen for another moment.
export function drawNow() {
  draw();
}

// Kept over visits: how the page looks, and nothing of what it shows.
export const settings = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // A browser may allow no storage; then the choice lasts as long as the page.
    }
  },
};
