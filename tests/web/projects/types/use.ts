import {FaceNet, FaceNetError, Matcher, features} from 'facenet-web';
import type {Face, Info, Verdict} from 'facenet-web';

export async function use(): Promise<Verdict> {
  const net: FaceNet = await FaceNet.load({weights: 'weights.safetensors', threads: features().threads ? 2 : 1});
  const info: Readonly<Info> = net.info;
  const pixels = {data: new Uint8Array(3 * 160 * 160), width: 160, height: 160};
  const faces: Face[] = await net.detect(pixels, {minFace: 40});
  const embedding: Float32Array = await net.embed(pixels, {face: faces[0]!});
  for await (const {index, faces, error} of net.describeAll([pixels])) if (faces) index satisfies number; else error satisfies FaceNetError;
  const matcher = Matcher.fromJSON(JSON.stringify(new Matcher({info, margin: 0.1}).add('Ada', embedding)), net);
  matcher.find(Array.from(embedding))?.name satisfies string | undefined;
  // @ts-expect-error: there is no such build
  await FaceNet.load({weights: new Blob([]), build: 'fast'});
  return net.verify(embedding, pixels, {faces: [undefined, faces[0]]});
}
