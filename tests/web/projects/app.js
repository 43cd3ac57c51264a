// What every project runs: the package from where its bundler put it, on a picture that is computed.
import {FaceNet} from 'facenet-web';

export async function answer(weights) {
  const net = await FaceNet.load({weights, threads: 2});
  const data = Uint8Array.from({length: 160 * 160 * 3}, (_, i) => 128 + 100 * Math.sin(i / 97));
  const start = performance.now();
  const embedding = await net.embed({data, width: 160, height: 160}, {aligned: true});
  const {info} = net, ms = performance.now() - start;
  net.dispose();
  return {info, ms, embedding: [...embedding], isolated: globalThis.crossOriginIsolated};
}
