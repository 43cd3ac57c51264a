/** Pixels as ImageData has them, or three bytes each (RGB) instead of four. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** A type of the browser's where the program's libraries declare it, else none: Node has no HTMLVideoElement. */
type OfBrowser<Name extends string> = typeof globalThis extends {[K in Name]: {prototype: infer T}} ? T : never;

/** What detect(), embed() and verify() take. Node decodes nothing: there only Pixels. Alpha goes over white. */
export type Picture =
  | Pixels
  | OfBrowser<'ImageData'>
  | OfBrowser<'ImageBitmap'>
  | OfBrowser<'HTMLImageElement'>
  | OfBrowser<'HTMLCanvasElement'>
  | OfBrowser<'OffscreenCanvas'>
  | OfBrowser<'HTMLVideoElement'>
  | OfBrowser<'VideoFrame'>
  | Blob;

/** What may stand for an embedding: embed()'s own, or what JSON made of it. */
export type Embedding = Float32Array | readonly number[] | {readonly [index: number]: number};

export interface Face {
  /** Left, top, right, bottom in pixels of the picture. */
  box: [number, number, number, number];
  /** 0 … 1 */
  score: number;
  /** Left eye, right eye, nose, left and right corner of the mouth, as seen. */
  landmarks: [number, number][];
}

export type Build = 'relaxed-threads' | 'threads' | 'relaxed' | 'simd' | 'scalar';

type WeightSource = string | URL | Response | Blob | ArrayBuffer | ArrayBufferView;

export interface LoadOptions {
  /** A weight file: its address, what fetch() returned, a file, or its bytes. tools/convert_weights.py --with-mtcnn makes it. */
  weights: WeightSource | PromiseLike<WeightSource>;
  /** The folder with the modules' files. Without it the package finds its own, in every bundler. */
  wasm?: string | URL;
  /** 1 … 64; up to 4 of the machine's otherwise. More than one needs a page isolated by COOP and COEP, or Node: there are fewer
   *  elsewhere, and `info.fallbacks` says why. */
  threads?: number;
  /** A certain build instead of the best one that this browser can run. */
  build?: Build;
  /** 'int8': whole numbers, two to four times as fast, from a file with calibrated ranges (convert_weights.py --dtype i8
   *  --calibrate); distances move by some 0.003. An embedding has the same bits on every machine. 'float' otherwise. */
  arithmetic?: 'float' | 'int8';
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
  /** Longest side in pixels that the picture is made smaller to, 160 … 16384: needed above 33,554,432 pixels. Faces stay in the
   *  picture's own pixels. For files and what a browser shows. */
  resize?: number;
  signal?: AbortSignal;
}

export interface EmbedOptions extends DetectOptions {
  /** A face that detect() found in this picture. Without it: the largest. */
  face?: Face;
  /** The picture is a face crop already, as the model wants it. */
  aligned?: boolean;
}

export interface VerifyOptions extends DetectOptions {
  /** The face of the first picture and that of the second; where one is undefined, its picture's largest. */
  faces?: readonly (Face | undefined)[];
  /** The pictures are face crops already. */
  aligned?: boolean;
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
  arithmetic: 'float' | 'int8';
  threads: number;
  /** Sentences: why it is not the best build, or fewer threads than asked for. Empty where all is as it should be. */
  fallbacks: readonly string[];
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

/** Euclidean distance of two embeddings, and their cosine. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number;
export function similarity(a: ArrayLike<number>, b: ArrayLike<number>): number;

export interface DescribedFace extends Face {
  embedding: Float32Array;
}

export interface TrackOptions extends DetectOptions {
  /** Pictures a second at most; fewer where the machine is slower. 30 */
  fps?: number;
  /** Instead of minFace: a part of the video's shorter side. 0.1, which finds faces at arm's length in a tenth of the time. */
  minFaceShare?: number;
  /** true: with embeddings. */
  describe?: boolean;
  /** The next frame is taken when it returns, or when its promise is fulfilled. */
  onFaces: (faces: (Face & {embedding?: Float32Array})[], frame: {width: number; height: number; ms: number}) => unknown;
}

export interface Track {
  /** No further call of onFaces begins. */
  stop(): void;
  /** Fulfilled by stop() and by the signal; rejected with what a frame or onFaces threw. */
  readonly finished: Promise<void>;
}

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
  /** The faces with their embeddings: the picture is decoded and copied once. */
  describe(picture: Picture, options?: DetectOptions): Promise<DescribedFace[]>;
  /** describe() of many pictures, one after the other; one that fails does not end it. */
  describeAll(pictures: Iterable<Picture> | AsyncIterable<Picture>, options?: DetectOptions):
    AsyncGenerator<{index: number; faces: DescribedFace[]; error?: undefined} | {index: number; faces?: undefined; error: FaceNetError}, void>;
  /** `info.embeddingDim` numbers. Rejects with code `no_face` where there is none. */
  embed(picture: Picture, options?: EmbedOptions): Promise<Float32Array>;
  /** Each is a picture, or an embedding. */
  verify(a: Picture | Embedding, b: Picture | Embedding, options?: VerifyOptions): Promise<Verdict>;
  /** Finds faces in a playing video, a frame when the one before is done. */
  track(video: OfBrowser<'HTMLVideoElement'>, options: TrackOptions): Track;
  /** Stops the threads and frees the memory; calls after it reject with code `disposed`. */
  dispose(): void;
}

export interface Match {
  name: string;
  /** To the nearest of the person's embeddings. */
  distance: number;
  similarity: number;
}

export interface MatcherJSON {
  version: 1;
  digest: string;
  threshold: number;
  margin: number;
  people: {name: string; embeddings: number[][]}[];
}

/** Who a face is: names with embeddings. */
export class Matcher {
  /** A FaceNet gives threshold and model; `margin` is how much farther the second person must be. */
  constructor(options: FaceNet | {threshold: number; margin?: number; digest?: string} | {info: Info; threshold?: number; margin?: number});
  readonly threshold: number;
  readonly margin: number;
  readonly digest: string;
  readonly names: string[];
  readonly size: number;
  /** One more embedding of a person; several make the search surer. */
  add(name: string, embedding: Embedding): this;
  remove(name: string): boolean;
  /** Who it is; undefined where nobody is near enough, or two are. */
  find(embedding: Embedding): Match | undefined;
  /** The people nearest, whatever their distance. */
  nearest(embedding: Embedding, count?: number): Match[];
  toJSON(): MatcherJSON;
  /** With `net`, embeddings of another model are refused: code `weights_mismatch`. */
  static fromJSON(json: MatcherJSON | string, net?: FaceNet): Matcher;
}

export interface DrawOptions {
  /** How many times as large as the picture the canvas shows it. 1 */
  scale?: number;
  /** A name a face. */
  labels?: readonly (string | undefined)[];
  colour?: string;
  landmarks?: boolean;
}

/** Draws boxes on a canvas, or on its 2D context. */
export function drawFaces(
  target: OfBrowser<'HTMLCanvasElement'> | OfBrowser<'OffscreenCanvas'> | OfBrowser<'CanvasRenderingContext2D'> | OfBrowser<'OffscreenCanvasRenderingContext2D'>,
  faces: readonly Face[], options?: DrawOptions): void;
