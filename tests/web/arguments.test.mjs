// Whatever is given wrongly is refused with a FaceNetError whose code and sentence say what to change, and leaves the engine as
// it was. One row an argument: name, what is called, the code, a word of the sentence.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import {after, before, test} from 'node:test';

import {FaceNet, FaceNetError, Matcher, distance, drawFaces} from '../../examples/web/facenet/index.js';
import {weights} from './support.mjs';

const file = weights('small'), bytes = fs.readFileSync(file);
const crop = {data: Uint8Array.from({length: 160 * 160 * 3}, (_, i) => 128 + 100 * Math.sin(i / 97)), width: 160, height: 160};
let net, first;

before(async () => {
  net = await FaceNet.load({weights: bytes, build: 'simd'});
  first = await net.embed(crop, {aligned: true});
});
after(() => net?.dispose());

async function refused(rows) {
  for (const [name, call, code, pattern] of rows) {
    const error = await Promise.resolve().then(call).then(() => assert.fail(`${name}: nothing was refused`), (e) => e);
    assert.ok(error instanceof FaceNetError, `${name}: ${error.stack}`);
    assert.equal(error.code, code, `${name}: ${error.message}`);
    assert.match(error.message, pattern, name);
    assert.match(error.message, /^[A-Z"a-z/0-9].{10,}[.?)]$/s, `${name}: a sentence`);
  }
}
const load = (options) => () => FaceNet.load({weights: bytes, build: 'simd', ...options});
const from = (source) => load({weights: source});
const invalid = 'invalid_argument';

test('load() refuses wrong options', async () => {
  await refused([
    ['no options', () => FaceNet.load(null), invalid, /must be an object/],
    ['a text', () => FaceNet.load('weights.safetensors'), invalid, /must be an object/],
    ['a list', () => FaceNet.load([]), invalid, /must be an object/],
    ['no weights', () => FaceNet.load({}), invalid, /needs the weights/],
    ['null', from(null), invalid, /needs the weights/],
    ['a number', from(5), invalid, /weights must be/],
    ['an object', from({}), invalid, /weights must be/],
    ['true', from(true), invalid, /weights must be/],
    ['empty text', from(''), invalid, /empty text/],
    ['an address without a host', from('http://'), invalid, /is no address/],
    ['no bytes', from(new Uint8Array(0)), invalid, /empty/],
    ['a buffer that went elsewhere', () => {
      const gone = new ArrayBuffer(8);
      structuredClone(gone, {transfer: [gone]});
      return from(gone)();
    }, invalid, /transferred/],
    ['an empty file', from(new Blob([])), 'truncated', /empty/],
    ['a promise that fails', () => from(Promise.reject(new TypeError('fetch failed')))(), 'network', /rejected/],
    ['a promise of nothing', () => from(Promise.resolve(undefined))(), invalid, /weights must be/],
    ['a Response of 404', from(new Response('no', {status: 404})), 'not_found', /404/],
    ['a Response of 500', from(new Response('no', {status: 500})), 'network', /500/],
    ['a Response without a body', from(new Response(null)), 'truncated', /empty/],
    ['a Response that was read', async () => {
      const response = new Response(bytes);
      await response.arrayBuffer();
      return from(response)();
    }, invalid, /read already/],
    ['a Response that is being read', () => {
      const response = new Response(bytes);
      response.body.getReader();
      return from(response)();
    }, invalid, /read already/],
    ['a pointer of Git LFS', from(Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n')), 'corrupt', /git lfs pull/],
    ['JSON', from(Buffer.from('{"error": "no such file"}')), 'corrupt', /JSON/],
    ['a page', from(Buffer.from('<!doctype html><p>')), 'html', /web page/],
    ['a picture', from(Buffer.from('\x89PNG\r\n\x1a\n0000000000000000', 'latin1')), 'limit_exceeded', /not a safetensors file/],
    ['a cut file', from(bytes.subarray(0, 1 << 20)), 'truncated', /./],
    ['a folder', from('/tmp/'), 'not_found', /cannot be read/],
    ['no file', from('/no/such/file'), 'not_found', /cannot be read/],
    ['nobody listens', from('http://127.0.0.1:9/w'), 'network', /cannot be fetched/],
    ['another scheme', from('gopher://127.0.0.1/w'), 'network', /cannot be fetched/],
    ['build', load({build: 'fast'}), invalid, /build must be one of/],
    ['build as a list', load({build: ['simd']}), invalid, /build must be/],
    ['arithmetic', load({arithmetic: 'integer'}), invalid, /arithmetic must be/],
    ['arithmetic as a number', load({arithmetic: 8}), invalid, /arithmetic must be/],
    ['integers without SIMD', load({arithmetic: 'int8', build: 'scalar'}), 'unsupported', /needs WebAssembly SIMD/],
    ['integers of a file without ranges', load({arithmetic: 'int8'}), 'unsupported', /calibrat/],
    ['wasm as a number', load({wasm: 5}), invalid, /wasm must be/],
    ['wasm without a host', load({wasm: 'http://'}), invalid, /wasm is no address/],
    ['wasm where nothing is', load({wasm: '/no/such/'}), 'not_found', /module cannot be read/],
    ['threads 0', load({threads: 0}), invalid, /threads/],
    ['threads 1.5', load({threads: 1.5}), invalid, /threads/],
    ['threads as a text', load({threads: '2'}), invalid, /threads/],
    ['threads NaN', load({threads: NaN}), invalid, /threads/],
    ['threads 65', load({threads: 65}), invalid, /threads/],
    ['sha256 too short', load({sha256: 'abc'}), invalid, /64 lowercase hex/],
    ['sha256 as bytes', load({sha256: new Uint8Array(32)}), invalid, /64 lowercase hex/],
    ['sha256 of another file', load({sha256: '0'.repeat(64)}), 'digest', /SHA-256/],
    ['cache', load({cache: 'no'}), invalid, /cache must be/],
    ['memoryLimit NaN', load({memoryLimit: NaN}), invalid, /memoryLimit/],
    ['memoryLimit below zero', load({memoryLimit: -1}), invalid, /memoryLimit/],
    ['memoryLimit as a text', load({memoryLimit: '64MB'}), invalid, /memoryLimit/],
    ['memoryLimit of 1 KB', load({memoryLimit: 1024}), invalid, /memoryLimit/],
    ['memoryLimit too small for these weights', load({memoryLimit: 1 << 24}), 'out_of_memory', /memory/],
    ['signal', load({signal: 'stop'}), invalid, /AbortSignal/],
    ['onProgress', load({onProgress: 'print'}), invalid, /onProgress must be/],
    ['made by hand', () => new FaceNet(), invalid, /FaceNet\.load/],
  ]);
});

test('pictures that are none are refused', async () => {
  const embed = (picture) => () => net.embed(picture, {aligned: true});
  const {data} = crop;
  await refused([
    ['nothing', embed(undefined), invalid, /no picture/],
    ['null', embed(null), invalid, /no picture/],
    ['a text', embed('face.jpg'), invalid, /no picture/],
    ['a number', embed(5), invalid, /no picture/],
    ['an empty object', embed({}), 'unsupported', /data, width, height/],
    ['bytes alone', embed(data), invalid, /width and height/],
    ['an embedding', embed(first), invalid, /embeddings/],
    ['a list', embed([1, 2, 3]), invalid, /width and height/],
    ['a file in Node', embed(new Blob([bytes])), 'unsupported', /decodes/],
    ['floats of 0 to 1', embed({...crop, data: Float32Array.from(data, (x) => x / 255)}), invalid, /0 to 255/],
    ['floats of -1 to 1', embed({...crop, data: Float64Array.from(data, (x) => x / 127.5 - 1)}), invalid, /0 to 255/],
    ['a list of pixels', embed({...crop, data: Array.from(data)}), invalid, /Uint8Array/],
    ['signed bytes', embed({...crop, data: new Int8Array(data)}), invalid, /Uint8Array/],
    ['a buffer', embed({...crop, data: data.buffer}), invalid, /Uint8Array/],
    ['no data', embed({...crop, data: undefined}), invalid, /Uint8Array/],
    ['too few', embed({...crop, data: data.subarray(1)}), invalid, /3 or 4 bytes/],
    ['grey', embed({...crop, data: data.subarray(0, 160 * 160)}), invalid, /3 or 4 bytes/],
    ['a broken width', embed({...crop, width: 160.5}), invalid, /whole numbers/],
    ['a width that fits by chance', embed({...crop, width: 0.5, height: 51200}), invalid, /whole numbers/],
    ['no width', embed({data, height: 160}), invalid, /whole numbers/],
    ['a width as a text', embed({...crop, width: '160'}), invalid, /whole numbers/],
    ['a negative size', embed({...crop, width: -160, height: -160}), invalid, /whole numbers/],
    ['an endless size', embed({...crop, width: Infinity}), invalid, /whole numbers/],
    ['no pixels', embed({data: new Uint8Array(0), width: 0, height: 0}), invalid, /whole numbers/],
    ['too wide', embed({data: new Uint8Array(3 * 17000), width: 17000, height: 1}), 'limit_exceeded', /16384/],
    ['too many', embed({data: new Uint8Array(3 * 5793 * 5793), width: 5793, height: 5793}), 'limit_exceeded', /33,554,432/],
  ]);
  assert.deepEqual(await net.embed(crop, {aligned: true}), first);
});

test('options of detect(), embed(), describe() and verify() are checked', async () => {
  const face = (change) => () => net.embed(crop, {face: {box: [10, 10, 150, 150], score: 1, landmarks: [[50, 60], [110, 60], [80, 90], [60, 120], [100, 120]], ...change}});
  const verify = (a, b, options) => () => net.verify(a, b, options);
  await refused([
    ['options', () => net.detect(crop, 5), invalid, /must be an object/],
    ['no options', () => net.embed(crop, null), invalid, /must be an object/],
    ['signal', () => net.detect(crop, {signal: 5}), invalid, /AbortSignal/],
    ['minFace 0', () => net.detect(crop, {minFace: 0}), invalid, /minFace/],
    ['minFace NaN', () => net.detect(crop, {minFace: NaN}), invalid, /minFace/],
    ['minFace as a text', () => net.describe(crop, {minFace: '20'}), invalid, /minFace/],
    ['maxFaces', () => net.detect(crop, {maxFaces: -1}), invalid, /maxFaces/],
    ['resize', () => net.detect(crop, {resize: 3.5}), invalid, /resize/],
    ['aligned', () => net.embed(crop, {aligned: 'yes'}), invalid, /aligned/],
    ['aligned with a face', () => net.embed(crop, {aligned: true, face: {}}), invalid, /not both/],
    ['no face', () => net.embed(crop), 'no_face', /aligned: true/],
    ['face null', () => net.embed(crop, {face: null}), invalid, /detect\(\)/],
    ['face without a box', face({box: undefined}), invalid, /four numbers/],
    ['a box of three', face({box: [1, 2, 3]}), invalid, /four numbers/],
    ['a box inside out', face({box: [150, 150, 10, 10]}), invalid, /four numbers/],
    ['a box with NaN', face({box: [NaN, 0, 9, 9]}), invalid, /four numbers/],
    ['a box elsewhere', face({box: [500, 500, 600, 600]}), invalid, /outside the picture/],
    ['landmarks elsewhere', face({landmarks: [[5000, 60], [5110, 60], [5080, 90], [5060, 120], [5100, 120]]}), invalid, /outside the picture/],
    ['four landmarks', face({landmarks: [[1, 1], [2, 2], [3, 3], [4, 4]]}), invalid, /five points/],
    ['no landmarks for a model that turns faces by them', face({landmarks: []}), invalid, /./],
    ['score', face({score: 'high'}), invalid, /score/],
    ['verify with one face', verify(crop, crop, {face: {}}), invalid, /faces: \[/],
    ['faces', verify(first, first, {faces: {}}), invalid, /faces must be/],
    ['threshold', verify(first, first, {threshold: '0.6'}), invalid, /threshold/],
    ['threshold 0', verify(first, first, {threshold: 0}), invalid, /threshold/],
    ['an embedding too short', verify(first, first.subarray(1)), invalid, /second embedding has 127 numbers/],
    ['an embedding with NaN', verify([NaN, ...first.subarray(1)], first), invalid, /finite/],
    ['an embedding of zeros', verify(first, new Float32Array(first.length)), invalid, /all zeros/],
    ['an embedding of texts', verify(first, Array.from(first, String)), invalid, /finite/],
    ['an embedding as bytes', verify(first, new Uint8Array(first.buffer.slice(0), 0, first.length)), invalid, /bytes or whole numbers/],
    ['nothing to compare', verify(first, undefined), invalid, /no picture/],
    ['describeAll of one', () => net.describeAll(crop).next(), invalid, /list of pictures/],
    ['track without a video', () => net.track({}, {onFaces() {}}), invalid, /<video>/],
    ['track without onFaces', () => net.track({videoWidth: 1}, {}), invalid, /onFaces/],
    ['track with fps 0', () => net.track({videoWidth: 1}, {onFaces() {}, fps: 0}), invalid, /fps/],
  ]);
  assert.deepEqual(await net.embed(crop, {aligned: true}), first);
});

test('a Matcher and drawFaces() check what they are given', () => refused([
  ['no threshold', () => new Matcher(), invalid, /threshold/],
  ['margin', () => new Matcher({threshold: 1, margin: -1}), invalid, /margin/],
  ['no name', () => new Matcher(net).add('', first), invalid, /name/],
  ['no embedding', () => new Matcher(net).add('Ada', undefined), invalid, /array of numbers/],
  ['a short embedding', () => new Matcher(net).add('Ada', [1, 2]), invalid, /2 numbers/],
  ['count', () => new Matcher(net).nearest(first, 0), invalid, /count/],
  ['no JSON', () => Matcher.fromJSON('{'), invalid, /no JSON/],
  ['other JSON', () => Matcher.fromJSON({}), invalid, /toJSON/],
  ['of another model', () => Matcher.fromJSON({version: 1, digest: 'f'.repeat(16), threshold: 1, margin: 0, people: []}, net), 'weights_mismatch', /another model/],
  ['no canvas', () => drawFaces({}, []), invalid, /canvas/],
  ['no faces', () => drawFaces({strokeRect() {}}, undefined), invalid, /list of faces/],
]));

test('what JSON makes of an embedding is one, and a Matcher tells people apart', async () => {
  const other = Float32Array.from(first, (x, i) => (i % 2 ? x : -x));
  for (const again of [Array.from(first), JSON.parse(JSON.stringify(first)), Float64Array.from(first)])
    assert.equal((await net.verify(first, again)).distance, 0);
  const matcher = new Matcher(net).add('Ada', first).add('Bob', other).add('Ada', Array.from(first, (x) => x * 1.01));
  assert.deepEqual(matcher.names, ['Ada', 'Bob']);
  assert.equal(matcher.find(first).name, 'Ada');
  assert.equal(matcher.find(first).distance, 0);
  const again = Matcher.fromJSON(JSON.stringify(matcher), net);
  assert.deepEqual(again.nearest(other), matcher.nearest(other));
  assert.equal(again.find(other).name, 'Bob');
  assert.ok(Math.abs(again.nearest(other)[1].distance - distance(first, other)) < 1e-6 || again.nearest(other)[1].distance > 0);
  const strict = new Matcher({threshold: 1e9, margin: 2 * distance(first, other)}).add('Ada', first).add('Bob', other);
  assert.equal(strict.find(first), undefined, 'two people nearer to each other than the margin');
  assert.equal(new Matcher({threshold: distance(first, other) / 2}).add('Ada', first).find(other), undefined);
  assert.equal(matcher.remove('Bob'), true);
  assert.equal(matcher.find(other)?.name === 'Bob', false);
});

test('signals end every call, and a load that fails ends its downloads', async () => {
  const gone = AbortSignal.abort(new Error('enough'));
  for (const call of [() => FaceNet.load({weights: bytes, signal: gone}), () => net.detect(crop, {signal: gone}), () => net.embed(crop, {signal: gone, aligned: true}),
    () => net.describe(crop, {signal: gone}), () => net.verify(first, first, {signal: gone}), () => net.describeAll([crop], {signal: gone}).next()])
    await assert.rejects(call, /enough/);
  let opened = 0, closed = 0;
  const server = http.createServer((request, response) => {
    opened++;
    response.on('close', () => closed++);
    response.writeHead(200, {'content-length': 1e8}).write(Buffer.alloc(1 << 16, 1));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/w`;
  try {
    await assert.rejects(FaceNet.load({weights: url, build: 'simd', wasm: '/no/such/'}), {code: 'not_found'});
    const abort = new AbortController();
    await assert.rejects(FaceNet.load({weights: url, build: 'simd', signal: abort.signal, onProgress: ({loaded}) => loaded && abort.abort()}), {name: 'AbortError'});
    for (let i = 0; closed < opened && i < 250; i++) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(opened >= 1);  // the first may have ended before it was asked for
    assert.equal(closed, opened);
    let cancelled = false;
    const body = new ReadableStream({pull: (c) => c.enqueue(new Uint8Array(1024).fill(1)), cancel: () => { cancelled = true; }});
    await assert.rejects(FaceNet.load({weights: new Response(body), build: 'simd', memoryLimit: 1 << 24}), {code: 'out_of_memory'});
    assert.equal(cancelled, true);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('weights are taken as a promise, shared bytes and a Response', async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  for (const source of [Promise.resolve(new Response(bytes)), shared, new Response(bytes), bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)]) {
    const other = await FaceNet.load({weights: source, build: 'simd'});
    assert.equal(other.info.digest, net.info.digest);
    other.dispose();
  }
});
