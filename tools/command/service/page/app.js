// The page of `facenet serve`: it calls /v1 with the key of the field, and keeps nothing but that key, for this tab.

const $ = (selector, root = document) => root.querySelector(selector);
const create = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
const number = new Intl.NumberFormat(undefined, {maximumFractionDigits: 3});
const distance = new Intl.NumberFormat(undefined, {minimumFractionDigits: 3, maximumFractionDigits: 3});
const count = (n, word) => `${number.format(n)} ${word}${n === 1 ? '' : 's'}`;

// ---- calls ------------------------------------------------------------------------------------------------------------

const key = () => sessionStorage.getItem('key') ?? '';

/** The JSON of an answer. An error's sentence becomes an Error with its `status`. */
async function call(method, path, body) {
  const headers = key() ? {'x-api-key': key()} : {};
  if (body && !(body instanceof FormData)) {
    headers['content-type'] = 'application/json';
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, {method, headers, body});
  } catch {
    throw Object.assign(new Error('The service does not answer.'), {status: 0});
  }
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(json.message ?? `The service answered ${answer.status}.`), {status: answer.status});
  return json;
}

function showError(error) {
  $('#error').textContent = error ? error.status === 401 ? 'This service asks for a key: type it above.' : error.message : '';
  $('#error').hidden = !error;
}

/** Runs something that a person started; what goes wrong is shown, and null returned. */
async function attempt(action) {
  showError(null);
  try {
    return await action();
  } catch (error) {
    showError(error);
    return null;
  }
}

const form = (files) => {
  const body = new FormData();
  for (const file of files) body.append('file', file, file.name || 'picture');
  return body;
};

// ---- tabs -------------------------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll('[role=tab]')];
function select(tab) {
  for (const each of tabs) {
    each.setAttribute('aria-selected', String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    $(`#${each.getAttribute('aria-controls')}`).hidden = each !== tab;
  }
  follow(tab.id === 'tab-log');
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

// ---- pictures ---------------------------------------------------------------------------------------------------------

/** Files that are chosen in, or dropped on, an element. */
function takeFiles(element, take) {
  const input = $('input[type=file]', element);
  input.addEventListener('change', () => {
    const files = [...input.files];
    input.value = '';
    if (files.length) take(files);
  });
  element.addEventListener('dragover', (event) => {
    event.preventDefault();
    element.classList.add('over');
  });
  element.addEventListener('dragleave', () => element.classList.remove('over'));
  element.addEventListener('drop', (event) => {
    event.preventDefault();
    element.classList.remove('over');
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
}

/** Faces are numbered as in the list below: names of neighbours would lie over one another. */
function draw(canvas, bitmap, faces) {
  const scale = Math.min(1, 900 / bitmap.width);
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.hidden = false;
  const context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const unit = canvas.width / canvas.clientWidth;  // of the page, in pixels of the canvas: text is as large on a phone
  const height = 22 * unit;
  context.font = `600 ${15 * unit}px system-ui, sans-serif`;
  for (const [i, {box}] of faces.entries()) {
    const [x0, y0, x1, y1] = box.map((v) => v * scale);
    context.lineWidth = 2 * unit;
    context.strokeStyle = '#7fa5ff';
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    const label = String(i + 1), width = context.measureText(label).width + 10 * unit;
    const left = Math.max(0, Math.min(x0, canvas.width - width)), top = Math.max(0, y0 - height);
    context.fillStyle = '#2457c5';
    context.fillRect(left, top, width, height);
    context.fillStyle = '#fff';
    context.fillText(label, left + 5 * unit, top + 16 * unit);
  }
}

async function test([file]) {
  const note = $('#search .note'), list = $('#found');
  note.textContent = 'Looking…';
  list.replaceChildren();
  $('#search canvas').hidden = true;
  const query = new URLSearchParams({top: 3, ...($('#galleries').value && {gallery: $('#galleries').value})});
  const answer = await attempt(() => call('POST', `v1/identify?${query}`, form([file])));
  note.textContent = '';
  if (!answer) return;
  const faces = answer.results.filter((line) => line.box);
  note.textContent = faces.length ? count(faces.length, 'face') : 'No face was found.';
  for (const [i, face] of faces.entries()) {
    const item = create('li');
    const others = (face.candidates ?? face.matches).map((match) => `${match.name}: distance ${distance.format(match.distance)}`).join(', ');
    item.append(create('span', {className: 'soft', textContent: i + 1}), create('span', {className: 'name', textContent: face.name ?? face.decision}),
      create('span', {className: 'soft', textContent: others || `nobody within ${number.format(face.threshold)}`}));
    list.append(item);
  }
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (bitmap) draw($('#search canvas'), bitmap, faces);
}
takeFiles($('#search'), test);
document.addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files];
  if (files.length && !$('#test').hidden) test(files);
});

// ---- galleries --------------------------------------------------------------------------------------------------------

const PAGE = 100;
const base = () => `v1/galleries/${encodeURIComponent($('#galleries').value)}`;
let shown = 0;

async function loadGalleries() {
  const answer = await attempt(() => call('GET', 'v1/galleries'));
  $('#status').textContent = '';
  document.body.dataset.ready = String(Boolean(answer));
  if (!answer) return;
  const chosen = $('#galleries').value;
  $('#galleries').replaceChildren(...answer.galleries.map(({gallery}) => create('option', {value: gallery, textContent: gallery, selected: gallery === chosen})));
  const {architecture, model, trained} = answer.galleries[0];
  $('#status').textContent = `Ready: ${architecture} ${model}, threshold ${number.format(answer.threshold)}.`;
  $('#untrained').textContent = trained ? '' : 'These weights are random numbers: distances mean nothing about who is in the pictures.';
  $('#untrained').hidden = trained;
  const mine = answer.galleries.find(({gallery}) => gallery === $('#galleries').value);
  $('#size').textContent = `${count(mine.persons, 'person')}, ${count(mine.templates, 'template')}; pictures are ${answer.keep_pictures ? '' : 'not '}kept.`;
  await loadPeople(true);
}

async function loadPeople(fromStart) {
  if (fromStart) shown = 0;
  const answer = await attempt(() => call('GET', `${base()}/persons?page=${Math.floor(shown / PAGE)}&size=${PAGE}`));
  if (!answer) return;
  if (fromStart) $('#people').replaceChildren();
  $('#people').append(...answer.persons.map(person));
  shown += answer.persons.length;
  $('#more').hidden = shown >= answer.total;
}

function person({name, templates}) {
  const item = create('li');
  const at = `${base()}/persons/${encodeURIComponent(name)}`;
  const title = create('span', {className: 'name', textContent: name});
  const rename = create('button', {type: 'button', textContent: 'Rename'});
  const remove = create('button', {type: 'button', textContent: 'Remove'});
  rename.addEventListener('click', () => {
    const field = create('input', {type: 'text', value: name, maxLength: 255, ariaLabel: `New name of ${name}`});
    title.replaceWith(field);
    field.focus();
    const save = create('button', {type: 'button', textContent: 'Save'});
    rename.replaceWith(save);
    const change = async () => {
      if (field.value === name) return loadGalleries();
      if (await attempt(() => call('PUT', at, {name: field.value}))) await loadGalleries();
    };
    save.addEventListener('click', change);
    field.addEventListener('keydown', (event) => event.key === 'Enter' && change());
  });
  remove.addEventListener('click', async () => {
    if (remove.dataset.sure !== 'true') {  // a second click confirms
      remove.dataset.sure = 'true';
      remove.textContent = 'Really remove?';
      return;
    }
    if (await attempt(() => call('DELETE', at))) await loadGalleries();
  });
  item.append(title, create('span', {className: 'soft', textContent: count(templates, 'template')}), rename, remove);
  return item;
}

takeFiles($('#enroll'), async (files) => {
  const note = $('#enroll .note'), name = $('#name').value.trim();
  if (!name) {
    note.textContent = 'Type the name first, then add the photographs.';
    $('#name').focus();
    return;
  }
  const said = [];
  for (const [i, file] of files.entries()) {
    note.classList.remove('bad');
    note.textContent = `Enrolling ${i + 1} of ${files.length}…`;
    const answer = await attempt(() => call('POST', `${base()}/persons/${encodeURIComponent(name)}`, form([file])));
    const line = answer?.results[0];
    if (!line) said.push(`${file.name}: ${$('#error').textContent}`);
    else if (line.duplicates) said.push(`${file.name}: this face is like ${line.duplicates[0].name}'s.`);
    else if (!line.enrolled) said.push(`${file.name}: was enrolled already.`);
  }
  note.textContent = said.join(' ') || `${count(files.length, 'photograph')} enrolled.`;
  note.classList.toggle('bad', said.length > 0);
  await loadGalleries();
});
$('#galleries').addEventListener('change', loadGalleries);
$('#more').addEventListener('click', () => loadPeople(false));

// ---- log --------------------------------------------------------------------------------------------------------------

let last = 0, timer;
const MOST_ROWS = 200;

/** Asks for news every two seconds while the tab is open. */
function follow(on) {
  clearTimeout(timer);
  if (!on) return;
  const ask = async () => {
    const answer = await attempt(() => call('GET', `v1/log?after=${last}`));
    for (const {number: id, time, method, route, status, ms} of answer?.requests ?? []) {
      last = id;
      const row = create('tr');
      const path = create('td', {textContent: `${method} `});
      for (const part of route.split(/(?=\/)/)) path.append(create('wbr'), part);
      row.append(create('td', {textContent: new Date(time).toLocaleTimeString()}), path,
        create('td', {textContent: status, className: status < 400 ? '' : 'bad'}), create('td', {textContent: ms.toFixed(ms < 10 ? 1 : 0)}));
      $('#requests').prepend(row);
    }
    while ($('#requests').children.length > MOST_ROWS) $('#requests').lastChild.remove();
    timer = setTimeout(ask, 2000);
  };
  ask();
}

// ---- the key ----------------------------------------------------------------------------------------------------------

$('#key').value = key();
$('#key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('key', $('#key').value.trim());
  loadGalleries();
});

loadGalleries();
