#!/usr/bin/env node
// Our package beside onnxruntime-web (the same network) and @vladmandic/face-api (a whole picture), in Chromium and in Node:
//   node bench/web/compare.mjs [--rounds N] [--out FOLDER]
// Needs the package's builds (examples/web/facenet/README.md); installs the others and makes weights. Writes
// web.md and web.svg. Run it with nothing else on the machine; threads that wait for each other make `chrt -f` no help.
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import os from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

import {HERE as PACKAGE, serve} from '../../examples/web/serve.mjs';

const BENCH = path.dirname(fileURLToPath(import.meta.url)), ROOT = path.resolve(BENCH, '../..');
const MODULES = path.join(ROOT, 'build/web/node_modules'), WORK = path.join(ROOT, 'build/web/bench');
const option = (name, otherwise) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : otherwise);
const ROUNDS = Number(option('--rounds', '15')), OUT = path.resolve(option('--out', WORK));
const DIST = path.join(PACKAGE, 'facenet/dist');
const built = (name) => fs.existsSync(path.join(DIST, `facenet-${name}.wasm`));
const bytes = (...files) => files.reduce((sum, f) => sum + fs.statSync(f).size, 0);
const version = (name) => JSON.parse(fs.readFileSync(path.join(MODULES, name, 'package.json'))).version;
const say = (text) => console.error(`bench/web: ${text}`);

function make(file, ...how) {
  const target = path.join(WORK, file);
  if (!fs.existsSync(target)) {
    say(`make ${file}`);
    const [tool, ...rest] = how;
    execFileSync(path.join(ROOT, '.venv/bin/python'), [path.join(ROOT, 'tools', tool), ...rest, '-o', target], {stdio: ['ignore', 'ignore', 'inherit']});
  }
  return target;
}

fs.mkdirSync(WORK, {recursive: true});
const peers = ['playwright-core@1.65.1', 'onnxruntime-web@1.30.0', '@vladmandic/face-api@1.7.15', '@tensorflow/tfjs-backend-wasm@4.22.0'];
if (!peers.every((p) => fs.existsSync(path.join(MODULES, p.replace(/(.)@.*/, '$1'))))) {
  say('install the others');
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', '--no-save', '--prefix', path.join(ROOT, 'build/web'), ...peers], {stdio: 'inherit'});
}
fs.mkdirSync(OUT, {recursive: true});
const checkpoint = make('checkpoint.pt', 'make_checkpoint.py', '--dim', '512');
const i8 = make('facenet_i8.safetensors', 'convert_weights.py', checkpoint, '--dtype', 'i8', '--with-mtcnn');
const f32 = make('facenet_f32.safetensors', 'convert_weights.py', checkpoint);
const onnx = make('facenet.onnx', 'convert_weights.py', checkpoint, '--to', 'onnx');
const small = make('small.safetensors', 'convert_weights.py', '--face-api', path.join(ROOT, '.deps/face-api'), '--dtype', 'f16', '--with-mtcnn');

const types = {'.mjs': 'text/javascript', '.js': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json', '.html': 'text/html', '.jpg': 'image/jpeg'};
const roots = {'/modules/': MODULES, '/bench/': BENCH, '/samples/': path.join(ROOT, '.deps/samples')};
const server = await serve({port: 0, weights: WORK, handle: (request, response, name) => {
  const root = Object.keys(roots).find((r) => name.startsWith(r));
  if (!root) return false;
  const file = path.join(roots[root], name.slice(root.length));
  if (!fs.existsSync(file)) return false;
  response.setHeader('Content-Type', types[path.extname(file)] ?? 'application/octet-stream');
  // Emscripten's code in face-api's bundle uses eval; what is measured is not what is allowed.
  response.removeHeader('Content-Security-Policy');
  fs.createReadStream(file).pipe(response);
  return true;
}});
const {chromium} = createRequire(path.join(MODULES, 'package.json'))('playwright-core');
const browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']});
const inPage = async (f, argument, profile) => {
  const context = profile ?? await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://localhost:${server.address().port}/bench/page.html`);
  try {
    return await page.evaluate(f, argument);
  } finally {
    await page.close();
    if (!profile) await context.close();
  }
};

// ---- one embedding ------------------------------------------------------------------------------------------------------

const rows = [];
for (const threads of [1, 2]) {
  const single = threads === 1 ? ['simd'] : ['threads'], relaxed = threads === 1 ? 'relaxed' : 'relaxed-threads';
  const inChromium = [...[relaxed].filter(built), ...single];
  say(`Chromium, ${threads} thread(s)`);
  const chromiumTimes = await inPage(async (o) => {
    const {FaceNet} = await import('/facenet/index.js');
    const ort = await import('/modules/onnxruntime-web/dist/ort.wasm.min.mjs');
    ort.env.wasm.wasmPaths = '/modules/onnxruntime-web/dist/';
    const {compareEmbedding} = await import('/bench/embed.mjs');
    return compareEmbedding({FaceNet, ort, ...o});
  }, {weights: '/weights/facenet_f32.safetensors', onnx: '/weights/facenet.onnx', threads, builds: inChromium, rounds: ROUNDS});
  rows.push({where: 'Chromium', threads, times: chromiumTimes});
  say(`Node, ${threads} thread(s)`);
  const line = execFileSync(process.execPath, [path.join(BENCH, 'node_embed.mjs'), String(threads), single.join(','), String(ROUNDS), MODULES, f32, onnx],
    {encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 24});
  rows.push({where: 'Node', threads, times: JSON.parse(line.trim().split('\n').at(-1))});
}

// ---- load to the first embedding, memory over 1000 calls --------------------------------------------------------------------

say('load, and 1000 calls');
const profile = await browser.newContext();
const start = async (o) => {
  const {FaceNet} = await import('/facenet/index.js');
  const {pixels} = await import('/bench/embed.mjs');
  const began = performance.now();
  const net = await FaceNet.load(o);
  const loaded = performance.now() - began;
  await net.embed(pixels(160), {aligned: true});
  const first = performance.now() - began;
  const {memory, info} = net;
  net.dispose();
  return {loaded, first, memory, cached: info.cached, build: info.build};
};
const sha256 = (await import('node:crypto')).createHash('sha256').update(fs.readFileSync(i8)).digest('hex');
const starts = [];
for (const threads of [1, 2]) {
  const options = {weights: '/weights/facenet_i8.safetensors', sha256, threads};
  await inPage(start, options, profile);
  const again = [];
  for (let i = 0; i < 5; i++) again.push(await inPage(start, options, profile));
  again.sort((a, b) => a.first - b.first);
  starts.push({threads, ...again[2]});
}
await profile.close();
const curve = await inPage(async (weights) => {
  const {FaceNet} = await import('/facenet/index.js');
  const {pixels} = await import('/bench/embed.mjs');
  const net = await FaceNet.load({weights, threads: 1});
  const picture = {...pixels(480), width: 640, height: 360}, crop = pixels(160), points = [net.memory];
  for (let i = 1; i <= 1000; i++) {
    if (i % 20 === 0) await net.detect(picture, {minFace: 60});
    else await net.embed(crop, {aligned: true});
    if (i % 100 === 0 || i <= 20) points.push(net.memory);
  }
  net.dispose();
  return points;
}, '/weights/facenet_i8.safetensors');

// ---- a whole picture, beside face-api -----------------------------------------------------------------------------------------

say('a whole picture');
const whole = await inPage(async ({rounds}) => {
  const {interleave} = await import('/bench/embed.mjs');
  const {FaceNet} = await import('/facenet/index.js');
  const image = new Image();
  image.src = '/samples/sample1.jpg';
  await image.decode();
  const net = await FaceNet.load({weights: '/weights/small.safetensors', threads: 2});
  const faceapi = await import('/modules/@vladmandic/face-api/dist/face-api.esm.js');
  faceapi.tf.setWasmPaths('/modules/@tensorflow/tfjs-backend-wasm/dist/');
  await faceapi.tf.setBackend('wasm');
  await faceapi.tf.ready();
  const models = '/modules/@vladmandic/face-api/model';
  await faceapi.nets.ssdMobilenetv1.loadFromUri(models);
  await faceapi.nets.faceLandmark68Net.loadFromUri(models);
  await faceapi.nets.faceRecognitionNet.loadFromUri(models);
  const counts = {};
  const times = await interleave({
    facenet: async () => {
      const faces = await net.detect(image, {minFace: 40});
      for (const face of faces) await net.embed(image, {face});
      counts.facenet = faces.length;
    },
    'face-api': async () => {
      const faces = await faceapi.detectAllFaces(image, new faceapi.SsdMobilenetv1Options({minConfidence: 0.3})).withFaceLandmarks().withFaceDescriptors();
      counts.faceapi = faces.length;
    },
  }, rounds, 2);
  net.dispose();
  return {times, counts, backend: faceapi.tf.getBackend(), size: [image.naturalWidth, image.naturalHeight]};
}, {rounds: Math.max(5, ROUNDS >> 1)}).catch((e) => ({error: String(e).split('\n')[0]}));
const chromiumVersion = browser.version();
await browser.close();
server.closeAllConnections();
server.close();

let native = '';
try {
  const run = JSON.parse(execFileSync(path.join(ROOT, 'build/release/facenet'), ['bench', '--json', '--weights', f32, '--threads', '1', '--seconds', '2'], {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore']}));
  native = `The native command takes ${run.median_ms.toFixed(1)} ms here on one thread (${run.isa}).`;
} catch {
  say('build/release/facenet is not there: no comparison with native speed');
}

// ---- report -----------------------------------------------------------------------------------------------------------------

const kb = (n) => `${(n / 1000).toFixed(0)} KB`, mb = (n) => `${(n / 1e6).toFixed(1)} MB`;
const out = [];
out.push('# In the browser and in Node', '',
  `${os.cpus()[0].model}, ${os.cpus().length} CPUs; Chromium ${chromiumVersion}, Node ${process.versions.node}, onnxruntime-web ${version('onnxruntime-web')}, ` +
  `face-api ${version('@vladmandic/face-api')}; ${new Date().toISOString().slice(0, 10)}; ${ROUNDS} rounds A B B A. Written by bench/web/compare.mjs.`, '',
  '## One embedding (Inception-ResNet-v1, 160 x 160, batch 1, float)', '',
  'Milliseconds; ratio: the median of the paired ratios to onnxruntime-web.', '',
  '| | threads | engine | median | minimum | ratio |', '|---|---|---|---|---|---|');
for (const {where, threads, times} of rows)
  for (const [name, t] of Object.entries(times))
    out.push(`| ${where} | ${threads} | ${name} | ${t.median.toFixed(1)} | ${t.min.toFixed(1)} | ${t.ratio.toFixed(2)} |`);
out.push('', native, '', '## A whole picture: faces found and embedded', '');
if (whole.error) out.push(`face-api could not be run: ${whole.error}`);
else {
  out.push(`sample1.jpg, ${whole.size.join(' x ')}; the same 128-d network behind both; face-api on its ${whole.backend} backend (which detects with SSD MobileNet), ours on 2 threads.`, '',
    '| engine | median | minimum | ratio | faces |', '|---|---|---|---|---|');
  for (const [name, t] of Object.entries(whole.times))
    out.push(`| ${name} | ${t.median.toFixed(0)} | ${t.min.toFixed(0)} | ${t.ratio.toFixed(2)} | ${name === 'face-api' ? whole.counts.faceapi : whole.counts.facenet} |`);
}
const dist = (name) => path.join(DIST, name), js = path.join(PACKAGE, 'facenet/index.js');
const thread = path.join(PACKAGE, 'facenet/thread.js');
const ortDist = path.join(MODULES, 'onnxruntime-web/dist'), face = path.join(MODULES, '@vladmandic/face-api'), tfWasm = path.join(MODULES, '@tensorflow/tfjs-backend-wasm/dist');
const modelBytes = ['ssd_mobilenetv1_model', 'face_landmark_68_model', 'face_recognition_model'].map((m) => path.join(face, `model/${m}.bin`));
const sizes = [
  ...['simd', 'relaxed', 'threads', 'relaxed-threads'].filter(built).map((name) =>
    [`facenet, ${name}`, name.endsWith('threads') ? bytes(js, thread) : bytes(js), bytes(dist(`facenet-${name}.wasm`)), bytes(i8)]),
  ['facenet, small trained model', bytes(js), bytes(dist('facenet-simd.wasm')), bytes(small)],
  ['onnxruntime-web (embedding only)', bytes(path.join(ortDist, 'ort.wasm.min.mjs'), path.join(ortDist, 'ort-wasm-simd-threaded.mjs')), bytes(path.join(ortDist, 'ort-wasm-simd-threaded.wasm')), bytes(onnx)],
  ['face-api', bytes(path.join(face, 'dist/face-api.esm.js')), bytes(path.join(tfWasm, 'tfjs-backend-wasm-simd.wasm')), bytes(...modelBytes)],
];
out.push('', '## What is downloaded, before compression', '', '| | JavaScript | WebAssembly | weights |', '|---|---|---|---|');
for (const [name, a, b, c] of sizes) out.push(`| ${name} | ${kb(a)} | ${kb(b)} | ${mb(c)} |`);
out.push('', '## From load() to the first embedding, int8 weights and detector from the cache', '', '| build | threads | loaded | first embedding | memory |', '|---|---|---|---|---|');
for (const s of starts) out.push(`| ${s.build} | ${s.threads} | ${s.loaded.toFixed(0)} ms | ${s.first.toFixed(0)} ms | ${mb(s.memory)} |`);
out.push('', `Memory over 1000 calls, an embedding or every 20th time a 640 x 360 picture's faces: ${[...new Set(curve)].map(mb).join(', then ')}.`, '', '![times](web.svg)', '');
fs.writeFileSync(path.join(OUT, 'web.md'), out.join('\n'));

const bars = rows.flatMap(({where, threads, times}) => Object.entries(times).map(([name, t]) => ({label: `${where}, ${threads} thread${threads > 1 ? 's' : ''}: ${name}`, ...t, ours: name.startsWith('facenet')})));
const most = Math.max(...bars.map((b) => b.median)), scale = 320 / most;
const svg = bars.map((b, i) => `<text x="290" y="${i * 24 + 47}" text-anchor="end">${b.label}</text>` +
  `<rect x="298" y="${i * 24 + 33}" width="${(b.median * scale).toFixed(1)}" height="18" fill="${b.ours ? '#2457c5' : '#9aa3b2'}"/>` +
  `<text x="${(304 + b.median * scale).toFixed(1)}" y="${i * 24 + 47}">${b.median.toFixed(0)}</text>`).join('\n');
fs.writeFileSync(path.join(OUT, 'web.svg'), `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 ${bars.length * 24 + 50}" font-family="sans-serif" font-size="13" fill="#222"><rect width="100%" height="100%" fill="#fff"/>
<text x="12" y="20" font-weight="600">One embedding, milliseconds (median)</text>
${svg}
</svg>
`);
console.log(out.join('\n'));
say(`written: ${path.join(OUT, 'web.md')}, web.svg`);
