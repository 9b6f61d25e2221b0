// Jobs: work of the node that takes a while.
import { call } from './api.js';
import { say } from './actions.js';
import { bytes, percent, plain, when } from './format.js';
import { html } from './html.js';
import { Bar, Icon } from './icons.js';
import { isFresh } from './mode.js';
import { S } from './strings.js';
import { refresh } from './sync.js';

export function isOver(job) {
  return ['done', 'failed', 'cancelled'].includes(job.state);
}

// The word of a job's state.
export function wordOf(job) {
  if (job.state === 'queued') return S.jobQueued;
  if (job.state === 'running') {
    const step = S.jobSteps[job.step] ?? S.jobKinds[job.kind]?.[1] ?? plain(job.step);
    return job.total_bytes ? S.withPercentPlain(step, percent(job.done_bytes, job.total_bytes)) : step;
  }
  return { done: S.jobDone, failed: S.jobFailed, cancelled: S.jobCancelled }[job.state];
}

export async function cancel(job) {
  try {
    await call('cancelJob', { job: job.id });
  } catch (error) {
    say(error.message);
  }
  refresh();
}

const ICONS = { queued: 'clock', running: 'ring', done: 'check', failed: 'octagon', cancelled: 'close' };

export function JobRow({ job }) {
  const about = job.kind === 'verify' ? S.allHeld : plain(job.about.split('/').pop() || job.about);
  return html`<li class=${`job ${job.state === 'failed' ? 'bad' : ''}`}><${Icon} name=${ICONS[job.state]} />
    <div><p><b>${S.jobKinds[job.kind]?.[0] ?? job.kind}</b> <bdi>${about}</bdi></p>
      <p class="soft">${[wordOf(job), job.resumed && !isOver(job) && S.jobResumed, job.total_bytes && job.state === 'running' && S.ofAll(bytes(job.done_bytes), bytes(job.total_bytes))].filter(Boolean).join(' · ')}
        ${job.error && html`: ${plain(job.error.message)}`}</p>
      ${job.state === 'running' && job.total_bytes && html`<${Bar} part=${job.done_bytes / job.total_bytes} label=${wordOf(job)} />`}</div>
    <span class="soft figure">${when(job.ended_unix_ms ?? job.created_unix_ms)}</span>
    ${!isOver(job) ? html`<button type="button" class="button plain" disabled=${!isFresh()} onClick=${() => cancel(job)}>${S.cancel}</button>` : html`<span />`}</li>`;
}
