// Keeps the page itself for use without a network; weights are kept by the package, by their digest.
const CACHE = 'facenet-page-1';
const FILES = ['./', 'app.js', 'worker.js', 'style.css', 'icon.svg', 'facenet/index.js', 'facenet/thread.js', 'weights.json'];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
// The network first, so that a new version shows at once; what it answered is kept for the time without it.
addEventListener('fetch', (event) => {
  const {request} = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin || url.pathname.includes('/weights/')) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    try {
      const response = await fetch(request);
      if (response.ok) await cache.put(request, response.clone());
      return response;
    } catch (error) {
      const kept = await cache.match(request, {ignoreSearch: true});
      if (kept) return kept;
      throw error;
    }
  })());
});
