// Galleries and clustering behind a C ABI, for bench/compare_search.py (ctypes). Built as the shared library
// `facenet_search_api`, with the flags of the preset that times the engine.
#include <vector>

#include "facenet/cluster.hpp"
#include "facenet/gallery.hpp"

#define FNS_API extern "C" __attribute__((visibility("default")))

using facenet::Gallery;

/// An empty gallery of Euclidean distances, or null.
FNS_API void* fns_gallery(int dim, int half, int threads) {
  facenet::GalleryOptions options;
  options.threads = threads;
  options.storage = half != 0 ? facenet::TemplateStorage::f16 : facenet::TemplateStorage::f32;
  auto g = Gallery::make(dim, options);
  return g ? new Gallery(std::move(*g)) : nullptr;
}
FNS_API void fns_free(void* gallery) { delete static_cast<Gallery*>(gallery); }

/// Adds n templates with the next ids, one after the other as a program would, without reserve(). 0 when all went well.
FNS_API int fns_add(void* gallery, const float* e, int n) {
  auto& g = *static_cast<Gallery*>(gallery);
  for (int i = 0; i < n; ++i)
    if (const std::uint64_t id = g.size(); !g.add(id, id, {e + std::ptrdiff_t{i} * g.dim(), g.dim()}).ok()) return 1;
  return 0;
}
FNS_API int fns_search(void* gallery, const float* queries, int n, int k, std::int64_t* ids, double* distances) {
  std::vector<facenet::Match> out(static_cast<std::size_t>(n) * static_cast<std::size_t>(k));
  std::vector<int> found(static_cast<std::size_t>(n));
  const auto& g = *static_cast<const Gallery*>(gallery);
  if (!g.search({queries, std::ptrdiff_t{n} * g.dim()}, k, out, found).ok()) return 1;
  for (std::size_t i = 0; i < out.size(); ++i) {
    ids[i] = static_cast<std::int64_t>(out[i].id);
    distances[i] = out[i].distance;
  }
  return 0;
}
FNS_API int fns_dbscan(const float* e, int n, int dim, double threshold, int min_samples, int threads, int* labels) {
  facenet::ClusterOptions options;
  options.threshold = threshold;
  options.threads = threads;
  return facenet::dbscan({e, std::ptrdiff_t{n} * dim}, dim, options, min_samples, {labels, n}).ok() ? 0 : 1;
}
