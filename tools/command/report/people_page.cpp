#include "command/report/people_page.hpp"

namespace command {

namespace {

constexpr const char* style = R"(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#14181f;--soft:#5b6472;--rule:#dfe3ea;--mark:#1f6feb}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--ink:#e8ebf0;--soft:#9aa4b2;--rule:#2a303a;--mark:#7ab0ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header{padding:1rem clamp(.8rem,4vw,2rem) .6rem;max-width:90rem;margin:auto}
h1{font-size:clamp(1.3rem,5vw,2rem);line-height:1.2;margin:0;overflow-wrap:anywhere}
p{margin:.2rem 0 0;color:var(--soft)}
a{color:var(--mark);text-decoration:none}
[hidden]{display:none!important}
#bar{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:center;margin-top:.6rem}
input[type=search]{font:inherit;color:inherit;background:var(--card);border:1px solid var(--rule);border-radius:10px;
padding:.45rem .7rem;flex:1 1 12rem;min-width:0;max-width:24rem}
label{color:var(--soft);min-height:2.2rem;display:flex;align-items:center;gap:.4rem}
#grid{position:relative;margin:0 auto;max-width:90rem;contain:layout}
.cell{position:absolute;top:0;left:0;padding:.3rem;color:inherit;display:block;contain:strict;overflow:hidden}
.cell img,.cell i{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:10px;background:var(--rule)}
.cell b,.cell small{display:block;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;font-size:.8rem}
.cell b{font-weight:600;margin-top:.2rem}.cell small{color:var(--soft)}
.cell:focus-visible{outline:2px solid var(--mark);outline-offset:-2px;border-radius:12px}
)";

// Only the cells in view exist: a person's 50,000 faces are as quick as ten.
constexpr const char* script = R"js(
'use strict';
const CHUNK = @CHUNK@, $ = (id) => document.getElementById(id);
const grid = $('grid'), pool = [], shown = new Map();
let all = [], list = [], who = null, columns = 3, wide = 0, high = 0, waits = false;
const parts = new Map();

function facenetPeople(people) { all = people; route(); }
function facenetFaces(person, chunk, faces) {
  parts.set(person + '-' + chunk, faces);
  if (who && who[0] === person) { clear(); draw(); }
}
function want(person, chunk) {
  const key = person + '-' + chunk;
  if (parts.has(key)) return parts.get(key);
  parts.set(key, null);
  const s = document.createElement('script');
  s.src = 'p/' + key + '.js';
  document.head.append(s);
  return null;
}
const thumb = (uuid) => 't/' + uuid.slice(0, 2) + '/' + uuid + '.jpg';

function route() {
  const id = Number(location.hash.slice(1));
  who = all.find((p) => p[0] === id) || null;
  $('title').textContent = who ? who[1] : 'People';
  document.title = $('title').textContent;
  $('back').hidden = !who;
  $('bar').hidden = !!who;
  filter();
  scrollTo(0, 0);
}
function filter() {
  const text = $('find').value.toLowerCase(), once = $('once').checked;
  if (!who) list = all.filter((p) => (once || p[2] || p[3] > 1) && p[1].toLowerCase().includes(text));
  const faces = who ? who[3] : list.reduce((n, p) => n + p[3], 0);
  $('lead').textContent = (who ? '' : list.length + (list.length === 1 ? ' person, ' : ' persons, ')) + faces +
    (faces === 1 ? ' face' : ' faces');
  clear();
  measure();
}
function measure() {
  const width = grid.clientWidth;
  columns = Math.max(3, Math.floor(width / 132));
  wide = width / columns;
  high = wide + 44;
  grid.style.height = Math.ceil(count() / columns) * high + 'px';
  clear();
  draw();
}
const count = () => who ? who[3] : list.length;
function clear() {
  for (const cell of shown.values()) { cell.remove(); pool.push(cell); }
  shown.clear();
}
function make() {
  const cell = document.createElement('a');
  cell.className = 'cell';
  cell.append(document.createElement('i'), document.createElement('b'), document.createElement('small'));
  return cell;
}
function fill(cell, i) {
  const [old, b, small] = cell.children;
  let uuid = '', name = '', more = '', href = '';
  if (who) {
    const part = want(who[0], Math.floor(i / CHUNK)), face = part && part[i % CHUNK];
    if (face) [uuid, name, href] = face;
  } else {
    const p = list[i];
    uuid = p[4];
    name = p[1];
    more = p[3] + (p[3] === 1 ? ' face' : ' faces');
    href = '#' + p[0];
  }
  const picture = document.createElement(uuid ? 'img' : 'i');
  if (uuid) { picture.decoding = 'async'; picture.alt = name; picture.src = thumb(uuid); }
  old.replaceWith(picture);
  b.textContent = who ? '' : name;
  small.textContent = who ? name : more;
  cell.title = name;
  if (href) cell.href = href; else cell.removeAttribute('href');
  cell.style.width = wide + 'px';
  cell.style.height = high + 'px';
  cell.style.transform = `translate(${(i % columns) * wide}px,${Math.floor(i / columns) * high}px)`;
}
function draw() {
  waits = false;
  const top = scrollY - grid.offsetTop, spare = 2;
  const from = Math.max(0, (Math.floor(top / high) - spare) * columns);
  const end = Math.min(count(), (Math.ceil((top + innerHeight) / high) + spare) * columns);
  for (const [i, cell] of shown) if (i < from || i >= end) { shown.delete(i); cell.remove(); pool.push(cell); }
  for (let i = from; i < end; i++) {
    if (shown.has(i)) continue;
    const cell = pool.pop() || make();
    fill(cell, i);
    shown.set(i, cell);
    grid.append(cell);
  }
}
addEventListener('scroll', () => { if (!waits) { waits = true; requestAnimationFrame(draw); } }, {passive: true});
addEventListener('resize', measure);
addEventListener('hashchange', route);
$('find').addEventListener('input', filter);
$('once').addEventListener('change', filter);
)js";

}  // namespace

std::string people_page() {
  std::string code = script;
  const std::string mark = "@CHUNK@";
  code.replace(code.find(mark), mark.size(), std::to_string(faces_in_chunk));
  return std::string(
             "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
             "content=\"width=device-width,initial-scale=1\"><meta name=generator content=\"facenet people\">"
             "<meta name=referrer content=no-referrer><title>People</title><style>") +
         style +
         "</style></head><body><header><p id=back hidden><a href=\"#\">All people</a></p><h1 id=title>People</h1>"
         "<p id=lead>Loading</p><div id=bar><input id=find type=search placeholder=\"Find a name\" aria-label=\"Find a "
         "name\"><label><input id=once type=checkbox> and those seen once</label></div></header><main id=grid></main>"
         "<script>" +
         code + "</script><script src=people.js></script></body></html>\n";
}

}  // namespace command
