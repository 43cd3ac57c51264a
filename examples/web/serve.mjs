#!/usr/bin/env node
// Serves the page for development: node examples/web/serve.mjs [--host H] [--port N] [--weights DIR] [--no-isolation]
// What a real server must send is in HEADERS; examples/web/facenet/README.md says why.
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

export const HERE = path.dirname(fileURLToPath(import.meta.url));
const TYPES = {'.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css',
  '.wasm': 'application/wasm', '.json': 'application/json', '.svg': 'image/svg+xml', '.safetensors': 'application/octet-stream',
  '.webmanifest': 'application/manifest+json', '.png': 'image/png', '.jpg': 'image/jpeg'};
const CSP = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; " +
  "img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self'; manifest-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'";
const ISOLATION = {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'};

// The page asks for weights.json: what there is, the best first. facenet*.safetensors come before the small models.
function listWeights(folder) {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((n) => n.endsWith('.safetensors') && !n.startsWith('mtcnn')) : [];
  names.sort((a, b) => b.startsWith('facenet') - a.startsWith('facenet') || a.localeCompare(b));
  return names.map((name) => {
    const bytes = fs.readFileSync(path.join(folder, name));
    return {file: `weights/${name}`, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex')};
  });
}

/** A listening http.Server. `handle(request, response, path)` may answer first and then returns true. */
export function serve({host = '127.0.0.1', port = 8080, weights = path.join(HERE, '../../weights/web'), isolated = true, root = HERE, handle} = {}) {
  const list = listWeights(weights);
  const server = http.createServer((request, response) => {
    const headers = {'Content-Security-Policy': CSP, 'X-Content-Type-Options': 'nosniff', 'Cross-Origin-Resource-Policy': 'same-origin',
      'Cache-Control': 'no-cache', ...(isolated ? ISOLATION : {})};
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const name = pathOf(request.url);
    if (name === undefined) return void response.writeHead(400, {'Content-Type': 'text/plain'}).end('this is no path\n');
    if (handle?.(request, response, name)) return;
    if (!['GET', 'HEAD'].includes(request.method)) return void response.writeHead(405, {Allow: 'GET, HEAD'}).end();
    if (name === '/weights.json') {
      response.setHeader('Content-Type', TYPES['.json']);
      response.end(request.method === 'HEAD' ? undefined : JSON.stringify(list));
      return;
    }
    send(request, response, name.startsWith('/weights/') ? path.join(weights, name.slice(9)) : path.join(root, name === '/' ? 'index.html' : name));
  });
  return new Promise((resolve, reject) => server.once('error', reject).listen(port, host, () => resolve(server)));
}

/** The path that a request means, without .. in it; undefined for one that is none, such as /% or /%00. */
function pathOf(url) {
  try {
    const name = path.posix.normalize(decodeURIComponent(url.replace(/[?#].*$/s, '')));
    return name.startsWith('/') && !name.includes('\0') && !name.includes('\\') ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a compressed copy is there, and no older than its file. */
function isCopy(packed, file) {
  const [copy, whole] = [packed, file].map((name) => fs.statSync(name, {throwIfNoEntry: false}));
  return copy !== undefined && whole !== undefined && copy.mtimeMs >= whole.mtimeMs;
}

/** A file: compressed where its copy lies beside it, a part of it where one is asked for. */
function send(request, response, file) {
  const accepted = request.headers['accept-encoding'] ?? '', range = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
  const [encoding, packed] = range ? [] : [['br', '.br'], ['gzip', '.gz']].find(([word, end]) => accepted.includes(word) && isCopy(file + end, file)) ?? [];
  fs.stat(file + (packed ?? ''), (error, info) => {
    if (error || !info.isFile()) return void response.writeHead(404, {'Content-Type': 'text/plain'}).end('not found\n');
    response.setHeader('Content-Type', TYPES[path.extname(file)] ?? 'application/octet-stream');
    response.setHeader('Accept-Ranges', 'bytes');
    response.setHeader('Vary', 'Accept-Encoding');
    if (encoding) response.setHeader('Content-Encoding', encoding);
    let start = 0, end = info.size - 1;
    if (range && (range[1] || range[2])) {
      start = range[1] ? Number(range[1]) : Math.max(0, info.size - Number(range[2]));
      if (range[1] && range[2]) end = Math.min(end, Number(range[2]));
      if (start > end) return void response.writeHead(416, {'Content-Range': `bytes */${info.size}`}).end();
      response.setHeader('Content-Range', `bytes ${start}-${end}/${info.size}`);
      response.statusCode = 206;
    }
    response.setHeader('Content-Length', end - start + 1);
    if (request.method === 'HEAD' || info.size === 0) return void response.end();
    fs.createReadStream(file + (packed ?? ''), {start, end}).on('error', () => response.destroy()).pipe(response);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : undefined);
  const weights = option('--weights'), host = option('--host') ?? '127.0.0.1';
  const port = Number(option('--port') ?? 8080);
  try {
    await serve({host, port, isolated: !process.argv.includes('--no-isolation'), ...(weights ? {weights} : {})});
    console.log(`http://${host === '127.0.0.1' ? 'localhost' : host}:${port}/`);
  } catch (error) {
    console.error(`The page cannot be served on ${host}, port ${port}: ${error.message}. Give another by --host and --port.`);
    process.exitCode = 2;
  }
}
