// What a person does with the page from the first minute on, against real nodes.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { open, openNode, person } from './support/browser.mjs';
import { Node } from './support/node.mjs';
import { author, swarm } from './support/swarm.mjs';

test('who is not logged in is told how, a wrong token is refused, and the right one shows the first run', async (t) => {
  const node = await Node.start(t);
  const page = await open(t, await person(t), await node.origin());
  await page.getByRole('heading', { name: 'Log in to this node' }).waitFor();
  const field = page.getByLabel('Or its token');
  await field.fill('mt_wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').filter({ hasText: 'not the node’s token' }).waitFor();
  await field.fill(readFileSync(join(node.dir, 'api-token'), 'utf8').trim());
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: /^Welcome/ }).waitFor();
  await page.locator('#mode').getByText('Direct.').waitFor();
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, document.title]));
  assert.doesNotMatch(kept, /mt_/, 'no token is kept where a page could read it');
});

test('a channel is followed, arrives while it is watched, and an update comes by itself', async (t) => {
  const net = await swarm(t);
  const { uri, publish, channel } = await author(t, net);
  const reader = await net.start();
  const page = await openNode(t, await person(t), reader);
  await page.getByLabel('Address').fill(uri);
  await page.getByRole('button', { name: 'Show what is in it' }).click();
  const preview = page.getByRole('region', { name: 'What it is' });
  await preview.getByText('Field notes').first().waitFor();
  await preview.getByText('first.txt').waitFor();
  assert.equal((await reader.call('getSubscriptions')).total, 0, 'nothing is followed before the button');
  await preview.getByRole('button', { name: 'Follow' }).click();
  await page.getByRole('treeitem', { name: /data\.bin.*Here/ }).waitFor();
  // Who leaves before it is whole has not seen it yet, and finds it as new.
  await page.getByRole('region', { name: 'Versions' }).getByText('in place').waitFor();
  assert.doesNotMatch(page.url(), new RegExp(channel.slice(0, 8)), 'no key is in the address');
  await page.getByRole('link', { name: 'Channels', exact: true }).first().click();
  await page.getByRole('row', { name: /Field notes.*Up to date/ }).waitFor();

  await publish({ 'second.txt': 'the second\n' });
  await page.getByRole('row', { name: /Field notes.*New/ }).waitFor();
  await page.getByRole('heading', { name: /One channel has something new/ }).waitFor();
  assert.equal(await page.title(), '(1) Megatorrent');
  await page.getByRole('row', { name: /Field notes/ }).click();
  await page.getByRole('treeitem', { name: /second\.txt.*Here/ }).waitFor();
  await page.waitForFunction(() => document.title === 'Megatorrent');
});

test('a pause and an unfollowing are done at once and taken back, a limit holds in the node', async (t) => {
  const net = await swarm(t);
  const { uri, channel } = await author(t, net);
  const reader = await net.start();
  await reader.call('addSubscription', { uri });
  const page = await openNode(t, await person(t), reader);
  const state = async () => (await reader.call('getSubscription', { channel })).state;
  const row = page.getByRole('row', { name: /Field notes/ });
  await page.getByRole('row', { name: /Field notes.*(Up to date|New)/ }).waitFor();
  await row.getByRole('button', { name: /More for/ }).click();
  await page.getByRole('menuitem', { name: 'Pause' }).click();
  await page.getByRole('row', { name: /Field notes.*Paused/ }).waitFor();
  assert.equal(await state(), 'paused');
  await page.getByRole('status').getByRole('button', { name: 'Undo' }).click();
  await page.getByRole('row', { name: /Field notes.*(Up to date|New)/ }).waitFor();

  await row.getByRole('button', { name: /More for/ }).click();
  await page.getByRole('menuitem', { name: 'Unfollow' }).click();
  await page.getByText('Its files stay.').waitFor();
  await page.getByRole('status').getByRole('button', { name: 'Undo' }).click();
  await row.waitFor();

  await page.getByRole('link', { name: 'Node', exact: true }).first().click();
  await page.getByLabel('Down, at most', { exact: true }).fill('2.5');
  await page.getByRole('button', { name: 'Set the limits' }).click();
  await page.getByText('The limits are set.').waitFor();
  assert.equal((await reader.call('getLimits')).download_bytes_per_sec, 2.5 * 1024 * 1024);
});

test('a dropped file is copied, listed before anything is signed, published, and reaches a reader', async (t) => {
  const net = await swarm(t);
  const node = await net.start();
  const page = await openNode(t, await person(t), node);
  await page.getByRole('link', { name: 'Publish', exact: true }).first().click();
  const bytes = Buffer.alloc(2_500_000, 'dropped');
  const data = await page.evaluateHandle((text) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([text], 'dropped.txt', { type: 'text/plain' }));
    return transfer;
  }, bytes.toString());
  await page.locator('.drop').dispatchEvent('drop', { dataTransfer: data });
  await page.getByRole('list', { name: 'Files' }).getByText('dropped.txt').waitFor();
  assert.equal((await node.call('getIdentities')).identities.length, 0, 'nothing is signed before the button');
  await page.getByLabel('Title').fill('By hand');
  await page.getByRole('radio', { name: /Everybody/ }).check();
  await page.getByRole('button', { name: 'Publish', exact: true }).click();
  const publication = page.getByRole('region', { name: 'By hand' });
  await publication.getByText('Keep this node running.').waitFor();
  await publication.getByRole('button', { name: 'Copy its address' }).waitFor();

  await publication.getByRole('button', { name: 'Put away' }).click();
  await publication.waitFor({ state: 'detached' });
  await page.reload();
  await page.getByRole('button', { name: 'Publish an update' }).waitFor();
  assert.equal(await publication.count(), 0, 'it stays away');

  const [{ uri, channel }] = (await node.call('getIdentities')).identities;
  const reader = await net.start();
  await reader.call('addSubscription', { uri });
  const watcher = await openNode(t, await person(t), reader);
  await watcher.getByRole('row', { name: /By hand.*(New|Up to date)/ }).waitFor();
  const { files } = await reader.call('getFiles', { channel });
  assert.deepEqual(readFileSync(files[0].target), bytes);
});
