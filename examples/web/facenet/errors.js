// The engine's error codes in their order (status.hpp).
export const CODES = ['ok', 'invalid_argument', 'out_of_memory', 'io_error', 'not_found', 'truncated', 'corrupt', 'unsupported',
  'limit_exceeded', 'weights_mismatch', 'cancelled'];

/** What went wrong, in one sentence; `code` is for programs. */
export class FaceNetError extends Error {
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : {cause});
    this.name = 'FaceNetError';
    this.code = code;
  }
}

/** Throws unless `right`: an argument that cannot be meant. With a `value` the sentence ends in what that is. */
export function expect(right, sentence, ...value) {
  if (!right) throw new FaceNetError('invalid_argument', value.length ? `${sentence}, not ${kind(value[0])}.` : sentence);
}

/** Throws unless `value` is a whole number from `least` to `most`. */
export function expectWhole(value, name, least, most, what = '') {
  expect(Number.isInteger(value) && value >= least && value <= most, `${name} must be a whole number ${what}from ${least} to ${most}`, value);
}

/** What an argument is, for a sentence. */
export function kind(value) {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'object') return Array.isArray(value) ? 'an array' : `a ${value.constructor?.name ?? 'bare object'}`;
  return typeof value === 'string' ? `"${value.slice(0, 60)}"` : typeof value === 'function' ? 'a function' : String(value);
}

/** The options of a call, with a signal that can be asked. */
export function checkOptions(options, call) {
  expect(options !== null && typeof options === 'object' && !Array.isArray(options), `The options of ${call} must be an object`, options);
  const {signal} = options;
  expect(signal === undefined || typeof signal?.throwIfAborted === 'function', 'signal must be an AbortSignal', signal);
  signal?.throwIfAborted();
  return options;
}
