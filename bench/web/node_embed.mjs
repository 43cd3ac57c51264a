// node node_embed.mjs THREADS BUILDS ROUNDS MODULES WEIGHTS ONNX: compareEmbedding() in Node, as a line of JSON.
import fs from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

import {FaceNet} from '../../examples/web/facenet/index.js';
import {compareEmbedding} from './embed.mjs';

const [threads, builds, rounds, modules, weights, onnx] = process.argv.slice(2);
const ort = await import(pathToFileURL(path.join(modules, 'onnxruntime-web/dist/ort.node.min.mjs')).href);
const result = await compareEmbedding({FaceNet, ort, weights: pathToFileURL(weights).href, onnx: new Uint8Array(fs.readFileSync(onnx)),
  threads: Number(threads), builds: builds.split(','), rounds: Number(rounds)});
console.log(JSON.stringify(result));
process.exit(0);
