// One channel: what is arriving, its files, its blobs, who has it, and its versions.
import { call } from './api.js';
import { copy, markRead, pause, resume, unfollow } from './actions.js';
import { Blobs } from './blobs.js';
import { actionsOf } from './channels.js';
import { bytes, day, percent, plain } from './format.js';
import { Files } from './files.js';
import { Component, html } from './html.js';
import { Bar, Icon, Seal } from './icons.js';
import { MoreButton } from './menu.js';
import { isFresh } from './mode.js';
import { PeerRow, foundBy } from './peers.js';
import { Polled } from './polled.js';
import { go, href } from './route.js';
import { Steps } from './steps.js';
import { state } from './store.js';
import { S } from './strings.js';
import { setSeen } from './sync.js';
import { changes, describe, title, version } from './words.js';

const PEERS_SHOWN = 5;
const phone = matchMedia('(max-width: 719px)');

export function find(number) {
  for (const channel of state.channels.values()) if (channel.number === number) return channel;
  return null;
}

function Banner({ channel }) {
  const word = describe(channel);
  const made = version(channel);
  if (channel.state === 'arriving') {
    const text = channel.difference ? S.changesSentence(changes(channel.difference)) : '';
    const rate = channel.receive_bytes_per_sec;
    return html`<section class="banner" aria-label=${word.title}>
      <p class="first"><b>${word.isUpdate ? (made ? S.updateOfIsArriving(day(made)) : S.updateIsArriving) : S.isArriving}</b>
        <b class="figure">${percent(channel.blobs, channel.blobs_total)} %</b></p>
      <p class="second"><span>${text} ${word.isUpdate ? S.stays : ''}</span>
        <span class="figure">${[S.ofAll(bytes(channel.here_bytes), bytes(channel.size_bytes)), rate > 0 && word.second].filter(Boolean).join(' · ')}</span></p>
      <${Bar} part=${word.part} label=${word.title} />
    </section>`;
  }
  if (['up_to_date', 'new'].includes(channel.state)) return null;
  return html`<section class=${`banner still ${word.tone ?? ''}`}><${Icon} name=${word.icon} /><p><b>${word.title}.</b> ${word.second}</p>
    <span class="buttons"><${Steps} channel=${channel} plain /></span></section>`;
}

class Peers extends Polled {
  static EACH_MS = 3000;

  async ask() {
    const { peers } = await call('getPeers');
    return { peers: peers.filter((peer) => peer.channels.includes(this.props.channel)) };
  }

  render(_, { peers }) {
    if (!peers) return null;
    return html`<section aria-labelledby="peers">
      <h2 id="peers"><span>${S.peers}</span><span class="soft figure">${S.connected(peers.length)}</span></h2>
      <p class="soft">${peers.length === 0 ? S.noPeers : foundBy(peers)}</p>
      ${peers.length > 0 && html`<ul class="peers">${peers.slice(0, PEERS_SHOWN).map((peer) => html`<${PeerRow} key=${peer.address} peer=${peer} />`)}</ul>`}
      ${peers.length > PEERS_SHOWN && html`<a href=${href('a')} class="link">${S.allPeers}</a>`}
    </section>`;
  }
}

function Versions({ channel }) {
  const made = version(channel);
  const arriving = !channel.complete;
  return html`<section aria-labelledby="versions">
    <h2 id="versions"><span>${S.versions}</span></h2>
    <ul class="versions"><li><${Icon} name=${arriving ? 'ring' : channel.state === 'conflict' ? 'octagon' : 'check'} />
      <span>${made ? day(made) : S.newestVersion}</span><span class=${arriving ? 'accent' : 'soft'}>${channel.state === 'conflict' ? S.conflict : arriving ? S.versionArriving : S.inPlace}</span></li></ul>
    ${channel.difference && html`<p class="soft">${S.changesSentence(changes(channel.difference))}</p>`}
  </section>`;
}

export class ChannelPage extends Component {
  render({ number }, { tab = 'files' }) {
    const channel = find(number);
    if (!channel) {
      return html`<div class="page"><p class="crumbs"><a href=${href('c')}>${S.channels}</a></p>
        <p class="card empty">${state.loaded ? S.noSuchChannel : S.asking}</p></div>`;
    }
    setSeen(new Set([channel.channel]));
    // It was opened, so it is not new any more.
    if (channel.unread && channel.state === 'new' && isFresh() && this.read !== channel.sequence) {
      this.read = channel.sequence;
      markRead([channel]);
    }
    const isPaused = channel.state === 'paused';
    const off = !isFresh();
    const name = title(channel);
    const tabs = [['files', S.files_], ['versions', S.versions], ['peers', S.peers], ['blobs', S.blobs]];
    const shows = (which) => !phone.matches || tab === which;
    return html`<div class="page channel">
      <p class="crumbs desk"><a href=${href('c')}>${S.channels}</a> <span aria-hidden="true">/</span> <bdi>${name}</bdi></p>
      <header class="about">
        <${Seal} of=${channel.channel} size=${52} />
        <div><h1><bdi>${name}</bdi></h1>
          <p class="facts-line"><code>${channel.channel.slice(0, 4)} ${channel.channel.slice(4, 8)} ${channel.channel.slice(8, 12)}…</code>
            <button type="button" class="quiet" aria-label=${S.copyAddress} onClick=${() => copy(channel.uri)}><${Icon} name="copy" /></button>
            <span>${[S.followedSince(day(channel.added_unix_ms)), channel.private && S.privateLong].filter(Boolean).join(' · ')}</span></p></div>
        <div class="buttons">
          ${isPaused ? html`<button type="button" class="button" disabled=${off} onClick=${() => resume([channel])}>${S.resume}</button>`
            : html`<button type="button" class="button" disabled=${off} onClick=${() => pause([channel])}><${Icon} name="pause" />${S.pause}</button>`}
          <${MoreButton} label=${S.moreOf(name)} items=${() => [
            { label: S.copyAddress, run: () => copy(channel.uri) },
            channel.output && { label: S.copyFolder, run: () => copy(channel.output) },
            ...actionsOf([channel], { open: false }).filter((item) => item && item.label !== S.unfollow),
            { label: S.unfollow, off, run: () => { unfollow([channel]); go('c'); } },
          ]} />
        </div>
      </header>
      <${Banner} channel=${channel} />
      ${phone.matches && html`<div class="filters tabs" role="group" aria-label=${S.sections}>${tabs.map(([key, label]) => html`<button type="button" aria-pressed=${tab === key} onClick=${() => this.setState({ tab: key })}>${label}</button>`)}</div>`}
      <div class="columns">
        ${shows('files') && html`<div class="main-column">
          <${Files} key=${channel.channel} channel=${channel.channel} label=${S.filesAnd(channel.files, bytes(channel.size_bytes))} />
          ${channel.output && html`<p class="soft where">${S.filesLieIn} <code>${plain(channel.output)}</code></p>`}
        </div>`}
        <aside>
          ${shows('blobs') && html`<${Blobs} key=${channel.channel} channel=${channel.channel} />`}
          ${shows('peers') && html`<${Peers} key=${channel.channel} channel=${channel.channel} />`}
          ${shows('versions') && html`<${Versions} channel=${channel} />`}
        </aside>
      </div>
    </div>`;
  }
}

