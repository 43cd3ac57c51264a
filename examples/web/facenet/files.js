// Files from servers, disks and the Cache API.
import {FaceNetError, expect, kind} from './errors.js';
import {baseAddress, builtin, node} from './host.js';

const CACHE = 'facenet-weights';
const KEPT = 3;  // weight files in the cache at most: a page with a model for phones and one for others needs two
const keyOf = (sha256) => `https://facenet.invalid/${sha256}`;

export const plain = (url) => String(url).replace(/[?#].*/, '');

/** The address that `text` means, or an error that says which option was wrong. */
export function address(text, what) {
  try {
    return new URL(text, baseAddress());
  } catch (e) {
    throw new FaceNetError('invalid_argument', `${what} is no address: ${kind(text)}.`, e);
  }
}

function refuse(response, what) {
  if (response.type === 'opaque' || response.type === 'opaqueredirect')
    throw new FaceNetError('network', `${what} cannot be read: it was fetched with "no-cors" or a redirect that is not followed.`);
  throw new FaceNetError(response.status === 404 ? 'not_found' : 'network',
    `${what} cannot be fetched: ${plain(response.url) || 'the server'} answered with status ${response.status}.`);
}

/** fetch() that says what is wrong, and reads files in Node. */
export async function request(url, what, signal) {
  if (node && url.protocol === 'file:') {
    const fs = await builtin('node:fs'), {Readable} = await builtin('node:stream');
    try {
      const info = fs.statSync(url);
      if (!info.isFile()) throw Object.assign(new Error('not a file'), {code: 'a folder'});
      return new Response(Readable.toWeb(fs.createReadStream(url, {signal, highWaterMark: 1 << 20})),
        {headers: {'content-length': String(info.size)}});
    } catch (e) {
      throw new FaceNetError('not_found', `${what} cannot be read: ${plain(url)} (${e.code ?? e.message}).`, e);
    }
  }
  let response;
  try {
    response = await fetch(url, {signal});
  } catch (e) {
    signal?.throwIfAborted();
    throw new FaceNetError('network', `${what} cannot be fetched: ${plain(url)}. Is the network there, and does the server allow it?`, e);
  }
  if (!response.ok) {
    response.body?.cancel().catch(() => {});
    refuse(response, what);
  }
  return response;
}

export const isPage = (bytes) => /^\s*<(!doctype|html|head|body|\?xml)/i.test(new TextDecoder().decode(bytes.subarray(0, 64)));

/** Throws where the first bytes are those of a page, of Git LFS or of JSON instead of weights. */
function checkStart(bytes, name) {
  const instead = (code, what) => {
    throw new FaceNetError(code, `Instead of weights ${name} is ${what}`);
  };
  if (isPage(bytes)) instead('html', 'a web page: is the address right, and does the server have the file?');
  const text = new TextDecoder().decode(bytes.subarray(0, 40));
  if (text.startsWith('version https://git-lfs'))
    instead('corrupt', 'a pointer of Git LFS: run "git lfs pull" where the server has its files.');
  // A weight file begins with a length in eight bytes, the last of which are 0.
  if (/^\s*[{[]["\s{[\]}]/.test(text) && bytes[7] !== 0)
    instead('corrupt', 'JSON, perhaps the server\'s own error message: is the address right?');
}

/** Streams `response` into the engine's memory; the number of bytes. */
export async function receive(engine, {response, name}, signal, onProgress) {
  // Content-Length counts what travels: of a compressed answer it says nothing about the file.
  const total = response.headers.has('content-encoding') ? 0 : Number(response.headers.get('content-length')) || 0;
  let size = 0, room = 0;
  const reader = response.body.getReader();
  try {
    onProgress?.({loaded: 0, total});
    for (;;) {
      let chunk;
      try {
        chunk = await reader.read();
      } catch (e) {
        signal?.throwIfAborted();
        throw new FaceNetError('network', `The download of ${name} broke off after ${size} bytes${total ? ` of ${total}` : ''}: try again.`, e);
      }
      signal?.throwIfAborted();
      if (chunk.done) break;
      if (!(chunk.value instanceof Uint8Array)) throw new FaceNetError('invalid_argument', `The Response of ${name} gives no bytes.`);
      if (size === 0) checkStart(chunk.value, name);
      if (size + chunk.value.length > room) room = Math.max(total, size + chunk.value.length, Math.ceil(room * 1.5));
      engine.bytes(engine.reserve(room), room).set(chunk.value, size);
      size += chunk.value.length;
      onProgress?.({loaded: size, total});
    }
  } catch (e) {
    reader.cancel(e).catch(() => {});
    throw e;
  }
  if (size === 0) throw new FaceNetError('truncated', `${name} is empty.`);
  return size;
}

/** The cache of weight files, or undefined where there is none (Node, insecure pages) or it may not be used. */
export async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined;
  }
}

/** Deletes all that keep() kept. */
export async function clearCache() {
  try {
    await globalThis.caches?.delete(CACHE);
  } catch (e) {
    throw new FaceNetError('io_error', 'The cache of weight files cannot be deleted: the browser refuses it.', e);
  }
}

/** Opens the weights: from the cache if they are there by digest, else from where they are. */
export async function openWeights(weights, sha256, cache, signal) {
  if (typeof weights?.then === 'function') {
    try {
      weights = await weights;
    } catch (e) {
      signal?.throwIfAborted();
      throw new FaceNetError('network', 'The weights did not arrive: the promise that was given as "weights" was rejected.', e);
    }
  }
  const held = (body, size, name) => ({response: new Response(body, {headers: {'content-length': String(size)}}), name});
  if (typeof Response === 'function' && weights instanceof Response) {
    const name = plain(weights.url) || 'the response';
    if (!weights.ok) refuse(weights, 'The weight file');
    expect(!weights.bodyUsed && !weights.body?.locked, `The Response of ${name} has been read already: give a new one, or a clone().`);
    if (weights.body === null) throw new FaceNetError('truncated', `${name} is empty.`);
    return {response: weights, name};
  }
  const shared = typeof SharedArrayBuffer === 'function' && (weights?.buffer ?? weights) instanceof SharedArrayBuffer;
  if (shared) weights = new Uint8Array(weights.buffer ?? weights, weights.byteOffset ?? 0, weights.byteLength).slice();
  if (weights instanceof ArrayBuffer || ArrayBuffer.isView(weights)) {
    expect(weights.byteLength > 0, 'The bytes of the weights are none: the buffer is empty, or was transferred elsewhere.');
    return held(weights, weights.byteLength, 'the weights');
  }
  if (typeof Blob === 'function' && weights instanceof Blob) return held(weights.stream(), weights.size, weights.name ?? 'the file');
  expect((typeof weights === 'string' && weights !== '') || weights instanceof URL,
    `weights must be an address, a Response, a Blob or bytes, not ${weights === '' ? 'an empty text' : kind(weights)}.`);
  const url = address(weights, 'weights');
  const key = sha256 ? keyOf(sha256) : url.href;
  const name = plain(url);
  const again = async () => ({response: await request(url, 'The weight file', signal), name, key});
  const match = async () => cache?.match(key).catch(() => undefined);
  // A digest names the content, so a copy is as good as the original; without one the server is asked first.
  const copy = sha256 ? await match() : undefined;
  if (copy) return {response: copy, name, key, cached: true, again};
  try {
    return await again();
  } catch (e) {
    const last = e.code === 'network' && !sha256 ? await match() : undefined;
    if (last) return {response: last, name, key, cached: true};
    throw e;
  }
}

/** Keeps a weight file; others of the same address leave the cache, and the oldest beyond KEPT. Whether it is kept. */
export async function keep(cache, {key, name}, bytes) {
  try {
    const headers = {'content-length': String(bytes.length), 'content-type': 'application/octet-stream',
      'x-facenet-from': encodeURI(name), date: new Date().toUTCString()};
    await cache.put(key, new Response(bytes, {headers}));
    const others = [];
    for (const other of await cache.keys()) {
      const response = other.url === key ? undefined : await cache.match(other);
      if (response) others.push({other, from: response.headers.get('x-facenet-from'), at: Date.parse(response.headers.get('date')) || 0});
    }
    const rest = others.filter(({from}) => from !== encodeURI(name)).sort((a, b) => b.at - a.at).slice(0, KEPT - 1);
    for (const entry of others) if (!rest.includes(entry)) await cache.delete(entry.other);
    return true;
  } catch {
    return false;  // a full disk is no reason to fail
  }
}
