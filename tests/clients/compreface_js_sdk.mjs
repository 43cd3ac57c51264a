// The documented examples of npm's @exadel/compreface-js-sdk against a service, for each way in which it sends a picture.
// FOLDER PORT KEY: one.png, three.png and none.png lie in FOLDER, which has to be the current one. Its paths must begin
// with a dot: anything else counts as an address, or as base64.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const [modules, port, key] = process.argv.slice(2);
const entry = createRequire(path.join(modules, 'x.js')).resolve('@exadel/compreface-js-sdk');
const {CompreFace} = await import(pathToFileURL(entry));
console.log = () => {};  // the SDK prints addresses and keys
const say = (text) => process.stdout.write(`ok ${text}\n`);
/** What a call answered, or the JSON of its error. */
const tried = (promise) => promise.catch((error) => error.response?.data ?? Promise.reject(error));

const options = {limit: 0, det_prob_threshold: 0.8, prediction_count: 1, face_plugins: 'calculator,age,gender,landmarks', status: 'true'};
const compreFace = new CompreFace('http://localhost', port, options);
const recognition = compreFace.initFaceRecognitionService(key);
const detection = compreFace.initFaceDetectionService(key);
const verification = compreFace.initFaceVerificationService(key);
// An object of theirs is good for one call: each adds to the address of the one before.
const collection = () => recognition.getFaceCollection(), subjects = () => recognition.getSubjects();

assert.deepEqual(Object.keys(await subjects().deleteAll()), ['deleted']);
assert.deepEqual(await subjects().add('Tom'), {subject: 'Tom'});
assert.deepEqual(await subjects().list(), {subjects: ['Tom']});
assert.deepEqual(await subjects().rename('Tom', 'Thomas'), {updated: true});
say('subjects');

const example = await collection().add('./one.png', encodeURIComponent('Tom B'), {det_prob_threshold: 0.8});
assert.equal(example.subject, 'Tom B');
assert.deepEqual((await collection().list()).faces, [example]);
assert.equal((await tried(collection().add('./none.png', 'Tom'))).code, 28);
say('face collection');

const one = fs.readFileSync('one.png');
const ways = {path: './one.png', base64: one.toString('base64'), blob: one};
for (const [way, picture] of Object.entries(ways)) {
  const found = await recognition.recognize(picture, {});
  assert.equal(found.result[0].subjects[0].subject, 'Tom B', way);
  assert.ok(found.result[0].subjects[0].similarity > 0.99 && found.result[0].embedding.length > 100, way);
  assert.equal((await detection.detect(picture, {})).result[0].landmarks.length, 5, way);
  assert.ok((await collection().verify(picture, example.image_id, {})).result[0].similarity > 0.99, way);
  say(`recognize, detect, verify by ${way}`);
}
const pair = await verification.verify('./one.png', './three.png', {});
assert.equal(pair.result[0].face_matches.length, 3);
say('verification');
assert.equal((await tried(recognition.recognize('./none.png', {}))).code, 28);

// Without a limit the SDK joins all parameters with question marks.
const careless = new CompreFace('http://localhost', port, {det_prob_threshold: 0.8, status: 'true'}).initFaceRecognitionService(key);
assert.equal((await careless.getFaceCollection().add('./one.png', 'Tom B')).subject, 'Tom B');
assert.ok((await careless.recognize('./one.png', {limit: 1})).plugins_versions);
say('parameters behind question marks');

assert.deepEqual(await collection().delete(example.image_id), example);
const again = await collection().add('./one.png', 'Tom');
assert.deepEqual(await collection().delete_multiple_images([again.image_id]), [again]);
await collection().add('./one.png', 'Tom');
assert.deepEqual(await collection().delete_all_subject('Tom'), {deleted: 1});
assert.deepEqual(await collection().delete_all(), {deleted: 0});
assert.deepEqual(await subjects().delete('Tom'), {subject: 'Tom'});
say('deleting');
