// FaceNet in JavaScript: finds faces, turns them into embeddings, compares them. No dependency; nothing leaves the machine.
// Runs in a page, in a module worker and in Node from 18 on. README.md has an example; index.d.ts describes every option.

const node = typeof process === 'object' && process.versions?.node !== undefined;
const CACHE = 'facenet-weights';
const PAGE = 65536;
const INITIAL_MEMORY = 16 << 20; // of the modules: examples/web/CMakeLists.txt
const MAXIMUM_MEMORY = 1 << 30;
// The engine's error codes in their order (status.hpp).
const CODES = ['ok', 'invalid_argument', 'out_of_memory', 'io_error', 'not_found', 'truncated', 'corrupt', 'unsupported',
  'limit_exceeded', 'weights_mismatch', 'cancelled'];

/** What went wrong, in one sentence; `code` is for programs. */
export class FaceNetError extends Error {
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : {cause});
    this.name = 'FaceNetError';
    this.code = code;
  }
}

// ---- what this browser can run ------------------------------------------------------------------------------------

// Modules of one function each: i32.const 0, i8x16.splat, i8x16.popcnt; and i8x16.relaxed_swizzle.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2,
  253, 15, 253, 128, 2, 11];

/** What can be used here: `threads` needs a page isolated from other origins (COOP and COEP), or Node. */
export function features() {
  const valid = (bytes) => WebAssembly.validate(new Uint8Array(bytes));
  const shared = typeof SharedArrayBuffer === 'function' && (node || globalThis.crossOriginIsolated === true);
  return {simd: valid(SIMD), relaxed: valid(RELAXED), threads: shared};
}

async function processors() {
  if (!node) return navigator.hardwareConcurrency || 1;
  const os = await import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:os');
  return os.availableParallelism?.() ?? os.cpus().length;
}

/** Builds to try, the best first. */
function candidates(can, threads, wanted) {
  if (wanted !== undefined) return [wanted];
  if (!can.simd) return ['scalar'];
  const relaxed = can.relaxed ? ['relaxed'] : [], all = [...relaxed, 'simd', 'scalar'];
  return threads > 1 ? [...relaxed.map((name) => `${name}-threads`), 'threads', ...all] : all;
}

// ---- files ----------------------------------------------------------------------------------------------------------

const plain = (url) => String(url).replace(/[?#].*/, '');

/** fetch() that says what is wrong, and reads files in Node. */
async function request(url, what, signal) {
  if (node && url.protocol === 'file:') {
    const fs = await import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:fs');
    const {Readable} = await import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:stream');
    try {
      const {size} = fs.statSync(url);
      return new Response(Readable.toWeb(fs.createReadStream(url, {signal, highWaterMark: 1 << 20})),
        {headers: {'content-length': String(size)}});
    } catch (e) {
      throw new FaceNetError('not_found', `${what} cannot be read: ${plain(url)} (${e.code}).`, e);
    }
  }
  let response;
  try {
    response = await fetch(url, {signal});
  } catch (e) {
    signal?.throwIfAborted();
    throw new FaceNetError('network', `${what} cannot be fetched: ${plain(url)}. Is the network there, and does the server allow it?`, e);
  }
  if (!response.ok)
    throw new FaceNetError(response.status === 404 ? 'not_found' : 'network',
      `${what} cannot be fetched: ${plain(url)} answered with status ${response.status}.`);
  return response;
}

const isPage = (bytes) => /^\s*<(!doctype|html|head|body)/i.test(new TextDecoder().decode(bytes.subarray(0, 64)));

async function compile(url, signal) {
  const bytes = new Uint8Array(await (await request(url, 'The WebAssembly module', signal)).arrayBuffer());
  if (bytes[0] !== 0 || bytes[1] !== 0x61 || bytes[2] !== 0x73 || bytes[3] !== 0x6d)
    throw new FaceNetError(isPage(bytes) ? 'html' : 'corrupt', isPage(bytes)
      ? `Instead of a WebAssembly module ${plain(url)} is a web page: serve the package's dist folder there, or give its address as "wasm".`
      : `${plain(url)} is not a WebAssembly module: copy the package's dist folder again.`);
  return WebAssembly.compile(bytes);
}

/** The cache of weight files, or undefined where there is none (Node, insecure pages) or it may not be used. */
async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined;
  }
}

// ---- one instance of the module -------------------------------------------------------------------------------------

const threaded = (build) => build.endsWith('threads');

class Engine {
  workers = [];

  static async start(build, base, threads, memoryLimit, signal) {
    const url = new URL(`facenet-${build}.wasm`, base);
    const module = await compile(url, signal);
    const engine = new Engine();
    engine.build = build;
    const shared = threaded(build);
    engine.threads = shared ? threads : 1;
    const maximum = Math.floor(Math.min(Math.max(memoryLimit, INITIAL_MEMORY), MAXIMUM_MEMORY) / PAGE);
    engine.memory = new WebAssembly.Memory({initial: INITIAL_MEMORY / PAGE, maximum, shared});
    engine.#instantiate(module);
    if (shared) engine.#startThreads(module);
    return engine;
  }

  #instantiate(module) {
    // A page's main thread may not wait: there the engine goes on looking.
    const cell = threaded(this.build) && typeof document !== 'object' ? new Int32Array(new SharedArrayBuffer(4)) : undefined;
    const pause = () => cell && Atomics.wait(cell, 0, 0, 0.05);
    // What a C library imports beside: calls that this module never makes, and the news that memory has grown.
    const imports = {};
    for (const {module: from, name, kind} of WebAssembly.Module.imports(module))
      (imports[from] ??= {})[name] = kind === 'memory' ? this.memory : name === 'pause' ? pause : () => 52;
    this.exports = new WebAssembly.Instance(module, imports).exports;
    (this.exports._initialize ?? this.exports.__wasm_call_ctors)?.();
  }

  /** Starts a worker for each thread beside the caller's. `ready` is kept when all are there: they start while weights arrive. */
  #startThreads(module) {
    this.exports.facenet_threads(this.threads);
    this.ready = Promise.all(Array.from({length: this.threads - 1}, async (_, i) => {
      const stack = this.exports.facenet_stack() >>> 0;
      if (stack === 0) throw new FaceNetError('out_of_memory', 'There is not enough memory for another thread.');
      const url = new URL('thread.js', import.meta.url);
      try {
        const Kind = node ? (await import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:worker_threads')).Worker : Worker;
        await new Promise((resolve, reject) => {
          const worker = new Kind(url, {execArgv: []});  // Node's own options, such as --input-type, are not for it
          if (this.stopped) return resolve(worker.terminate());
          this.workers.push(worker);
          const on = (event, f) => (node ? worker.once(event, f) : worker.addEventListener(event, f, {once: true}));
          on('message', resolve);
          on('error', reject);
          on('messageerror', reject);
          worker.postMessage({module, memory: this.memory, stack, member: i + 1});
          if (node) worker.once('message', () => worker.unref());
        });
      } catch (e) {
        throw new FaceNetError('threads', `A thread could not be started: is ${plain(url)} there, and does the page's ` +
          'Content-Security-Policy allow it as worker-src?', e);
      }
    }));
    this.ready.catch((e) => { this.fault = e; });
  }

  bytes(pointer, length) {
    return new Uint8Array(this.memory.buffer, pointer, length);  // anew each time: memory grows
  }
  floats(pointer, length) {
    return new Float32Array(this.memory.buffer, pointer, length);
  }
  text(pointer = this.exports.facenet_text()) {
    const bytes = this.bytes(pointer, Math.min(512, this.memory.buffer.byteLength - pointer));
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }
  /** The engine's last error; `place` is put before its sentence. */
  error(place = '') {
    const sentence = this.text();
    return new FaceNetError(CODES[this.exports.facenet_code()] ?? 'error', `${place}${sentence}.`);
  }
  /** Memory for a weight file of `size` bytes, what it holds kept. */
  reserve(size) {
    const pointer = this.exports.facenet_reserve(size) >>> 0;
    if (pointer === 0) throw this.error('The weights do not fit: ');
    return pointer;
  }
  stop() {
    this.stopped = true;
    this.exports?.facenet_stop?.();  // browsers end a worker that waits after two seconds only
    for (const worker of this.workers) worker.terminate();
    this.workers = [];
    this.exports = this.memory = undefined;
  }
}

/** Streams `response` into the engine's memory; the number of bytes. */
async function receive(engine, response, name, {signal, onProgress}) {
  // Content-Length counts what travels: of a compressed answer it says nothing about the file.
  const total = response.headers.has('content-encoding') ? 0 : Number(response.headers.get('content-length')) || 0;
  let size = 0, room = 0;
  const reader = response.body.getReader();
  onProgress?.({loaded: 0, total});
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (e) {
      signal?.throwIfAborted();
      throw new FaceNetError('network', `The download of ${name} broke off after ${size} bytes${total ? ` of ${total}` : ''}: try again.`, e);
    }
    if (signal?.aborted || engine.fault) await reader.cancel().catch(() => {});
    signal?.throwIfAborted();
    if (engine.fault) throw engine.fault;
    if (chunk.done) return size;
    if (size === 0 && isPage(chunk.value)) {
      await reader.cancel().catch(() => {});
      throw new FaceNetError('html', `Instead of weights ${name} is a web page: is the address right, and does the server have the file?`);
    }
    if (size + chunk.value.length > room) room = Math.max(total, size + chunk.value.length, Math.ceil(room * 1.5));
    engine.bytes(engine.reserve(room), room).set(chunk.value, size);
    size += chunk.value.length;
    onProgress?.({loaded: size, total});
  }
}

/** Opens the weights: from the cache if they are there by digest, else from where they are. */
async function openWeights(weights, sha256, cache, signal) {
  if (weights instanceof Response) return {response: weights, name: plain(weights.url) || 'the response'};
  if (weights instanceof ArrayBuffer || ArrayBuffer.isView(weights))
    return {response: new Response(weights, {headers: {'content-length': String(weights.byteLength)}}), name: 'the weights'};
  if (typeof Blob === 'function' && weights instanceof Blob)
    return {response: new Response(weights.stream(), {headers: {'content-length': String(weights.size)}}), name: weights.name ?? 'the file'};
  const url = new URL(weights, node ? `file://${process.cwd()}/` : globalThis.document?.baseURI ?? globalThis.location.href);
  const key = sha256 ? `https://facenet.invalid/${sha256}` : url.href;
  const name = plain(url);
  // A digest names the content, so a copy is as good as the original; without one the server is asked first.
  const copy = sha256 ? await cache?.match(key) : undefined;
  if (copy) return {response: copy, name, cached: true};
  try {
    return {response: await request(url, 'The weight file', signal), name, key};
  } catch (e) {
    const last = e.code === 'network' && !sha256 ? await cache?.match(key) : undefined;
    if (last) return {response: last, name, cached: true};
    throw e;
  }
}

// ---- pictures -------------------------------------------------------------------------------------------------------

let canvas;  // kept: a new one for each frame of a camera is garbage

/** {data, width, height} with three or four bytes a pixel. */
async function pixels(picture) {
  if (picture?.data?.length !== undefined && picture.width > 0 && picture.height > 0) return picture;
  const draws = typeof OffscreenCanvas === 'function' || typeof document === 'object';
  if (!draws)
    throw new FaceNetError('unsupported', 'Nothing here decodes pictures: give their pixels as {data, width, height}.');
  let source = picture;
  if (typeof Blob === 'function' && picture instanceof Blob) {
    try {
      source = await createImageBitmap(picture);
    } catch (e) {
      throw new FaceNetError('corrupt', `${picture.name ?? 'The file'} is no picture that this browser can read.`, e);
    }
  } else if (typeof HTMLImageElement === 'function' && picture instanceof HTMLImageElement) {
    await picture.decode().catch((e) => {
      throw new FaceNetError('corrupt', 'The <img> has no picture, or one that cannot be read.', e);
    });
  }
  const width = source?.naturalWidth ?? source?.videoWidth ?? source?.displayWidth ?? source?.width;
  const height = source?.naturalHeight ?? source?.videoHeight ?? source?.displayHeight ?? source?.height;
  if (!(width > 0 && height > 0))
    throw new FaceNetError('invalid_argument',
      'This is no picture: give ImageData, an ImageBitmap, a canvas, an <img>, a <video>, a Blob or {data, width, height}.');
  canvas ??= typeof OffscreenCanvas === 'function' ? new OffscreenCanvas(1, 1) : document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  try {
    context.drawImage(source, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  } catch (e) {
    throw new FaceNetError('unsupported', 'The pixels may not be read: the picture is from another origin that does not allow it.', e);
  } finally {
    if (source !== picture) source.close();
    canvas.width = canvas.height = 1;
  }
}

// ---- the object users hold ------------------------------------------------------------------------------------------

const distance = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum);
};
const similarity = (a, b) => {
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
};

export class FaceNet {
  #engine;

  /** Loads the engine and a weight file. See index.d.ts for the options. */
  static async load(options = {}) {
    const {weights, wasm, threads, build, signal, sha256, cache: useCache = true, memoryLimit = MAXIMUM_MEMORY} = options;
    if (weights === undefined) throw new FaceNetError('invalid_argument', 'load() needs the weights: their address, a Blob or bytes.');
    if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256))
      throw new FaceNetError('invalid_argument', 'sha256 must be 64 lowercase hex digits.');
    if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 64))
      throw new FaceNetError('invalid_argument', 'threads must be 1 to 64.');
    signal?.throwIfAborted();
    const can = features();
    const wanted = can.threads ? threads ?? Math.min(4, await processors()) : 1;
    if (build !== undefined && threaded(build) && !can.threads)
      throw new FaceNetError('unsupported', 'Threads need a page that is isolated from other origins: serve it with COOP and COEP headers (README.md).');
    if (build !== undefined && build !== 'scalar' && !can.simd)
      throw new FaceNetError('unsupported', 'This browser has no WebAssembly SIMD: leave "build" out, or say "scalar".');
    const folder = String(wasm ?? new URL('dist/', import.meta.url));
    const base = new URL(folder.endsWith('/') ? folder : `${folder}/`, globalThis.document?.baseURI ?? import.meta.url);

    const cache = useCache ? await openCache() : undefined;
    const opening = openWeights(weights, sha256, cache, signal);
    opening.catch(() => {});  // looked at below, after the module
    let engine;
    for (const name of candidates(can, wanted, build)) {
      try {
        engine = await Engine.start(name, base, Math.max(wanted, 1), memoryLimit, signal);
        break;
      } catch (e) {
        signal?.throwIfAborted();
        // A package may ship fewer builds: servers answer with 404 or with their page, and without a network nobody does.
        if (build !== undefined || name === 'scalar' || !['not_found', 'html', 'network'].includes(e.code)) throw e;
      }
    }
    try {
      const {response, name, key, cached = false} = await opening;
      const size = await receive(engine, response, name, options);
      await engine.ready;
      const e = engine.exports;
      // What is cached by digest has been checked before it was put there.
      const check = !cached && sha256 ? sha256 : '';
      engine.bytes(e.facenet_text(), 65).set(new TextEncoder().encode(`${check}\0`.slice(0, 65)));
      if (e.facenet_load(size, engine.threads) !== 0) {
        const error = engine.error(`${name}: `);
        if (cached) await cache.delete(sha256 ? `https://facenet.invalid/${sha256}` : name).catch(() => {});
        if (check && /SHA-256/.test(error.message)) error.code = 'digest';
        throw error;
      }
      let kept = cached;
      if (key && cache) {
        const headers = {'content-length': String(size), 'content-type': 'application/octet-stream'};
        // A copy: what is in shared memory may not be handed to a Response. A full disk is no reason to fail.
        kept = await cache.put(key, new Response(engine.bytes(e.facenet_reserve(0), size).slice(), {headers})).then(() => true, () => false);
      }
      signal?.throwIfAborted();
      e.facenet_release();
      return new FaceNet(engine, {cached, kept});
    } catch (e) {
      engine.stop();
      throw e;
    }
  }

  /** Deletes the weight files that load() kept. */
  static async clearCache() {
    await globalThis.caches?.delete(CACHE);
  }

  constructor(engine, extra) {
    this.#engine = engine;
    const {facenet_number: number, facenet_word: word} = engine.exports;
    const words = ['architecture', 'dataset', 'source', 'licence', 'digest'].map((key, i) => [key, engine.text(word(i))]);
    /** What was loaded, and how it runs. */
    this.info = Object.freeze({
      ...Object.fromEntries(words),
      embeddingDim: number(0),
      imageSize: number(1),
      trained: number(2) !== 0,
      threshold: number(3),
      detector: number(4) !== 0,
      build: engine.build,
      threads: engine.threads,
      ...extra,
    });
  }

  #use() {
    if (this.#engine === undefined) throw new FaceNetError('disposed', 'This FaceNet was disposed of: load another.');
    return this.#engine;
  }

  /** Bytes of memory in use: WebAssembly's memory grows and never shrinks. */
  get memory() {
    return this.#use().memory.buffer.byteLength;
  }

  /** Puts a picture into the engine's memory. */
  #place(engine, {data, width, height}) {
    const channels = data.length / (width * height);
    if (channels !== 3 && channels !== 4)
      throw new FaceNetError('invalid_argument', `${width} x ${height} pixels need 3 or 4 bytes each, but there are ${data.length} bytes.`);
    const pointer = engine.exports.facenet_picture(width, height) >>> 0;
    if (pointer === 0) throw engine.error('The picture: ');
    const to = engine.bytes(pointer, width * height * 4);
    if (channels === 4) to.set(data);
    else for (let from = 0, at = 0; from < data.length; from += 3, at += 4) {
      to[at] = data[from];
      to[at + 1] = data[from + 1];
      to[at + 2] = data[from + 2];
      to[at + 3] = 255;
    }
    engine.exports.facenet_opaque();
  }

  #find(engine, {minFace = 20, maxFaces = 0}) {
    const count = engine.exports.facenet_detect(minFace, maxFaces);
    if (count < 0) throw engine.error('Finding faces: ');
    return Array.from({length: count}, (_, i) => {
      const f = Array.from(engine.floats(engine.exports.facenet_face(i) >>> 0, 15));
      return {box: f.slice(0, 4), score: f[4], landmarks: [5, 7, 9, 11, 13].map((at) => [f[at], f[at + 1]])};
    });
  }

  /** The faces of a picture, the largest first. None is an empty list. */
  async detect(picture, options = {}) {
    this.#use();
    const source = await pixels(picture);
    const engine = this.#use();
    this.#place(engine, source);
    return this.#find(engine, options);
  }

  /** The embedding of one face: of `face` (one that detect() found), of the `aligned` picture as a whole, else of the largest. */
  async embed(picture, options = {}) {
    this.#use();
    const source = await pixels(picture);
    const engine = this.#use();
    this.#place(engine, source);
    let {face} = options;
    if (face === undefined && !options.aligned) {
      [face] = this.#find(engine, {...options, maxFaces: 1});
      if (face === undefined) throw new FaceNetError('no_face', 'No face was found in the picture; say {aligned: true} if it is a face crop.');
    }
    if (face !== undefined)
      engine.floats(engine.exports.facenet_face(-1) >>> 0, 15).set([...face.box, face.score ?? 1, ...(face.landmarks ?? []).flat()]);
    const pointer = engine.exports.facenet_embed(face === undefined ? 1 : 0) >>> 0;
    if (pointer === 0) throw engine.error('The embedding: ');
    return engine.floats(pointer, this.info.embeddingDim).slice();
  }

  /** Whether two faces are one person's. Each is a picture, or an embedding that embed() returned. */
  async verify(a, b, options = {}) {
    const one = async (x) => (x instanceof Float32Array ? x : this.embed(x, options));
    const x = await one(a), y = await one(b), threshold = options.threshold ?? this.info.threshold;
    if (x.length !== y.length) throw new FaceNetError('invalid_argument', `One embedding has ${x.length} numbers and the other ${y.length}.`);
    const d = distance(x, y);
    return {distance: d, similarity: similarity(x, y), threshold, same: d <= threshold, trained: this.info.trained};
  }

  /** Stops the threads and gives the memory back. */
  dispose() {
    this.#engine?.stop();
    this.#engine = undefined;
  }
}
