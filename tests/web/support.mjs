// Shared by the tests in Node and in Chromium. FACENET_FIXTURES: what make_fixtures.py wrote.
import fs from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const FIXTURES = path.resolve(process.env.FACENET_FIXTURES ?? path.join(ROOT, 'build/web/fixtures'));
export const DIST = path.join(ROOT, 'examples/web/facenet/dist');
export const expected = JSON.parse(fs.readFileSync(path.join(FIXTURES, 'expected.json')));
export const weights = (name) => path.join(FIXTURES, 'weights', `${name}.safetensors`);
export const built = (name) => fs.existsSync(path.join(DIST, `facenet-${name}.wasm`));

export function maxDifference(a, b) {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

// An embedding's allowance against float64 is 3e-6 (docs/parity.md), for either side, and 1e-5 leaves room for both.
export const TOLERANCE = 1e-5;
// A box is a sum of some twenty float32 roundings at up to 1024 pixels (eps 6e-5): a hundredth of a pixel is far above.
export const PIXELS = 0.01;
export const SCORE = 1e-4;

/** Throws unless the faces are the same in number, order, place and score. */
export function sameFaces(found, want) {
  if (found.length !== want.length) throw new Error(`${found.length} faces instead of ${want.length}`);
  found.forEach((face, i) => {
    const box = maxDifference(face.box, want[i].box), points = maxDifference(face.landmarks.flat(), want[i].landmarks.flat());
    if (!(box <= PIXELS && points <= PIXELS && Math.abs(face.score - want[i].score) <= SCORE))
      throw new Error(`face ${i}: box off by ${box}, landmarks by ${points}, score ${face.score} for ${want[i].score}`);
  });
}
