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
 * its paired ratios to the last one's.
 */
export async function interleave(engines, rounds, warmUp = 3) {
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
  }]));
}

export async function compareEmbedding({FaceNet, ort, weights, onnx, threads, builds, rounds}) {
  const input = pixels(160), engines = {}, nets = [];
  const tensor = new Float32Array(3 * 160 * 160);
  for (let i = 0; i < 160 * 160; i++) for (let c = 0; c < 3; c++) tensor[c * 25600 + i] = (input.data[3 * i + c] - 127.5) / 128;
  const outputs = {};
  for (const build of builds) {
    const net = await FaceNet.load({weights, build, threads});
    nets.push(net);
    engines[`facenet, ${build}`] = async () => {
      outputs[build] = await net.embed(input, {aligned: true});
    };
  }
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(onnx, {executionProviders: ['wasm'], graphOptimizationLevel: 'all'});
  engines['onnxruntime-web'] = async () => {
    const result = await session.run({[session.inputNames[0]]: new ort.Tensor('float32', tensor, [1, 3, 160, 160])});
    outputs.ort = result[session.outputNames[0]].data;
  };
  const result = await interleave(engines, rounds);
  // They compute the same, or the times mean nothing. 1e-4: both are float32 from the same float weights.
  for (const build of builds) {
    const off = Math.max(...outputs.ort.map((x, i) => Math.abs(x - outputs[build][i])));
    if (!(off < 1e-4)) throw new Error(`facenet, ${build} and onnxruntime-web differ by ${off}`);
  }
  for (const net of nets) net.dispose();
  return result;
}
