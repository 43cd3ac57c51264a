// node node_embed.mjs JSON: compareEmbedding() in Node, as a line of JSON. compare.mjs calls it.
import fs from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

import {FaceNet} from '../../examples/web/facenet/index.js';
import {compareEmbedding} from './embed.mjs';

const {modules, weights, onnx, ...work} = JSON.parse(process.argv[2]);
const ort = await import(pathToFileURL(path.join(modules, 'onnxruntime-web/dist/ort.node.min.mjs')).href);
const each = (files, f) => Object.fromEntries(Object.entries(files).map(([key, file]) => [key, f(file)]));
const result = await compareEmbedding({FaceNet, ort, ...work, weights: each(weights, (file) => pathToFileURL(file).href),
  onnx: each(onnx, (file) => new Uint8Array(fs.readFileSync(file)))});
console.log(JSON.stringify(result));
process.exit(0);
