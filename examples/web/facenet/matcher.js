// Who a face is: a list of names with embeddings, searched by distance.
import {distance, embeddingOf, similarity} from './embeddings.js';
import {FaceNetError, checkOptions, expect, expectWhole} from './errors.js';

export class Matcher {
  #people = new Map();
  #length;

  /** `net` or its info gives threshold and model; `threshold` and `margin` may be said instead. */
  constructor(options = {}) {
    const info = checkOptions(options, 'Matcher').info ?? options;
    const {threshold = info.threshold, margin = 0, digest = info.digest ?? ''} = options;
    expect(Number.isFinite(threshold) && threshold > 0, 'A Matcher needs a threshold: give it the FaceNet or {threshold: above 0}', threshold);
    expect(Number.isFinite(margin) && margin >= 0, 'margin must be a distance of 0 or more', margin);
    expect(typeof digest === 'string', 'digest must be a text', digest);
    Object.assign(this, {threshold, margin, digest});
    this.#length = info.embeddingDim;
  }

  /** Adds one more embedding of a person; several make the search surer. */
  add(name, embedding) {
    expect(typeof name === 'string' && name.trim() !== '', 'A name must be a text that is not empty', name);
    const numbers = embeddingOf(embedding, this.#length);
    this.#length ??= numbers.length;
    if (!this.#people.has(name)) this.#people.set(name, []);
    this.#people.get(name).push(numbers);
    return this;
  }

  /** Forgets a person; whether there was one. */
  remove(name) {
    return this.#people.delete(name);
  }

  get names() {
    return [...this.#people.keys()];
  }

  get size() {
    return this.#people.size;
  }

  /** The people nearest to an embedding, each by the nearest of their own. */
  nearest(embedding, count = 5) {
    expectWhole(count, 'count', 1, 1e6);
    const wanted = embeddingOf(embedding, this.#length);
    const found = [...this.#people].map(([name, list]) => {
      const distances = list.map((one) => distance(wanted, one)), least = Math.min(...distances);
      return {name, distance: least, similarity: similarity(wanted, list[distances.indexOf(least)])};
    });
    return found.sort((a, b) => a.distance - b.distance).slice(0, count);
  }

  /** Who it is, or undefined: too far, or the next person is nearer than `margin` to the first. */
  find(embedding) {
    const [first, second] = this.nearest(embedding, 2);
    if (!first || first.distance > this.threshold) return undefined;
    return second && second.distance - first.distance < this.margin ? undefined : first;
  }

  toJSON() {
    const people = [...this.#people].map(([name, list]) => ({name, embeddings: list.map((e) => Array.from(e))}));
    return {version: 1, digest: this.digest, threshold: this.threshold, margin: this.margin, people};
  }

  /** What toJSON() gave, or its text. With `net`, embeddings of another model are refused. */
  static fromJSON(json, net) {
    let given = json;
    if (typeof json === 'string') {
      try {
        given = JSON.parse(json);
      } catch (e) {
        throw new FaceNetError('invalid_argument', 'The text is no JSON.', e);
      }
    }
    expect(given?.version === 1 && Array.isArray(given.people), 'This is not what a Matcher\'s toJSON() gave.');
    const digest = net?.info?.digest;
    if (digest && given.digest && digest !== given.digest)
      throw new FaceNetError('weights_mismatch', 'These embeddings are another model\'s: make them again from the pictures.');
    const matcher = new Matcher({threshold: given.threshold, margin: given.margin, digest: given.digest});
    for (const person of given.people) {
      expect(Array.isArray(person?.embeddings), 'A person of the Matcher\'s JSON has no embeddings.');
      for (const embedding of person.embeddings) matcher.add(person.name, embedding);
    }
    return matcher;
  }
}
