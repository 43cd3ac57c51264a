// FaceNet in JavaScript: finds faces, turns them into embeddings, compares them. No dependency; nothing leaves the machine.
// Runs in a page, in workers and in Node from 18 on. README.md has an example; index.d.ts describes every option.
import {NAMES, threaded} from './builds.js';
import {distance, embeddingOf, looksLikeEmbedding, similarity} from './embeddings.js';
import {Engine, MAXIMUM_MEMORY} from './engine.js';
import {FaceNetError, checkOptions, expect, expectWhole} from './errors.js';
import {address, clearCache, keep, openCache, openWeights, receive} from './files.js';
import {features, processors} from './host.js';
import {pixels} from './pixels.js';
import {Track} from './track.js';

export {drawFaces} from './draw.js';
export {Matcher} from './matcher.js';
export {FaceNetError, distance, features, similarity};

const ISOLATION = 'COOP and COEP headers (README.md)';
const finite = (list, length) => Array.isArray(list) && list.length === length && list.every((x) => Number.isFinite(x));

function checkLoad(options) {
  const {weights, wasm, threads, build, arithmetic, sha256, cache, memoryLimit, onProgress} = checkOptions(options, 'load()');
  expect(weights !== undefined && weights !== null, 'load() needs the weights: their address, a Response, a Blob or bytes.');
  expect(wasm === undefined || (typeof wasm === 'string' && wasm !== '') || wasm instanceof URL, 'wasm must be the address of the folder with the modules', wasm);
  expect(sha256 === undefined || (typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)), 'sha256 must be 64 lowercase hex digits', sha256);
  if (threads !== undefined) expectWhole(threads, 'threads', 1, 64);
  expect(build === undefined || NAMES.includes(build), `build must be one of ${NAMES.join(', ')}`, build);
  expect(arithmetic === undefined || arithmetic === 'float' || arithmetic === 'int8', 'arithmetic must be "float" or "int8"', arithmetic);
  expect(cache === undefined || typeof cache === 'boolean', 'cache must be true or false', cache);
  expect(memoryLimit === undefined || (Number.isFinite(memoryLimit) && memoryLimit >= 1 << 24 && memoryLimit <= MAXIMUM_MEMORY),
    'memoryLimit must be a number of bytes, 16 MB to 1 GB', memoryLimit);
  expect(onProgress === undefined || typeof onProgress === 'function', 'onProgress must be a function', onProgress);
}

/** An error that nobody foresaw becomes one of ours; an abort stays what it is. */
function known(error, signal, what) {
  if (error instanceof FaceNetError || (signal?.aborted && error === signal.reason)) return error;
  return new FaceNetError(error instanceof RangeError ? 'out_of_memory' : 'error', `${what}: ${error?.message ?? error}.`, error);
}

/** A face as detect() gives it, checked against the picture that it is cut out of. */
function checkFace(face, {width, height}) {
  expect(face !== null && typeof face === 'object', 'face must be one that detect() found', face);
  const {box, score = 1, landmarks = []} = face;
  expect(finite(box, 4) && box[2] > box[0] && box[3] > box[1], 'face.box must be four numbers: left, top, right, bottom.');
  expect(Number.isFinite(score), 'face.score must be a number', score);
  expect(Array.isArray(landmarks) && (landmarks.length === 0 || (landmarks.length === 5 && landmarks.every((p) => finite(p, 2)))),
    'face.landmarks must be five points of two numbers, or be left out.');
  expect(box[0] < width && box[1] < height && box[2] > 0 && box[3] > 0,
    `The face lies outside the picture of ${width} x ${height} pixels: was it found in another one?`);
  const outside = ([x, y]) => x < -width || y < -height || x > 2 * width || y > 2 * height;
  expect(!landmarks.some(outside), `The face's landmarks lie outside the picture of ${width} x ${height} pixels.`);
  return {box, score, landmarks};
}

const scaled = ({box, score, landmarks}, by) => ({box: box.map((x) => x * by), score, landmarks: landmarks.map((p) => p.map((x) => x * by))});

export class FaceNet {
  #engine;

  /** Loads the engine and a weight file. See index.d.ts for the options. */
  static async load(options = {}) {
    checkLoad(options);
    const {weights, wasm, threads, build, arithmetic = 'float', sha256, cache: useCache = true, memoryLimit = MAXIMUM_MEMORY, onProgress} = options;
    const can = features();
    if (build !== undefined && threaded(build) && !can.threads)
      throw new FaceNetError('unsupported', `Threads need an isolated page: ${ISOLATION}.`);
    if (build !== undefined && build !== 'scalar' && !can.simd)
      throw new FaceNetError('unsupported', 'There is no WebAssembly SIMD here: leave "build" out.');
    const integers = arithmetic === 'int8';
    if (integers && (build === 'scalar' || !can.simd))
      throw new FaceNetError('unsupported', 'Integer arithmetic needs WebAssembly SIMD: leave "arithmetic" out.');
    const base = wasm === undefined ? undefined : address(String(wasm).replace(/\/?$/, '/'), 'wasm');

    // Whatever fails ends the downloads of the others.
    const ending = new AbortController(), {signal} = ending;
    const end = () => ending.abort(options.signal.reason);
    options.signal?.addEventListener('abort', end, {once: true});
    let engine;
    try {
      const wanted = can.threads ? threads ?? Math.min(4, await processors()) : 1;
      const cache = useCache ? await openCache() : undefined;
      const opening = openWeights(weights, sha256, cache, signal);
      const starting = Engine.choose(can, wanted, {build, base, memoryLimit, integers, signal}).then((it) => (engine = it));
      await Promise.all([opening, starting]);  // the first that fails is reported at once
      if (threads > 1 && !can.threads) engine.fallbacks.push(`There is one thread: this page is not isolated. Threads need ${ISOLATION}.`);

      let from = await opening, size;
      for (;;) {
        try {
          size = await receive(engine, from, signal, onProgress);
          await engine.ready;
          FaceNet.#read(engine, size, from, sha256, integers);
          break;
        } catch (e) {
          signal.throwIfAborted();
          // A copy that was damaged on this device: away with it, and the file once more.
          if (!from.cached || !['corrupt', 'truncated', 'html', 'digest', 'weights_mismatch', 'unsupported'].includes(e.code)) throw e;
          await cache.delete(from.key).catch(() => false);
          if (!from.again) throw e;
          from = await from.again();
        }
      }
      let kept = from.cached === true;
      // A copy: what is in shared memory may not be handed to a Response.
      if (from.key && cache && !kept) kept = await keep(cache, from, engine.bytes(engine.exports.facenet_reserve(0), size).slice());
      signal.throwIfAborted();
      engine.exports.facenet_release();
      return new FaceNet(engine, {arithmetic, cached: from.cached === true, kept});
    } catch (e) {
      const error = known(e, options.signal, 'The weights could not be loaded');
      ending.abort(error);
      engine?.stop();
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', end);
    }
  }

  static #read(engine, size, {name, cached}, sha256, integers) {
    const e = engine.exports;
    // What is cached by digest was checked before it was put there; its tensors' own hashes tell damage since.
    const check = !cached && sha256 ? sha256 : '';
    engine.bytes(e.facenet_text(), 65).set(new TextEncoder().encode(`${check}\0`.slice(0, 65)));
    if (e.facenet_load(size, engine.threads, Number(integers)) === 0) return;
    const error = engine.error(`${name}: `);
    if (check && /SHA-256/.test(error.message)) error.code = 'digest';
    throw error;
  }

  /** Deletes the weight files that load() kept. */
  static async clearCache() {
    await clearCache();
  }

  constructor(engine, extra) {
    expect(engine instanceof Engine, 'A FaceNet is made by FaceNet.load().');
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
      fallbacks: Object.freeze(engine.fallbacks),
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

  /** Runs `act(engine, source)` with the picture in the engine's memory. */
  async #with(picture, options, call, act) {
    checkOptions(options, call);
    this.#use();
    try {
      const source = await pixels(picture, options);
      options.signal?.throwIfAborted();
      const engine = this.#use();
      this.#place(engine, source);
      return act(engine, source);
    } catch (e) {
      throw known(e, options.signal, `${call} failed`);
    }
  }

  /** Puts a picture into the engine's memory. */
  #place(engine, {data, width, height}) {
    const pointer = engine.exports.facenet_picture(width, height) >>> 0;
    if (pointer === 0) throw engine.error('The picture: ');
    const to = engine.bytes(pointer, width * height * 4);
    if (data.length === to.length) to.set(data);
    else for (let from = 0, at = 0; from < data.length; from += 3, at += 4) {
      to[at] = data[from];
      to[at + 1] = data[from + 1];
      to[at + 2] = data[from + 2];
      to[at + 3] = 255;
    }
    engine.exports.facenet_opaque();
  }

  #find(engine, {scale}, {minFace = 20, maxFaces = 0}) {
    expectWhole(minFace, 'minFace', 1, 16384, 'of pixels ');
    expectWhole(maxFaces, 'maxFaces', 0, 1e6);
    const count = engine.exports.facenet_detect(Math.max(1, Math.round(minFace / scale)), maxFaces);
    if (count < 0) throw engine.error('Finding faces: ');
    return Array.from({length: count}, (_, i) => {
      const f = Array.from(engine.floats(engine.exports.facenet_face(i) >>> 0, 15));
      return {box: f.slice(0, 4), score: f[4], landmarks: [5, 7, 9, 11, 13].map((at) => [f[at], f[at + 1]])};
    });
  }

  /** The embedding of `face`, in the pixels of the picture in memory; of the whole picture without it. */
  #embedding(engine, face) {
    if (face) {
      const points = face.landmarks.length ? face.landmarks.flat() : new Array(10).fill(0);
      engine.floats(engine.exports.facenet_face(-1) >>> 0, 15).set([...face.box, face.score, ...points]);
    }
    const pointer = engine.exports.facenet_embed(face ? 0 : 1) >>> 0;
    if (pointer === 0) throw engine.error('The embedding: ');
    return engine.floats(pointer, this.info.embeddingDim).slice();
  }

  /** The faces of a picture, the largest first. None is an empty list. */
  async detect(picture, options = {}) {
    return this.#with(picture, options, 'detect()', (engine, source) =>
      this.#find(engine, source, options).map((face) => scaled(face, source.scale)));
  }

  /** All faces of a picture with their embeddings, the largest first; the picture is decoded and copied once. */
  async describe(picture, options = {}) {
    return this.#with(picture, options, 'describe()', (engine, source) =>
      this.#find(engine, source, options).map((face) => ({...scaled(face, source.scale), embedding: this.#embedding(engine, face)})));
  }

  /** describe() of many pictures, one after the other: {index, faces}, or {index, error} for one that failed. */
  async *describeAll(pictures, options = {}) {
    expect(typeof (pictures?.[Symbol.iterator] ?? pictures?.[Symbol.asyncIterator]) === 'function' && typeof pictures !== 'string',
      'describeAll() needs a list of pictures', pictures);
    let index = 0;
    for await (const picture of pictures) {
      checkOptions(options, 'describeAll()');
      try {
        yield {index, faces: await this.describe(picture, options)};
      } catch (error) {
        if (!(error instanceof FaceNetError) || error.code === 'disposed') throw error;
        yield {index, error};
      }
      index++;
    }
  }

  /** The embedding of one face: of `face` (one that detect() found), of the `aligned` picture as a whole, else of the largest. */
  async embed(picture, options = {}) {
    return this.#with(picture, options, 'embed()', (engine, source) => {
      const {face, aligned} = options;
      expect(aligned === undefined || typeof aligned === 'boolean', 'aligned must be true or false', aligned);
      expect(!(face !== undefined && aligned), 'Give embed() a face or say that the picture is aligned, not both.');
      if (aligned) return this.#embedding(engine);
      if (face !== undefined) return this.#embedding(engine, checkFace(scaled(checkFace(face, {width: Infinity, height: Infinity}), 1 / source.scale), source));
      const [largest] = this.#find(engine, source, {...options, maxFaces: 1});
      if (largest === undefined) throw new FaceNetError('no_face', 'No face was found in the picture; say {aligned: true} if it is a face crop.');
      return this.#embedding(engine, largest);
    });
  }

  /** Whether two faces are one person's. Each is a picture, or an embedding that embed() returned. */
  async verify(a, b, options = {}) {
    const {threshold = this.info.threshold, faces = [], ...rest} = checkOptions(options, 'verify()');
    expect(Number.isFinite(threshold) && threshold > 0, 'threshold must be a distance above 0', threshold);
    expect(!('face' in options), 'verify() takes two faces: say {faces: [of the first picture, of the second]}.');
    expect(Array.isArray(faces) && faces.length <= 2, 'faces must be [face of the first picture, face of the second]; either may be undefined.');
    this.#use();
    const one = (x, face, what) => (looksLikeEmbedding(x) ? embeddingOf(x, this.info.embeddingDim, what) : this.embed(x, {...rest, ...(face ? {face} : {})}));
    const x = await one(a, faces[0], 'The first embedding'), y = await one(b, faces[1], 'The second embedding');
    const d = distance(x, y);
    return {distance: d, similarity: similarity(x, y), threshold, same: d <= threshold, trained: this.info.trained};
  }

  /** Calls `onFaces` with the faces of a playing video, frame after frame, until stop(). */
  track(video, options = {}) {
    this.#use();
    return new Track(this, video, options);
  }

  /** Stops the threads and gives the memory back. */
  dispose() {
    this.#engine?.stop();
    this.#engine = undefined;
  }
}
