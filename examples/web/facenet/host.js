// What the program around the package can do.

// Node, Deno, Bun; by what is there, since bundlers and Electron mix the conditions of browsers and Node.
export const node = typeof process === 'object' && typeof process?.versions?.node === 'string' && process.type !== 'renderer';

/** One of Node's own modules. Bundlers for browsers must not see its name: they would look for it. */
export async function builtin(name) {
  return process.getBuiltinModule?.(name) ?? import(/* webpackIgnore: true */ /* turbopackIgnore: true */ /* @vite-ignore */ name);
}

// Modules of one function each: i32.const 0, i8x16.splat, i8x16.popcnt; and i8x16.relaxed_swizzle.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2,
  253, 15, 253, 128, 2, 11];

/** What can be used here: `threads` needs a page isolated from other origins (COOP and COEP), or Node. */
export function features() {
  const valid = (bytes) => typeof WebAssembly === 'object' && WebAssembly.validate(new Uint8Array(bytes));
  const shared = typeof SharedArrayBuffer === 'function' && (node || globalThis.crossOriginIsolated === true);
  return {simd: valid(SIMD), relaxed: valid(RELAXED), threads: shared};
}

export async function processors() {
  if (!node) return globalThis.navigator?.hardwareConcurrency || 1;
  const os = await builtin('node:os');
  return os.availableParallelism?.() ?? os.cpus().length;
}

/** The address against which relative ones are meant; undefined in a worker made of a blob, where none can be. */
export function baseAddress() {
  if (node) return `file://${process.cwd().replaceAll('\\', '/').replaceAll('%', '%25').replace(/^(?!\/)/, '/')}/`;
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  return base?.startsWith('blob:') ? globalThis.location.origin : base;
}
