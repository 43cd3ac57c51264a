// The package and the page in Debian's Chromium, by clicks on real files. Screenshots land in build/web/screenshots.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {after, before, test} from 'node:test';

import {serve} from '../../examples/web/serve.mjs';
import {FIXTURES, ROOT, TOLERANCE, built, expected, maxDifference, sameFaces} from './support.mjs';

const {chromium} = createRequire(path.join(ROOT, 'build/web/package.json'))('playwright-core');
const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];
const SHOTS = path.join(ROOT, 'build/web/screenshots');

let browser, isolated, open;
const blank = (request, response, name) => {
  if (name.startsWith('/fixtures/')) {
    response.setHeader('Content-Type', name.endsWith('.png') ? 'image/png' : 'application/octet-stream');
    fs.createReadStream(path.join(FIXTURES, path.basename(name))).pipe(response);
  } else if (name === '/blank.html') response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>test</title>');
  else if (name === '/worker.test.js') response.setHeader('Content-Type', 'text/javascript').end(`
    import {FaceNet} from '/facenet/index.js';
    onmessage = async ({data: build}) => {
      const net = await FaceNet.load({weights: '/weights/facenet_i8.safetensors', build, threads: 2});
      const data = Uint8Array.from({length: 160 * 160 * 3}, (_, i) => 128 + 100 * Math.sin(i / 97));
      postMessage([...await net.embed({data, width: 160, height: 160}, {aligned: true})]);
      net.dispose();
    };`);
  else if (name === '/html/facenet-simd.wasm') response.setHeader('Content-Type', 'text/html').end('<!doctype html><p>all routes</p>');
  else if (name === '/weights/slow.safetensors') response.writeHead(200, {'Content-Length': 1e7}).write(Buffer.alloc(1e6, 32));
  else return false;
  return true;
};
const url = (server, name = '') => `http://localhost:${server.address().port}/${name}`;

before(async () => {
  fs.mkdirSync(SHOTS, {recursive: true});
  const weights = path.join(FIXTURES, 'weights');
  isolated = await serve({port: 0, weights, handle: blank});
  open = await serve({port: 0, weights, handle: blank, isolated: false});
  browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ARGUMENTS});
});
after(async () => {
  await browser?.close();
  for (const server of [isolated, open]) {
    server?.closeAllConnections();
    server?.close();
  }
});

/** A page where `f(argument)` runs as a module would; its console's errors fail the test. */
async function blankPage(server) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(url(server, 'blank.html'));
  return {page, context, run: (f, argument) => page.evaluate(f, argument)};
}

// Runs in the page. Loads, embeds and detects on pixels that the browser itself decodes.
const whole = async ({weights, options, names}) => {
  const {FaceNet} = await import('/facenet/index.js');
  const net = await FaceNet.load({weights, ...options});
  const out = {info: net.info, isolated: crossOriginIsolated, pictures: {}};
  for (const name of names) {
    const crop = await (await fetch(`/fixtures/${name}_crop.png`)).blob();
    const image = new Image();
    image.src = `/fixtures/${name}.png`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    canvas.getContext('2d').drawImage(image, 0, 0);
    const bitmap = await createImageBitmap(crop);
    const embedding = await net.embed(crop, {aligned: true});
    const again = await net.embed(bitmap, {aligned: true});
    if (embedding.some((x, i) => x !== again[i])) throw new Error('Blob and ImageBitmap differ');
    const faces = await net.detect(image), same = await net.detect(canvas);
    if (JSON.stringify(faces) !== JSON.stringify(same)) throw new Error('<img> and canvas differ');
    out.pictures[name] = {embedding: [...embedding], faces};
  }
  net.dispose();
  return out;
};

const names = Object.keys(expected.pictures);
const builds = [['scalar', names.slice(0, 1)], ['simd', names], ['threads', names], ...['relaxed', 'relaxed-threads'].filter(built).map((name) => [name, names])];
for (const [build, which] of builds)
  test(`${build}: embeddings and faces are the native command's`, async () => {
    const {context, run} = await blankPage(isolated);
    const got = await run(whole, {weights: '/weights/facenet_i8.safetensors', names: which, options: {build, threads: build.endsWith('threads') ? 2 : 1}});
    assert.equal(got.isolated, true);
    assert.equal(got.info.build, build);
    for (const name of which) {
      const off = maxDifference(got.pictures[name].embedding, expected.pictures[name].crop);
      assert.ok(off <= TOLERANCE, `${name}: ${off}`);
      sameFaces(got.pictures[name].faces, expected.pictures[name].faces);
    }
    await context.close();
  });

test('integers have the native command\'s bits', async () => {
  const {context, run} = await blankPage(isolated);
  for (const build of ['simd', 'threads', 'relaxed', 'relaxed-threads'].filter((name) => built(`int8-${name}`))) {
    const got = await run(async (build) => {
      const {FaceNet} = await import('/facenet/index.js');
      const net = await FaceNet.load({weights: '/weights/integers.safetensors', build, arithmetic: 'int8', threads: build.endsWith('threads') ? 2 : 1});
      const crops = new Uint8Array(await (await fetch('/fixtures/integers.rgb')).arrayBuffer()), all = [];
      for (let at = 0; at < crops.length; at += 3 * 160 * 160) {
        const e = await net.embed({data: crops.subarray(at, at + 3 * 160 * 160), width: 160, height: 160}, {aligned: true});
        all.push([...new Uint8Array(e.buffer)].map((x) => x.toString(16).padStart(2, '0')).join(''));
      }
      net.dispose();
      return all;
    }, build);
    assert.deepEqual(got, expected.integers, build);
  }
  await context.close();
});

test('the best build is chosen, with and without isolation, and in a module worker', async () => {
  for (const [server, wanted] of [[isolated, built('relaxed-threads') ? 'relaxed-threads' : 'threads'], [open, built('relaxed') ? 'relaxed' : 'simd']]) {
    const {context, run} = await blankPage(server);
    const got = await run(async () => {
      const {FaceNet, features} = await import('/facenet/index.js');
      const net = await FaceNet.load({weights: '/weights/small.safetensors', threads: 2});
      const {info} = net;
      net.dispose();
      return {info, features: features()};
    });
    assert.equal(got.info.build, wanted);
    assert.equal(got.features.threads, server === isolated);
    await context.close();
  }
});

test('progress, cache by digest with the network off, clearCache, wrong digest', async () => {
  const {context, page, run} = await blankPage(isolated);
  const sha256 = expected.sha256['small.safetensors'];
  const load = (options) => run(async (o) => {
    const {FaceNet} = await import('/facenet/index.js');
    const events = [];
    try {
      const net = await FaceNet.load({weights: '/weights/small.safetensors', build: 'simd', onProgress: (p) => events.push(p), ...o});
      const {info} = net;
      net.dispose();
      return {info, events};
    } catch (e) {
      return {code: e.code, name: e.name, message: e.message};
    }
  }, options);
  assert.equal((await load({sha256: 'f'.repeat(64)})).code, 'digest');
  const first = await load({sha256});
  assert.equal(first.info.cached, false);
  assert.equal(first.info.kept, true);
  assert.ok(first.events.length > 3);
  assert.deepEqual(first.events.at(-1), {loaded: first.events.at(-1).total, total: first.events.at(-1).total});
  // The module stays in the HTTP cache or not; the weights must come from the Cache API, whatever the network does.
  await page.route('**/weights/**', (route) => route.abort());
  const second = await load({sha256});
  assert.equal(second.info?.cached, true, JSON.stringify(second));
  await run(async () => (await import('/facenet/index.js')).FaceNet.clearCache());
  assert.equal((await load({sha256})).code, 'network');
  await context.close();
});

test('errors say what is wrong', async () => {
  const {context, run, page} = await blankPage(isolated);
  await page.route('**/cut.safetensors', (route) => {
    const bytes = fs.readFileSync(path.join(FIXTURES, 'weights/small.safetensors'));
    return route.fulfill({status: 200, body: bytes.subarray(0, 5e6), contentType: 'application/octet-stream'});
  });
  const cases = [
    [{weights: '/weights/none.safetensors'}, 'not_found', /404/],
    [{weights: '/weights/cut.safetensors'}, 'truncated', /ends/],
    [{weights: '/blank.html'}, 'html', /web page/],
    [{weights: '/weights/small.safetensors', wasm: '/html/'}, 'html', /WebAssembly module .* is a web page/],
    [{weights: '/weights/small.safetensors', wasm: '/none/'}, 'not_found', /404/],
    [{weights: '/weights/facenet_i8.safetensors', memoryLimit: 64e6}, 'out_of_memory', /not enough memory/],
  ];
  for (const [options, code, pattern] of cases) {
    const got = await run(async (o) => {
      const {FaceNet} = await import('/facenet/index.js');
      return FaceNet.load({build: 'simd', ...o}).then(() => ({}), (e) => ({code: e.code, message: e.message}));
    }, options);
    assert.equal(got.code, code, JSON.stringify([options, got]));
    assert.match(got.message, pattern);
  }
  const aborted = await run(async () => {
    const {FaceNet} = await import('/facenet/index.js');
    const abort = new AbortController();
    const onProgress = ({loaded}) => loaded && abort.abort();
    return FaceNet.load({weights: '/weights/slow.safetensors', build: 'simd', signal: abort.signal, onProgress}).catch((e) => e.name);
  });
  assert.equal(aborted, 'AbortError');
  const noText = await run(async () => {
    const {FaceNet} = await import('/facenet/index.js');
    const net = await FaceNet.load({weights: '/weights/small.safetensors', build: 'simd'});
    return net.detect(new Blob(['no picture'])).catch((e) => e.code);
  });
  assert.equal(noText, 'corrupt');
  const noThreads = await blankPage(open);
  const code = await noThreads.run(async () => (await import('/facenet/index.js')).FaceNet.load({weights: '/x', build: 'threads'}).catch((e) => e.code));
  assert.equal(code, 'unsupported');
  await noThreads.context.close();
  // No Worker at all, and one that never loads: one thread.
  for (const how of ['none', 'refused']) {
    const single = await run(async (how) => {
      const {FaceNet} = await import('/facenet/index.js');
      const Kind = globalThis.Worker;
      if (how === 'none') delete globalThis.Worker;
      else globalThis.Worker = function() { throw new DOMException('refused', 'SecurityError'); };
      try {
        const net = await FaceNet.load({weights: '/weights/small.safetensors', threads: 2});
        const {info} = net;
        net.dispose();
        return info;
      } finally {
        globalThis.Worker = Kind;
      }
    }, how);
    assert.equal(single.threads, 1, how);
    assert.match(single.fallbacks.join(' '), /thread could not be started/);
  }
  await context.close();
});

test('a damaged copy is fetched anew, and the copy of an older file leaves the cache', async () => {
  const {context, run} = await blankPage(isolated);
  const sha256 = expected.sha256['small.safetensors'];
  const got = await run(async (sha256) => {
    const {FaceNet} = await import('/facenet/index.js');
    const cache = await caches.open('facenet-weights'), weights = '/weights/small.safetensors';
    const from = new URL(weights, location.href).href, old = `https://facenet.invalid/${'1'.repeat(64)}`, other = `https://facenet.invalid/${'2'.repeat(64)}`;
    const bytes = new Uint8Array(await (await fetch(weights)).arrayBuffer());
    bytes[bytes.length - 9] ^= 1;
    await cache.put(`https://facenet.invalid/${sha256}`, new Response(bytes));
    await cache.put(old, new Response('old', {headers: {'x-facenet-from': from}}));
    await cache.put(other, new Response('other', {headers: {'x-facenet-from': `${from}.other`}}));
    const net = await FaceNet.load({weights, build: 'simd', sha256});
    const {info} = net;
    net.dispose();
    return {info, left: (await cache.keys()).map(({url}) => url.slice(-64)).sort()};
  }, sha256);
  assert.equal(got.info.cached, false);
  assert.equal(got.info.kept, true);
  assert.deepEqual(got.left, ['2'.repeat(64), sha256].sort());
  await context.close();
});

test('large photographs by resize, and a video by track()', async () => {
  const {context, run} = await blankPage(isolated);
  const got = await run(async () => {
    const {FaceNet, drawFaces} = await import('/facenet/index.js');
    const net = await FaceNet.load({weights: '/weights/small.safetensors', build: 'simd'});
    const bitmap = await createImageBitmap(await (await fetch('/fixtures/astronaut.png')).blob());
    const usual = await net.detect(bitmap);
    // Sixteen times the pixels, as JPEG: 2048 wide is four times smaller.
    const by = 8192 / bitmap.width, large = new OffscreenCanvas(8192, Math.round(bitmap.height * by));
    large.getContext('2d').drawImage(bitmap, 0, 0, large.width, large.height);
    const file = await large.convertToBlob({type: 'image/jpeg', quality: 0.9});
    const refused = await net.detect(file).then(() => 'taken', (e) => e.code);
    const found = await net.detect(file, {resize: bitmap.width, minFace: Math.round(20 * by)});
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    drawFaces(canvas, usual, {labels: ['Ada'], landmarks: true});
    const [left, top] = usual[0].box.map(Math.round);
    const drawn = canvas.getContext('2d').getImageData(left, top + 20, 1, 1).data[3];

    const shown = document.createElement('canvas');
    shown.width = bitmap.width;
    shown.height = bitmap.height;
    shown.getContext('2d').drawImage(bitmap, 0, 0);
    const video = document.createElement('video');
    video.srcObject = shown.captureStream(10);
    video.muted = true;
    const paint = setInterval(() => shown.getContext('2d').drawImage(bitmap, 0, 0), 50);
    await video.play();
    const frames = [];
    const tracking = net.track(video, {fps: 20, onFaces: (faces) => frames.push(faces.length) >= 3 && tracking.stop()});
    await tracking.finished;
    clearInterval(paint);
    net.dispose();
    return {pixels: large.width * large.height, refused, by, usual, found, drawn, frames};
  });
  assert.ok(got.pixels > 33_554_432);
  assert.equal(got.refused, 'limit_exceeded');
  assert.equal(got.found.length, got.usual.length);
  // Enlarged, JPEG and made smaller again: within two of the small picture's pixels.
  assert.ok(maxDifference(got.found[0].box, got.usual[0].box.map((x) => x * got.by)) <= 2 * got.by, JSON.stringify(got));
  assert.ok(got.drawn > 0);
  assert.equal(got.frames.length, 3);
  await context.close();
});

test('threads: the same bits on one, two and three, in the page and in a worker, and dispose ends them', async () => {
  const {context, page, run} = await blankPage(isolated);
  for (const build of ['threads', 'relaxed-threads'].filter(built)) {
    const inPage = await run(async (build) => {
      const {FaceNet} = await import('/facenet/index.js');
      const data = Uint8Array.from({length: 160 * 160 * 3}, (_, i) => 128 + 100 * Math.sin(i / 97));
      const out = [];
      for (const threads of [1, 2, 3]) {
        const net = await FaceNet.load({weights: '/weights/facenet_i8.safetensors', build, threads});
        out.push([...await net.embed({data, width: 160, height: 160}, {aligned: true})]);
        net.dispose();
      }
      return out;
    }, build);
    assert.deepEqual(inPage[1], inPage[0]);
    assert.deepEqual(inPage[2], inPage[0]);
    // A module worker may wait, where the page's main thread must spin.
    const inWorker = await run((build) => new Promise((resolve, reject) => {
      const worker = new Worker('/worker.test.js', {type: 'module'});
      worker.onmessage = ({data}) => resolve(data);
      worker.onerror = (e) => reject(new Error(e.message));
      worker.postMessage(build);
    }), build);
    assert.deepEqual(inWorker, inPage[0]);
  }
  // The page's own threads are made of a blob, without an address.
  const threads = () => page.workers().filter((w) => !w.url().endsWith('/worker.test.js')).length;
  const running = await run(async () => {
    const {FaceNet} = await import('/facenet/index.js');
    globalThis.net = await FaceNet.load({weights: '/weights/small.safetensors', build: 'threads', threads: 3});
    return globalThis.net.info.threads;
  });
  assert.equal(running, 3);
  assert.ok(threads() >= 2, 'the threads are among the workers that are counted');
  await run(() => globalThis.net.dispose());
  for (let i = 0; i < 50 && threads() > 0; i++) await new Promise((done) => setTimeout(done, 100));
  assert.equal(threads(), 0);
  await context.close();
});

test('100 embeddings without growth, dispose, and load again', async () => {
  const {context, run} = await blankPage(isolated);
  const got = await run(async () => {
    const {FaceNet} = await import('/facenet/index.js');
    const memory = [];
    for (let round = 0; round < 3; round++) {
      const net = await FaceNet.load({weights: '/weights/small.safetensors', threads: 2});
      const crop = {data: new Uint8Array(150 * 150 * 4).fill(99), width: 150, height: 150};
      await net.embed(crop, {aligned: true});
      memory.push(net.memory);
      for (let i = 0; i < (round ? 1 : 100); i++) await net.embed(crop, {aligned: true});
      memory.push(net.memory);
      net.dispose();
    }
    return memory;
  });
  assert.equal(new Set(got).size, 1, String(got));
  await context.close();
});

// ---- the page -------------------------------------------------------------------------------------------------------------

/** The page loaded and ready; anything on its console that is an error, a CSP violation included, is kept. */
async function openPage(options = {}, server = isolated, ready = true) {
  const context = await browser.newContext({permissions: ['camera'], ...options});
  const page = await context.newPage();
  const faults = [];
  page.on('console', (m) => m.type() === 'error' && faults.push(m.text()));
  page.on('pageerror', (e) => faults.push(String(e)));
  await page.goto(url(server));
  if (ready) await page.waitForSelector('body[data-ready=true]', {timeout: 60_000});
  return {context, page, faults};
}
const file = (name) => path.join(FIXTURES, `${name}.png`);
const small = (handle) => async () => {
  // The trained network, so that verdicts mean something; facenet_i8 comes first in weights.json.
  const weights = path.join(FIXTURES, 'small-only');
  fs.mkdirSync(weights, {recursive: true});
  fs.copyFileSync(path.join(FIXTURES, 'weights/small.safetensors'), path.join(weights, 'small.safetensors'));
  const server = await serve({port: 0, weights, handle: blank});
  try {
    await handle(server);
  } finally {
    server.closeAllConnections();
    server.close();
  }
};

test('page: two photographs, verdict, choice of a face', small(async (server) => {
  const {context, page, faults} = await openPage({}, server);
  assert.match(await page.textContent('#status'), /dlib_resnet, (relaxed-)?threads build/);
  assert.match(await page.textContent('#untrained'), /No FaceNet weights are served here/);
  const inputs = page.locator('#compare input[type=file]');
  await inputs.nth(0).setInputFiles(file('astronaut'));
  await inputs.nth(1).setInputFiles(file('astronaut'));
  await page.waitForSelector('#verdict:not([hidden])');
  assert.equal(await page.textContent('.answer'), 'The same person');
  await inputs.nth(1).setInputFiles(file('group'));
  await page.waitForFunction(() => document.querySelector('.answer').textContent === 'Different people');
  const before = await page.textContent('.why');
  const faces = page.locator('[data-slot="1"] [role=radio]');
  assert.equal(await faces.count(), expected.pictures.group.faces.length);
  await faces.nth(0).focus();
  await page.keyboard.press('ArrowRight');
  await page.waitForFunction((text) => document.querySelector('.why').textContent !== text, before);
  assert.equal(await faces.nth(1).getAttribute('aria-checked'), 'true');
  assert.match(await page.textContent('#times'), /decoding .* detecting .* embedding/);
  await page.screenshot({path: path.join(SHOTS, 'verdict.png'), fullPage: true});
  await inputs.nth(0).setInputFiles({name: 'notes.png', mimeType: 'image/png', buffer: Buffer.from('text')});
  await page.waitForFunction(() => /no picture that this browser can read/.test(document.querySelector('[data-slot="0"] .note').textContent));
  // A drop of two files fills both places.
  const data = await page.evaluateHandle(async () => {
    const transfer = new DataTransfer();
    for (const name of ['astronaut', 'other'])
      transfer.items.add(new File([await (await fetch(`/fixtures/${name}.png`)).blob()], `${name}.png`, {type: 'image/png'}));
    return transfer;
  });
  await page.dispatchEvent('#compare [data-slot="0"]', 'drop', {dataTransfer: data});
  await page.waitForFunction(() => document.querySelectorAll('#compare [role=radio]').length === 2);
  assert.deepEqual(faults, []);
  await context.close();
}));

test('page: gallery, search, delete everything', small(async (server) => {
  const {context, page, faults} = await openPage({}, server);
  await page.focus('#tab-compare');
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.getAttribute('#tab-gallery', 'aria-selected'), 'true');
  await page.locator('#enroll input').setInputFiles([file('astronaut'), file('other')]);
  await page.waitForFunction(() => document.querySelectorAll('#people li').length === 2, null, {timeout: 30_000});
  await page.locator('#people input').nth(0).fill('Eileen');
  await page.locator('#people input').nth(1).fill('Somebody');
  await page.keyboard.press('Tab');
  await page.locator('#search input').setInputFiles(file('astronaut'));
  await page.waitForFunction(() => /^Eileen \(distance 0\.000\)/.test(document.querySelector('#found li span')?.textContent));
  await page.screenshot({path: path.join(SHOTS, 'gallery.png'), fullPage: true});
  await page.reload();
  await page.waitForSelector('body[data-ready=true]');
  assert.match(await page.textContent('#status'), /from this device/);
  await page.click('#tab-gallery');
  await page.waitForFunction(() => document.querySelectorAll('#people li').length === 2);
  assert.equal(await page.locator('#people input').nth(0).inputValue(), 'Eileen');
  page.on('dialog', (dialog) => dialog.accept());
  await page.click('#forget');
  await page.waitForFunction(() => /deleted/.test(document.querySelector('#forgotten').textContent));
  assert.deepEqual(await page.evaluate(async () => [await caches.keys(), (await indexedDB.databases()).map((d) => d.name)]), [[], []]);
  assert.deepEqual(faults, []);
  await context.close();
}));

test('page: what one tab adds the other shows, and deleting in one empties both', small(async (server) => {
  const {context, page, faults} = await openPage({}, server);
  const other = await context.newPage();
  other.on('pageerror', (e) => faults.push(String(e)));
  await other.goto(url(server));
  await other.waitForSelector('body[data-ready=true]', {timeout: 60_000});
  for (const tab of [page, other]) await tab.click('#tab-gallery');
  await page.locator('#enroll input').setInputFiles(file('astronaut'));
  await other.waitForSelector('#people li');
  await page.locator('#people input').fill('Eileen');
  await page.keyboard.press('Tab');
  await other.waitForFunction(() => document.querySelector('#people input')?.value === 'Eileen');
  page.on('dialog', (dialog) => dialog.accept());
  await page.click('#forget');
  await page.waitForFunction(() => /are deleted/.test(document.querySelector('#forgotten').textContent));
  await other.waitForFunction(() => /deleted in another tab/.test(document.querySelector('#forgotten').textContent));
  assert.equal(await other.locator('#people li').count(), 0);
  assert.deepEqual(await other.evaluate(async () => [await caches.keys(), (await indexedDB.databases()).map((d) => d.name)]), [[], []]);
  await other.click('#again');
  await other.waitForSelector('body[data-ready=true]', {timeout: 60_000});
  assert.deepEqual(faults, []);
  await context.close();
}));

// What a browser may lack, before any script of the page runs.
const LACKS = {
  'IndexedDB': () => { delete globalThis.indexedDB; Object.defineProperty(globalThis, 'indexedDB', {value: undefined}); },
  'a store that opens': () => { IDBFactory.prototype.open = () => { throw new DOMException('refused', 'SecurityError'); }; },
  'room': () => { IDBObjectStore.prototype.add = IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; },
  'the Cache API': () => { delete globalThis.caches; Object.defineProperty(globalThis, 'caches', {value: undefined}); },
  'service workers and BroadcastChannel': () => { delete Navigator.prototype.serviceWorker; delete globalThis.BroadcastChannel; },
};
for (const [what, take] of Object.entries(LACKS))
  test(`page: without ${what} the rest works, and it is said`, small(async (server) => {
    const {context, page, faults} = await openPage({}, server, false);
    await page.addInitScript(take);
    await page.reload();
    await page.waitForSelector('body[data-ready=true]', {timeout: 60_000});
    await page.click('#tab-gallery');
    await page.locator('#enroll input').setInputFiles(file('astronaut'));
    await page.waitForSelector('#people li', {timeout: 30_000});
    await page.locator('#people input').fill('Eileen');
    await page.keyboard.press('Tab');
    await page.locator('#search input').setInputFiles(file('astronaut'));
    await page.waitForFunction(() => /^Eileen \(distance 0\.000\)/.test(document.querySelector('#found li span')?.textContent));
    const said = await page.locator('#storage').isVisible() ? await page.textContent('#storage') : '';
    if (/IndexedDB|store/.test(what)) assert.match(said, /names last until the page is closed/);
    if (what === 'room') assert.match(said, /full/);
    page.on('dialog', (dialog) => dialog.accept());
    await page.click('#forget');
    await page.waitForFunction(() => /deleted/i.test(document.querySelector('#forgotten').textContent), null, {timeout: 20_000});
    assert.equal(await page.locator('#people li').count(), 0);
    assert.deepEqual(faults, []);
    await context.close();
  }));

test('page: the camera stops when it is no longer wanted, whenever its permission comes', small(async (server) => {
  const {context, page, faults} = await openPage({}, server);
  await page.evaluate(() => {
    globalThis.given = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      await new Promise((resolve) => { globalThis.allow = resolve; });
      const stream = await ask(wanted);
      globalThis.given.push(...stream.getTracks());
      return stream;
    };
  });
  const live = () => page.evaluate(() => globalThis.given.map((track) => track.readyState));
  const granted = async (count) => {
    await page.evaluate(() => globalThis.allow());
    await page.waitForFunction((n) => globalThis.given.length === n, count);
    await page.waitForTimeout(200);
  };
  await page.click('#tab-camera');
  await page.click('#camera-toggle');
  await page.click('#tab-compare');  // while the question is open
  await granted(1);
  assert.deepEqual(await live(), ['ended']);
  await page.click('#tab-camera');
  await page.dblclick('#camera-toggle');  // on and off at once
  await granted(2);
  assert.deepEqual(await live(), ['ended', 'ended']);
  await page.click('#camera-toggle');
  await granted(3);
  await page.waitForFunction(() => /pictures a second/.test(document.querySelector('#camera-text').textContent), null, {timeout: 30_000});
  assert.equal((await live())[2], 'live');
  page.on('dialog', (dialog) => dialog.accept());
  await page.click('#forget');
  await page.waitForFunction(() => globalThis.given[2].readyState === 'ended');
  assert.deepEqual(faults, []);
  await context.close();
}));

test('page: a deletion that is not confirmed deletes nothing, and a photograph chosen early waits', small(async (server) => {
  const {context, page} = await openPage({}, server, false);
  await page.locator('#compare input[type=file]').nth(0).setInputFiles(file('astronaut'));
  await page.waitForSelector('[data-slot="0"] [role=radio]', {timeout: 60_000});
  page.on('dialog', (dialog) => dialog.dismiss());
  await page.click('#forget');
  assert.equal(await page.locator('[data-slot="0"] [role=radio]').count(), 1);
  assert.equal(await page.getAttribute('body', 'data-ready'), 'true');
  await context.close();
}));

const AXE = path.join(ROOT, 'build/web/node_modules/axe-core/axe.min.js');
test('page: axe finds nothing to say, in each tab, light and dark', {skip: !fs.existsSync(AXE) && 'axe-core is not installed (tools/bootstrap.sh --all)'}, small(async (server) => {
  for (const colorScheme of ['light', 'dark']) {
    const {context, page} = await openPage({colorScheme, bypassCSP: true}, server);
    await page.addScriptTag({path: AXE});
    const check = async (where) => {
      const {violations, passes} = await page.evaluate(() => globalThis.axe.run());
      assert.deepEqual(violations.map(({id, nodes}) => [id, nodes.map(({target}) => target.join(' '))]), [], `${where}, ${colorScheme}`);
      assert.ok(passes.length > 15);
    };
    await page.locator('#compare input[type=file]').nth(0).setInputFiles(file('astronaut'));
    await page.locator('#compare input[type=file]').nth(1).setInputFiles(file('group'));
    await page.waitForSelector('#verdict:not([hidden])', {timeout: 60_000});
    await check('two photographs');
    await page.click('#tab-gallery');
    await page.locator('#enroll input').setInputFiles(file('other'));
    await page.waitForSelector('#people li', {timeout: 30_000});
    await page.locator('#search input').setInputFiles(file('other'));
    await page.waitForSelector('#found li', {timeout: 30_000});
    await check('gallery');
    await page.screenshot({path: path.join(SHOTS, `gallery-${colorScheme}.png`), fullPage: true});
    await page.click('#tab-camera');
    await check('camera');
    await context.close();
  }
}));

test('page: offline after the first load', small(async (server) => {
  const {context, page} = await openPage({}, server);
  await page.waitForSelector('body[data-offline=true]', {timeout: 20_000});
  await page.reload();
  await page.waitForSelector('body[data-ready=true]');
  await context.setOffline(true);
  await page.reload();
  await page.waitForSelector('body[data-ready=true]', {timeout: 30_000});
  await page.locator('#compare input[type=file]').nth(0).setInputFiles(file('astronaut'));
  await page.waitForSelector('[data-slot="0"] [role=radio]');
  await context.close();
}));

test('page: camera, phone width, untrained weights, no isolation', async () => {
  const {context, page, faults} = await openPage({viewport: {width: 390, height: 844}, deviceScaleFactor: 2}, open);
  assert.match(await page.textContent('#untrained'), /random numbers/);
  assert.match(await page.textContent('#status'), /1 thread/);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.equal(wide, false, 'the page is wider than the phone');
  await page.locator('#compare input[type=file]').nth(0).setInputFiles(file('astronaut'));
  await page.locator('#compare input[type=file]').nth(1).setInputFiles(file('group'));
  await page.waitForSelector('#verdict:not([hidden])', {timeout: 60_000});
  assert.match(await page.textContent('.answer'), /untrained/);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
  await page.screenshot({path: path.join(SHOTS, 'phone.png'), fullPage: true});
  await page.click('#tab-camera');
  await page.click('#camera-toggle');
  await page.waitForFunction(() => /pictures a second/.test(document.querySelector('#camera-text').textContent), null, {timeout: 30_000});
  await page.click('#camera-toggle');
  assert.equal(await page.textContent('#camera-toggle'), 'Start the camera');
  assert.deepEqual(faults, []);
  await context.close();
});

test('page: nothing goes elsewhere', async () => {
  const {context, page} = await openPage();
  const sent = await page.evaluate(() => fetch('https://example.org/').then(() => 'sent', () => 'refused'));
  assert.equal(sent, 'refused');
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, [role=tab], [role=radio]')]
    .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length);
  assert.equal(nameless, 0, 'a control has no name for a screen reader');
  await context.close();
});
