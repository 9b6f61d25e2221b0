// Texts that somebody hostile wrote, in every place where a manifest, a peer or the system may put one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertNothingSticksOut, open, person } from './support/browser.mjs';
import { channel, channels, mixed } from './support/invented.mjs';
import { Node } from './support/node.mjs';
import { StandIn } from './support/standin.mjs';

const SCRIPTS = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>';
const TITLES = [
  SCRIPTS, 'W'.repeat(300), 'a '.repeat(150), 'שלום עולם \u202eevil.exe', '\u200b\u200b\u200b', 'two\u0000lines\n\tand more', 'Twin', 'Twin',
  '${alert(1)}{{7*7}}', 'javascript:alert(1)', '&lt;b&gt;', '😀'.repeat(80),
];

async function hostile(t, options) {
  const real = await Node.start(t);
  const answers = channels(0, {
    of: () => [...TITLES.map((title, n) => channel(n, { title, state: n === 0 ? 'new' : 'up_to_date' })), ...mixed(12).map((one, n) => ({
      ...channel(50 + n, { state: one.state }), title: SCRIPTS, failure: one.failure && SCRIPTS, waiting: one.waiting && SCRIPTS, output: `/${SCRIPTS}`,
    }))],
    peer: { address: SCRIPTS },
    texts: {
      files: TITLES.map((name) => ({ path: name.replaceAll('/', '∕'), size_bytes: 1, folder: false, target: `/home/${name}`, state: 'here', change: null, files: 1, files_here: 1 })),
      events: TITLES.map((text, n) => ({ number: n + 1, unix_ms: Date.now(), event: 'note', text, channel: null, job: null, members: {} })),
    },
  });
  answers.getBans = { bans: [{ address: SCRIPTS, why: SCRIPTS, until_unix_ms: Date.now() + 60_000 }] };
  answers.getDoctor = { checks: [{ name: SCRIPTS, good: false, finding: SCRIPTS, next: SCRIPTS }] };
  answers.getJobs = { jobs: [{ id: 1, kind: 'publish_folder', about: SCRIPTS, channel: answers.all[0].channel, state: 'failed', step: SCRIPTS, created_unix_ms: 1, ended_unix_ms: 2, done_bytes: 0, total_bytes: null, error: { message: SCRIPTS }, result: null, resumed: false }] };
  answers.addSubscription = () => ({ ...channel(99, { title: SCRIPTS, preview: true }) });
  const standIn = await StandIn.start(t, { real: await real.origin(), answers });
  return { page: await open(t, await person(t, options), `${standIn.origin}/`), answers };
}

const isWhole = async (page) => {
  assert.deepEqual(await page.evaluate(() => [document.title, document.images.length, document.querySelectorAll('main script').length]), [
    '(2) Megatorrent', 0, 0,
  ]);
};

for (const width of [1280, 360]) {
  test(`no text becomes a part of the page, and none breaks it, ${width} wide`, async (t) => {
    const { page } = await hostile(t, { width });
    await page.getByText('<img src=x').first().waitFor();
    for (const place of ['#c', '#p', '#a', '#n', '#c/2', '#c/3', '#c/6', '#c/60']) {
      await page.evaluate((to) => { location.hash = to; }, place);
      await page.locator('h1').first().waitFor();
      await page.waitForTimeout(300);
      await isWhole(page);
      await assertNothingSticksOut(page, place);
    }
  });
}

test('what would be followed is shown as text, and control characters can be seen', async (t) => {
  const { page } = await hostile(t);
  await page.evaluate(() => { location.hash = '#f'; });
  await page.getByLabel('Address').fill('megatorrent://whatever');
  await page.getByRole('button', { name: 'Show what is in it' }).click();
  await page.getByRole('region', { name: 'What it is' }).getByText('<img src=x').first().waitFor();
  await isWhole(page);
  await page.evaluate(() => { location.hash = '#c'; });
  const titles = await page.locator('.row .name').allInnerTexts();
  assert.ok(titles.every((title) => !/[\u0000-\u0008\u200b\u202e]/.test(title)), 'no control character is left as it is');
  assert.ok(titles.every((title) => title.trim() !== ''), 'each row has a name');
});

test('two of one title are told apart by seal and key', async (t) => {
  const { page } = await hostile(t);
  const rows = page.getByRole('row', { name: /Twin/ });
  await rows.first().waitFor();
  assert.equal(await rows.count(), 2);
  const seals = await rows.locator('svg').evaluateAll((all) => all.map((one) => one.outerHTML));
  assert.notEqual(seals[0], seals.at(-1));
});
