// The list of channels: what is new, what needs a hand, and all the rest.
import { markRead, pause, resume, unfollow } from './actions.js';
import { bytes, figures } from './format.js';
import { RateGraph } from './graph.js';
import { Component, html } from './html.js';
import { Bar, Icon, Ring, Seal } from './icons.js';
import { filterBy, isCompact, list, matches, rows, search, selected, setCompact, settle, sortAgain, sortBy } from './listing.js';
import { MoreButton, openMenu } from './menu.js';
import { isFresh } from './mode.js';
import { go } from './route.js';
import { Steps, stepsOf } from './steps.js';
import { changed, state } from './store.js';
import { S } from './strings.js';
import { setSeen } from './sync.js';
import { reveal, Virtual } from './virtual.js';
import { NEEDS, about, changedAt, describe, headline, title } from './words.js';

const phone = matchMedia('(max-width: 719px)');
const NEEDS_SHOWN = 4;
const NEEDS_SHOWN_PHONE = 1;

function Mark({ word }) {
  return word.icon === 'ring' ? html`<${Ring} part=${word.part} />` : html`<${Icon} name=${word.icon} />`;
}

// What can be done to some channels.
export function actionsOf(channels, { open = true } = {}) {
  const off = !isFresh();
  const one = channels.length === 1 ? channels[0] : null;
  const isPaused = channels.every((channel) => channel.state === 'paused');
  return [
    one && open && { label: S.open, run: () => go('c', one.number) },
    channels.some((channel) => channel.unread) && { label: S.markRead, off, run: () => markRead(channels) },
    isPaused ? { label: S.resume, off, run: () => resume(channels) } : { label: S.pause, off, run: () => pause(channels) },
    ...(one ? stepsOf(one).filter((step) => step.label !== S.unfollow) : []),
    { label: S.unfollow, off, run: () => unfollow(channels) },
  ];
}

function Needs() {
  const all = [...state.channels.values()].filter((channel) => NEEDS.includes(channel.state));
  if (all.length === 0) return null;
  const shown = all.slice(0, phone.matches ? NEEDS_SHOWN_PHONE : NEEDS_SHOWN);
  return html`<section aria-labelledby="needs">
    <h2 id="needs">${S.needsYou}</h2>
    <ul class="card needs">
      ${shown.map((channel) => {
        const word = describe(channel);
        return html`<li key=${channel.channel} class=${word.tone}>
          <${Icon} name=${word.icon} />
          <p><b><a href=${`#c/${channel.number}`}><bdi>${title(channel)}</bdi></a></b><span>: ${word.title}. </span><span class="soft">${word.second}</span></p>
          <span class="buttons">
            <${Steps} channel=${channel} />
          </span>
        </li>`;
      })}
    </ul>
    ${all.length > shown.length && html`<button type="button" class="link" onClick=${() => filterBy('needs')}>${S.moreNeeds(all.length - shown.length)}</button>`}
  </section>`;
}

function Row({ channel, index, style, compact, inFocus, isSelected, isFaded, isTwin }) {
  const word = describe(channel);
  const bar = word.part !== undefined && !compact;
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) pick(channel.channel, event.shiftKey);
    else go('c', channel.number);
  };
  return html`<div role="row" class=${`row ${isSelected ? 'selected' : ''} ${isFaded ? 'faded' : ''} ${word.bold ? 'unread' : ''}`} style=${style}
    aria-rowindex=${index + 2} aria-selected=${isSelected} data-key=${channel.channel} tabindex=${inFocus ? 0 : -1}
    onClick=${open} onContextMenu=${(event) => openMenu(event, actionsOf([channel]), title(channel))} onFocus=${() => { list.focus = channel.channel; }}>
    <span role="gridcell" class="c-seal">
      <${Seal} of=${channel.channel} size=${compact ? 16 : 32} />
      <input type="checkbox" tabindex="-1" checked=${isSelected} aria-label=${S.select(title(channel))}
        onClick=${(event) => { event.stopPropagation(); pick(channel.channel, event.shiftKey); }} />
    </span>
    <span role="gridcell" class="c-title"><b class="name"><bdi>${title(channel)}</bdi>${compact && isTwin && html`<small> · ${figures(channel.channel)}</small>`}</b>
      ${!compact && html`<small>${channel.title && !isTwin ? about(channel) : `${figures(channel.channel)} · ${about(channel)}`}</small>`}</span>
    <span role="gridcell" class=${`c-state ${word.tone ?? ''}`}><${Mark} word=${word} />
      <span class="lines"><span class="word">${word.bold ? html`<b>${word.title}</b>` : word.title}${word.tail && ` · ${word.tail}`}${compact && !word.tail && word.second && html`<small> · ${word.second}</small>`}</span>
        ${bar ? html`<${Bar} part=${word.part} label=${word.title} />` : !compact && html`<small>${word.second}</small>`}</span></span>
    <span role="gridcell" class="c-changed figure">${changedAt(channel)}</span>
    <span role="gridcell" class="c-here figure">${channel.files > 0 ? bytes(channel.here_bytes) : ''}</span>
    <span role="gridcell" class="c-more"><${MoreButton} inList label=${S.moreOf(title(channel))} items=${() => actionsOf([channel])} /></span>
  </div>`;
}

// Selects a row, or all from the last one to it.
function pick(key, isRange) {
  const keys = rows();
  const from = isRange && list.anchor ? keys.indexOf(list.anchor) : -1;
  if (from >= 0) {
    const to = keys.indexOf(key);
    for (let at = Math.min(from, to); at <= Math.max(from, to); at += 1) list.selected.add(keys[at]);
  } else {
    if (!list.selected.delete(key)) list.selected.add(key);
    list.anchor = key;
  }
  list.focus = key;
  changed();
}

function move(to, extend) {
  const keys = rows();
  if (keys.length === 0) return;
  const from = list.focus;
  const key = keys[Math.max(0, Math.min(keys.length - 1, to))];
  if (extend) {
    list.anchor ??= from;
    if (from) list.selected.add(from);
    list.selected.add(key);
  }
  list.focus = key;
  changed();
  requestAnimationFrame(() => {
    const row = document.querySelector(`.row[data-key="${key}"]`);
    row?.focus({ preventScroll: true });
    reveal(row);
  });
}

// Keys of the list. Whether one was meant for it.
export function onListKey(event, letters) {
  const keys = rows();
  const at = keys.indexOf(list.focus);
  const channel = state.channels.get(list.focus);
  const inRow = event.target.closest?.('.row');
  const isFree = event.target === document.body || event.target.id === 'main';
  if (!inRow && !(isFree && ['j', 'k'].includes(event.key))) return false;
  const targets = list.selected.size ? selected() : channel ? [channel] : [];
  const letter = letters && !event.ctrlKey && !event.metaKey && !event.altKey ? event.key : '';
  if (event.key === 'ArrowDown' || letter === 'j') move(at + 1, event.shiftKey);
  else if (event.key === 'ArrowUp' || letter === 'k') move(at < 0 ? 0 : at - 1, event.shiftKey);
  else if (event.key === 'Home') move(0, event.shiftKey);
  else if (event.key === 'End') move(keys.length - 1, event.shiftKey);
  else if (event.key === 'Enter' && channel && !event.target.closest('button')) go('c', channel.number);
  else if ((event.key === ' ' || letter === 'x') && channel && !event.target.closest('button')) pick(channel.channel, false);
  else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) {
    keys.forEach((key) => list.selected.add(key));
    changed();
  } else if (event.key === 'Escape' && list.selected.size) {
    list.selected.clear();
    changed();
  } else if (letter === 'p' && targets.length && isFresh()) pause(targets);
  else if (letter === 'u' && targets.length && isFresh()) markRead(targets);
  else if (event.key === 'Delete' && targets.length && isFresh()) unfollow(targets);
  else return false;
  return true;
}

function Heading({ sort, label, kind }) {
  const is = list.sort === sort;
  return html`<span role="columnheader" class=${kind} aria-sort=${is ? (list.descending ? 'descending' : 'ascending') : 'none'}>
    <button type="button" onClick=${() => sortBy(sort)}>${label}${is && html`<${Icon} name=${list.descending ? 'down' : 'up'} size=${11} />`}</button></span>`;
}

function Head() {
  if (list.selected.size === 0) {
    return html`<div role="row" class="headings" aria-rowindex="1">
      <${Heading} sort="title" label=${S.columnChannel} kind="c-first" />
      <${Heading} sort="state" label=${S.columnState} kind="c-state" />
      <${Heading} sort="changed" label=${S.columnChanged} kind="c-changed" />
      <${Heading} sort="here" label=${S.columnHere} kind="c-here" />
      <span role="columnheader" class="c-more"><span class="offscreen">${S.columnMore}</span></span>
    </div>`;
  }
  const channels = selected();
  const here = channels.reduce((sum, channel) => sum + channel.here_bytes, 0);
  return html`<div role="row" class="headings picked" aria-rowindex="1">
    <span role="columnheader" class="c-picked"><b>${S.selectedCount(channels.length)}</b> <span class="soft">${S.hereText(bytes(here))}</span></span>
    <span role="columnheader" class="c-acts">
      ${actionsOf(channels, { open: false }).filter(Boolean).map((item) => html`<button type="button" class="button plain" disabled=${item.off} onClick=${item.run}>${item.label}</button>`)}
      <button type="button" class="button plain" onClick=${() => { list.selected.clear(); changed(); }}>${S.clear}</button>
    </span>
  </div>`;
}

// Titles that more than one channel has: there the figures of the key tell them apart.
function sameTitles() {
  const once = new Set();
  const twice = new Set();
  for (const { title: name } of state.channels.values()) (once.has(name) ? twice : once).add(name);
  return twice;
}

class Grid extends Component {
  render() {
    const keys = rows();
    const compact = isCompact() && !phone.matches;
    const height = phone.matches ? 68 : compact ? 34 : 56;
    const focus = keys.indexOf(list.focus);
    const twins = sameTitles();
    const leave = () => {
      list.over = false;
      setTimeout(() => !list.over && !this.base?.contains(document.activeElement) && settle(), 50);
    };
    return html`<div ref=${this.keep} class=${`card grid ${compact ? 'compact' : ''} ${list.selected.size ? 'picking' : ''}`} role="grid" aria-label=${S.channels}
      aria-rowcount=${keys.length + 1} aria-multiselectable="true" id="list"
      onPointerEnter=${() => { list.over = true; }} onPointerLeave=${leave} onFocusOut=${leave}>
      <div role="rowgroup" class="sticky"><${Head} /></div>
      <${Virtual} count=${keys.length} height=${height} focus=${focus} seen=${(indexes) => setSeen(new Set(indexes.map((index) => keys[index])))}
        row=${(index, style) => {
          const channel = state.channels.get(keys[index]);
          return html`<${Row} key=${channel.channel} channel=${channel} index=${index} style=${style} compact=${compact}
            inFocus=${index === Math.max(0, focus)} isSelected=${list.selected.has(channel.channel)} isFaded=${!matches(channel)} isTwin=${twins.has(channel.title)} />`;
        }} />
    </div>`;
  }
}

function Tools() {
  const counts = state.counts;
  const needs = NEEDS.reduce((sum, name) => sum + (counts?.[name] ?? 0), 0);
  const filters = [
    ['all', S.filterAll, counts?.all], ['new', S.filterNew, counts?.new], ['arriving', S.filterArriving, counts?.arriving], ['needs', S.filterNeeds, needs],
  ].filter(([name, , number]) => name === 'all' || number > 0 || list.filter === name);
  const compact = isCompact();
  return html`<div class="tools">
    <h2 id="channels-heading">${S.channels}</h2>
    <div class="filters" role="group" aria-label=${S.filterLabel}>
      ${filters.map(([name, label, number]) => html`<button type="button" aria-pressed=${list.filter === name} onClick=${() => filterBy(name)}>${label} <span class="figure">${number ?? ''}</span></button>`)}
    </div>
    <label class="find"><${Icon} name="lens" /><span class="offscreen">${S.find}</span>
      <input id="find" type="search" placeholder=${S.find} value=${list.search} autocomplete="off" spellcheck="false"
        onInput=${(event) => search(event.target.value)}
        onKeyDown=${(event) => { if (event.key === 'Escape') { event.stopPropagation(); search(''); event.target.value = ''; event.target.blur(); } }} />
      <kbd class="desk">/</kbd></label>
    <button type="button" class="quiet desk" aria-pressed=${compact} aria-label=${S.compact} onClick=${() => setCompact(!compact)}><${Icon} name=${compact ? 'list' : 'rows'} /></button>
  </div>`;
}

export function Channels() {
  const counts = state.counts;
  let here = 0;
  for (const channel of state.channels.values()) here += channel.here_bytes;
  const free = state.status?.free_bytes;
  return html`<div class="page">
    <div class="top">
      <div>
        <h1>${headline(counts)}</h1>
        <p class="soft">${S.followed(counts?.all ?? 0)} · ${S.hereAndFree(bytes(here), free === null || free === undefined ? null : bytes(free))}</p>
      </div>
      <${RateGraph} small />
    </div>
    <${Needs} />
    <section aria-labelledby="channels-heading">
      <${Tools} />
      ${(list.isMoved || list.more.length > 0) && html`<p class="again">
        ${list.more.length > 0 ? html`<span>${S.moreChannels(list.more.length)}</span> <button type="button" class="link" onClick=${sortAgain}>${S.show}</button>`
          : html`<span>${S.orderChanged}</span> <button type="button" class="link" onClick=${sortAgain}>${S.sortAgain}</button>`}</p>`}
      ${rows().length > 0 ? html`<${Grid} />` : list.order && html`<p class="card empty">${S.nothingFits}</p>`}
    </section>
  </div>`;
}

export { Mark };
