// What moves: rates, transfers, peers, jobs, and what was told.
import { call } from './api.js';
import { say } from './actions.js';
import { bytes, clock, plain, rateText, span, when } from './format.js';
import { RateGraph } from './graph.js';
import { Component, html } from './html.js';
import { Bar, Icon, Seal } from './icons.js';
import { JobRow, isOver } from './jobs.js';
import { isFresh } from './mode.js';
import { PeerTable, foundBy } from './peers.js';
import { Polled } from './polled.js';
import { state } from './store.js';
import { S } from './strings.js';
import { refresh, setSeen } from './sync.js';
import { describe, title } from './words.js';

const LOG_SHOWN = 100;
const DONE_SHOWN = 5;

function Transfers() {
  const moving = [...state.channels.values()].filter((channel) => ['arriving', 'waiting_for_peers'].includes(channel.state));
  setSeen(new Set(moving.slice(0, 60).map((channel) => channel.channel)));
  return html`<section aria-labelledby="transfers"><h2 id="transfers">${S.transfers}</h2>
    ${moving.length === 0 ? html`<p class="card empty">${S.nothingArrives}</p>` : html`<ul class="card list">
      ${moving.slice(0, 60).map((channel) => {
        const word = describe(channel);
        return html`<li key=${channel.channel} class="transfer"><${Seal} of=${channel.channel} size=${28} />
          <div><p><a href=${`#c/${channel.number}`}><bdi>${title(channel)}</bdi></a></p><p class="soft">${word.title} · ${word.second}</p>
            ${word.part !== undefined && html`<${Bar} part=${word.part} label=${word.title} />`}</div>
          <span class="figure">${S.ofAll(bytes(channel.here_bytes), bytes(channel.size_bytes))}</span></li>`;
      })}</ul>`}
  </section>`;
}

class Peers extends Polled {
  static EACH_MS = 2000;

  async ask() {
    const [{ peers }, { bans }] = [await call('getPeers'), await call('getBans')];
    return { peers, bans };
  }

  render(_, { peers, bans = [], error }) {
    if (!peers) return null;
    const names = (peer) => {
      const known = peer.channels.map((key) => state.channels.get(key)).filter(Boolean);
      return known.length > 2 ? S.channelsCount(known.length) : known.map(title).join(', ');
    };
    const add = async (event) => {
      event.preventDefault();
      const field = event.target.elements.peer;
      try {
        await call('addPeer', { address: field.value.trim() });
        field.value = '';
        this.setState({ error: null });
      } catch (problem) {
        this.setState({ error: plain(problem.message) });
      }
    };
    const unban = async (ban) => {
      try {
        await call('removeBan', { address: ban.address });
      } catch (problem) {
        say(problem.message);
      }
      this.load();
    };
    return html`<section aria-labelledby="all-peers"><h2 id="all-peers"><span>${S.peers}</span><span class="soft figure">${S.connected(peers.length)}</span></h2>
      ${peers.length > 0 && html`<p class="soft">${foundBy(peers)}</p>`}
      <div class="card">
        ${peers.length === 0 ? html`<p class="empty">${S.noPeers}</p>` : html`<${PeerTable} peers=${peers.slice(0, 200)} names=${names} />`}
        <form class="inline" onSubmit=${add} autocomplete="off"><label for="peer">${S.addPeer}</label>
          <input id="peer" name="peer" type="text" placeholder="HOST:PORT" autocomplete="off" spellcheck="false" required /><button type="submit" class="button" disabled=${!isFresh()}>${S.tryPeer}</button></form>
        ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      </div>
      ${bans.length > 0 && html`<h3>${S.banned}</h3><ul class="card list">${bans.map((ban) => html`<li key=${ban.address} class="ban"><code>${plain(ban.address)}</code>
        <span class="soft">${[ban.why && plain(ban.why), S.until(when(ban.until_unix_ms))].filter(Boolean).join(' · ')}</span>
        <button type="button" class="button plain" disabled=${!isFresh()} onClick=${() => unban(ban)}>${S.unban}</button></li>`)}</ul>`}
    </section>`;
  }
}

class Log extends Component {
  async componentDidMount() {
    try {
      const last = state.status?.last_event ?? 0;
      const { events } = await call('getEvents', { after: Math.max(0, last - 400) });
      const known = new Set(state.log.map((event) => event.number));
      state.log = [...events.filter((event) => event.text && !known.has(event.number)), ...state.log].sort((a, b) => a.number - b.number).slice(-500);
      this.setState({});
    } catch {
      // What comes from now on is shown.
    }
  }

  render() {
    const shown = state.log.slice(-LOG_SHOWN).reverse();
    return html`<section aria-labelledby="log"><h2 id="log">${S.log}</h2>
      ${shown.length === 0 ? html`<p class="card empty">${S.logEmpty}</p>` : html`<ol class="card list log" tabindex="0" aria-labelledby="log">
        ${shown.map((event) => html`<li key=${event.number} class=${['warning', 'loss'].includes(event.event) ? 'warn' : ''}><time class="figure">${when(event.unix_ms).includes(':') || Date.now() - event.unix_ms < 60000 ? clock(event.unix_ms, true) : when(event.unix_ms)}</time>
          <span>${['warning', 'loss'].includes(event.event) && html`<${Icon} name="triangle" size=${13} />`} ${plain(event.text)}</span></li>`)}</ol>`}
    </section>`;
  }
}

export class Activity extends Component {
  componentDidMount() {
    refresh();
    this.load();
  }

  async load() {
    try {
      this.setState({ limits: await call('getLimits') });
    } catch {
      // Then the graph has no line for it.
    }
  }

  render(_, { day, limits }) {
    const { status } = state;
    const jobs = [...state.jobs.values()];
    const open = jobs.filter((job) => !isOver(job));
    const over = jobs.filter(isOver).slice(0, DONE_SHOWN);
    const moves = status && status.receive_bytes_per_sec + status.send_bytes_per_sec > 0;
    return html`<div class="page">
      <h1>${moves ? S.moving(rateText(status.receive_bytes_per_sec), rateText(status.send_bytes_per_sec)) : S.nothingMoves}</h1>
      <p class="soft">${status && S.since_(span(Date.now() - status.started_unix_ms), bytes(status.bytes_received), bytes(status.bytes_sent))}</p>
      <div class="card pad">
        <div class="filters" role="group" aria-label=${S.span}><button type="button" aria-pressed=${!day} onClick=${() => this.setState({ day: false })}>${S.tenMinutes}</button>
          <button type="button" aria-pressed=${Boolean(day)} onClick=${() => this.setState({ day: true })}>${S.aDay}</button></div>
        <${RateGraph} day=${Boolean(day)} limit=${limits?.download_bytes_per_sec ?? 0} />
        ${limits?.download_bytes_per_sec && html`<p class="soft">${S.limitLine(rateText(limits.download_bytes_per_sec))}</p>`}
      </div>
      <${Transfers} />
      <${Peers} />
      <section aria-labelledby="jobs"><h2 id="jobs">${S.jobs}</h2>
        ${open.length + over.length === 0 ? html`<p class="card empty">${S.noJobs}</p>` : html`<ul class="card list">${[...open, ...over].map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</ul>`}
      </section>
      <${Log} />
    </div>`;
  }
}

