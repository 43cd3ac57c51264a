#!/usr/bin/env node
// Makes an npm package of a weight file: node examples/web/weights_package.mjs FILE NAME [--version V] [-o FOLDER]
// import {weights, sha256} from 'NAME' then gives FaceNet.load() what it needs; bundlers take the file along.
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {parseArgs} from 'node:util';

function fail(sentence) {
  console.error(`weights_package: ${sentence}`);
  process.exit(2);
}

const {values, positionals} = (() => {
  try {
    return parseArgs({allowPositionals: true, options: {version: {type: 'string', default: '1.0.0'}, output: {type: 'string', short: 'o'}}});
  } catch (error) {
    return fail(error.message);
  }
})();
const [file, name] = positionals;
if (positionals.length !== 2) fail('say which weight file, and the name of the package: weights_package.mjs FILE NAME.');
if (!/^(@[a-z0-9-][a-z0-9._-]*\/)?[a-z0-9-][a-z0-9._-]*$/.test(name)) fail(`"${name}" is no name of an npm package.`);
if (!fs.existsSync(file)) fail(`${file} is not there: tools/convert_weights.py makes it.`);

// The header of a safetensors file: a length in eight bytes, then JSON.
const bytes = fs.readFileSync(file);
let about;
try {
  about = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0)))).__metadata__ ?? {};
} catch {
  fail(`${file} is no safetensors file.`);
}
const folder = values.output ?? path.join('build/web', name);
fs.mkdirSync(folder, {recursive: true});
const write = (to, text) => fs.writeFileSync(path.join(folder, to), text);
const sha256 = createHash('sha256').update(bytes).digest('hex'), licence = about.licence ?? 'see the file\'s metadata';
fs.copyFileSync(file, path.join(folder, 'weights.safetensors'));
write('package.json', `${JSON.stringify({
  name, version: values.version, description: `Weights for facenet-web: ${about.architecture ?? 'a face model'}`,
  license: 'SEE LICENSE IN README.md', type: 'module', sideEffects: false,
  exports: {'.': {types: './index.d.ts', default: './index.js'}, './weights.safetensors': './weights.safetensors', './package.json': './package.json'},
  files: ['index.js', 'index.d.ts', 'weights.safetensors', 'README.md'],
}, undefined, 2)}\n`);
write('index.js', `export const weights = new URL('./weights.safetensors', import.meta.url);\nexport const sha256 = '${sha256}';\n`);
write('index.d.ts', 'export const weights: URL;\nexport const sha256: string;\n');
write('README.md', `# ${name}

Weights for facenet-web: ${about.architecture ?? 'a face model'}, trained on ${about.dataset ?? 'what its source says'}.
Source: ${about.source ?? 'not stated'}. Licence: ${licence}.

\`\`\`js
import {FaceNet} from 'facenet-web';
import {weights, sha256} from '${name}';

const net = await FaceNet.load({weights, sha256});
\`\`\`
`);
console.log(`${folder}: ${(bytes.length / 1e6).toFixed(1)} MB, ${about.architecture ?? 'unknown architecture'}; publish it with npm publish ${folder}`);
