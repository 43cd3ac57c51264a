// @vladmandic/face-api in Node, on the WebAssembly backend: reads paths, answers {"seconds", "faces"} a line.
// Arguments: the folder with node_modules, and the number of threads.
'use strict';
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const readline = require('readline');

const [folder, threads] = [process.argv[2], Number(process.argv[3])];
const load = createRequire(path.join(folder, 'package.json'));

async function main() {
  const tf = load('@tensorflow/tfjs');
  const wasm = load('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(path.join(folder, 'node_modules/@tensorflow/tfjs-backend-wasm/dist/'));
  if (wasm.setThreadsCount) wasm.setThreadsCount(threads);
  const faceapi = load('@vladmandic/face-api/dist/face-api.node-wasm.js');
  const jpeg = load('jpeg-js');
  await tf.setBackend('wasm');
  await tf.ready();
  const models = path.join(folder, 'node_modules/@vladmandic/face-api/model');
  await faceapi.nets.ssdMobilenetv1.loadFromDisk(models);
  await faceapi.nets.faceLandmark68Net.loadFromDisk(models);
  await faceapi.nets.faceRecognitionNet.loadFromDisk(models);
  const options = new faceapi.SsdMobilenetv1Options({ minConfidence: 0.5 });

  console.log(JSON.stringify({ ready: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const start = process.hrtime.bigint();
    const { width, height, data } = jpeg.decode(fs.readFileSync(line), {
      useTArray: true, formatAsRGBA: false, maxMemoryUsageInMB: 4096,
    });
    const pixels = tf.tensor3d(data, [height, width, 3], 'int32');
    const faces = await faceapi.detectAllFaces(pixels, options).withFaceLandmarks().withFaceDescriptors();
    pixels.dispose();
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    console.log(JSON.stringify({ seconds, faces: faces.length }));
  }
}

main().catch((error) => {
  console.error(String(error && error.stack || error));
  process.exit(1);
});
