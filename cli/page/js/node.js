// The node: how others see it, its limits, its space, its settings, what is amiss, and who may use it.
import { call } from './api.js';
import { copy, say, setLimits } from './actions.js';
import { openDialog } from './dialog.js';
import { bytes, plain, span } from './format.js';
import { Component, html } from './html.js';
import { Icon } from './icons.js';
import { OthersTable, isFresh } from './mode.js';
import { Polled } from './polled.js';
import { changed, settings, state } from './store.js';
import { S } from './strings.js';
import { onEvents } from './sync.js';

const UNITS = { KiB: 1024, MiB: 1048576, GiB: 1073741824 };

// A limit as a form shows it.
function asField(limit) {
  if (limit === null) return { number: '', unit: 'MiB' };
  const unit = limit % UNITS.GiB === 0 ? 'GiB' : limit >= UNITS.MiB ? 'MiB' : 'KiB';
  return { number: String(Number((limit / UNITS[unit]).toFixed(2))), unit };
}

class Limits extends Component {
  componentDidMount() {
    this.load();
    this.unhear = onEvents((name, data) => name === 'changed' && !data.channel && this.load());
  }

  componentWillUnmount() {
    this.unhear();
  }

  async load() {
    try {
      this.setState({ limits: await call('getLimits'), error: null });
    } catch (error) {
      this.setState({ error: plain(error.message) });
    }
  }

  async submit(event) {
    event.preventDefault();
    const { elements } = event.target;
    const read = (name) => {
      const text = elements[name].value.trim().replace(',', '.');
      if (text === '') return null;
      const number = Number(text);
      if (!(number > 0)) throw new Error(S.limitWrong);
      return Math.round(number * UNITS[elements[`${name}-unit`].value]);
    };
    const before = this.state.limits;
    try {
      const limits = { download_bytes_per_sec: read('download'), upload_bytes_per_sec: read('upload') };
      this.setState({ limits: await setLimits(limits, before), error: null });
    } catch (error) {
      this.setState({ error: plain(error.message) });
    }
  }

  render(_, { limits, error }) {
    if (!limits) return html`<p class="soft">${error ?? S.asking}</p>`;
    const field = (name, label, limit) => {
      const { number, unit } = asField(limit);
      return html`<div class="field"><label for=${name}>${label}</label><span class="joined"><input id=${name} name=${name} type="text" inputmode="decimal" autocomplete="off" key=${`${name} ${limit}`} defaultValue=${number} placeholder=${S.noLimit} />
        <select name=${`${name}-unit`} aria-label=${S.unitOf(label)} key=${`${name}-unit ${limit}`}>${Object.keys(UNITS).map((it) => html`<option value=${it} selected=${it === unit}>${it}/s</option>`)}</select></span></div>`;
    };
    return html`<form onSubmit=${(event) => this.submit(event)} autocomplete="off" class="limits">
      ${field('download', S.downMost, limits.download_bytes_per_sec)}
      ${field('upload', S.upMost, limits.upload_bytes_per_sec)}
      <button type="submit" class="button" disabled=${!isFresh()}>${S.setLimits}</button>
      ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      <p class="soft">${S.limitsText}</p>
    </form>`;
  }
}

class Settings extends Component {
  async componentDidMount() {
    try {
      const [found, options] = [await call('getSettings'), await call('getOptions')];
      this.setState({ found, options });
    } catch (error) {
      this.setState({ error: plain(error.message) });
    }
  }

  async set(change) {
    try {
      this.setState({ found: await call('setSettings', change), error: null });
    } catch (error) {
      this.setState({ error: plain(error.message) });
    }
  }

  render(_, { found, options, error }) {
    const off = !isFresh() || !found;
    return html`<div>
      ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      ${found && html`<label class="choice"><input type="checkbox" checked=${found.whole} disabled=${off} onChange=${(event) => this.set({ whole: event.target.checked })} />
        <span><b>${S.settingWhole}</b> <span class="soft">${S.settingWholeText}</span></span></label>
      <label class="choice"><input type="checkbox" checked=${found.gateway} disabled=${off} onChange=${(event) => this.set({ gateway: event.target.checked })} />
        <span><b>${S.settingGateway}</b> <span class="soft">${S.settingGatewayText}</span></span></label>`}
      ${options && html`<p class="soft">${S.dhtPart[options.dht]}</p>`}
    </div>`;
  }
}

class Doctor extends Polled {
  static EACH_MS = 10000;

  async ask() {
    return { checks: (await call('getDoctor')).checks };
  }

  render(_, { checks }) {
    if (!checks) return html`<p class="soft">${S.asking}</p>`;
    return html`<ul class="checks">${checks.map((check) => html`<li key=${check.name} class=${check.good ? '' : 'warn'}><${Icon} name=${check.good ? 'check' : 'triangle'} />
      <div><p><b>${S.checks[check.name] ?? plain(check.name)}</b> ${plain(check.finding)}</p>${check.next && html`<p class="soft">${S.next(plain(check.next))}</p>`}</div></li>`)}</ul>`;
  }
}

function Space() {
  const { status } = state;
  if (!status) return null;
  let here = 0;
  for (const channel of state.channels.values()) here += channel.here_bytes;
  const free = status.free_bytes;
  return html`<dl class="pairs"><dt>${S.ofChannels}</dt><dd class="figure">${bytes(here)}</dd>
    <dt>${S.freeSpace}</dt><dd class="figure">${free === null ? S.unknown : bytes(free)}</dd>
    <dt>${S.nodeFolder}</dt><dd><code>${plain(status.home)}</code></dd></dl>`;
}

async function loginLink() {
  try {
    const link = await call('createLoginLink');
    const url = new URL(link.path, location.href).href;
    openDialog({
      title: S.loginLink, keep: S.close, body: () => html`<p>${S.loginLinkText(span(link.valid_secs * 1000))}</p><p><code class="command">${url}</code></p>`,
      act: { label: S.copyLink, run: () => copy(url) },
    });
  } catch (error) {
    say(error.message);
  }
}

function rotate() {
  openDialog({ title: S.rotateTitle, body: () => html`<p>${S.rotateText}</p>`, keep: S.keep, act: { label: S.rotate, bad: true, run: () => call('rotateToken') } });
}

function shutDown() {
  const jobs = state.status?.jobs ?? 0;
  openDialog({
    title: S.shutDownTitle, keep: S.keepItRunning, body: () => html`<p>${S.shutDownText}</p>${jobs > 0 && html`<p>${S.shutDownJobs(jobs)}</p>`}`,
    act: { label: S.shutDown, bad: true, run: () => call('shutdown') },
  });
}

function setTheme(theme) {
  settings.set('theme', theme === 'system' ? null : theme);
  applyTheme();
}

function applyTheme() {
  const theme = settings.get('theme');
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  dispatchEvent(new Event('theme'));
  changed();
}

function Look() {
  const theme = settings.get('theme') ?? 'system';
  const letters = settings.get('letters') !== 'off';
  return html`<fieldset><legend>${S.theme}</legend><div class="filters">${[['system', S.themeSystem], ['light', S.themeLight], ['dark', S.themeDark]].map(([name, label]) =>
    html`<label class="pill"><input type="radio" name="theme" checked=${theme === name} onChange=${() => setTheme(name)} />${label}</label>`)}</div></fieldset>
    <label class="choice"><input type="checkbox" checked=${letters} onChange=${(event) => { settings.set('letters', event.target.checked ? null : 'off'); changed(); }} />
      <span><b>${S.singleKeys}</b> <span class="soft">${S.singleKeysText}</span></span></label>`;
}

export function NodePage() {
  const { status } = state;
  const off = !isFresh();
  const card = (id, title, body) => html`<section class="card pad" aria-labelledby=${id}><h2 id=${id}>${title}</h2>${body}</section>`;
  return html`<div class="page">
    <h1>${S.node}</h1>
    <p class="soft">${status && S.nodeLine(status.version, span(Date.now() - status.started_unix_ms))}</p>
    <div class="cards">
      ${card('n-seen', S.whatOthersSee, html`<${OthersTable} />`)}
      ${card('n-doctor', S.doctor, html`<${Doctor} />`)}
      ${card('n-limits', S.limits, html`<${Limits} />`)}
      ${card('n-space', S.space, html`<${Space} />`)}
      ${card('n-settings', S.settings, html`<${Settings} />`)}
      ${card('n-look', S.look, html`<${Look} />`)}
      ${card('n-login', S.access, html`<p class="soft">${S.accessText}</p><p class="buttons left"><button type="button" class="button" disabled=${off} onClick=${loginLink}>${S.loginLink}</button>
        <button type="button" class="button plain" disabled=${off} onClick=${rotate}>${S.rotate}</button></p>`)}
      ${card('n-end', S.theEnd, html`<p class="soft">${S.theEndText}</p><p class="buttons left"><button type="button" class="button" disabled=${off} onClick=${shutDown}>${S.shutDown}</button></p>`)}
    </div>
    ${status && html`<p class="soft addresses">${[status.p2p && S.peersAt(status.p2p), status.dht && S.dhtAt(status.dht), status.api && S.apiAt(status.api)].filter(Boolean).join(' · ')}</p>`}
  </div>`;
}

