// Loads the module that Emscripten made with std::thread (preset wasm-threads): not the package's, for programs of one's own.
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

import {ROOT} from './support.mjs';

const FOLDER = path.join(ROOT, 'build/wasm-threads/examples/web');
export const built = fs.existsSync(path.join(FOLDER, 'facenet-threads.mjs'));

/** The module's exports, and its memory. */
export async function start(threads) {
  const wasmMemory = new WebAssembly.Memory({initial: 256, maximum: 16384, shared: true});
  const module = await WebAssembly.compile(fs.readFileSync(path.join(FOLDER, 'facenet-threads.wasm')));
  // Emscripten's glue is written for CommonJS in Node.
  Object.assign(globalThis, {require: createRequire(import.meta.url), __dirname: FOLDER});
  try {
    const {default: createModule} = await import(pathToFileURL(path.join(FOLDER, 'facenet-threads.mjs')).href);
    const glue = await createModule({
      workers: 2 * (threads - 1),  // the embedder's and the detector's
      wasmMemory,
      INITIAL_MEMORY: 256 * 65536,
      locateFile: (name) => path.join(FOLDER, name),
      instantiateWasm: (imports, done) => {
        WebAssembly.instantiate(module, imports).then((instance) => done(instance, module));
        return {};
      },
    });
    // Emscripten gives the module's own exports short names.
    const exports = Object.fromEntries(Object.entries(glue).map(([name, f]) => [name.replace(/^_/, ''), f]));
    return {exports, memory: wasmMemory, stop: () => glue.stop()};
  } finally {
    delete globalThis.require;
    delete globalThis.__dirname;
  }
}
