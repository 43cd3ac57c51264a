#!/usr/bin/env node
// Our package beside onnxruntime-web (the same network, in floats and in int8) and @vladmandic/face-api (a whole picture), in
// Chromium and in Node:
//   node bench/web/compare.mjs [--rounds N] [--out FOLDER] [--only embedding,load,picture] [--no-vnni]
// --no-vnni: Chromium as on a CPU without AVX-VNNI. Node has relaxed SIMD from 22 on; 20 gets its flag.
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
// A folder of its own: npm would remove there what tools/bootstrap.sh installed elsewhere.
const WORK = path.join(ROOT, 'build/web/bench'), MODULES = path.join(WORK, 'node_modules');
const option = (name, otherwise) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : otherwise);
const ROUNDS = Number(option('--rounds', '15')), OUT = path.resolve(option('--out', WORK));
const PARTS = option('--only', 'embedding,load,picture').split(','), VNNI = !process.argv.includes('--no-vnni');
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
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', '--no-save', '--prefix', WORK, ...peers], {stdio: 'inherit'});
}
fs.mkdirSync(OUT, {recursive: true});
const checkpoint = make('checkpoint.pt', 'make_checkpoint.py', '--dim', '512');
const i8 = make('facenet_i8.safetensors', 'convert_weights.py', checkpoint, '--dtype', 'i8', '--with-mtcnn');
const int8 = make('facenet_int8.safetensors', 'convert_weights.py', checkpoint, '--dtype', 'i8', '--calibrate', 'default', '--with-mtcnn');
const f32 = make('facenet_f32.safetensors', 'convert_weights.py', checkpoint);
const onnx = make('facenet.onnx', 'convert_weights.py', checkpoint, '--to', 'onnx');
const small = make('small.safetensors', 'convert_weights.py', '--face-api', path.join(ROOT, '.deps/face-api'), '--dtype', 'f16', '--with-mtcnn');

// onnxruntime's own static quantisation (QDQ) on the faces that calibrated our file, by its Python package.
const qdq = path.join(WORK, 'model.onnx');
if (!fs.existsSync(qdq)) {
  say('make onnxruntime\'s int8 model');
  const venv = path.join(WORK, 'venv'), python = path.join(venv, 'bin/python'), quiet = {stdio: ['ignore', 'ignore', 'inherit']};
  if (!fs.existsSync(python)) execFileSync('/usr/bin/python3', ['-m', 'venv', venv], quiet);
  execFileSync(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', 'onnxruntime==1.32.0', 'onnx==1.23.2', 'numpy', 'sympy'], quiet);
  execFileSync(path.join(ROOT, '.venv/bin/python'), [path.join(ROOT, 'bench/peers/calibration_faces.py'), checkpoint, WORK], quiet);
  execFileSync(python, [path.join(ROOT, 'bench/peers/quantise.py'), 'onnxruntime', onnx, path.join(WORK, 'faces.npy'), WORK], quiet);
}

make('small_int8.safetensors', 'convert_weights.py', '--face-api', path.join(ROOT, '.deps/face-api'), '--dtype', 'i8', '--calibrate', 'default', '--with-mtcnn');

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
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ...(VNNI ? [] : ['--js-flags=--no-enable-avx-vnni'])]});
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
const nodeRelaxed = Number(process.versions.node.split('.')[0]) >= 22 ? [] : ['--experimental-wasm-relaxed-simd'];
for (const threads of PARTS.includes('embedding') ? [1, 2] : []) {
  const builds = (threads === 1 ? ['relaxed', 'simd'] : ['relaxed-threads', 'threads']).filter(built);
  // Name of the row: build and arithmetic.
  const ours = builds.flatMap((build) => [[build, 'float'], ...(built(`int8-${build}`) ? [[build, 'int8']] : [])]);
  say(`Chromium, ${threads} thread(s)`);
  const chromiumTimes = await inPage(async (o) => {
    const {FaceNet} = await import('/facenet/index.js');
    const ort = await import('/modules/onnxruntime-web/dist/ort.wasm.min.mjs');
    ort.env.wasm.wasmPaths = '/modules/onnxruntime-web/dist/';
    const {compareEmbedding} = await import('/bench/embed.mjs');
    return compareEmbedding({FaceNet, ort, ...o});
  }, {weights: {float: '/weights/facenet_f32.safetensors', int8: '/weights/facenet_int8.safetensors'},
    onnx: {float: '/weights/facenet.onnx', int8: '/weights/model.onnx'}, threads, ours, rounds: ROUNDS});
  rows.push({where: 'Chromium', threads, times: chromiumTimes});
  say(`Node, ${threads} thread(s)`);
  const work = {threads, ours, rounds: ROUNDS, modules: MODULES, weights: {float: f32, int8}, onnx: {float: onnx, int8: qdq}};
  const line = execFileSync(process.execPath, [...nodeRelaxed, path.join(BENCH, 'node_embed.mjs'), JSON.stringify(work)],
    {encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 24});
  rows.push({where: 'Node', threads, times: JSON.parse(line.trim().split('\n').at(-1))});
}

// ---- load to the first embedding, memory over 1000 calls --------------------------------------------------------------------

const loads = PARTS.includes('load');
if (loads) say('load, and 1000 calls');
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
  return {loaded, first, memory, cached: info.cached, build: info.build, arithmetic: info.arithmetic};
};
const {createHash} = await import('node:crypto');
const starts = [];
for (const threads of loads ? [1, 2] : [])
  for (const [arithmetic, file] of [['float', i8], ['int8', int8]]) {
    const options = {weights: `/weights/${path.basename(file)}`, sha256: createHash('sha256').update(fs.readFileSync(file)).digest('hex'), threads, arithmetic};
    await inPage(start, options, profile);
    const again = [];
    for (let i = 0; i < 5; i++) again.push(await inPage(start, options, profile));
    again.sort((a, b) => a.first - b.first);
    starts.push({threads, ...again[2]});
  }
await profile.close();
const curve = !loads ? [] : await inPage(async (weights) => {
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

if (PARTS.includes('picture')) say('a whole picture');
const whole = !PARTS.includes('picture') ? {error: 'not asked for'} : await inPage(async ({rounds}) => {
  const {interleave} = await import('/bench/embed.mjs');
  const {FaceNet} = await import('/facenet/index.js');
  const image = new Image();
  image.src = '/samples/sample1.jpg';
  await image.decode();
  const net = await FaceNet.load({weights: '/weights/small.safetensors', threads: 2});
  const integers = await FaceNet.load({weights: '/weights/small_int8.safetensors', arithmetic: 'int8', threads: 2});
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
      counts.facenet = (await net.describe(image, {minFace: 40})).length;
    },
    'facenet, int8': async () => {
      counts['facenet, int8'] = (await integers.describe(image, {minFace: 40})).length;
    },
    'face-api': async () => {
      const faces = await faceapi.detectAllFaces(image, new faceapi.SsdMobilenetv1Options({minConfidence: 0.3})).withFaceLandmarks().withFaceDescriptors();
      counts['face-api'] = faces.length;
    },
  }, rounds, 2);
  net.dispose();
  integers.dispose();
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
  ...(VNNI ? [] : ['Chromium as on a CPU without AVX-VNNI (--no-vnni).', '']),
  `${os.cpus()[0].model}, ${os.cpus().length} CPUs; Chromium ${chromiumVersion}, Node ${process.versions.node}, onnxruntime-web ${version('onnxruntime-web')}, ` +
  `face-api ${version('@vladmandic/face-api')}; ${new Date().toISOString().slice(0, 10)}; ${ROUNDS} rounds A B B A. Written by bench/web/compare.mjs.`, '',
  '## One embedding (Inception-ResNet-v1, 160 x 160, batch 1)', '',
  'Milliseconds; ratios: the medians of the paired ratios to onnxruntime-web in floats, and to it in int8 (QDQ). Cosine: to its floats.', '',
  '| | threads | engine | median | minimum | to floats | to int8 | cosine |', '|---|---|---|---|---|---|---|---|');
for (const {where, threads, times} of rows)
  for (const [name, t] of Object.entries(times))
    out.push(`| ${where} | ${threads} | ${name} | ${t.median.toFixed(1)} | ${t.min.toFixed(1)} | ${t.ratio.toFixed(2)} | ${t.ratio8.toFixed(2)} | ${t.cosine.toFixed(5)} |`);
out.push('', native, '', '## A whole picture: faces found and embedded', '');
if (whole.error) out.push(`face-api could not be run: ${whole.error}`);
else {
  out.push(`sample1.jpg, ${whole.size.join(' x ')}; the same 128-d network behind both; face-api on its ${whole.backend} backend (which detects with SSD MobileNet), ours on 2 threads.`, '',
    '| engine | median | minimum | ratio | faces |', '|---|---|---|---|---|');
  for (const [name, t] of Object.entries(whole.times))
    out.push(`| ${name} | ${t.median.toFixed(0)} | ${t.min.toFixed(0)} | ${t.ratio.toFixed(2)} | ${whole.counts[name]} |`);
}
const dist = (name) => path.join(DIST, name), js = path.join(PACKAGE, 'facenet/index.js');
const thread = path.join(PACKAGE, 'facenet/thread.js');
const ortDist = path.join(MODULES, 'onnxruntime-web/dist'), face = path.join(MODULES, '@vladmandic/face-api'), tfWasm = path.join(MODULES, '@tensorflow/tfjs-backend-wasm/dist');
const modelBytes = ['ssd_mobilenetv1_model', 'face_landmark_68_model', 'face_recognition_model'].map((m) => path.join(face, `model/${m}.bin`));
const sizes = [
  ...['simd', 'relaxed', 'threads', 'relaxed-threads', 'int8-simd', 'int8-relaxed', 'int8-threads', 'int8-relaxed-threads'].filter(built).map((name) =>
    [`facenet, ${name}`, name.endsWith('threads') ? bytes(js, thread) : bytes(js), bytes(dist(`facenet-${name}.wasm`)), bytes(i8)]),
  ['facenet, small trained model', bytes(js), bytes(dist('facenet-simd.wasm')), bytes(small)],
  ['onnxruntime-web (embedding only)', bytes(path.join(ortDist, 'ort.wasm.min.mjs'), path.join(ortDist, 'ort-wasm-simd-threaded.mjs')), bytes(path.join(ortDist, 'ort-wasm-simd-threaded.wasm')), bytes(onnx)],
  ['face-api', bytes(path.join(face, 'dist/face-api.esm.js')), bytes(path.join(tfWasm, 'tfjs-backend-wasm-simd.wasm')), bytes(...modelBytes)],
];
out.push('', '## What is downloaded, before compression', '', '| | JavaScript | WebAssembly | weights |', '|---|---|---|---|');
for (const [name, a, b, c] of sizes) out.push(`| ${name} | ${kb(a)} | ${kb(b)} | ${mb(c)} |`);
out.push('', '## From load() to the first embedding, int8 weights and detector from the cache', '', '| build | arithmetic | threads | loaded | first embedding | memory |', '|---|---|---|---|---|---|');
for (const s of starts) out.push(`| ${s.build} | ${s.arithmetic} | ${s.threads} | ${s.loaded.toFixed(0)} ms | ${s.first.toFixed(0)} ms | ${mb(s.memory)} |`);
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
