// What a user can do next about a channel's state.
import { call } from './api.js';
import { check, say, unfollow } from './actions.js';
import { choose } from './chooser.js';
import { html } from './html.js';
import { isFresh } from './mode.js';
import { go } from './route.js';
import { S } from './strings.js';
import { refresh } from './sync.js';

// Lets its files lie elsewhere from now on. What lies in the old folder stays there.
function moveFolder(channel) {
  choose(async (output) => {
    try {
      await call('addSubscription', { uri: channel.uri, output });
    } catch (error) {
      say(error.message);
    }
    refresh();
  }, { title: S.chooseFolder, text: S.chooseFolderText, isFolder: true });
}

/** The steps, each `{ label, off, run }`; the first is the likeliest. */
export function stepsOf(channel) {
  const off = !isFresh();
  const again = { label: S.tryAgain, off, run: () => check([channel]) };
  const leave = { label: S.unfollow, off, run: () => unfollow([channel]) };
  switch (channel.state) {
    case 'conflict':
      return [leave];
    case 'needs_key':
      return [{ label: S.enterKey, off, run: () => go('f', undefined, '#address') }, leave];
    case 'folder_missing':
      return [{ label: S.chooseFolder, off, run: () => moveFolder(channel) }, again];
    case 'needs_space':
      return [again, leave];
    case 'looking':
      return [{ label: S.askNow, off, run: () => check([channel]) }, { label: S.addPeer, off, run: () => go('a', undefined, '#peer') }];
    case 'waiting_for_peers':
      return [{ label: S.why, run: () => go('n') }];
    case 'not_asked_lately':
      return [{ label: S.askNow, off, run: () => check([channel]) }];
    default:
      return [];
  }
}

export function Steps({ channel, plain }) {
  return stepsOf(channel).map(({ label, off, run }, index) => html`<button type="button" key=${label} disabled=${off} onClick=${run}
    class=${plain ? 'link' : index === 0 ? 'button' : 'button plain'}>${label}</button>`);
}
