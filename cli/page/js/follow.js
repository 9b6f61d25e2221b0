// Following a channel: an address, what it is, and only then the button. Nothing of its files is fetched before.
import { call } from './api.js';
import { say } from './actions.js';
import { bytes, figures, plain } from './format.js';
import { Files } from './files.js';
import { Component, html } from './html.js';
import { Icon, Seal } from './icons.js';
import { isFresh } from './mode.js';
import { go, href } from './route.js';
import { state } from './store.js';
import { S } from './strings.js';
import { onEvents, refresh } from './sync.js';

const LOOK_MS = 1500;

// What was looked at last, so that a step aside loses nothing. It lives as long as the page.
const look = { uri: '', found: null };

export class AddressForm extends Component {
  render({ onFound, filled = true }, { busy, error }) {
    const submit = async (event) => {
      event.preventDefault();
      const field = event.target.elements.address;
      const uri = field.value.trim();
      if (!uri) {
        field.focus();
        return;
      }
      this.setState({ busy: true, error: null });
      try {
        const found = await call('addSubscription', { uri, preview: true });
        Object.assign(look, { uri, found });
        field.value = '';
        this.setState({ busy: false });
        onFound(found);
      } catch (problem) {
        this.setState({ busy: false, error: S.errors[problem.message] ?? plain(problem.message) });
        field.focus();
      }
    };
    return html`<form onSubmit=${submit} autocomplete="off" class="address">
      <label for="address">${S.address}</label>
      <input id="address" name="address" type="text" inputmode="url" placeholder="megatorrent://" autocomplete="off" spellcheck="false" autocapitalize="off"
        aria-invalid=${Boolean(error)} aria-describedby=${error ? 'address-problem' : undefined} />
      ${error && html`<p class="problem" id="address-problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      <button type="submit" class=${filled ? 'button filled' : 'button'} disabled=${busy || !isFresh()}>${S.showWhatIsInIt}</button>
    </form>`;
  }
}

export class Follow extends Component {
  componentDidMount() {
    this.unhear = onEvents((name, data) => data.channel === look.found?.channel && this.load());
    this.timer = setInterval(() => this.load(), LOOK_MS);
  }

  componentWillUnmount() {
    this.unhear();
    clearInterval(this.timer);
  }

  async load() {
    if (!look.found || document.hidden || this.state.top?.sequence > 0) return;
    try {
      look.found = await call('getSubscription', { channel: look.found.channel });
      // The list of its files is asked for again once there is one.
      this.setState({ top: look.found.files > 0 ? await call('getFiles', { channel: look.found.channel, limit: 1 }) : null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  async follow(event) {
    event.preventDefault();
    const output = event.target.elements.output.value.trim();
    this.setState({ busy: true });
    try {
      const channel = await call('addSubscription', { uri: look.uri, output: output || null });
      Object.assign(look, { uri: '', found: null });
      state.channels.set(channel.channel, channel);
      refresh();
      go('c', channel.number);
    } catch (error) {
      this.setState({ busy: false });
      say(error.message);
    }
  }

  async drop() {
    const { found } = look;
    Object.assign(look, { uri: '', found: null });
    this.setState({ top: null, error: null });
    if (found?.preview) await call('removeSubscription', { channel: found.channel }).catch(() => {});
  }

  found(channel, { top, busy }) {
    const free = state.status?.free_bytes;
    const isKnown = channel.files > 0;
    const tooMuch = isKnown && free !== null && free !== undefined && channel.size_bytes > free;
    const name = plain(channel.title) || (isKnown ? S.untitled : S.lookingForIt);
    return html`<section class="card preview" aria-label=${S.whatItIs}>
      <header class="about"><${Seal} of=${channel.channel} size=${44} />
        <div><h2><bdi>${name}</bdi></h2>
        <p class="facts-line"><code>${figures(channel.channel)}</code> <span>${[isKnown && S.filesAnd(channel.files, bytes(channel.size_bytes)), channel.private && S.privateLong].filter(Boolean).join(' · ')}</span></p></div></header>
      ${!channel.preview ? html`<p class="note">${S.followedAlready} <a href=${`${href('c')}/${channel.number}`}>${S.open}</a></p>`
        : channel.state === 'needs_key' ? html`<p class="note warn"><${Icon} name="key" /><span>${S.needsKeyLong}</span></p>`
        : !isKnown ? html`<p class="note"><${Icon} name="lens" /><span>${channel.waiting ? plain(channel.waiting) : S.lookingNow}. ${S.nothingFetched}</span></p>`
        : tooMuch ? html`<p class="note warn"><${Icon} name="triangle" /><span>${S.tooMuchToFollow(bytes(channel.size_bytes), bytes(free))}</span></p>`
        : html`<p class="note">${free === null || free === undefined ? S.nothingFetched : S.freeAndNothing(bytes(free))}</p>`}
      ${top?.sequence > 0 && html`<${Files} key=${channel.channel} channel=${channel.channel} preview label=${S.filesAnd(channel.files, bytes(channel.size_bytes))} />`}
      ${channel.preview && html`<form onSubmit=${(event) => this.follow(event)} autocomplete="off">
        <details><summary>${S.anotherFolder}</summary>
          <label for="output">${S.folderForFiles}</label>
          <input id="output" name="output" type="text" placeholder=${S.folderDefault} autocomplete="off" spellcheck="false" /></details>
        <p class="buttons left"><button type="submit" class="button filled" disabled=${busy || !isFresh()}>${S.follow}</button>
          <button type="button" class="button plain" onClick=${() => this.drop()}>${S.notNow}</button></p>
      </form>`}
    </section>`;
  }

  render(_, shown) {
    return html`<div class="page narrow">
      <p class="crumbs desk"><a href=${href('c')}>${S.channels}</a> <span aria-hidden="true">/</span> ${S.followChannel}</p>
      <h1>${S.followChannel}</h1>
      <p class="lead">${S.followLead}</p>
      ${look.found ? this.found(look.found, shown)
        : html`<div class="card form"><${AddressForm} onFound=${() => { this.setState({ top: null }); this.load(); }} /></div>`}
    </div>`;
  }
}
