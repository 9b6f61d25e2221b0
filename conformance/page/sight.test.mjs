// How it looks and what it tells a screen reader: every screen, both themes, wide and narrow.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { assertNothingSticksOut, open, person, violations } from './support/browser.mjs';
import { channels, lifelike } from './support/invented.mjs';
import { Node } from './support/node.mjs';
import { StandIn } from './support/standin.mjs';

const here = import.meta.dirname;
// Where pictures go, for who wants to look at them: those of the README are made by PICTURES=../../docs/pictures of `for the README`.
const PICTURES = process.env.PICTURES;
const SCREENS = {
  channels: '#c', channel: '#c/1', arriving: '#c/3', follow: '#f', publish: '#p', activity: '#a', node: '#n',
};

async function show(t, { answers = channels(11), ...options } = {}) {
  const real = await Node.start(t);
  const standIn = await StandIn.start(t, { real: await real.origin(), answers });
  const page = await open(t, await person(t, options), `${standIn.origin}/`);
  await page.locator('#mode').getByText('Direct.').waitFor();
  return page;
}

async function go(page, to) {
  await page.evaluate((hash) => { location.hash = hash; }, to);
  await page.locator('h1').first().waitFor();
  await page.waitForTimeout(400);
}

async function picture(page, name) {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}

for (const theme of ['light', 'dark']) {
  test(`axe-core finds nothing amiss on any screen, and nothing is cut or sticks out: ${theme}`, async (t) => {
    for (const [width, height, zoom] of [[1280, 800, 1], [360, 720, 1], [640, 400, 2]]) {
      const page = await show(t, { theme, width, height, deviceScaleFactor: zoom });
      for (const [name, to] of Object.entries(SCREENS)) {
        await go(page, to);
        await picture(page, `${name}-${theme}-${width}`);
        await assertNothingSticksOut(page, `${name}, ${width} wide`);
        if (zoom === 1) assert.deepEqual(await violations(page), [], `${name}, ${width} wide`);
      }
      await page.close();
    }
  });
}

test('the first run and the log-in are well too', async (t) => {
  for (const width of [1280, 360]) {
    for (const theme of ['light', 'dark']) {
      const page = await show(t, { answers: channels(0), width, theme });
      await page.getByRole('heading', { name: /^Welcome/ }).waitFor();
      await picture(page, `first-${theme}-${width}`);
      await assertNothingSticksOut(page);
      assert.deepEqual(await violations(page), []);
      await page.close();
      const node = await Node.start(t);
      const login = await open(t, await person(t, { width, theme }), await node.origin());
      await login.getByRole('heading', { name: 'Log in to this node' }).waitFor();
      await picture(login, `login-${theme}-${width}`);
      await assertNothingSticksOut(login);
      assert.deepEqual(await violations(login), []);
    }
  }
});

test('it holds with DejaVu Sans, which is wider than most', async (t) => {
  const page = await show(t);
  for (const to of Object.values(SCREENS)) {
    await go(page, to);
    await page.evaluate(() => {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync('*:not(code, kbd) { font-family: "DejaVu Sans" !important }');
      document.adoptedStyleSheets = [sheet];
    });
    await assertNothingSticksOut(page);
  }
});

test('each state can be told without colour: a word and a shape of its own', async (t) => {
  const page = await show(t);
  await go(page, '#c');
  const marks = await page.locator('.row .c-state').evaluateAll((all) =>
    all.map((one) => ({ word: one.querySelector('.word').textContent.split(' · ')[0], shape: one.querySelector('svg, canvas')?.outerHTML ?? '' })),
  );
  assert.equal(new Set(marks.map((mark) => mark.word)).size, marks.length);
  assert.ok(marks.every((mark) => mark.shape !== ''));
});

test('a theme that was chosen is there before any part of the page', async (t) => {
  const page = await show(t);
  await go(page, '#n');
  await page.getByRole('radio', { name: 'Dark' }).check({ force: true });
  await page.route('**/js/main.js', (route) => route.abort());
  await page.reload();
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(await ground(), 'rgb(19, 21, 20)');
});

test('what a screen reader is told of each screen is as it was', async (t) => {
  const page = await show(t);
  for (const [name, to] of Object.entries(SCREENS)) {
    await go(page, to);
    const tree = (await page.locator('body').ariaSnapshot())
      // Times go on, and yesterday becomes the day before.
      .replace(/\d+ (s|min|h|days?)\b/g, 'N $1')
      .replace(/(today|yesterday)(, )?|\d\d?:\d\d(:\d\d)?|\d\d? (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)( \d{4})?/g, 'WHEN')
      .replace(/(WHEN)+/g, 'WHEN');
    const kept = join(here, 'trees', `${name}.yaml`);
    if (process.env.KEEP_TREES || !existsSync(kept)) {
      assert.ok(process.env.KEEP_TREES, `${kept} is missing; KEEP_TREES=1 makes it`);
      mkdirSync(join(here, 'trees'), { recursive: true });
      writeFileSync(kept, `${tree}\n`);
    }
    assert.equal(`${tree}\n`, readFileSync(kept, 'utf8'), `${name}: KEEP_TREES=1 keeps what is told now`);
  }
});

test('pictures for the README', async (t) => {
  for (const [name, to, theme] of [['page-channels', '#c', 'light'], ['page-channel', '#c/2', 'dark']]) {
    const page = await show(t, { answers: lifelike(), theme });
    await go(page, to);
    await assertNothingSticksOut(page, name);
    await picture(page, name);
  }
});
