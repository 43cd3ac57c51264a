// The faces of a playing video, frame after frame.
import {checkOptions, expect} from './errors.js';

/** While it runs, each frame is taken when the one before is done: frames that come meanwhile are left out. */
export class Track {
  #running = true;
  #wake;

  constructor(net, video, options) {
    const {fps = 30, onFaces, describe = false, signal} = checkOptions(options, 'track()');
    expect(typeof video?.videoWidth === 'number', 'track() needs a <video>', video);
    expect(typeof onFaces === 'function', 'onFaces must be a function', onFaces);
    expect(Number.isFinite(fps) && fps > 0 && fps <= 240, 'fps must be a number above 0 and at most 240', fps);
    expect(typeof describe === 'boolean', 'describe must be true or false', describe);
    const stop = () => this.stop();
    signal?.addEventListener('abort', stop, {once: true});
    /** Fulfilled by stop(); rejected with what a frame or `onFaces` threw. */
    this.finished = this.#loop(net, video, options).finally(() => {
      this.#running = false;
      signal?.removeEventListener('abort', stop);
    });
  }

  async #loop(net, video, {fps = 30, onFaces, describe = false, signal, minFaceShare = 0.1, ...options}) {
    expect(Number.isFinite(minFaceShare) && minFaceShare > 0 && minFaceShare <= 1, 'minFaceShare must be a part of the shorter side, above 0 and at most 1', minFaceShare);
    while (this.#running) {
      const began = performance.now();
      if (video.readyState >= 2 && video.videoWidth > 0) {
        const minFace = options.minFace ?? Math.max(20, Math.round(minFaceShare * Math.min(video.videoWidth, video.videoHeight)));
        const faces = await net[describe ? 'describe' : 'detect'](video, {...options, minFace});
        if (!this.#running) return;
        await onFaces(faces, {width: video.videoWidth, height: video.videoHeight, ms: performance.now() - began});
      }
      await this.#next(video, began + 1000 / fps);
    }
  }

  /** Waits for a new frame, and at least until `due`. */
  async #next(video, due) {
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, Math.max(0, due - performance.now()));
    });
    if (!this.#running) return;
    await new Promise((resolve) => {
      this.#wake = resolve;
      if (typeof video.requestVideoFrameCallback === 'function') video.requestVideoFrameCallback(resolve);
      setTimeout(resolve, 250);  // a video that is paused or hidden has no new frame
    });
  }

  /** No further call of `onFaces` begins. */
  stop() {
    this.#running = false;
    this.#wake?.();
  }
}
