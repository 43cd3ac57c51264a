// Embeddings as numbers: what JSON made of them is taken too.
import {expect, kind} from './errors.js';

/** What may be an embedding: an array of numbers, or the object that JSON.stringify() makes of a Float32Array. */
export function looksLikeEmbedding(value) {
  if (value === null || typeof value !== 'object') return false;
  return Array.isArray(value) || ArrayBuffer.isView(value) || ('0' in value && !('data' in value));
}

/** The numbers of an embedding, checked; `length` numbers where that is given. */
export function embeddingOf(value, length, what = 'The embedding') {
  expect(looksLikeEmbedding(value), `${what} must be an array of numbers`, value);
  expect(!(ArrayBuffer.isView(value) && !/^Float(16|32|64)Array$/.test(Object.prototype.toString.call(value).slice(8, -1))),
    `${what} must be an array of fractions, not ${kind(value)}, which holds bytes or whole numbers.`);
  const numbers = typeof value.length === 'number' ? Array.from(value) : Object.values(value);
  expect(numbers.length > 0 && (length === undefined || numbers.length === length),
    `${what} has ${numbers.length} numbers${length === undefined ? '' : ` and this model's have ${length}`}.`);
  expect(numbers.every((x) => typeof x === 'number' && Number.isFinite(x)), `${what} has an entry that is no finite number.`);
  expect(numbers.some((x) => x !== 0), `${what} is all zeros.`);
  return Float32Array.from(numbers);
}

/** Euclidean distance of two embeddings of equal length. */
export function distance(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum);
}

/** Their cosine. */
export function similarity(a, b) {
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
}
