// Where the modules are. Each is there twice: as a file, which the browser compiles while it arrives, and as a script, which
// every bundler takes along. Vite, webpack, Parcel and Turbopack copy a file whose address is written as below, in one piece;
// esbuild and Rollup do not, and import the script.
const BUILDS = {
  'relaxed-threads': [() => new URL('./dist/facenet-relaxed-threads.wasm', import.meta.url), () => import('./dist/facenet-relaxed-threads.js')],
  threads: [() => new URL('./dist/facenet-threads.wasm', import.meta.url), () => import('./dist/facenet-threads.js')],
  relaxed: [() => new URL('./dist/facenet-relaxed.wasm', import.meta.url), () => import('./dist/facenet-relaxed.js')],
  simd: [() => new URL('./dist/facenet-simd.wasm', import.meta.url), () => import('./dist/facenet-simd.js')],
  scalar: [() => new URL('./dist/facenet-scalar.wasm', import.meta.url), () => import('./dist/facenet-scalar.js')],
  'int8-relaxed-threads': [() => new URL('./dist/facenet-int8-relaxed-threads.wasm', import.meta.url), () => import('./dist/facenet-int8-relaxed-threads.js')],
  'int8-threads': [() => new URL('./dist/facenet-int8-threads.wasm', import.meta.url), () => import('./dist/facenet-int8-threads.js')],
  'int8-relaxed': [() => new URL('./dist/facenet-int8-relaxed.wasm', import.meta.url), () => import('./dist/facenet-int8-relaxed.js')],
  'int8-simd': [() => new URL('./dist/facenet-int8-simd.wasm', import.meta.url), () => import('./dist/facenet-int8-simd.js')],
};
export const NAMES = Object.keys(BUILDS).filter((name) => !name.startsWith('int8'));
export const threaded = (build) => build.endsWith('threads');

/** The file of a build, or undefined where a bundler moved this script and left the file behind. */
export function fileOf(build) {
  try {
    const url = BUILDS[build][0]();
    // An address that nobody rewrote is right only beside this script itself.
    const beside = url.href.endsWith(`/dist/facenet-${build}.wasm`);
    const here = /\/(builds|facenet\.min)\.js([?#]|$)|\/index\.cjs$/.test(import.meta.url);
    return beside && !here ? undefined : url;
  } catch {
    return undefined;  // a classic script has no address
  }
}

/** The bytes of a build from its script. */
export async function scriptOf(build) {
  const {default: text} = await BUILDS[build][1]();
  const packed = typeof Buffer === 'function' ? Buffer.from(text, 'base64') : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The text of thread.js, for a worker without an address; and that worker by address, for pages that allow no other. */
export const threadText = async () => (await import('./dist/thread.js')).default;
export const threadFile = () => new Worker(new URL('./thread.js', import.meta.url));

/** Modules to try, the best first. Integers have modules of their own, and none without SIMD. */
export function candidates(can, threads, wanted, integers) {
  if (integers) return candidates(can, threads, wanted).filter((name) => name !== 'scalar').map((name) => `int8-${name}`);
  if (wanted !== undefined) return [wanted];
  if (!can.simd) return ['scalar'];
  const relaxed = can.relaxed ? ['relaxed'] : [], all = [...relaxed, 'simd', 'scalar'];
  return threads > 1 ? [...relaxed.map((name) => `${name}-threads`), 'threads', ...all] : all;
}
