// What stands on every screen: places, rates, the mode line, and what is said in passing.
import { say, takeBack } from './actions.js';
import { Activity } from './activity.js';
import { ChannelPage, find } from './channel.js';
import { actionsOf, Channels } from './channels.js';
import { Dialog } from './dialog.js';
import { FirstRun } from './first.js';
import { Follow } from './follow.js';
import { plain, rate } from './format.js';
import { html } from './html.js';
import { Icon, Logo } from './icons.js';
import { Login } from './login.js';
import { Menu, MoreButton } from './menu.js';
import { ModeLine, isFresh } from './mode.js';
import { NodePage } from './node.js';
import { Publish } from './publish.js';
import { href } from './route.js';
import { state } from './store.js';
import { S } from './strings.js';
import { title } from './words.js';

const PLACES = [['c', S.channels, 'rows'], ['p', S.publish, 'upload'], ['a', S.activity, 'pulse'], ['n', S.node, 'gear']];

function isFirstRun() {
  return state.loaded && state.counts?.all === 0 && state.channels.size === 0;
}

function Places({ kind }) {
  const { place } = state.route;
  const news = state.counts?.new ?? 0;
  return html`<nav class=${kind} aria-label=${S.places}>${PLACES.map(([key, label, icon]) => {
    const is = place === key || (key === 'c' && place === 'f');
    return html`<a href=${href(key)} aria-current=${is ? 'page' : undefined}>
      ${kind === 'foot' && html`<${Icon} name=${icon} />`}<span>${label}</span>
      ${key === 'c' && news > 0 && html`<span class="badge figure">${news}<span class="offscreen"> ${S.newOnes}</span></span>`}</a>`;
  })}</nav>`;
}

function Rates() {
  const { status } = state;
  if (!status) return html`<p class="rates" />`;
  const one = (icon, label, value) => {
    const [number, unit] = rate(value);
    return html`<span><${Icon} name=${icon} size=${12} /><span class="offscreen">${label} </span><b class="figure">${number}</b> ${unit}</span>`;
  };
  return html`<p class="rates">${one('down', S.down, status.receive_bytes_per_sec)}${one('up', S.up, status.send_bytes_per_sec)}</p>`;
}

function Header() {
  const { place, number } = state.route;
  const channel = place === 'c' && number !== null ? find(number) : null;
  const inside = channel || place === 'f';
  const isQuiet = place !== 'c' || number !== null || isFirstRun();
  return html`<header class="bar-top">
    <div class="wide">
      ${inside && html`<a class="phone back" href=${href('c')} aria-label=${S.back}><${Icon} name="back" size=${20} /></a>`}
      <a class=${`brand ${inside ? 'desk' : ''}`} href=${href('c')}><${Logo} /><b>${S.name}</b></a>
      ${inside && html`<b class="phone here"><bdi>${channel ? title(channel) : S.followChannel}</bdi></b>`}
      <${Places} kind="places" />
      ${!inside && html`<${Rates} />`}${inside && html`<span class="desk push"><${Rates} /></span>`}
      ${place !== 'f' && !isFirstRun() && html`<a class=${`button desk ${isQuiet ? '' : 'filled'}`} href=${href('f')}>${S.followChannel}</a>`}
      ${!inside && html`<a class="phone plus" href=${href('f')} aria-label=${S.followChannel}><${Icon} name="plus" size=${20} /></a>`}
      ${channel && html`<span class="phone"><${MoreButton} label=${S.moreOf(title(channel))} items=${() => actionsOf([channel], { open: false })} /></span>`}
    </div>
  </header>`;
}

function Place() {
  const { place, number } = state.route;
  if (place === 'c' && number !== null) return html`<${ChannelPage} key=${number} number=${number} />`;
  if (place === 'p') return html`<${Publish} />`;
  if (place === 'a') return html`<${Activity} />`;
  if (place === 'n') return html`<${NodePage} />`;
  if (place === 'f') return html`<${Follow} />`;
  if (isFirstRun()) return html`<${FirstRun} />`;
  return html`<${Channels} />`;
}

function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">${state.toasts.map((toast) => html`<div key=${toast.id} class="toast"
    onPointerEnter=${() => { toast.held = true; }} onPointerLeave=${() => { toast.held = false; }} onFocusIn=${() => { toast.held = true; }} onFocusOut=${() => { toast.held = false; }}>
    <span><bdi>${plain(toast.text)}</bdi></span>
    <button type="button" class="link" onClick=${() => takeBack(toast)}>${S.undo}</button>
  </div>`)}</div>`;
}

function Problem() {
  if (!state.problem) return null;
  return html`<div class="trouble"><p class="problem" role="alert"><${Icon} name="octagon" /><span>${state.problem}</span></p>
    <button type="button" class="quiet" aria-label=${S.close} onClick=${() => say(null)}><${Icon} name="close" /></button></div>`;
}

export function App() {
  if (state.login === 'out') return html`<div class="app"><${Login} /></div>`;
  const news = state.counts?.new ?? 0;
  const titled = news > 0 ? `(${news}) ${S.name}` : S.name;
  if (document.title !== titled) document.title = titled;
  return html`<div class=${`app ${isFresh() ? '' : 'stale'}`}>
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector('main').focus(); }}>${S.skip}</a>
    <div class="head"><${Header} /><${ModeLine} /></div>
    <main id="main" tabindex="-1"><${Problem} />${state.login === null && !state.loaded ? html`<div class="page"><p class="soft">${S.asking}</p></div>` : html`<${Place} />`}${state.menu && html`<${Menu} key=${state.menu.label} menu=${state.menu} />`}</main>
    <${Places} kind="foot" />
    <${Toasts} />
    <div class="offscreen" aria-live="assertive">${state.spoken}</div>
    <div class="offscreen" aria-live="polite">${state.polite ?? ''}</div>
    ${state.dialog && html`<${Dialog} key=${state.dialog.title} dialog=${state.dialog} />`}
  </div>`;
}

