// face-api's own descriptors, for test_models.py: node describe_faces.mjs PACKAGE < N * 150 * 150 * 3 RGB bytes.
// Prints a line of JSON for each crop. The package bundles TensorFlow.js; nothing else is needed.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = path.resolve(process.argv[2]);
// The bundle is for browsers: without these two it takes Node for one of its own platforms, whose parts it lacks.
globalThis.window = globalThis;
globalThis.document = {};
const faceapi = await import(pathToFileURL(path.join(folder, 'dist/face-api.esm.js')));
const tf = faceapi.tf;
await tf.setBackend('cpu');
await tf.ready();

const model = path.join(folder, 'model/face_recognition_model');
const manifest = JSON.parse(fs.readFileSync(`${model}-weights_manifest.json`));
const data = new Uint8Array(fs.readFileSync(`${model}.bin`)).buffer;
const net = new faceapi.FaceRecognitionNet();
net.loadFromWeightMap(tf.io.decodeWeights(data, manifest.flatMap((group) => group.weights)));

const pixels = new Uint8Array(fs.readFileSync(0));
const size = 150 * 150 * 3;
for (let at = 0; at < pixels.length; at += size) {
  const crop = tf.tensor3d(Int32Array.from(pixels.subarray(at, at + size)), [150, 150, 3], 'int32');
  console.log(JSON.stringify(Array.from(await net.computeFaceDescriptor(crop))));
}
