// Tests of the page in a browser: `node test.js ADDRESS TOKEN_ADDRESS TOKEN IMAGE SCREENSHOTS CHROMIUM`.
// Both servers have a live index of the same images and a model; the second wants a token.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const [address, tokenAddress, token, image, screenshots, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--hide-scrollbars'] });
let passed = 0;

const VIEWS = {
  desktop: { width: 1440, height: 840 },
  phone: { width: 390, height: 844 },
};

/** Opens the page and waits for its first results. Errors go to `errors`. */
async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: VIEWS.desktop, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  const errors = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && errors.push(message.text()));
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('request', (request) => {
    const from = new URL(request.url());
    if (from.protocol !== 'blob:' && from.origin !== new URL(url).origin) errors.push(`a request to ${from}`);
  });
  await page.goto(url);
  await page.waitForSelector('#one .card');
  await page.waitForSelector('.column:last-child .card');
  await page.waitForFunction(() => document.querySelector('#map-note')?.textContent?.includes('items at'), null, { timeout: 60_000 });
  return { page, errors, close: () => context.close() };
}

async function test(name, run) {
  try {
    await run();
  } catch (error) {
    console.error(`FAILED: ${name}`);
    throw error;
  }
  passed += 1;
  console.log(`passed: ${name}`);
}

/** Repeats checks until they hold, because answers take a while. */
async function eventually(check) {
  for (const end = Date.now() + 10_000; ; ) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** The ids of a list, in order. */
const ids = (page, list) =>
  page.$$eval(`${list} .card`, (cards) => cards.map((card) => /item (\d+)/.exec(card.ariaLabel)[1]));

const text = (page, selector) => page.textContent(selector);

/** Waits until the page has its answers. */
const settled = (page) =>
  eventually(async () => assert.equal(await page.locator('[aria-busy=true]').count(), 0));

/** Drops a file as a person does. */
async function drop(page, name, type, bytes) {
  const transfer = await page.evaluateHandle(
    ([name, type, bytes]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
      return transfer;
    },
    [name, type, [...bytes]],
  );
  await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer });
  await page.dispatchEvent('#drop', 'drop', { dataTransfer: transfer });
}

/** How many items have the code of the query. */
const nEqual = async (page) => Number((await text(page, '#growth tbody tr:last-child .count')).replaceAll(',', ''));

/** Drops the image and waits for what it finds. */
async function dropImage(page) {
  await drop(page, 'dropped.png', 'image/png', readFileSync(image));
  await eventually(async () => assert.equal(await text(page, '#query-note'), 'Your image'));
  assert.equal(await text(page, '#query-name'), 'dropped.png');
  await settled(page);
}

/** Moves the slider and waits for the list to equal one of those side by side. */
async function slide(page, key, nth) {
  await page.focus('#bits');
  await page.keyboard.press(key);
  await settled(page);
  await eventually(async () => {
    const found = await ids(page, '#one');
    assert.deepEqual(found.slice(0, 9), await ids(page, `.column:nth-child(${nth})`));
  });
}

/** Clicks the button that adds and deletes, and waits until it says something else. */
async function change(page, expected) {
  const button = page.locator('#change');
  assert.equal(await button.textContent(), expected);
  await button.click();
  await eventually(async () => assert.notEqual(await button.textContent(), expected));
}

const { page, errors, close } = await open(address);

await test('an image is dropped and finds items at every length', async () => {
  const before = await ids(page, '#one');
  await dropImage(page);
  await eventually(async () => assert.notDeepEqual(await ids(page, '#one'), before));
  assert.match(await text(page, '#query-note'), /Your image/);
  for (const n of [1, 2, 3, 4]) assert.equal((await ids(page, `.column:nth-child(${n})`)).length, 9);
  const facts = /16 bits.* of 9 .* to search.*2 bytes per code/s;
  await eventually(async () => assert.match(await text(page, '.column:nth-child(2)'), facts));
});

await test('the code grows byte by byte', async () => {
  const rows = await page.$$eval('#growth tbody tr', (rows) =>
    rows.map((row) => ({
      bytes: row.querySelectorAll('.byte').length,
      error: parseFloat(row.cells[1].textContent),
      left: Number(row.cells[2].textContent.replaceAll(',', '')),
    })),
  );
  assert.deepEqual(rows.map((row) => row.bytes), [1, 2, 3, 4]);
  for (const [i, row] of rows.entries()) {
    assert.ok(row.error < (rows[i - 1]?.error ?? 100) + 0.1, JSON.stringify(rows));
    assert.ok(row.left <= (rows[i - 1]?.left ?? Infinity), JSON.stringify(rows));
  }
});

await test('results change while the slider moves', async () => {
  await slide(page, 'Home', 1);
  assert.equal(await text(page, '#bits-text'), '8 bits');
  const short = await ids(page, '#one');
  await slide(page, 'End', 4);
  assert.equal(await text(page, '#bits-text'), '32 bits');
  const long = await ids(page, '#one');
  assert.notDeepEqual(short, long);
  await eventually(async () => assert.match(await text(page, '#one-facts'), /4 bytes per code/));
  assert.equal(await page.getAttribute('#growth tr[aria-current]', 'data-bits'), '32');
});

await test('an item that is added is found, and once deleted, is not', async () => {
  const found = (id, expected) =>
    eventually(async () => assert.equal((await ids(page, '#one')).includes(id), expected));
  const before = await text(page, '#gallery-facts');
  const equal = await nEqual(page);
  await change(page, 'Add to gallery');
  const id = /Item (\d+), added/.exec(await text(page, '[role=status]#query-note'))[1];
  await found(id, true);
  assert.notEqual(await text(page, '#gallery-facts'), before);
  await eventually(async () => assert.equal(await nEqual(page), equal + 1));
  await change(page, 'Delete item');
  await found(id, false);
  await eventually(async () => assert.equal(await text(page, '#gallery-facts'), before));
  await eventually(async () => assert.equal(await nEqual(page), equal));
  await change(page, 'Put back');
  await found(id, true);
  // The same image finds it after another query, with its picture. It is the query then.
  await other();
  await dropImage(page);
  await found(id, true);
  const card = page.locator(`#one .card[aria-label*="item ${id},"]`);
  assert.match(await card.locator('img').getAttribute('src'), /^blob:/);
  await card.click();
  await eventually(async () => assert.match(await text(page, '#query-note'), new RegExp(`^Item ${id}, dropped.png`)));
  // Another image of this name does not replace it.
  await dropImage(page);
  await change(page, 'Add to gallery');
  const [, second] = /Item (\d+), added without its name/.exec(await text(page, '#query-note'));
  assert.notEqual(second, id);
  await eventually(async () => assert.equal(errors.length, 1));
  assert.match(errors.pop(), /409/);
  await found(id, true);
  await change(page, 'Delete item');
  await found(second, false);
  await card.click();
  await eventually(async () => assert.match(await text(page, '#query-note'), new RegExp(`^Item ${id}, dropped.png`)));
  await change(page, 'Delete item');
  await other();
  await dropImage(page);
  await found(id, false);
  await eventually(async () => assert.equal(await text(page, '#gallery-facts'), before));

  async function other() {
    await page.click('#picker li:nth-child(3) .card');
    await eventually(async () => assert.notEqual(await text(page, '#query-name'), 'dropped.png'));
  }
});

await test('the map and its keys search', async () => {
  const another = async (before) => {
    await eventually(async () => assert.notEqual(await text(page, '#query-note'), before));
    return text(page, '#query-note');
  };
  const before = await text(page, '#query-note');
  await page.locator('#map').click({ position: { x: 300, y: 250 } });
  const clicked = await another(before);
  await page.focus('#map');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowDown');
  assert.ok(await page.isVisible('#map-tip'));
  await page.keyboard.press('Enter');
  await another(clicked);
  await eventually(async () => assert.match(await text(page, '#one-facts'), /of 12 same class/));
});

await test('ids that numbers of JavaScript cannot hold are exact', async () => {
  const [id, neighbour] = ['9007199254740993', '9007199254740992'];
  const send = async (method, path, body) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${address}${path}`, { method, headers, body });
    assert.equal(answer.status, 200, `${path} ${body}`);
    return answer.json();
  };
  const [base] = await ids(page, '#one');
  const { code } = await send('POST', '/v1/code', `{"id": ${base}}`);
  await send('POST', '/v1/items', `{"items": [{"id": ${id}, "code": [${code}]}, {"id": ${neighbour}, "code": [${code}]}]}`);
  await page.click(`#one .card[aria-label*="item ${base},"]`);
  await eventually(async () => assert.ok((await ids(page, '#one')).includes(id)));
  await page.click(`#one .card[aria-label*="item ${id},"]`);
  await eventually(async () => assert.equal(await text(page, '#query-note'), `Item ${id}`));
  await settled(page);
  // It does not find itself.
  await eventually(async () => assert.ok((await ids(page, '#one')).includes(neighbour)));
  assert.ok(!(await ids(page, '#one')).includes(id));
  await change(page, 'Delete item');
  await change(page, 'Put back');
  await eventually(async () => assert.equal(await text(page, '#query-note'), `Item ${id}, put back`));
  for (const added of [id, neighbour]) await send('DELETE', `/v1/items/${added}`);
});

await test('an image is sent as it is', async () => {
  const bytes = Buffer.from(
    await page.evaluate(async () => {
      // Playwright sees no bodies of files.
      const send = fetch;
      globalThis.sent = [];
      globalThis.fetch = (path, options) => {
        if (options?.body instanceof Blob) globalThis.sent.push([path, options.body.type, options.body.size]);
        return send(path, options);
      };
      const canvas = new OffscreenCanvas(2000, 30);
      canvas.getContext('2d').fillRect(0, 0, 900, 20);
      return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
    }),
  );
  await drop(page, 'wide.png', 'image/png', bytes);
  await eventually(async () => assert.equal(await text(page, '#query-note'), 'Your image'));
  assert.deepEqual(await page.evaluate('sent'), [['/v1/code', 'image/png', bytes.length]]);
});

await test('a search that fails leaves nothing busy', async () => {
  await page.route('**/v1/search*', (route) => route.fulfill({ status: 500, json: { error: 'broken for a test' } }));
  await page.click('#picker li:nth-child(2) .card');
  await eventually(async () => assert.equal(await text(page, '#error'), 'Broken for a test.'));
  await settled(page);
  await page.unroute('**/v1/search*');
  errors.length = 0;
});

await test('a file that is no image is refused in one sentence', async () => {
  assert.deepEqual(errors, []);
  await drop(page, 'text.png', 'image/png', Buffer.from('no image'));
  await page.waitForSelector('#error:not([hidden])');
  assert.match(await text(page, '#error'), /^The image cannot be read/);
  assert.equal(errors.length, 1);
  errors.length = 0;
  await page.click('#picker li:first-child .card');
  await page.waitForSelector('#error', { state: 'hidden' });
});

assert.deepEqual(errors, []);
await close();

await test('changes want the token', async () => {
  const { page, errors, close } = await open(tokenAddress);
  await dropImage(page);
  await page.click('#change');
  await page.waitForSelector('#error:not([hidden])');
  assert.match(await text(page, '#error'), /need the server's token/);
  assert.equal(errors.length, 1);
  errors.length = 0;
  await page.fill('#token', token);
  await change(page, 'Add to gallery');
  await eventually(async () => assert.match(await text(page, '#one-facts'), /your item is at place \d+/));
  await change(page, 'Delete item');
  await eventually(async () => assert.doesNotMatch(await text(page, '#one-facts'), /your item/));
  assert.deepEqual(errors, []);
  await close();
});

for (const [view, viewport] of Object.entries(VIEWS)) {
  for (const colorScheme of ['light', 'dark']) {
    await test(`${view}, ${colorScheme}: nothing hinders people or overflows`, async () => {
      const options = { viewport, colorScheme, hasTouch: view === 'phone' };
      const { page, errors, close } = await open(address, options);
      await dropImage(page);
      await page.evaluate(() => Promise.all([...document.images].map((image) => image.decode().catch(() => {}))));
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(grave.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
      const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(inner <= outer, `the page is ${inner} pixels wide`);
      assert.deepEqual(errors, []);
      await page.screenshot({ path: `${screenshots}/${view}-${colorScheme}.png` });
      await close();
    });
  }
}

await browser.close();
console.log(`${passed} passed, 0 failed`);
