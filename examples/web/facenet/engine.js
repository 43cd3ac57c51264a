// One instance of the module, and its threads.
import {candidates, fileOf, scriptOf, threadFile, threadText, threaded} from './builds.js';
import {CODES, FaceNetError} from './errors.js';
import {isPage, plain, request} from './files.js';
import {builtin, node} from './host.js';

const PAGE = 65536;
const INITIAL_MEMORY = 16 << 20; // of the modules: examples/web/CMakeLists.txt
export const MAXIMUM_MEMORY = 1 << 30;
const THREAD_MS = 10_000; // a worker that a browser refuses silently never answers

const isModule = (bytes) => bytes[0] === 0 && bytes[1] === 0x61 && bytes[2] === 0x73 && bytes[3] === 0x6d;
const broken = (place, e) => new FaceNetError('corrupt', `${place} is no whole WebAssembly module: copy the package's dist folder again.`, e);

async function compileFile(url, signal) {
  const response = await request(url, 'The WebAssembly module', signal);
  if (WebAssembly.compileStreaming && /^application\/wasm\b/i.test(response.headers.get('content-type') ?? '')) {
    try {
      return await WebAssembly.compileStreaming(response);
    } catch (e) {
      signal?.throwIfAborted();
      throw broken(plain(url), e);
    }
  }
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (isPage(bytes))
    throw new FaceNetError('html', `Instead of a WebAssembly module ${plain(url)} is a web page: serve the package's dist folder there, or give its address as "wasm".`);
  if (!isModule(bytes)) throw broken(plain(url));
  return WebAssembly.compile(bytes).catch((e) => {
    throw broken(plain(url), e);
  });
}

/** A build's module: from the folder `base`, else from its file or its script, whichever this program has. */
async function compile(build, base, signal) {
  if (base) return compileFile(new URL(`facenet-${build}.wasm`, base), signal);
  const file = fileOf(build);
  let missing;
  if (file) {
    try {
      return await compileFile(file, signal);
    } catch (e) {
      signal?.throwIfAborted();
      missing = e;
    }
  }
  try {
    return await WebAssembly.compile(await scriptOf(build));
  } catch (e) {
    signal?.throwIfAborted();
    throw missing ?? new FaceNetError('not_found', `The build "${build}" is not part of this program: is the package whole?`, e);
  }
}

/** Memory of at most `limit` bytes; less where the browser refuses to set so much address space aside. */
function makeMemory(limit, shared) {
  for (let bytes = limit; ; bytes /= 2) {
    try {
      return new WebAssembly.Memory({initial: INITIAL_MEMORY / PAGE, maximum: Math.floor(Math.max(bytes, INITIAL_MEMORY) / PAGE), shared});
    } catch (e) {
      if (bytes <= INITIAL_MEMORY) throw new FaceNetError('out_of_memory', 'There is not enough memory for the WebAssembly module.', e);
    }
  }
}

export class Engine {
  workers = [];
  /** Sentences: why it does not run as well as it was asked to. */
  fallbacks = [];

  /** The first of the builds that starts. */
  static async choose(can, threads, {build, base, memoryLimit, integers, signal}) {
    const fallbacks = [], names = candidates(can, threads, build, integers);
    for (const name of names) {
      try {
        const engine = await Engine.start(name, base, threads, memoryLimit, signal);
        engine.fallbacks.unshift(...fallbacks);
        return engine;
      } catch (e) {
        signal?.throwIfAborted();
        const error = e instanceof FaceNetError ? e : broken(`The build "${name}"`, e);
        if (name === names.at(-1)) throw error;
        fallbacks.push(error.message);
      }
    }
  }

  static async start(build, base, threads, memoryLimit, signal) {
    const module = await compile(build, base, signal);
    const engine = new Engine();
    engine.build = build.replace('int8-', '');
    engine.threads = threaded(build) ? threads : 1;
    engine.memory = makeMemory(memoryLimit, threaded(build));
    engine.#instantiate(module);
    engine.ready = engine.#startThreads(module);
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

  /** Starts a worker for each thread beside the caller's, while weights arrive. Those that cannot start are done without. */
  async #startThreads(module) {
    if (!threaded(this.build)) return;
    this.exports.facenet_threads(this.threads);
    const started = await Promise.allSettled(Array.from({length: this.threads - 1}, (_, i) => this.#startThread(module, i + 1)));
    if (this.stopped) return;
    const fault = started.findIndex(({status}) => status === 'rejected');
    if (fault < 0) return;
    // Members are numbered without gaps: those before the first that failed stay.
    started.slice(fault).forEach(({value}) => value?.terminate());
    this.workers = started.slice(0, fault).map(({value}) => value);
    this.threads = fault + 1;
    this.exports.facenet_threads(this.threads);
    this.fallbacks.push(started[fault].reason.message);
  }

  async #startThread(module, member) {
    const stack = this.exports.facenet_stack() >>> 0;
    if (stack === 0) throw new FaceNetError('out_of_memory', 'There is not enough memory for another thread.');
    let fault;
    // Without an address first: that works for every bundler and from another origin, but not where the page's
    // Content-Security-Policy has no worker-src blob:.
    for (const make of node ? [nodeWorker] : [textWorker, threadFile]) {
      let worker;
      try {
        worker = await make();
        if (this.stopped) {
          worker.terminate();
          return worker;
        }
        this.workers.push(worker);
        await answered(worker, {module, memory: this.memory, stack, member});
        return worker;
      } catch (e) {
        fault = e;
        worker?.terminate();
        this.workers = this.workers.filter((other) => other !== worker);
      }
    }
    throw new FaceNetError('threads', 'A thread could not be started, so there are fewer: does the page\'s Content-Security-Policy ' +
      `allow blob: or the package's thread.js as worker-src? (${fault?.message ?? 'the browser does not say why'})`, fault);
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

// ---- workers ----------------------------------------------------------------------------------------------------------

async function textWorker() {
  if (typeof Worker !== 'function') throw new Error('there is no Worker here');
  const url = URL.createObjectURL(new Blob([await threadText()], {type: 'text/javascript'}));
  const worker = new Worker(url);
  worker.address = url;
  return worker;
}

const IN_NODE = `const {parentPort} = require('node:worker_threads');
globalThis.postMessage = (message) => parentPort.postMessage(message);
parentPort.on('message', (data) => onmessage({data}));\n`;
async function nodeWorker() {
  const {Worker: Kind} = await builtin('node:worker_threads');
  return new Kind(IN_NODE + await threadText(), {eval: true, execArgv: []});  // Node's own options, such as --input-type, are not for it
}

/** Hands `work` to a worker; resolves when it has begun, rejects when it cannot. */
function answered(worker, work) {
  return new Promise((resolve, reject) => {
    const on = (event, f) => (node ? worker.once(event, f) : worker.addEventListener(event, f, {once: true}));
    const timer = setTimeout(() => reject(new Error('the worker did not answer')), THREAD_MS);
    on('message', resolve);
    on('error', (e) => {
      e.preventDefault?.();
      reject(new Error(e.message || 'the worker could not be loaded'));
    });
    on('messageerror', () => reject(new Error('the module could not be handed to the worker')));
    if (node) on('exit', () => reject(new Error('the worker ended')));
    const clear = () => {
      clearTimeout(timer);
      if (worker.address) URL.revokeObjectURL(worker.address);
      if (node) worker.unref?.();
    };
    on('message', clear);
    on('error', clear);
    worker.postMessage(work);
  });
}
