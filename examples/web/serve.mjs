#!/usr/bin/env node
// Serves the page for development: node examples/web/serve.mjs [--port N] [--weights DIR] [--no-isolation]
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
const CSP = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; " +
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
export function serve({port = 8080, weights = path.join(HERE, '../../weights/web'), isolated = true, root = HERE, handle} = {}) {
  const list = listWeights(weights);
  const server = http.createServer((request, response) => {
    const headers = {'Content-Security-Policy': CSP, 'X-Content-Type-Options': 'nosniff', 'Cross-Origin-Resource-Policy': 'same-origin',
      'Cache-Control': 'no-cache', ...(isolated ? ISOLATION : {})};
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const name = path.posix.normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    if (handle?.(request, response, name)) return;
    if (name === '/weights.json') {
      response.setHeader('Content-Type', TYPES['.json']);
      response.end(JSON.stringify(list));
      return;
    }
    const file = name.startsWith('/weights/') ? path.join(weights, name.slice(9)) : path.join(root, name === '/' ? 'index.html' : name);
    fs.stat(file, (error, info) => {
      if (error || !info.isFile()) {
        response.writeHead(404, {'Content-Type': 'text/plain'}).end('not found\n');
        return;
      }
      response.writeHead(200, {'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream', 'Content-Length': info.size});
      if (request.method === 'HEAD') response.end();
      else fs.createReadStream(file).pipe(response);
    });
  });
  return new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', () => resolve(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : undefined);
  const weights = option('--weights');
  const port = Number(option('--port') ?? 8080);
  await serve({port, isolated: !process.argv.includes('--no-isolation'), ...(weights ? {weights} : {})});
  console.log(`http://localhost:${port}/`);
}
