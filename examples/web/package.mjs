#!/usr/bin/env node
// Completes the package: node examples/web/package.mjs [--whole]
// Makes of each module in facenet/dist a script that bundlers take along, and of index.js one file for <script type=module>,
// one for require(), and the licence texts. --whole: an error where a module or a tool is missing; npm pack asks for that.
import {createRequire} from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import zlib from 'node:zlib';

const HERE = path.dirname(fileURLToPath(import.meta.url)), ROOT = path.resolve(HERE, '../..');
const PACKAGE = path.join(HERE, 'facenet'), DIST = path.join(PACKAGE, 'dist');
const BUILDS = ['relaxed-threads', 'threads', 'relaxed', 'simd', 'scalar', 'int8-relaxed-threads', 'int8-threads', 'int8-relaxed', 'int8-simd'];
const whole = process.argv.includes('--whole');
const missing = [];

// On disk only where it changes: several presets call this at once.
function write(name, text) {
  const file = path.join(PACKAGE, name);
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) return;
  fs.writeFileSync(`${file}.${process.pid}`, text);
  fs.renameSync(`${file}.${process.pid}`, file);
}

fs.mkdirSync(DIST, {recursive: true});
for (const build of BUILDS) {
  const file = path.join(DIST, `facenet-${build}.wasm`);
  if (!fs.existsSync(file)) {
    missing.push(`dist/facenet-${build}.wasm (its preset builds it: README.md)`);
    continue;
  }
  // Deflated, since what is compressed as base64 shrinks by a quarter less.
  const text = zlib.deflateSync(fs.readFileSync(file), {level: 9, memLevel: 9}).toString('base64');
  write(`dist/facenet-${build}.js`, `export default '${text}';\n`);
}

let esbuild;
try {
  esbuild = createRequire(path.join(ROOT, 'build/web/package.json'))('esbuild');
} catch {
  missing.push('esbuild (tools/bootstrap.sh --all)');
}
const compact = (text) => (esbuild ? esbuild.transformSync(text, {minify: true}).code.trim() : text);
write('dist/thread.js', `export default ${JSON.stringify(compact(fs.readFileSync(path.join(PACKAGE, 'thread.js'), 'utf8')))};\n`);
if (esbuild) {
  const common = {entryPoints: [path.join(PACKAGE, 'index.js')], bundle: true, external: ['./dist/*'], platform: 'neutral', write: false,
    logLevel: 'error'};
  // The table of modules, whose addresses bundlers must find in one piece, is a kilobyte shorter where none reads it. Of a
  // template esbuild itself would make a table again.
  const short = `const BUILDS = Object.fromEntries(${JSON.stringify(BUILDS)}.map((name) => [name, [
    () => new URL(\`./dist/facenet-\${name}.wasm\`, import.meta.url), () => import('./dist/facenet-'.concat(name, '.js'))]]));`;
  const plugin = {name: 'builds', setup: (build) => build.onLoad({filter: /builds\.js$/}, ({path: file}) => {
    const text = fs.readFileSync(file, 'utf8'), contents = text.replace(/const BUILDS = \{.*?^\};/ms, () => short);
    if (contents === text) throw new Error('builds.js has no table of modules');
    return {contents};
  })};
  const one = await esbuild.build({...common, format: 'esm', minify: true, plugins: [plugin]});
  write('facenet.min.js', one.outputFiles[0].text);
  // A CommonJS file has no import.meta: its path is made an address.
  const banner = 'const here = typeof __filename === "string" ? Object.assign(new URL("file:///"), {pathname: __filename.replaceAll("%", "%25")}).href : "";';
  write('index.cjs', esbuild.buildSync({...common, format: 'cjs', banner: {js: banner}, define: {'import.meta.url': 'here'},
    supported: {'dynamic-import': true}}).outputFiles[0].text);
}
write('index.d.cts', fs.readFileSync(path.join(PACKAGE, 'index.d.ts'), 'utf8'));

// The modules contain parts of these; their texts come from where the tool chain's packages have them. xsimd's headers carry
// the notice, and Debian the clauses.
const TEXTS = {
  'FaceNet (MIT)': [path.join(ROOT, 'LICENSE')],
  'xsimd (BSD-3-Clause)': [path.join(ROOT, '.deps/include/xsimd/xsimd.hpp'), '/usr/share/common-licenses/BSD'],
  'wasi-libc (MIT, Apache-2.0 WITH LLVM-exception)': ['/usr/share/doc/wasi-libc/copyright'],
  'libc++ (Apache-2.0 WITH LLVM-exception)': ['/usr/share/doc/libc++-19-dev-wasm32/copyright'],
  'Emscripten\'s C library (MIT)': ['/usr/share/doc/emscripten/copyright'],
};
function textOf(file) {
  if (!fs.existsSync(file)) {
    missing.push(`the licence text ${file}`);
    return '';
  }
  const text = fs.readFileSync(file, 'utf8');
  if (file.endsWith('.hpp')) return text.slice(0, text.indexOf('*/')).replace(/^[/ ]\*+|\*+$/gm, '');
  // Debian's file on Emscripten also lists what only its own tests and tools contain.
  return file.includes('emscripten') ? text.split(/\n\n/).filter((part) => /^(Files: (\*|system)|License: (MIT|Expat|BSD|Apache|NCSA|LLVM))/i.test(part)).join('\n\n') : text;
}
const line = '='.repeat(100);
const licences = Object.entries(TEXTS).map(([name, files]) => `${line}\n${name}\n${line}\n\n${files.map(textOf).join('\n')}\n`);
write('LICENSES.txt', licences.join('\n'));

if (whole && missing.length) {
  console.error(`The package is not whole. Missing: ${missing.join('; ')}.`);
  process.exit(1);
}
