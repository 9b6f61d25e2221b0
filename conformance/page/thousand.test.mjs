// A thousand channels, fifty of which change each second: nothing moves under the pointer, and little is in the document.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { open, person } from './support/browser.mjs';
import { channels } from './support/invented.mjs';
import { Node } from './support/node.mjs';
import { StandIn } from './support/standin.mjs';

const COUNT = 1000;

async function thousand(t, options) {
  const real = await Node.start(t);
  const answers = channels(COUNT);
  const standIn = await StandIn.start(t, { real: await real.origin(), answers });
  const page = await open(t, await person(t, options), `${standIn.origin}/`);
  // All of them are known once the count says so.
  await page.locator(`[role=grid][aria-rowcount="${COUNT + 1}"]`).waitFor();
  return { page, standIn, answers };
}

/** Changes fifty channels, and tells of each. */
function change({ standIn, answers }, round) {
  for (let n = 0; n < 50; n += 1) {
    const one = answers.all[(round * 50 + n * 19) % COUNT];
    one.state = one.state === 'arriving' ? 'new' : 'arriving';
    one.blobs = (one.blobs + 7) % (one.blobs_total || 1);
    standIn.tell('progress', { event: 'progress', channel: one.channel, text: '' });
  }
}

test('at most sixty rows are in the document, and the whole list is there for a screen reader and the keyboard', async (t) => {
  const { page } = await thousand(t);
  const grid = page.getByRole('grid');
  const rows = () => page.locator('.row').count();
  assert.equal(await grid.getAttribute('aria-rowcount'), String(COUNT + 1));
  assert.ok((await rows()) <= 60, `${await rows()} rows`);
  await page.locator('.row').first().focus();
  await page.keyboard.press('End');
  await page.waitForFunction((last) => document.activeElement?.getAttribute('aria-rowindex') === String(last), COUNT + 1);
  assert.ok((await rows()) <= 60, `${await rows()} rows at the end`);
  await page.keyboard.press('Home');
  await page.waitForFunction(() => document.activeElement?.getAttribute('aria-rowindex') === '2');
});

test('while fifty change each second, the row under the pointer, what is selected, the scroll and an open menu stay', async (t) => {
  const it = await thousand(t);
  const { page } = it;
  await page.mouse.wheel(0, 4000);
  await page.waitForFunction(() => scrollY > 3000);
  await page.mouse.move(500, 500);
  const under = () => page.evaluate(() => document.elementFromPoint(500, 500).closest('.row')?.dataset.key);
  await page.waitForFunction(() => document.elementFromPoint(500, 500).closest('.row'));
  const row = page.locator(`.row[data-key="${await under()}"]`);
  await row.getByRole('checkbox').click({ force: true });
  const [key, top] = [await under(), await page.evaluate(() => scrollY)];
  await row.getByRole('button', { name: /More for/ }).click();
  const menu = page.getByRole('menu');
  await menu.waitFor();
  await page.mouse.move(500, 500);
  for (let round = 0; round < 8; round += 1) {
    change(it, round);
    if (round === 4) it.standIn.tell('missed', { missed: 9 });
    await page.waitForTimeout(1000);
    assert.deepEqual([await under(), await page.evaluate(() => scrollY)], [key, top]);
  }
  assert.ok(await menu.isVisible());
  assert.equal(await row.getAttribute('aria-selected'), 'true');
});

test('fifty changes a second cost little, and the first row is there at once', async (t) => {
  const it = await thousand(t);
  const { page } = it;
  await page.waitForLoadState('networkidle').catch(() => undefined);
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const busy = async () => {
    const { metrics } = await session.send('Performance.getMetrics');
    return metrics.find((metric) => metric.name === 'TaskDuration').value;
  };
  const before = await busy();
  for (let round = 0; round < 5; round += 1) {
    change(it, round);
    await page.waitForTimeout(1000);
  }
  // A machine that is busy with other tests takes longer for the same; the goal, 0.05, is measured by hand (docs/benchmarks.md).
  const share = (await busy()) - before;
  assert.ok(share / 5 < 0.5, `${share / 5} of a core`);
});

test('one that comes stands in a line of its own until it is asked for, and a filter leaves what it loses under the pointer', async (t) => {
  const { page, standIn, answers } = await thousand(t);
  const made = { ...answers.all[0], channel: 'f'.repeat(64), number: COUNT + 1, title: 'Come since', state: 'new' };
  answers.all.push(made);
  standIn.tell('followed', { event: 'followed', channel: made.channel, text: '' });
  await page.getByRole('button', { name: 'Show', exact: true }).waitFor();
  assert.equal(await page.getByRole('row', { name: /Come since/ }).count(), 0);
  await page.getByRole('button', { name: 'Show', exact: true }).click();
  await page.getByLabel('Find a channel').fill('Come since');
  await page.getByRole('row', { name: /Come since/ }).waitFor();
});
