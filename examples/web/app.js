// The page. The engine is in worker.js; what is remembered is in IndexedDB and the Cache API, and "Delete everything" empties both.

const $ = (selector, root = document) => root.querySelector(selector);
const create = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
const list = new Intl.NumberFormat(undefined, {maximumFractionDigits: 1});

// ---- the engine -------------------------------------------------------------------------------------------------------

const worker = new Worker('worker.js', {type: 'module'});
const waiting = new Map();
let calls = 0;
let info;
let loading;  // a promise of `info`: photographs that are chosen early wait for it

worker.addEventListener('message', ({data}) => {
  if (data.progress) return showProgress(data.progress);
  const {resolve, reject} = waiting.get(data.id) ?? {};
  if (!waiting.delete(data.id)) return;
  if (data.error) reject(Object.assign(new Error(data.error.message), data.error));
  else resolve(data.value);
});
worker.addEventListener('error', () => {
  const message = 'The engine could not be started: this browser has no module workers, or the page is incomplete.';
  showError(message);
  for (const {reject} of waiting.values()) reject(new Error(message));
  waiting.clear();
});
const call = (method, ...args) => new Promise((resolve, reject) => {
  waiting.set(++calls, {resolve, reject});
  worker.postMessage({id: calls, method, args});
});

function showProgress({loaded, total}) {
  const bar = $('#progress');
  if (total) bar.value = loaded / total;
  else bar.removeAttribute('value');
  $('#progress-text').textContent = `Weights: ${list.format(loaded / 1e6)}${total ? ` of ${list.format(total / 1e6)}` : ''} MB`;
}
function showError(text) {
  $('#error').textContent = text;
  $('#error').hidden = !text;
}
function showTimes(steps) {
  $('#times').textContent = Object.entries(steps).map(([name, ms]) => `${name} ${list.format(ms)} ms`).join(' · ');
}

function load() {
  loading = start();
  loading.catch(() => {});  // shown by start(), and by who waits
  return loading;
}
async function start() {
  showError('');
  $('#again').hidden = true;
  $('#loading').hidden = false;
  $('#progress').value = 0;
  $('#progress-text').textContent = 'Loading…';
  try {
    const answer = await fetch('weights.json').catch(() => undefined);
    const choices = answer?.ok ? await answer.json() : [];
    if (!choices.length) throw new Error('No weights are served here. Make them as examples/web/facenet/README.md says, then load this page again.');
    const {file, sha256} = choices[0];
    info = await call('load', {weights: new URL(file, location.href).href, sha256});
    const threads = info.threads > 1 ? `${info.threads} threads` : '1 thread';
    $('#status').textContent = `Ready: ${info.architecture}, ${info.build} build, ${threads}; loaded in ${list.format(info.ms)} ms${info.cached ? ' from this device' : ''}.`;
    const warning = !info.trained
      ? 'These weights are random numbers: distances mean nothing about who is in the pictures.'
      : info.architecture === 'dlib_resnet' ? 'No FaceNet weights are served here, so this page uses a small trained network (dlib\'s, 128 numbers a face).' : '';
    $('#untrained').textContent = warning;
    $('#untrained').hidden = !warning;
    document.body.dataset.ready = 'true';
    keepForOffline();
    return info;
  } catch (error) {
    const message = error.name === 'AbortError' ? 'Loading was cancelled.' : error.message;
    showError(message);
    $('#again').hidden = false;
    throw new Error(message);
  } finally {
    $('#loading').hidden = true;
  }
}
$('#cancel').addEventListener('click', () => call('abort'));
$('#again').addEventListener('click', () => {
  $('#forgotten').textContent = '';
  load();
});

// ---- pictures on the page ---------------------------------------------------------------------------------------------

/** The picture at most 640 pixels wide with a box a face; `labels` are put on them. */
function draw(canvas, bitmap, faces, chosen = -1, labels = []) {
  const scale = Math.min(1, 640 / bitmap.width);
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.hidden = false;
  const context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  context.font = '600 14px system-ui, sans-serif';
  faces.forEach(({box}, i) => {
    const [x0, y0, x1, y1] = box.map((v) => v * scale);
    context.lineWidth = i === chosen ? 4 : 2;
    context.strokeStyle = i === chosen ? '#4f86ff' : '#fff';
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    if (!labels[i]) return;
    const width = context.measureText(labels[i]).width + 8;
    context.fillStyle = '#2457c5';
    context.fillRect(x0, y0 - 20, width, 20);
    context.fillStyle = '#fff';
    context.fillText(labels[i], x0 + 4, y0 - 5);
  });
}
function thumbnail(bitmap, {box}) {
  const canvas = create('canvas', {width: 112, height: 112});
  const [x0, y0, x1, y1] = box;
  canvas.getContext('2d').drawImage(bitmap, x0, y0, x1 - x0, y1 - y0, 0, 0, 112, 112);
  return canvas;
}

let epoch = 0;  // counts deletions: what was begun before one is not shown after it

async function analyse(file, note) {
  const mine = epoch;
  try {
    if (document.body.dataset.ready !== 'true') note.textContent = 'Waiting for the engine…';
    await loading;
    note.textContent = 'Looking for faces…';
    const bitmap = await createImageBitmap(file);
    const result = await call('faces', file, {minFace: 40});
    if (mine !== epoch) return undefined;  // everything was deleted meanwhile
    showTimes(result.times);
    const n = result.faces.length;
    note.textContent = n === 0 ? 'No face was found.' : `${n} face${n > 1 ? 's' : ''}`;
    return {bitmap, faces: result.faces};
  } catch (error) {
    note.textContent = error.name === 'InvalidStateError' ? `${file.name || 'The file'} is no picture that this browser can read.` : error.message;
    return undefined;
  }
}

/** A place that takes pictures by choice and by drop. */
function accepts(place, take) {
  const input = $('input[type=file]', place);
  input.addEventListener('change', () => {
    if (input.files.length) take([...input.files]);
    input.value = '';
  });
  place.addEventListener('dragover', (event) => {
    event.preventDefault();
    place.classList.add('over');
  });
  place.addEventListener('dragleave', () => place.classList.remove('over'));
  place.addEventListener('drop', (event) => {
    event.preventDefault();
    place.classList.remove('over');
    const files = [...event.dataTransfer.files].filter((f) => f.type.startsWith('image/'));
    if (files.length) take(files);
  });
  place.take = take;
}

// ---- two photographs ----------------------------------------------------------------------------------------------------

const slots = [{}, {}];

async function compare() {
  const [a, b] = slots.map((s) => s.faces?.[s.chosen]?.embedding);
  $('#verdict').hidden = !(a && b);
  if (!(a && b)) return;
  const v = await call('verify', a, b);
  const answer = $('.answer', $('#verdict'));
  answer.textContent = v.trained ? (v.same ? 'The same person' : 'Different people') : 'No verdict: the weights are untrained';
  answer.className = `answer ${v.trained ? (v.same ? 'yes' : 'no') : ''}`;
  const end = 2 * v.threshold;
  $('.limit', $('#verdict')).style.left = '50%';
  $('.mark', $('#verdict')).style.left = `${Math.min(100, (100 * v.distance) / end)}%`;
  $('.why', $('#verdict')).textContent =
    `Their distance is ${v.distance.toFixed(3)} (cosine ${v.similarity.toFixed(3)}). Up to ${v.threshold} this model takes two faces for one person's; ` +
    `the nearer to that limit, the less sure. ${v.trained ? 'It can be wrong, above all for relatives, children and poor pictures.' : 'With random weights that means nothing.'}`;
}
function showSlot(place, slot) {
  draw($('canvas', place), slot.bitmap, slot.faces, slot.chosen);
  const group = $('.faces', place);
  group.replaceChildren(...slot.faces.map((face, i) => {
    const button = create('button', {type: 'button', ariaLabel: `Face ${i + 1}`});
    button.setAttribute('role', 'radio');
    button.setAttribute('aria-checked', String(i === slot.chosen));
    button.tabIndex = i === slot.chosen ? 0 : -1;
    button.append(thumbnail(slot.bitmap, face));
    const choose = (n) => {
      slot.chosen = (n + slot.faces.length) % slot.faces.length;
      showSlot(place, slot);
      group.children[slot.chosen].focus();
      compare();
    };
    button.addEventListener('click', () => choose(i));
    button.addEventListener('keydown', (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      choose(i + step);
    });
    return button;
  }));
}
for (const place of document.querySelectorAll('#compare .drop')) {
  const number = Number(place.dataset.slot);
  $('canvas', place).addEventListener('click', ({offsetX, offsetY, target}) => {
    const slot = slots[number], by = slot.bitmap.width / target.clientWidth, x = offsetX * by, y = offsetY * by;
    const hit = slot.faces.findIndex(({box}) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);
    if (hit < 0) return;
    slot.chosen = hit;
    showSlot(place, slot);
    compare();
  });
  accepts(place, async ([file, next]) => {
    if (next) $(`#compare .drop[data-slot="${1 - number}"]`).take([next]);
    const result = await analyse(file, $('.note', place));
    if (!result) return;
    slots[number] = {...result, chosen: result.faces.length ? 0 : -1};
    showSlot(place, slots[number]);
    compare();
  });
}
addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files].filter((f) => f.type.startsWith('image/'));
  if (!files.length) return;
  if (!$('#gallery').hidden) $('#enroll').take(files);
  else $(`#compare .drop[data-slot="${slots[0].faces ? 1 : 0}"]`).take(files);
});

// ---- gallery --------------------------------------------------------------------------------------------------------------

// In IndexedDB; where the browser has none or refuses it, in memory until the page is closed, and the page says so.
let database;
const memory = new Map();
let numbers = 0;

function openDatabase() {
  database ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open('facenet', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('faces', {keyPath: 'id', autoIncrement: true});
    opening.onsuccess = () => {
      const opened = opening.result;
      // Another tab deletes: who holds on would make it wait for ever.
      opened.onversionchange = opened.onclose = () => {
        opened.close();
        database = undefined;
      };
      resolve(opened);
    };
    opening.onerror = () => reject(opening.error);
    opening.onblocked = () => reject(new Error('another tab holds the names'));
  });
  return database;
}
const inMemory = {
  getAll: () => [...memory.values()],
  put: (value) => memory.set(value.id, value),
  add: (value) => memory.set(`memory-${++numbers}`, {...value, id: `memory-${numbers}`}),
  delete: (id) => memory.delete(id),
  clear: () => memory.clear(),
};
function complain(error) {
  const full = error?.name === 'QuotaExceededError';
  $('#storage').textContent = full ? 'The storage of this browser is full: names added now last until the page is closed.'
    : 'This browser keeps nothing for this page (a private window, or its settings): names last until the page is closed.';
  $('#storage').hidden = false;
}
/** One request of the store; what cannot be stored is kept in memory. */
async function stored(mode, act) {
  try {
    const transaction = (await openDatabase()).transaction('faces', mode);
    const request = act(transaction.objectStore('faces'));
    const result = await new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
    });
    return mode === 'readonly' ? [...result, ...memory.values()] : result;
  } catch (error) {
    database = undefined;
    complain(error);
    return act(inMemory);
  }
}
// Embeddings of two models cannot be compared: the digest says which is whose.
const people = async () => (await stored('readonly', (s) => s.getAll())).filter((p) => p.model === info?.digest);

function nearest(embedding, known) {
  let best;
  for (const person of known) {
    if (!person.name) continue;
    let sum = 0;
    for (let i = 0; i < embedding.length; i++) sum += (embedding[i] - person.embedding[i]) ** 2;
    const distance = Math.sqrt(sum);
    if (!best || distance < best.distance) best = {name: person.name, distance};
  }
  return best && {...best, same: best.distance <= info.threshold};
}

const channel = typeof BroadcastChannel === 'function' ? new BroadcastChannel('facenet') : undefined;
const announce = () => channel?.postMessage('changed');

async function showPeople() {
  const items = await Promise.all((await people()).map(async (person) => {
    const item = create('li');
    const canvas = create('canvas', {width: 112, height: 112});
    canvas.getContext('2d').drawImage(await createImageBitmap(person.picture), 0, 0);
    const name = create('input', {value: person.name, placeholder: 'Name', ariaLabel: 'Name of this face', autocomplete: 'off'});
    name.addEventListener('change', () => {
      person.name = name.value.trim();
      remove.setAttribute('aria-label', `Remove ${person.name || 'this face'}`);
      stored('readwrite', (s) => s.put(person)).then(announce);
    });
    const remove = create('button', {type: 'button', textContent: 'Remove'});
    remove.setAttribute('aria-label', `Remove ${person.name || 'this face'}`);
    remove.addEventListener('click', async () => {
      const at = [...$('#people').children].indexOf(item);
      if (memory.delete(person.id)) announce();
      else await stored('readwrite', (s) => s.delete(person.id)).then(announce);
      await showPeople();
      // The focus stays in the list, or goes to where faces come from.
      ($(`#people li:nth-child(${Math.max(1, Math.min(at + 1, $('#people').children.length))}) button`) ?? $('#enroll input')).focus();
    });
    item.append(canvas, name, remove);
    return item;
  }));
  $('#people').replaceChildren(...items);
}
accepts($('#enroll'), async (files) => {
  const mine = epoch;
  for (const file of files) {
    const result = await analyse(file, $('#enroll .note'));
    for (const face of result?.faces ?? []) {
      const picture = await new Promise((resolve) => thumbnail(result.bitmap, face).toBlob(resolve, 'image/png'));
      if (mine !== epoch) return;
      await stored('readwrite', (s) => s.add({name: '', model: info.digest, embedding: face.embedding, picture}));
    }
  }
  announce();
  await showPeople();
  $('#people li:last-child input')?.focus();
});
accepts($('#search'), async ([file]) => {
  const result = await analyse(file, $('#search .note'));
  if (!result) return;
  const known = await people();
  const matches = result.faces.map((face) => nearest(face.embedding, known));
  draw($('#search canvas'), result.bitmap, result.faces, -1, matches.map((m) => (m?.same ? m.name : '')));
  $('#found').replaceChildren(...result.faces.map((face, i) => {
    const item = create('li'), m = matches[i];
    const text = !m ? 'Nobody has been named yet' : m.same ? `${m.name} (distance ${m.distance.toFixed(3)})` : `Nobody known; nearest is ${m.name} at ${m.distance.toFixed(3)}, over ${info.threshold}`;
    item.append(thumbnail(result.bitmap, face), create('span', {textContent: text}));
    return item;
  }));
});

// ---- camera ---------------------------------------------------------------------------------------------------------------

let stream;
let asking = 0;  // counts starts and stops: a permission that comes after a stop is not used
async function watch() {
  const video = $('#video'), overlay = $('#overlay'), mine = asking;
  const known = await people();
  let last = performance.now(), rate = 0;
  while (mine === asking) {
    const frame = await createImageBitmap(video);
    const {faces, times} = await call('faces', frame, {minFace: 80, maxFaces: 5});
    if (mine !== asking) return frame.close();
    const names = faces.map((f) => nearest(f.embedding, known)).map((m) => (m?.same ? m.name : ''));
    draw(overlay, frame, faces, -1, names);
    frame.close();
    const now = performance.now();
    rate = rate ? 0.9 * rate + 100 / (now - last) : 1000 / (now - last);
    last = now;
    showTimes(times);
    $('#camera-text').textContent = `${faces.length} face${faces.length === 1 ? '' : 's'}, ${list.format(rate)} pictures a second`;
    await new Promise(requestAnimationFrame);
  }
}
function stopCamera() {
  asking++;
  stream?.getTracks().forEach((t) => t.stop());
  stream = undefined;
  $('#video').srcObject = null;
  $('#overlay').hidden = true;
  $('#overlay').width = $('#overlay').height = 1;
  $('#camera-text').textContent = '';
  $('#camera-toggle').textContent = 'Start the camera';
}
async function startCamera() {
  const mine = ++asking;
  $('#camera-toggle').textContent = 'Stop the camera';
  showError('');
  try {
    if (!navigator.mediaDevices) throw new Error('browsers give it to pages over https:// or on localhost only.');
    const given = await navigator.mediaDevices.getUserMedia({video: {width: 640, height: 480}});
    if (mine !== asking) return given.getTracks().forEach((t) => t.stop());
    stream = given;
    const video = $('#video');
    video.srcObject = stream;
    await video.play();
    await loading;
    if (mine === asking) await watch();
  } catch (error) {
    if (mine !== asking) return;
    stopCamera();
    showError(error.name === 'NotAllowedError' ? 'The camera may not be used: allow it in the browser\'s settings for this page.' : `The camera cannot be used: ${error.message}`);
  }
}
const cameraOn = () => $('#camera-toggle').textContent !== 'Start the camera';
$('#camera-toggle').addEventListener('click', () => (cameraOn() ? stopCamera() : startCamera()));

// ---- tabs, forgetting, offline ----------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll('[role=tab]')];
function select(tab) {
  for (const t of tabs) {
    const on = t === tab;
    t.setAttribute('aria-selected', String(on));
    t.tabIndex = on ? 0 : -1;
    $(`#${t.getAttribute('aria-controls')}`).hidden = !on;
  }
  if (tab.id !== 'tab-camera') stopCamera();
  if (tab.id === 'tab-gallery') showPeople();
}
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener('click', () => select(tab));
  tab.addEventListener('keydown', (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}
/** What this tab shows and holds in memory; the other tabs do the same. */
async function forgetHere() {
  epoch++;
  stopCamera();
  await call('forget').catch(() => {});
  memory.clear();
  for (const canvas of document.querySelectorAll('canvas')) {
    canvas.width = canvas.height = 1;
    canvas.hidden = true;
  }
  slots.forEach((slot, i) => {
    slot.bitmap?.close();
    slots[i] = {};
  });
  document.querySelectorAll('.faces, #people, #found').forEach((e) => e.replaceChildren());
  document.querySelectorAll('.note').forEach((e) => { e.textContent = ''; });
  $('#verdict').hidden = true;
  $('.why').textContent = $('.answer').textContent = '';
  document.body.dataset.ready = 'false';
  info = undefined;
  loading = Promise.reject(new Error('Everything was deleted: load the engine again.'));
  loading.catch(() => {});
  $('#status').textContent = $('#times').textContent = '';
  $('#again').hidden = false;
  const opened = await database?.catch(() => undefined);
  opened?.close();
  database = undefined;
}
async function forget() {
  if (!confirm('Delete all names, embeddings, weights and the page\'s own copy from this device?')) return;
  $('#forgotten').textContent = 'Deleting…';
  channel?.postMessage('forget');
  await forgetHere();
  const left = [];
  const deleted = typeof indexedDB !== 'object' || !indexedDB ? true : await new Promise((resolve) => {
    const deleting = indexedDB.deleteDatabase('facenet');
    deleting.onsuccess = () => resolve(true);
    deleting.onerror = () => resolve(false);
    setTimeout(() => resolve(false), 5000);  // another tab that does not answer
  });
  if (!deleted) left.push('names: close the other tabs of this page and delete again');
  try {
    for (const key of await globalThis.caches?.keys() ?? []) if (key.startsWith('facenet-')) await caches.delete(key);
    for (const registration of await navigator.serviceWorker?.getRegistrations() ?? []) await registration.unregister();
  } catch {
    left.push('weights: this browser refuses its caches');
  }
  $('#forgotten').textContent = left.length ? `Not deleted: ${left.join('; ')}.`
    : 'Names, embeddings, weights and the page\'s own copy are deleted. Load the page again to go on.';
}
$('#forget').addEventListener('click', forget);
channel?.addEventListener('message', async ({data}) => {
  if (data === 'changed' && !$('#gallery').hidden && info) showPeople();
  if (data !== 'forget') return;
  await forgetHere();
  $('#forgotten').textContent = 'Everything was deleted in another tab.';
});

// The module was fetched before the service worker was there to keep it.
async function keepForOffline() {
  const {active} = await navigator.serviceWorker?.ready ?? {};
  if (!active || !info) return;
  const cache = await globalThis.caches?.open('facenet-page-2').catch(() => undefined);
  if (!cache) return;
  await cache.add(`facenet/dist/facenet-${info.build}.wasm`).catch(() => {});
  document.body.dataset.offline = 'true';
}
if ('serviceWorker' in navigator) navigator.serviceWorker.register('sw.js').catch(() => {});
load();
