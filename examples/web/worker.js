// The engine in a worker of its own, so that the page stays usable while it computes.
import {FaceNet} from './facenet/index.js';

let net;
let abort;

const timed = async (f) => {
  const start = performance.now();
  const value = await f();
  return [value, performance.now() - start];
};
const decode = async (picture) => {
  const bitmap = picture instanceof ImageBitmap ? picture : await createImageBitmap(picture).catch((cause) => {
    throw Object.assign(new Error(`${picture.name || 'The file'} is no picture that this browser can read.`), {cause});
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
};

const methods = {
  async load(options) {
    net?.dispose();
    abort = new AbortController();
    const start = performance.now();
    net = await FaceNet.load({...options, signal: abort.signal, onProgress: (p) => postMessage({progress: p})});
    return {...net.info, ms: performance.now() - start};
  },
  abort: () => abort?.abort(),
  /** Faces with embeddings, and how long each step took. */
  async faces(picture, options) {
    const [pixels, decoding] = await timed(() => decode(picture));
    const [faces, detecting] = await timed(() => net.detect(pixels, options));
    const [, embedding] = await timed(async () => {
      for (const face of faces) face.embedding = await net.embed(pixels, {face});
    });
    return {faces, width: pixels.width, height: pixels.height, times: {decoding, detecting, embedding}};
  },
  verify: (a, b) => net.verify(a, b),
  async forget() {
    net?.dispose();
    net = undefined;
    await FaceNet.clearCache();
  },
};

addEventListener('message', async ({data: {id, method, args}}) => {
  try {
    postMessage({id, value: await methods[method](...args)});
  } catch (error) {
    postMessage({id, error: {name: error.name, code: error.code, message: error.message}});
  }
});
