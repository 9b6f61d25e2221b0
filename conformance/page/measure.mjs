// Measures the page against a real node with a thousand channels, of which fifty change each second (docs/benchmarks.md).
//
//   MEGATORRENT=PATH-OF-THE-PROGRAM node conformance/page/measure.mjs
//
// Prints one JSON object: medians of the times from the navigation to the first paint and to the first row, the share of a core that the page takes, the longest
// gap between two frames while it is scrolled, and rows in the document.

import { generateKeyPairSync } from 'node:crypto';
import { after, test } from 'node:test';

import { openNode, person } from './support/browser.mjs';
import { Node } from './support/node.mjs';

const CHANNELS = 1000;
const CHANGES_A_SECOND = 50;
const SECONDS = 20;
const RUNS = 9;

const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];
const key = () => generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');

let said;
after(() => console.log(JSON.stringify(said)));

test('measure', { timeout: 300_000 }, async (t) => {
  const node = await Node.start(t, { args: ['--dht', 'off'] });
  const keys = Array.from({ length: CHANNELS }, key);
  for (const one of keys) await node.call('addSubscription', { uri: `megatorrent://${one}` });
  const context = await person(t);
  // When the first row is there, as the browser's clock has it.
  await context.addInitScript(() => {
    new MutationObserver((_, self) => {
      if (!document.querySelector('.row')) return;
      self.disconnect();
      requestAnimationFrame(() => { window.firstRow = performance.now(); });
    }).observe(document, { childList: true, subtree: true });
  });
  const page = await openNode(t, context, node);
  const [paints, firsts] = [[], []];
  for (let run = 0; run < RUNS; run += 1) {
    await page.reload();
    await page.waitForFunction(() => window.firstRow !== undefined);
    firsts.push(await page.evaluate(() => window.firstRow));
    paints.push(await page.evaluate(() => performance.getEntriesByName('first-paint')[0].startTime));
  }
  await page.locator(`[role=grid][aria-rowcount="${CHANNELS + 1}"]`).waitFor();

  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const busy = async () => (await session.send('Performance.getMetrics')).metrics.find((it) => it.name === 'TaskDuration').value;
  let number = 0;
  const change = async () => {
    const method = Math.floor(number / CHANNELS) % 2 === 0 ? 'pauseSubscription' : 'resumeSubscription';
    await node.call(method, { channel: keys[number % CHANNELS] });
    number += 1;
  };
  const timer = setInterval(() => change().catch(() => {}), 1000 / CHANGES_A_SECOND);
  const before = await busy();
  await page.waitForTimeout(SECONDS * 1000);
  const share = ((await busy()) - before) / SECONDS;
  const gap = page.evaluate(() => new Promise((resolve) => {
    let [last, worst, frames] = [performance.now(), 0, 0];
    const step = (now) => {
      worst = Math.max(worst, now - last);
      last = now;
      frames += 1;
      if (frames < 180) requestAnimationFrame(step);
      else resolve(worst);
    };
    requestAnimationFrame(step);
  }));
  for (let turn = 0; turn < 40; turn += 1) await page.mouse.wheel(0, 200);
  said = { first_paint_ms: Math.round(median(paints)), first_row_ms: Math.round(median(firsts)), core_share: Number(share.toFixed(3)), frame_gap_ms: Math.round(await gap), rows: await page.locator('.row').count() };
  clearInterval(timer);
});
