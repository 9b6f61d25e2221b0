// All of it by the keyboard alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { open, openNode, person } from './support/browser.mjs';
import { channels } from './support/invented.mjs';
import { Node } from './support/node.mjs';
import { StandIn } from './support/standin.mjs';
import { author, swarm } from './support/swarm.mjs';

test('a channel is followed, opened, paused and unfollowed, and that taken back', async (t) => {
  const net = await swarm(t);
  const { uri, channel } = await author(t, net);
  const reader = await net.start();
  const page = await openNode(t, await person(t), reader);
  await page.getByLabel('Address').waitFor();
  await page.locator('#mode').getByText('Direct.').waitFor();
  const { keyboard } = page;
  await keyboard.press('f');
  await page.waitForFunction(() => document.activeElement?.id === 'address');
  await keyboard.insertText(uri);
  await keyboard.press('Enter');
  const follow = page.getByRole('button', { name: 'Follow', exact: true });
  await follow.waitFor();
  await page.getByText('first.txt').waitFor();
  for (let tab = 0; tab < 40 && !(await follow.evaluate((it) => it === document.activeElement)); tab += 1) await keyboard.press('Tab');
  await keyboard.press('Enter');
  await page.getByRole('treeitem', { name: /first\.txt.*Here/ }).waitFor();

  await keyboard.press('g');
  await keyboard.press('c');
  const row = page.getByRole('row', { name: /Field notes/ });
  await row.waitFor();
  // The page takes the focus to its content a frame after it was entered.
  for (let turn = 0; turn < 50 && !(await page.evaluate(() => document.activeElement?.matches('.row'))); turn += 1) {
    await keyboard.press('j');
    await page.waitForTimeout(100);
  }
  await keyboard.press('p');
  await page.getByRole('row', { name: /Field notes.*Paused/ }).waitFor();
  await keyboard.press('p');
  await page.getByRole('row', { name: /Field notes.*(Up to date|New)/ }).waitFor();
  await keyboard.press('Delete');
  await page.getByText('Its files stay.').waitFor();
  await keyboard.press('z');
  await row.waitFor();
  assert.equal((await reader.call('getSubscription', { channel })).channel, channel);
});

test('single letters are keys unless they are switched off or typed into a field, and ? lists them', async (t) => {
  const real = await Node.start(t);
  const standIn = await StandIn.start(t, { real: await real.origin(), answers: channels(30) });
  const page = await open(t, await person(t), `${standIn.origin}/`);
  await page.getByRole('row').nth(3).waitFor();
  const { keyboard } = page;
  await keyboard.press('?');
  await page.getByRole('dialog').getByText('select a range').waitFor();
  await keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await keyboard.press('/');
  await page.waitForFunction(() => document.activeElement?.id === 'find');
  await keyboard.type('0007 gp');
  assert.equal(await page.getByLabel('Find a channel').inputValue(), '0007 gp');
  await keyboard.press('Escape');
  await page.locator('.row').first().focus();
  await keyboard.press('x');
  await keyboard.press('Shift+ArrowDown');
  await page.getByText('2 selected').waitFor();
  await keyboard.press('Escape');
  await page.getByText('2 selected').waitFor({ state: 'detached' });
  await keyboard.press('F6');
  const focused = () => page.evaluate(() => document.activeElement?.closest('[id]')?.id ?? document.activeElement?.tagName);
  const seen = new Set([await focused()]);
  for (let turn = 0; turn < 5; turn += 1) {
    await keyboard.press('F6');
    seen.add(await focused());
  }
  assert.ok(seen.size >= 3, [...seen].join(', '));
  await keyboard.press('g');
  await keyboard.press('n');
  await page.getByRole('checkbox', { name: /Single letters are keys/ }).uncheck();
  await page.locator('main').focus();
  await keyboard.press('g');
  await keyboard.press('c');
  await page.waitForTimeout(300);
  assert.match(page.url(), /#n$/);
});
