// The mode line is never more hopeful than the node's last word, and never older than eight seconds.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { open, openNode, person } from './support/browser.mjs';
import { Node } from './support/node.mjs';
import { StandIn } from './support/standin.mjs';
import { channels } from './support/invented.mjs';

const mode = (page) => page.locator('#mode');

test('a node that is stopped leaves the mode unknown within nine seconds, figures soft and actions off, until it answers', async (t) => {
  const node = await Node.start(t);
  const page = await openNode(t, await person(t), node);
  await mode(page).getByText('Direct.').waitFor();
  node.signal('SIGSTOP');
  const stopped = Date.now();
  await mode(page).getByText('Mode unknown.').waitFor();
  assert.ok(Date.now() - stopped < 9500, `it took ${Date.now() - stopped} ms`);
  await mode(page).getByText(/has not answered for \d+ s\. All below is from/).waitFor();
  assert.ok(await page.getByRole('button', { name: 'Show what is in it' }).isDisabled());
  assert.match(await page.locator('.app').getAttribute('class'), /stale/);
  node.signal('SIGCONT');
  await mode(page).getByText('Direct.').waitFor();
  await page.locator('.app:not(.stale)').waitFor();
});

test('a page begins without a mode, also when it comes back from the history', async (t) => {
  const node = await Node.start(t);
  const context = await person(t);
  const page = await openNode(t, context, node);
  await mode(page).getByText('Direct.').waitFor();
  const home = page.url();
  await page.goto('about:blank');
  node.signal('SIGSTOP');
  // The files come from the cache or not at all; a mode from before must not.
  await page.goBack({ timeout: 5000 }).catch(() => undefined);
  const shown = await page.locator('body').innerText({ timeout: 5000 }).catch(() => '');
  assert.doesNotMatch(shown, /Direct\./);
  node.signal('SIGCONT');
  await mode(await open(t, context, home)).getByText('Direct.').waitFor();
  const html = await (await context.request.get(home)).text();
  assert.doesNotMatch(html, /Direct/);
});

test('every mode has its words, a weaker one is announced, and what is not known is unknown', async (t) => {
  const real = await Node.start(t);
  const standIn = await StandIn.start(t, { real: await real.origin(), answers: channels(3), mode: { mode: 'proxied', enforcement: 'program' } });
  const page = await open(t, await person(t), `${standIn.origin}/`);
  await mode(page).getByText('Proxied.').waitFor();
  const shown = async (beat, words) => {
    standIn.become(beat);
    await mode(page).getByText(words).waitFor();
  };
  const began = Date.now();
  await shown({ mode: 'blocked', retry_secs: 12 }, 'The proxy does not answer. Nothing leaves. Next try in 12 s.');
  assert.ok(Date.now() - began < 2000, 'a killed proxy is seen within two seconds');
  await page.locator('[aria-live=assertive]').getByText(/Blocked/).waitFor();
  await shown({ mode: 'starting', percent: 45 }, 'Starting Tor, 45 %');
  assert.equal(await mode(page).getByText('Onion.').count(), 0);
  await shown({ mode: 'onion', enforcement: 'kernel' }, 'The kernel blocks every other way out.');
  await shown({ mode: 'onion', enforcement: 'program' }, 'Only this program guards it');
  await shown({ mode: 'direct', pending: 'onion' }, 'Until the node has switched, peers see your IP address.');
  await page.locator('[aria-live=assertive]').getByText(/Direct still/).waitFor();
  await shown({ mode: 'something-new' }, 'Mode unknown.');
});

test('seven tabs share one event stream, and each shows the mode', async (t) => {
  const real = await Node.start(t);
  const standIn = await StandIn.start(t, { real: await real.origin(), answers: channels(3) });
  const context = await person(t);
  const pages = [];
  for (let tab = 0; tab < 7; tab += 1) {
    const page = await open(t, context, `${standIn.origin}/`);
    await mode(page).getByText('Direct.').waitFor();
    pages.push(page);
  }
  assert.equal(standIn.readers.size, 1);
  // The one that reads goes, another one takes its place.
  for (const page of pages.splice(0, 3)) await page.close();
  standIn.become({ mode: 'blocked' });
  for (const page of pages) await mode(page).getByText(/Blocked\.|Direct\./).waitFor();
  await pages[3].bringToFront();
  await mode(pages[3]).getByText('Blocked.').waitFor();
  assert.equal(standIn.readers.size, 1);
});
