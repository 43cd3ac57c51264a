// Keeps the page itself for use without a network; weights are kept by the package, by their digest.
const CACHE = 'facenet-page-2';
const FILES = ['./', 'app.js', 'worker.js', 'style.css', 'icon.svg', 'manifest.webmanifest', 'weights.json',
  ...['index', 'builds', 'draw', 'embeddings', 'engine', 'errors', 'files', 'host', 'matcher', 'pixels', 'thread', 'track', 'dist/thread'].map((name) => `facenet/${name}.js`)];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});
addEventListener('activate', (event) => event.waitUntil((async () => {
  for (const key of await caches.keys()) if (key.startsWith('facenet-page-') && key !== CACHE) await caches.delete(key);
  await clients.claim();
})()));
// The network first, so that a new version shows at once; what it answered is kept for the time without it.
addEventListener('fetch', (event) => {
  const {request} = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin || url.pathname.includes('/weights/')) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE).catch(() => undefined);
    if (!cache) return fetch(request);
    try {
      const response = await fetch(request);
      // What cannot be written (a full disk) must not leave an older copy behind beside newer files.
      if (response.status === 200) await cache.put(request, response.clone()).catch(() => cache.delete(request));
      return response;
    } catch (error) {
      const kept = await cache.match(request, {ignoreSearch: true});
      if (kept) return kept;
      throw error;
    }
  })());
});
