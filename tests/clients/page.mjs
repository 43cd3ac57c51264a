// The page of `facenet serve` in Debian's Chromium. URL KEY FOLDER SHOTS: pictures lie in FOLDER, screenshots go to SHOTS.
import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

const [url, key, folder, shots] = process.argv.slice(2);
const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const {chromium} = createRequire(path.join(ROOT, 'build/web/package.json'))('playwright-core');
const browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync']});
const picture = (name) => path.join(folder, `${name}.png`);

async function visit(name, viewport, dark) {
  const context = await browser.newContext({viewport, colorScheme: dark ? 'dark' : 'light', deviceScaleFactor: 1});
  const page = await context.newPage();
  const faults = [], asked = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    // Chromium reports each answer of 400 and above; those are meant here. A breach of the policy is not.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) faults.push(message.text());
  });
  page.on('request', (request) => asked.push(request.url()));
  await page.goto(url);
  await page.waitForSelector('body[data-ready=false]');
  assert.match(await page.textContent('#error'), /asks for a key/);
  await page.fill('#key', key);
  await page.click('#key-form button');
  await page.waitForSelector('body[data-ready=true]');
  assert.match(await page.textContent('#untrained'), /random numbers/);

  await page.click('#tab-gallery');
  await page.setInputFiles('#enroll input[type=file]', picture('one'));
  await page.waitForFunction(() => /Type the name/.test(document.querySelector('#enroll .note').textContent));
  await page.fill('#name', 'Ada <b>Lovelace</b>');
  await page.setInputFiles('#enroll input[type=file]', [picture('one'), picture('none')]);
  await page.waitForSelector('#people li .name');
  await page.waitForFunction(() => /none\.png: No face/.test(document.querySelector('#enroll .note').textContent));
  assert.equal(await page.textContent('#people li .name'), 'Ada <b>Lovelace</b>');
  await page.screenshot({path: path.join(shots, `${name}-gallery.png`), fullPage: true});

  await page.click('#tab-test');
  // By drop, as a person does it.
  const data = await page.evaluateHandle(async (bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(bytes)], 'three.png', {type: 'image/png'}));
    return transfer;
  }, [...(await import('node:fs')).readFileSync(picture('three'))]);
  await page.dispatchEvent('#search', 'drop', {dataTransfer: data});
  await page.waitForFunction(() => document.querySelectorAll('#found li').length === 3);
  await page.waitForSelector('#search canvas:not([hidden])');
  await page.screenshot({path: path.join(shots, `${name}-test.png`), fullPage: true});
  await page.setInputFiles('#search input[type=file]', picture('one'));
  await page.waitForFunction(() => document.querySelector('#found .name')?.textContent === 'Ada <b>Lovelace</b>');

  await page.click('#tab-log');
  await page.waitForSelector('#requests tr');
  assert.match(await page.textContent('#requests'), /POST \/v1\/identify/);
  assert.doesNotMatch(await page.textContent('#requests'), /Lovelace/);
  assert.ok(await page.evaluate(() => document.querySelector('.wide').scrollWidth <= document.querySelector('.wide').clientWidth),
    `${name}: the log is cut off`);
  await page.screenshot({path: path.join(shots, `${name}-log.png`), fullPage: true});

  await page.click('#tab-gallery');
  await page.click('#people li button:text("Rename")');
  await page.fill('#people li input', 'Ada');
  await page.click('#people li button:text("Save")');
  await page.waitForFunction(() => document.querySelector('#people .name')?.textContent === 'Ada');
  await page.click('#people li button:text("Remove")');
  await page.click('#people li button:text("Really remove?")');
  await page.waitForFunction(() => document.querySelectorAll('#people li').length === 0);

  // Nothing is wider than the window, and nothing came from elsewhere.
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: the page scrolls sideways`);
  assert.deepEqual(asked.filter((each) => !each.startsWith(url) && !each.startsWith('blob:')), []);
  assert.deepEqual(faults, []);
  assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  await context.close();
}

try {
  await visit('desktop', {width: 1280, height: 900}, false);
  await visit('phone', {width: 360, height: 740}, true);
} finally {
  await browser.close();
}
