// The package as npm packs it, in other people's builds: each folder of projects/ is built as it stands, served isolated from
// other origins and not, and opened in Chromium. FACENET_PROJECTS: names, or "all"; the quick ones otherwise. What is not
// installed yet, npm installs into build/web/projects. The table at the end: project, isolated, build, threads, milliseconds.
import assert from 'node:assert/strict';
import {execFile, execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import {createRequire} from 'node:module';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {pathToFileURL} from 'node:url';

import {FIXTURES, ROOT, TOLERANCE, maxDifference} from './support.mjs';

const SOURCES = path.join(ROOT, 'tests/web/projects'), WORK = path.join(ROOT, 'build/web/projects');
const WEIGHTS = path.join(FIXTURES, 'weights/small.safetensors');
const QUICK = ['plain', 'esbuild', 'rollup', 'vite', 'node'];
const asked = process.env.FACENET_PROJECTS;
const wants = (name) => (asked === 'all' ? true : (asked?.split(/[ ,]+/) ?? QUICK).includes(name));
const {chromium} = createRequire(path.join(ROOT, 'build/web/package.json'))('playwright-core');
const TYPES = {'.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json'};
const rows = [];
let browser, expected;

// ---- what the runner needs --------------------------------------------------------------------------------------------

const run = (folder, command, ...args) => new Promise((resolve, reject) => {
  execFile(command, args, {cwd: folder, timeout: 900_000, maxBuffer: 1 << 26, env: {...process.env, CI: '1', NEXT_TELEMETRY_DISABLED: '1'}}, (error, out, err) =>
    error ? reject(new Error(`${command} ${args.join(' ')} in ${folder}: ${error.message}\n${out}\n${err}`)) : resolve(out));
});

/** The project's files, its packages, and the package under test as npm packs it. */
async function prepare(name) {
  const work = path.join(WORK, name), source = path.join(SOURCES, name);
  fs.mkdirSync(work, {recursive: true});
  const declared = path.join(source, 'package.json'), stamp = path.join(work, 'installed.json');
  const wanted = fs.existsSync(declared) ? fs.readFileSync(declared, 'utf8') : '';
  fs.cpSync(source, work, {recursive: true});
  for (const file of ['app.js', 'page.js']) fs.copyFileSync(path.join(SOURCES, file), path.join(work, file));
  if (wanted && (!fs.existsSync(stamp) || fs.readFileSync(stamp, 'utf8') !== wanted)) {
    await run(work, 'npm', 'install', '--no-audit', '--no-fund', '--no-save', '--loglevel=error');
    fs.writeFileSync(stamp, wanted);
  }
  const target = path.join(work, 'node_modules/facenet-web');
  fs.rmSync(target, {recursive: true, force: true});
  fs.mkdirSync(target, {recursive: true});
  // Declared, as npm would have: Deno asks for it.
  const about = wanted ? JSON.parse(wanted) : {private: true, type: 'module'};
  fs.writeFileSync(path.join(work, 'package.json'), JSON.stringify({...about, dependencies: {...about.dependencies, 'facenet-web': '0.1.0'}}));
  execFileSync('tar', ['-xzf', path.join(WORK, 'facenet-web-0.1.0.tgz'), '--strip-components=1', '-C', target]);
  return work;
}

/** Serves a folder, or what another server answers, with the weights beside. */
function serve(from, isolated) {
  const server = http.createServer((request, response) => {
    const headers = isolated ? {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'} : {};
    Object.assign(headers, {'Cross-Origin-Resource-Policy': 'cross-origin', 'Access-Control-Allow-Origin': '*'});
    const {pathname} = new URL(request.url, 'http://x');
    if (typeof from === 'number' && !pathname.startsWith('/weights/')) {
      const options = {port: from, path: request.url, method: request.method, headers: {...request.headers, host: `localhost:${from}`}};
      request.pipe(http.request(options, (answer) => {
        response.writeHead(answer.statusCode, {...answer.headers, ...headers});
        answer.pipe(response);
      }).on('error', () => response.writeHead(502).end()));
      return;
    }
    const file = pathname.startsWith('/weights/') ? WEIGHTS : path.join(from, pathname.endsWith('/') ? `${pathname}index.html` : pathname);
    if (!fs.existsSync(file) || !fs.statSync(file).isFile()) return void response.writeHead(404).end();
    response.writeHead(200, {...headers, 'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream', 'Content-Length': fs.statSync(file).size});
    fs.createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(0, () => resolve(server)));
}

async function open(url, name, isolated, threads) {
  const context = await browser.newContext(), page = await context.newPage(), faults = [];
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('response', (response) => response.status() >= 400 && faults.push(`${response.status()} ${response.url()}`));
  try {
    await page.goto(url);
    await page.waitForSelector('body[data-answer]', {timeout: 120_000, state: 'attached'}).catch((e) => {
      throw new Error(`${e.message}\n${faults.join('\n')}`);
    });
    const answer = JSON.parse(await page.getAttribute('body', 'data-answer'));
    check(name, answer, isolated, threads, faults);
  } finally {
    await context.close();
  }
}

function check(name, answer, isolated, threads, faults = []) {
  rows.push([name, isolated ? 'yes' : 'no', answer.info?.build, answer.info?.threads, answer.ms?.toFixed(0)]);
  assert.equal(answer.error, undefined, JSON.stringify([answer, faults]));
  assert.equal(answer.info.threads, threads, answer.info.fallbacks.join(' '));
  const off = maxDifference(answer.embedding, expected);
  assert.ok(off <= TOLERANCE, `${name}: ${off}`);
  assert.deepEqual(faults, []);
}

const pages = async (name, from) => {
  for (const isolated of [true, false]) {
    const server = await serve(from, isolated);
    try {
      await open(`http://localhost:${server.address().port}/`, name, isolated, isolated ? 2 : 1);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
};

/** A project's own server, by its command; `{port}` in it is replaced. */
async function withServer(folder, command, f) {
  const free = await serve(folder, false), {port} = free.address();
  await new Promise((resolve) => free.close(resolve));
  const child = spawn(command[0], command.slice(1).map((word) => word.replace('{port}', port)), {cwd: folder, stdio: 'pipe', detached: true,
    env: {...process.env, NEXT_TELEMETRY_DISABLED: '1'}});
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => { said += text; });
  try {
    for (let i = 0; ; i++) {
      if (await fetch(`http://localhost:${port}/`).then(() => true, () => false)) break;
      if (i > 240 || child.exitCode !== null) throw new Error(`${command.join(' ')} does not answer:\n${said}`);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    await f(port);
  } finally {
    process.kill(-child.pid, 'SIGTERM');
  }
}

before(async () => {
  fs.mkdirSync(WORK, {recursive: true});
  await run(path.join(ROOT, 'examples/web/facenet'), 'npm', 'pack', '--silent', '--pack-destination', WORK);
  const {answer} = await import(pathToFileURL(path.join(await prepare('node'), 'app.js')).href);
  expected = (await answer(WEIGHTS)).embedding;
  browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync']});
});
after(async () => {
  await browser?.close();
  console.log(['project | isolated | build | threads | ms', ...rows.map((row) => row.join(' | '))].join('\n'));
});
const project = (name, f) => test(name, {skip: wants(name) ? false : 'slow: FACENET_PROJECTS=all'}, f);

// ---- the projects -----------------------------------------------------------------------------------------------------

const BUNDLERS = {
  esbuild: [['node_modules/.bin/esbuild', 'page.js', '--bundle', '--outfile=app.bundle.js'], '.'],
  rollup: [['node_modules/.bin/rollup', 'page.js', '--format', 'es', '--dir', 'out', '--entryFileNames', 'app.bundle.js', '-p', 'node-resolve'], 'out'],
  vite: [['node_modules/.bin/vite', 'build', '--logLevel', 'warn'], 'dist'],
  webpack: [['node_modules/.bin/webpack', './page.js', '--mode', 'production', '--output-path', 'dist'], 'dist'],
  'webpack-5.94': [['node_modules/.bin/webpack', './page.js', '--mode', 'production', '--output-path', 'dist'], 'dist'],
  parcel: [['node_modules/.bin/parcel', 'build', '--no-cache', '--public-url', '/'], 'dist'],
  sveltekit: [['node_modules/.bin/vite', 'build', '--logLevel', 'warn'], 'build'],
};
for (const [name, [command, out]] of Object.entries(BUNDLERS))
  project(name, async () => {
    const work = await prepare(name);
    await run(work, ...command);
    const index = path.join(work, 'index.html');
    if (out !== '.' && !fs.existsSync(path.join(work, out, 'index.html'))) fs.copyFileSync(index, path.join(work, out, 'index.html'));
    await pages(name, path.join(work, out));
  });

project('esbuild', async () => {  // the newer way, with one file a build
  const work = await prepare('esbuild');
  await run(work, 'node_modules/.bin/esbuild', 'page.js', '--bundle', '--minify', '--format=esm', '--splitting', '--outdir=split', '--entry-names=app.bundle');
  fs.copyFileSync(path.join(work, 'index.html'), path.join(work, 'split/index.html'));
  await pages('esbuild, split', path.join(work, 'split'));
});
project('vite', async () => {
  const work = await prepare('vite');
  await withServer(work, ['node_modules/.bin/vite', '--port', '{port}', '--strictPort'], (port) => pages('vite, dev', port));
});
project('next', async () => {
  const work = await prepare('next');
  for (const [name, ...flags] of [['next, turbopack', '--turbopack'], ['next, webpack', '--webpack']]) {
    fs.rmSync(path.join(work, '.next'), {recursive: true, force: true});
    await run(work, 'node_modules/.bin/next', 'build', ...flags);
    await withServer(work, ['node_modules/.bin/next', 'start', '--port', '{port}'], (port) => pages(name, port));
  }
});

project('plain', async () => {
  const work = await prepare('plain');
  const importer = (specifier) => fs.readFileSync(path.join(SOURCES, 'app.js'), 'utf8').replace("'facenet-web'", `'${specifier}'`);
  const show = `.catch((e) => ({error: e.code + ': ' + e.message})).then((a) => { document.body.dataset.answer = JSON.stringify(a); });`;
  const other = await serve(work, true);
  const elsewhere = `http://127.0.0.1:${other.address().port}/node_modules/facenet-web`;
  const kinds = {
    page: [importer('/node_modules/facenet-web/index.js'), `import {answer} from './app.js'; answer('/weights/small.safetensors')${show}`],
    'page, one file': [importer('/node_modules/facenet-web/facenet.min.js'), `import {answer} from './app.js'; answer('/weights/small.safetensors')${show}`],
    'another origin': [importer(`${elsewhere}/index.js`), `import {answer} from './app.js'; answer('/weights/small.safetensors')${show}`],
    'module worker': [importer('/node_modules/facenet-web/index.js'), `
      const worker = new Worker('worker.js', {type: 'module'});
      new Promise((resolve) => { worker.onmessage = ({data}) => resolve(data); })${show}`,
    `import {answer} from './app.js'; answer('/weights/small.safetensors').catch((e) => ({error: e.message})).then(postMessage.bind(globalThis));`],
    'classic worker': [importer('/node_modules/facenet-web/index.js'), `
      const worker = new Worker('worker.js');
      new Promise((resolve) => { worker.onmessage = ({data}) => resolve(data); })${show}`,
    `import('./app.js').then(({answer}) => answer('/weights/small.safetensors')).catch((e) => ({error: e.message})).then((a) => postMessage(a));`],
    'service worker': [importer('/node_modules/facenet-web/index.js'), `
      const registration = await navigator.serviceWorker.register('worker.js', {type: 'module'});
      await navigator.serviceWorker.ready;
      new Promise((resolve) => { navigator.serviceWorker.onmessage = ({data}) => resolve(data); registration.active.postMessage(''); })${show}`,
    `import {answer} from './app.js';
     onmessage = (event) => event.waitUntil(answer('/weights/small.safetensors').catch((e) => ({error: e.message})).then((a) => event.source.postMessage(a)));`],
  };
  try {
    for (const [name, [app, main, worker = '']] of Object.entries(kinds)) {
      fs.writeFileSync(path.join(work, 'app.js'), app);
      fs.writeFileSync(path.join(work, 'main.js'), main);
      fs.writeFileSync(path.join(work, 'worker.js'), worker);
      for (const isolated of [true, false]) {
        const server = await serve(work, isolated);
        // A service worker can start no workers.
        const threads = isolated && name !== 'service worker' ? 2 : 1;
        await open(`http://localhost:${server.address().port}/`, `plain, ${name}`, isolated, threads).finally(() => {
          server.closeAllConnections();
          server.close();
        });
      }
    }
  } finally {
    other.closeAllConnections();
    other.close();
  }
});

project('node', async () => {
  const work = await prepare('node');
  check('node, import', JSON.parse(await run(work, 'node', 'esm.mjs', WEIGHTS)), true, 2);
  check('node, browser conditions', JSON.parse(await run(work, 'node', '--conditions=browser', 'esm.mjs', WEIGHTS)), true, 2);
  const required = JSON.parse(await run(work, 'node', 'require.cjs', WEIGHTS));
  check('node, require()', required, true, 2);
  assert.equal(required.refused, true);
});
project('deno', async () => {
  const work = await prepare('node'), deno = path.join(await prepare('runtimes'), 'node_modules/.bin/deno');
  check('deno', JSON.parse(await run(work, deno, 'run', '-A', 'esm.mjs', WEIGHTS)), true, 2);
});
project('bun', async () => {
  const work = await prepare('node'), bun = path.join(await prepare('runtimes'), 'node_modules/.bin/bun');
  check('bun', JSON.parse(await run(work, bun, 'esm.mjs', WEIGHTS)), true, 2);
});

project('firefox', async () => {
  const runtimes = await prepare('runtimes');
  const work = await prepare('vite');
  await run(work, ...BUNDLERS.vite[0]);
  const {default: puppeteer} = await import(createRequire(path.join(runtimes, 'x.js')).resolve('puppeteer-core'));
  const firefox = await puppeteer.launch({browser: 'firefox', executablePath: '/usr/bin/firefox-esr', headless: true});
  try {
    for (const isolated of [true, false]) {
      const server = await serve(path.join(work, 'dist'), isolated);
      const page = await firefox.newPage();
      await page.goto(`http://localhost:${server.address().port}/`);
      await page.waitForSelector('body[data-answer]', {timeout: 120_000});
      check('firefox', JSON.parse(await page.$eval('body', (body) => body.dataset.answer)), isolated, isolated ? 2 : 1);
      server.closeAllConnections();
      server.close();
    }
  } finally {
    await firefox.close();
  }
});

project('extension', async () => {
  const work = await prepare('extension');
  const app = fs.readFileSync(path.join(SOURCES, 'app.js'), 'utf8').replace("'facenet-web'", "'./node_modules/facenet-web/index.js'");
  fs.writeFileSync(path.join(work, 'app.js'), app);
  fs.mkdirSync(path.join(work, 'weights'), {recursive: true});
  fs.copyFileSync(WEIGHTS, path.join(work, 'weights/small.safetensors'));
  const profile = fs.mkdtempSync(path.join(WORK, 'profile-'));
  const context = await chromium.launchPersistentContext(profile, {executablePath: '/usr/bin/chromium', headless: false,
    args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', `--disable-extensions-except=${work}`, `--load-extension=${work}`]});
  try {
    const worker = context.serviceWorkers()[0] ?? await context.waitForEvent('serviceworker', {timeout: 30_000});
    const id = new URL(worker.url()).host;
    const page = await context.newPage();
    await page.goto(`chrome-extension://${id}/page.html`);
    await page.waitForSelector('body[data-answer]', {timeout: 60_000, state: 'attached'});
    check('extension, page', JSON.parse(await page.getAttribute('body', 'data-answer')), true, 2);
    check('extension, service worker', await page.evaluate(() => chrome.runtime.sendMessage('embed')), true, 1);
  } finally {
    await context.close();
    fs.rmSync(profile, {recursive: true, force: true});
  }
});

project('types', async () => {
  const work = await prepare('types');
  const libraries = {dom: ['--lib', 'es2022,dom', '--typeRoots', 'none'], webworker: ['--lib', 'es2022,webworker', '--typeRoots', 'none'], node: ['--lib', 'es2022', '--types', 'node']};
  for (const options of Object.values(libraries))
    await run(work, 'node_modules/.bin/tsc', '--strict', '--noEmit', '--skipLibCheck', 'false', '--target', 'es2022', '--module', 'nodenext', 'use.ts', 'use.cts', ...options);
  await run(work, 'node_modules/.bin/publint', '--strict', '--pack', 'false', 'node_modules/facenet-web');
  await run(work, 'node_modules/.bin/attw', path.join(WORK, 'facenet-web-0.1.0.tgz'), '--profile', 'node16', '--exclude-entrypoints', 'dist/*');
});
