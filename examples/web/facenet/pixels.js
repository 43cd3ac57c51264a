// Pictures of every kind become {data, width, height} with three or four bytes a pixel.
import {FaceNetError, expect, expectWhole, kind} from './errors.js';

export const MAXIMUM_PIXELS = 33_554_432; // facenet::max_image_pixels

const TAKEN = 'give ImageData, an ImageBitmap, a canvas, an <img>, a <video>, a Blob or {data, width, height}.';

let canvas;  // kept: a new one for each frame of a camera is garbage

const tag = (data) => Object.prototype.toString.call(data).slice(8, -1);  // of other realms too, where instanceof fails
const number = (x) => (Number.isInteger(x) && x > 0 ? x : 0);

/** The pixels of ImageData or {data, width, height}, checked before any memory is written. */
function checkPixels(picture) {
  const {width, height} = picture;
  let {data} = picture;
  expect(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0,
    `A picture's width and height must be whole numbers above 0, not ${kind(width)} and ${kind(height)}.`);
  const name = tag(data);
  if (name === 'Float16Array') data = Uint8ClampedArray.from(data, (x) => 255 * x);  // ImageData of "rgba-float16", 0 … 1
  else
    expect(name === 'Uint8Array' || name === 'Uint8ClampedArray',
      'Pixels must be a Uint8Array or Uint8ClampedArray with values of 0 to 255', data);
  const channels = data.length / (width * height);
  expect(channels === 3 || channels === 4, `${width} x ${height} pixels need 3 or 4 bytes each, but there are ${data.length} bytes.`);
  return {data, width, height, scale: 1};
}

/** Width and height that a JPEG or PNG file states, as stored; undefined for others. */
async function statedSize(blob) {
  const bytes = new Uint8Array(await blob.slice(0, 1 << 18).arrayBuffer()), view = new DataView(bytes.buffer);
  if (bytes.length > 24 && view.getUint32(0) === 0x89504e47) return [view.getUint32(16), view.getUint32(20)];
  if (bytes.length < 4 || view.getUint16(0) !== 0xffd8) return undefined;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + view.getUint16(at + 2)) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return [view.getUint16(at + 7), view.getUint16(at + 5)];
  }
  return undefined;
}

const unreadable = (what) => (e) => {
  throw new FaceNetError('corrupt', `${what} is no picture that this browser can read.`, e);
};

/** A bitmap of a file, at most `longest` pixels wide or high, and how much smaller it is than the file's picture. */
async function decode(blob, longest) {
  const what = blob.name ?? 'The file';
  const size = longest ? await statedSize(blob) : undefined;
  if (size && Math.max(...size) > longest) {
    // Given one side, the browser keeps the proportions, of the picture as its EXIF turns it.
    const share = longest / Math.max(...size);
    const first = Math.max(1, Math.round(size[0] * share)), turned = Math.max(1, Math.round(size[1] * share));
    let bitmap = await createImageBitmap(blob, {resizeWidth: first, resizeQuality: 'medium'}).catch(unreadable(what));
    if (Math.abs(bitmap.height - turned) <= 1) return {bitmap, scale: size[0] / bitmap.width};
    bitmap.close();
    bitmap = await createImageBitmap(blob, {resizeWidth: turned, resizeQuality: 'medium'}).catch(unreadable(what));
    return {bitmap, scale: size[1] / bitmap.width};
  }
  return {bitmap: await createImageBitmap(blob).catch(unreadable(what)), scale: 1};
}

/**
 * {data, width, height, scale}: three or four bytes a pixel, of the picture made `scale` times smaller. `resize` is the longest
 * side it may have.
 */
export async function pixels(picture, {resize, signal} = {}) {
  if (resize !== undefined) expectWhole(resize, 'resize', 160, 16384, 'of pixels ');
  expect(picture !== null && typeof picture === 'object' && !(ArrayBuffer.isView(picture) || Array.isArray(picture)),
    ArrayBuffer.isView(picture) || Array.isArray(picture)
      ? 'These are numbers without a width and height: give pixels as {data, width, height}, and embeddings to verify() or a Matcher.'
      : `This is no picture but ${kind(picture)}: ${TAKEN}`);
  const held = 'data' in picture && !('close' in picture);
  if (held && !resize) return checkPixels(picture);
  const draws = typeof OffscreenCanvas === 'function' || typeof document === 'object';
  if (held) {
    const whole = checkPixels(picture);
    if (Math.max(whole.width, whole.height) <= resize) return whole;
    throw new FaceNetError('unsupported', 'resize is for files and for what a browser shows: make pixels smaller before you give them.');
  }
  if (!draws) throw new FaceNetError('unsupported', 'Nothing here decodes pictures: give their pixels as {data, width, height}.');
  let source = picture, scale = 1;
  if (typeof Blob === 'function' && picture instanceof Blob) {
    ({bitmap: source, scale} = await decode(picture, resize));
  } else if (typeof HTMLImageElement === 'function' && picture instanceof HTMLImageElement) {
    await picture.decode().catch((e) => {
      throw new FaceNetError('corrupt', 'The <img> has no picture, or one that cannot be read.', e);
    });
  }
  try {
    signal?.throwIfAborted();
    let width = number(source.naturalWidth ?? source.videoWidth ?? source.displayWidth ?? source.width);
    let height = number(source.naturalHeight ?? source.videoHeight ?? source.displayHeight ?? source.height);
    expect(width > 0 && height > 0, typeof source.videoWidth === 'number' ? 'The <video> shows no picture yet: wait for its "loadeddata".'
      : `This is no picture, or an empty one: ${TAKEN}`);
    if (resize && Math.max(width, height) > resize) {
      const share = resize / Math.max(width, height);
      scale *= 1 / share;
      width = Math.max(1, Math.round(width * share));
      height = Math.max(1, Math.round(height * share));
    }
    if (width * height > MAXIMUM_PIXELS)
      throw new FaceNetError('limit_exceeded', `The picture has ${width} x ${height} pixels and may have ${MAXIMUM_PIXELS}: say {resize: 4096}, which makes it smaller.`);
    return {...draw(source, width, height), scale};
  } finally {
    if (source !== picture) source.close();
  }
}

function draw(source, width, height) {
  canvas ??= typeof OffscreenCanvas === 'function' ? new OffscreenCanvas(1, 1) : document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  try {
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(source, 0, 0, width, height);
    const {data} = context.getImageData(0, 0, width, height);
    return {data, width, height};
  } catch (e) {
    const origin = e.name === 'SecurityError';
    throw new FaceNetError(origin ? 'unsupported' : 'invalid_argument', origin
      ? 'The pixels may not be read: the picture is from another origin that does not allow it.'
      : `The picture cannot be drawn: it was closed, handed to another thread, or is too large (${e.message}).`, e);
  } finally {
    canvas.width = canvas.height = 1;
  }
}
