// Runs alike in Chromium and in Node: our package and onnxruntime-web in turns on the same pixels, equal threads.
export const median = (x) => [...x].sort((a, b) => a - b)[x.length >> 1];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Pixels of a picture that nobody took: smooth, so that no value is extreme. */
export function pixels(size) {
  const data = new Uint8Array(size * size * 3);
  for (let i = 0; i < data.length; i++) data[i] = 128 + 100 * Math.sin(i / 97) * Math.cos(i / 1013);
  return {data, width: size, height: size};
}

/**
 * `engines`: {name: async () => embedding}. Runs them A B C C B A a round, and returns each one's times and the median of
 * its paired ratios to the last one's, and to those of `second`.
 */
export async function interleave(engines, rounds, warmUp = 3, second = undefined) {
  const names = Object.keys(engines), times = Object.fromEntries(names.map((n) => [n, []])), reference = names.at(-1);
  const once = async (name) => {
    await pause(20);  // so that nobody's spinning threads run into the next one's time
    const start = performance.now();
    await engines[name]();
    return performance.now() - start;
  };
  for (let i = 0; i < warmUp; i++) for (const name of names) await once(name);
  for (let i = 0; i < rounds; i++)
    for (const name of [...names, ...[...names].reverse()]) times[name].push(await once(name));
  return Object.fromEntries(names.map((name) => [name, {
    median: median(times[name]),
    min: Math.min(...times[name]),
    ratio: median(times[name].map((t, i) => t / times[reference][i])),
    ...(second && {ratio8: median(times[name].map((t, i) => t / times[second][i]))}),
  }]));
}

/**
 * Times of `ours`, a list of [build, arithmetic], and of onnxruntime-web in floats and in int8: {name: {median, min, ratio,
 * ratio8}}, with ratios to onnxruntime-web's floats and to its int8. `weights` and `onnx` are {float, int8}.
 */
export async function compareEmbedding({FaceNet, ort, weights, onnx, threads, ours, rounds}) {
  const input = pixels(160), engines = {}, nets = [], outputs = {};
  const tensor = new Float32Array(3 * 160 * 160);
  for (let i = 0; i < 160 * 160; i++) for (let c = 0; c < 3; c++) tensor[c * 25600 + i] = (input.data[3 * i + c] - 127.5) / 128;
  for (const [build, arithmetic] of ours) {
    const net = await FaceNet.load({weights: weights[arithmetic], build, arithmetic, threads, cache: false}), name = `facenet, ${build}, ${arithmetic}`;
    nets.push(net);
    engines[name] = async () => {
      outputs[name] = await net.embed(input, {aligned: true});
    };
  }
  ort.env.wasm.numThreads = threads;
  for (const arithmetic of ['int8', 'float']) {
    const session = await ort.InferenceSession.create(onnx[arithmetic], {executionProviders: ['wasm'], graphOptimizationLevel: 'all'});
    const name = `onnxruntime-web, ${arithmetic}`;
    engines[name] = async () => {
      const result = await session.run({[session.inputNames[0]]: new ort.Tensor('float32', tensor, [1, 3, 160, 160])});
      outputs[name] = result[session.outputNames[0]].data;
    };
  }
  const result = await interleave(engines, rounds, 3, 'onnxruntime-web, int8');
  // They compute the same, or the times mean nothing. 1e-4: both are float32 from the same float weights. Integers: the angle
  // of each to the floats is reported, and ours is checked.
  const truth = outputs['onnxruntime-web, float'];
  for (const [name, output] of Object.entries(outputs)) {
    const cosine = truth.reduce((sum, x, i) => sum + x * output[i], 0) / Math.sqrt(truth.reduce((s, x) => s + x * x, 0) * output.reduce((s, x) => s + x * x, 0));
    result[name].cosine = cosine;
    const off = Math.max(...truth.map((x, i) => Math.abs(x - output[i])));
    if (name.endsWith('float') ? !(off < 1e-4) : name.startsWith('facenet') && !(cosine > 0.98)) throw new Error(`${name} and onnxruntime-web differ by ${off}, cosine ${cosine}`);
  }
  for (const net of nets) net.dispose();
  return result;
}
