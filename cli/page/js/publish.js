// Publishing: what is dropped or chosen is listed before anything is signed, and goes its way in four steps.
import { call } from './api.js';
import { copy, say } from './actions.js';
import { choose } from './chooser.js';
import { openDialog } from './dialog.js';
import { bytes, clock, day, figures, percent, plain } from './format.js';
import { Component, html } from './html.js';
import { Bar, Icon, Ring, Seal } from './icons.js';
import { cancel, isOver } from './jobs.js';
import { MoreButton } from './menu.js';
import { isFresh } from './mode.js';
import { go } from './route.js';
import { changed, settings, state } from './store.js';
import { S } from './strings.js';
import { refresh } from './sync.js';
import { Upload, chosen, dropped } from './upload.js';
import { changes, version } from './words.js';

const BIG_BYTES = 1 << 30;

// What is about to be published: a source on the node, or an upload to it; then a plan, and a title.
let draft = null;
// For whom the next source is meant: a channel, or a title for a new one.
let aim = { channel: null, title: '' };

const own = () => (state.identities ?? []).map((identity) => ({ identity, channel: state.channels.get(identity.channel) }));

export async function loadIdentities() {
  try {
    state.identities = (await call('getIdentities')).identities;
    changed();
  } catch (error) {
    say(error.message);
  }
}

// A channel is to be made under this title.
export function newChannel(title) {
  aim = { channel: null, title };
  go('p');
  choose(take);
}

// A file or folder on the node was chosen.
export async function take(source) {
  const name = source.split('/').pop();
  begin({ source, name });
  await plan();
}

function begin(found) {
  draft?.upload?.cancel();
  const known = aim.channel && state.channels.get(aim.channel);
  draft = { at: Date.now(), channel: aim.channel, title: aim.title || known?.title || found.name || '', isPrivate: known ? known.private : true, ...found };
  aim = { channel: null, title: '' };
  changed();
}

async function takeFiles(files) {
  if (files.length === 0) return;
  const upload = new Upload(files);
  if (upload.size > BIG_BYTES) {
    openDialog({
      title: S.bigDrop(bytes(upload.size)), body: () => html`<p>${S.bigDropText}</p>`, keep: S.chooseOnNode,
      act: { label: S.copyAnyway, run: async () => { send(upload, files); } },
    });
    return;
  }
  send(upload, files);
}

async function send(upload, files) {
  const name = files.name ?? (files.length === 1 ? files[0].path : '');
  begin({ upload, name });
  const mine = draft;
  if (await upload.run() && draft === mine) {
    draft.source = files.length === 1 && !files.name ? `${upload.folder}/${files[0].path}` : upload.folder;
    await plan();
  }
}

async function plan() {
  const mine = draft;
  try {
    const found = await call('planPublication', { source: mine.source, channel: mine.channel });
    mine.plan = found;
    mine.error = null;
  } catch (error) {
    mine.error = plain(error.message);
  }
  changed();
}

async function publish() {
  const mine = draft;
  mine.busy = true;
  changed();
  try {
    const channel = mine.channel ?? (await call('createIdentity')).channel;
    mine.channel = channel;
    await call('publishFolder', { source: mine.source, channel, title: mine.title.trim(), private: mine.isPrivate });
    if (draft === mine) draft = null;
    loadIdentities();
    refresh();
  } catch (error) {
    mine.error = plain(error.message);
    mine.busy = false;
  }
  changed();
}

function putAside() {
  draft?.upload?.cancel();
  draft = null;
  changed();
}

class Drop extends Component {
  render(_, { over }) {
    const pick = (event) => {
      takeFiles(chosen(event.target.files));
      event.target.value = '';
    };
    return html`<div ref=${this.keep} class=${`drop ${over ? 'over' : ''}`}
      onDragOver=${(event) => { event.preventDefault(); if (!over) this.setState({ over: true }); }}
      onDragLeave=${(event) => !this.base.contains(event.relatedTarget) && this.setState({ over: false })}
      onDrop=${async (event) => { event.preventDefault(); this.setState({ over: false }); takeFiles(await dropped(event.dataTransfer)); }}>
      <${Icon} name="upload" />
      <p><b>${S.dropHere}</b> ${S.dropText}</p>
      <span class="buttons">
        <label class="button"><input type="file" multiple class="offscreen" onChange=${pick} disabled=${!isFresh()} />${S.chooseFiles}</label>
        <button type="button" class="button" disabled=${!isFresh()} onClick=${() => choose(take)}>${S.chooseOnNode}</button>
      </span>
    </div>`;
  }
}

function Planned({ plan: found }) {
  const shown = found.listed.slice(0, 200);
  return html`<div class="planned"><p><b>${S.filesAnd(found.files, bytes(found.size_bytes))}</b>
      <span class="soft">${[draft.channel && (changes(found) || S.nothingChanges), found.left_out > 0 && S.leftOut(found.left_out)].filter(Boolean).map((it) => ` · ${it}`).join('')}</span></p>
    <ul class="card list plan" tabindex="0" aria-label=${S.filesLabel}>
      ${shown.map((file) => html`<li key=${file.path}><span class="f-text"><bdi>${plain(file.path)}</bdi>${draft.channel && file.change && html`<span class="tag">${file.change === 'new' ? S.tagNew : S.tagChanged}</span>`}</span>
        <span class="figure soft">${bytes(file.size_bytes)}</span></li>`)}
      ${found.files > shown.length && html`<li class="soft">${S.andMore(found.files - shown.length)}</li>`}
    </ul></div>`;
}

function Draft() {
  if (!draft) return null;
  const { upload } = draft;
  const known = draft.channel && state.channels.get(draft.channel);
  const isReady = draft.plan && !draft.busy;
  const submit = (event) => {
    event.preventDefault();
    publish();
  };
  return html`<section class="card pad draft" aria-labelledby="draft">
    <header class="about">${draft.channel ? html`<${Seal} of=${draft.channel} size=${36} />` : html`<span class="mark big"><${Icon} name="folder" /></span>`}
      <div><h2 id="draft"><bdi>${known ? plain(known.title) : S.newChannelName(plain(draft.name || S.droppedFiles))}</bdi></h2>
        <p class="soft">${upload ? S.droppedAt(clock(draft.at)) : html`<code>${plain(draft.source)}</code>`}</p></div></header>
    ${upload && !upload.isOver && !upload.error && html`<div class="sending"><${Bar} part=${upload.size ? upload.sent / upload.size : 0} label=${S.copying} />
      <p class="soft"><span>${S.copying}</span><span class="figure">${S.ofAll(bytes(upload.sent), bytes(upload.size))}</span></p></div>`}
    ${(upload?.error || draft.error) && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${upload?.error ?? draft.error}</span></p>`}
    ${!upload && !draft.plan && !draft.error && html`<p class="soft">${S.lookingThrough}</p>`}
    ${draft.plan && html`<${Planned} plan=${draft.plan} />`}
    <form onSubmit=${submit} autocomplete="off">
      <label for="draft-title">${S.titleField}</label>
      <input id="draft-title" type="text" value=${draft.title} placeholder=${S.titleExample} autocomplete="off" onInput=${(event) => { draft.title = event.target.value; }} />
      <fieldset><legend>${S.whoFinds}</legend>
        <label class="choice"><input type="radio" name="who" checked=${draft.isPrivate} onChange=${() => { draft.isPrivate = true; changed(); }} /><span><b>${S.privateChoice}</b> <span class="soft">${S.privateChoiceText}</span></span></label>
        <label class="choice"><input type="radio" name="who" checked=${!draft.isPrivate} onChange=${() => { draft.isPrivate = false; changed(); }} /><span><b>${S.publicChoice}</b> <span class="soft">${S.publicChoiceText}</span></span></label>
      </fieldset>
      <p class="buttons left"><button type="submit" class="button filled" disabled=${!isReady || !isFresh()}>${S.publish}</button>
        <button type="button" class="button plain" onClick=${putAside}>${S.cancel}</button></p>
    </form>
  </section>`;
}

// The four steps of a publication, each with a bar of its own.
function Steps({ job }) {
  const order = ['taking in', 'encrypting', 'signing', 'publishing'];
  const at = { 'taking in': 0, encrypting: 1, signing: 2, 'looking for the DHT': 2, publishing: 2 }[job.step] ?? (job.state === 'done' ? 4 : 0);
  const isDone = job.state === 'done';
  const part = job.total_bytes ? job.done_bytes / job.total_bytes : 0;
  const steps = [
    { name: S.stepTaken, text: job.total_bytes ? bytes(job.total_bytes) : '' },
    { name: S.stepEncrypt, text: at === 1 ? S.ofAll(bytes(job.done_bytes), bytes(job.total_bytes ?? 0)) : '', part },
    { name: S.stepSign, text: at === 2 ? S.jobSteps[job.step] ?? '' : isDone ? job.result?.taken_by ?? '' : S.fewSeconds },
    { name: S.stepCopies, text: S.copiesUnknown },
  ];
  return html`<ol class="steps">${steps.map((step, index) => {
    const done = isDone ? index < 3 : index < at;
    const now = !isDone && index === at && job.state === 'running';
    const share = done ? 1 : now ? step.part ?? 0 : 0;
    const name = now && step.part !== undefined ? S.withComma(step.name, percent(job.done_bytes, job.total_bytes ?? 0)) : step.name;
    return html`<li class=${done || now ? '' : 'later'} key=${order[index]}><${Bar} part=${share} label=${step.name} />
      <p>${done ? html`<${Icon} name="check" />` : now ? html`<${Ring} part=${share || 0.12} />` : html`<${Icon} name="circle" />`}<span>${name}</span></p>
      <p class="soft">${step.text}</p></li>`;
  })}</ol>`;
}

// What was done stays until it is put away; which of it was, this browser knows.
const PUT_AWAY_MAX = 200;

function putAway() {
  return (settings.get('putAway') ?? '').split(' ').filter(Boolean);
}

function put(job) {
  settings.set('putAway', [...putAway(), String(job.id)].slice(-PUT_AWAY_MAX).join(' '));
  changed();
}

function Publication({ job }) {
  const channel = state.channels.get(job.channel);
  const again = () => {
    aim = { channel: job.channel, title: plain(job.about) };
    choose(take);
  };
  return html`<section class="card pad publication" aria-label=${plain(job.about) || S.untitled}>
    <header class="about"><${Seal} of=${job.channel} size=${36} />
      <div><h2><bdi>${plain(job.about) || S.untitled}</bdi></h2>
        <p class="soft"><code>${figures(job.channel)}</code> ${[S.begun(day(job.created_unix_ms)), job.result && S.filesAnd(job.result.files, bytes(job.result.size)), job.result?.left_out > 0 && S.leftOut(job.result.left_out)].filter(Boolean).join(' · ')}</p></div>
      <div class="buttons">
        ${!isOver(job) && html`<button type="button" class="button plain" disabled=${!isFresh()} onClick=${() => cancel(job)}>${S.cancel}</button>`}
        ${job.state === 'done' && html`<button type="button" class="button" onClick=${() => copy(job.result.uri)}><${Icon} name="copy" />${S.copyAddress}</button>`}
        ${['failed', 'cancelled'].includes(job.state) && html`<button type="button" class="button" disabled=${!isFresh()} onClick=${again}>${S.chooseAgain}</button>`}
        ${channel && html`<button type="button" class="button plain" onClick=${() => go('c', channel.number)}>${S.open}</button>`}
        ${isOver(job) && html`<button type="button" class="button plain" onClick=${() => put(job)}>${S.putAway}</button>`}
      </div></header>
    ${job.state === 'failed' ? html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${plain(job.error?.message ?? '')}</span></p>`
      : job.state === 'cancelled' ? html`<p class="soft">${S.jobCancelled}</p>` : html`<${Steps} job=${job} />`}
    ${!['failed', 'cancelled'].includes(job.state) && html`<p class="note warn"><${Icon} name="triangle" /><span><b>${S.keepRunning}</b> ${isOver(job) ? S.keepRunningDone : S.keepRunningYet}</span></p>`}
  </section>`;
}

function update(key) {
  const channel = state.channels.get(key);
  aim = { channel: key, title: channel?.title ?? '' };
  choose(take);
}

function backup(identity) {
  const form = { file: '', passphrase: '' };
  openDialog({
    title: S.backup, keep: S.close,
    body: () => html`<p class="soft">${S.backupText}</p>
      <label for="backup-file">${S.backupFile}</label><input id="backup-file" type="text" autocomplete="off" spellcheck="false" placeholder="/home/…/channel.backup" onInput=${(event) => { form.file = event.target.value; changed(); }} />
      <label for="backup-word">${S.passphrase}</label><input id="backup-word" type="password" autocomplete="new-password" onInput=${(event) => { form.passphrase = event.target.value; changed(); }} />`,
    act: {
      label: S.writeBackup, ready: () => form.file.startsWith('/') && form.passphrase.length > 0,
      run: async () => {
        await call('exportIdentity', { channel: identity.channel, file: form.file, passphrase: form.passphrase });
        state.polite = S.backupWritten;
      },
    },
  });
}

function Own() {
  const all = own();
  if (all.length === 0) return state.identities && html`<p class="card empty">${S.noOwnChannel}</p>`;
  return html`<section aria-labelledby="own"><h2 id="own">${S.ownChannels}</h2><ul class="card list own">
    ${all.map(({ identity, channel }) => {
      const name = channel ? plain(channel.title) || S.untitled : S.nothingPublished;
      const made = channel && version(channel);
      return html`<li key=${identity.channel}><${Seal} of=${identity.channel} size=${32} />
        <div><p><b><bdi>${name}</bdi></b></p><p class="soft"><code>${figures(identity.channel)}</code> ${channel ? [S.filesAnd(channel.files, bytes(channel.size_bytes)), made && S.versionOf(day(made))].filter(Boolean).join(' · ') : ''}</p></div>
        <span class="buttons"><button type="button" class="button" disabled=${!isFresh()} onClick=${() => update(identity.channel)}>${channel ? S.publishUpdate : S.publishFirst}</button>
          <${MoreButton} label=${S.moreOf(name)} items=${() => [
            channel && { label: S.open, run: () => go('c', channel.number) },
            { label: S.copyAddress, run: () => copy(identity.uri) },
            { label: S.backup, off: !isFresh(), run: () => backup(identity) },
          ]} /></span></li>`;
    })}</ul></section>`;
}

export class Publish extends Component {
  componentDidMount() {
    loadIdentities();
    refresh();
  }

  render() {
    const jobs = [...state.jobs.values()].filter((job) => job.kind === 'publish_folder');
    const latest = new Map();
    for (const job of jobs) if (!latest.has(job.channel) || !isOver(job)) latest.set(job.channel, job);
    const away = new Set(putAway());
    const shown = [...latest.values()].filter((job) => !isOver(job) || !away.has(String(job.id))).slice(0, 10);
    return html`<div class="page"><h1>${S.publish}</h1>
      <${Drop} />
      <${Draft} />
      ${shown.map((job) => html`<${Publication} key=${job.id} job=${job} />`)}
      <${Own} />
    </div>`;
  }
}

