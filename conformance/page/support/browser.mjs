// Debian's Chromium, with a watch over each page: nothing is asked of anybody but the node, nothing fails in its scripts.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

import { PATIENCE_MS } from './node.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let launched;

/** The one browser of a test file. */
function browser() {
  launched ??= chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--force-color-profile=srgb'],
  });
  return launched;
}

after(async () => (await launched)?.close());

/** A person with a browser of their own: cookies, storage, a size and a theme. */
export async function person(t, { width = 1280, height = 800, theme = 'light', ...options } = {}) {
  const context = await (await browser()).newContext({
    viewport: { width, height },
    colorScheme: theme,
    locale: 'en-GB',
    reducedMotion: 'reduce',
    ...options,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  t.after(() => context.close());
  return context;
}

/**
 * Opens an address. When the test ends, what the page did wrong meanwhile fails it: an error in a script, something that the policy of
 * the page forbids, a request to anybody but the node.
 */
export async function open(t, context, url) {
  const page = await context.newPage();
  const wrong = [];
  const { origin } = new URL(url);
  page.on('pageerror', (error) => wrong.push(`error: ${error.stack ?? error}`));
  page.on('console', (message) => {
    // That a node which was stopped does not answer is no fault of the page.
    const isNetwork = message.text().startsWith('Failed to load resource');
    if (message.type() === 'error' && !isNetwork) wrong.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    const to = new URL(request.url());
    const isOwn = to.origin === origin || ['data:', 'blob:', 'about:'].includes(to.protocol);
    if (!isOwn) wrong.push(`a request to ${to.origin}`);
  });
  page.on('dialog', (dialog) => {
    wrong.push(`a dialog of the browser: ${dialog.message()}`);
    dialog.dismiss();
  });
  t.after(() => assert.deepEqual(wrong, []));
  await page.goto(url);
  return page;
}

/** Opens the page of a node, logged in. */
export async function openNode(t, context, node) {
  return open(t, context, await node.loginLink());
}

/** What axe-core finds amiss by WCAG 2.2 AA and its own good practice. */
export async function violations(page) {
  await page.evaluate(`${axe}; undefined`).catch(async () => {
    // The page's own policy forbids scripts that are not its own.
    await page.addScriptTag({ content: axe });
  });
  const result = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    }),
  );
  return result.violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.map((node) => node.html) }));
}

/** Fails where the page is wider than the window, or a text is cut at an edge that does not say so. */
export async function assertNothingSticksOut(page, where = '') {
  const found = await page.evaluate(() => {
    const edge = document.documentElement.clientWidth;
    const isWide = document.documentElement.scrollWidth > edge;
    const sticksOut = (it) => it.checkVisibility() && it.getBoundingClientRect().right > edge + 1;
    const wide = isWide ? [...document.querySelectorAll('body *')].filter(sticksOut).slice(0, 3).map((it) => it.outerHTML.slice(0, 200)) : [];
    const cut = [...document.querySelectorAll('button, a, label, h1, h2, h3, p')].filter((it) => {
      const style = getComputedStyle(it);
      const isSeen = it.checkVisibility() && it.clientWidth > 0;
      const isCut = it.scrollWidth > it.clientWidth + 1 && style.overflowX !== 'visible' && style.textOverflow !== 'ellipsis';
      return isSeen && isCut;
    });
    return { wide, cut: cut.map((it) => it.outerHTML.slice(0, 200)) };
  });
  assert.deepEqual(found, { wide: [], cut: [] }, where);
}
