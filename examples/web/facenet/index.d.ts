/** Pixels as ImageData has them, or three bytes each (RGB) instead of four. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** What detect(), embed() and verify() take. Node decodes nothing: there only Pixels. Alpha goes over white. */
export type Picture =
  | Pixels
  | ImageData
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  | VideoFrame
  | Blob;

export interface Face {
  /** Left, top, right, bottom in pixels of the picture. */
  box: [number, number, number, number];
  /** 0 … 1 */
  score: number;
  /** Left eye, right eye, nose, left and right corner of the mouth, as seen. */
  landmarks: [number, number][];
}

export type Build = 'relaxed-threads' | 'threads' | 'relaxed' | 'simd' | 'scalar';

export interface LoadOptions {
  /** A weight file: its address, what fetch() returned, a file, or its bytes. tools/convert_weights.py --with-mtcnn makes it. */
  weights: string | URL | Response | Blob | ArrayBuffer | ArrayBufferView;
  /** Where the modules are; `dist/` beside this package otherwise. */
  wasm?: string | URL;
  /** 1 … 64; up to 4 of the machine's otherwise. More than one needs a page isolated by COOP and COEP, or Node. */
  threads?: number;
  /** A certain build instead of the best one that this browser can run. */
  build?: Build;
  /** The weight file's SHA-256. With it the file is checked, and kept: the next load() asks no server. */
  sha256?: string;
  /** false: weights are neither looked for in the Cache API nor kept there. */
  cache?: boolean;
  /** Bytes of WebAssembly memory at most, 16 MB … 1 GB. */
  memoryLimit?: number;
  signal?: AbortSignal;
  /** Bytes of the weights so far; `total` is 0 where the server does not say. */
  onProgress?: (progress: {loaded: number; total: number}) => void;
}

export interface DetectOptions {
  /** Pixels of the smallest face to look for; the larger, the faster. 20 */
  minFace?: number;
  /** 0: all */
  maxFaces?: number;
}

export interface EmbedOptions extends DetectOptions {
  /** A face that detect() found in this picture. Without it: the largest. */
  face?: Face;
  /** The picture is a face crop already, as the model wants it. */
  aligned?: boolean;
}

export interface VerifyOptions extends EmbedOptions {
  /** Instead of the model's own. */
  threshold?: number;
}

export interface Verdict {
  /** Euclidean distance of the two embeddings. */
  distance: number;
  /** Their cosine. */
  similarity: number;
  threshold: number;
  /** distance <= threshold */
  same: boolean;
  /** false: the weights are random, and the verdict means nothing. */
  trained: boolean;
}

export interface Info {
  architecture: string;
  dataset: string;
  source: string;
  licence: string;
  /** Stands for the model: embeddings of another digest cannot be compared with this one's. */
  digest: string;
  embeddingDim: number;
  imageSize: number;
  trained: boolean;
  threshold: number;
  /** Whether the weight file holds a detector; without one only `aligned` pictures can be embedded. */
  detector: boolean;
  build: Build;
  threads: number;
  /** The weights came from the Cache API; and: they are in it now. */
  cached: boolean;
  kept: boolean;
}

/** `code`: aborted loads reject with the signal's reason instead. */
export class FaceNetError extends Error {
  code:
    | 'invalid_argument' | 'unsupported' | 'disposed' | 'no_face' | 'network' | 'not_found' | 'html' | 'digest' | 'truncated'
    | 'corrupt' | 'weights_mismatch' | 'limit_exceeded' | 'out_of_memory' | 'threads' | 'io_error' | 'cancelled' | 'error';
  cause?: unknown;
}

/** What this browser, or Node, can run. */
export function features(): {simd: boolean; relaxed: boolean; threads: boolean};

export class FaceNet {
  private constructor();
  static load(options: LoadOptions): Promise<FaceNet>;
  /** Deletes the weight files that load() kept. */
  static clearCache(): Promise<void>;
  readonly info: Readonly<Info>;
  /** Bytes of WebAssembly memory. It never shrinks; dispose() gives it back. */
  readonly memory: number;
  /** The faces, the largest first; none is an empty list. */
  detect(picture: Picture, options?: DetectOptions): Promise<Face[]>;
  /** `info.embeddingDim` numbers. Rejects with code `no_face` where there is none. */
  embed(picture: Picture, options?: EmbedOptions): Promise<Float32Array>;
  /** Each is a picture, or an embedding that embed() returned. */
  verify(a: Picture | Float32Array, b: Picture | Float32Array, options?: VerifyOptions): Promise<Verdict>;
  /** Stops the threads and frees the memory; calls after it reject with code `disposed`. */
  dispose(): void;
}
