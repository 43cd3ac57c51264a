// One unit of a program whose units are each compiled otherwise: -DUNIT=name, and other flags. Records cross between
// them in ordinary signatures; everything with a body is each unit's own. tests/python/test_units.py
#if defined(UNIT_MALLOC)
#  include <cstdlib>
static void* unit_malloc(std::size_t bytes) { return std::malloc(bytes); }
static void unit_free(void* p) { std::free(p); }
#  define FACENET_MALLOC(bytes) unit_malloc(bytes)
#  define FACENET_FREE(pointer) unit_free(pointer)
#endif
#include "units.hpp"

#include "facenet/cluster.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"
#include "facenet/triplet.hpp"

facenet::Status UNIT(facenet::ImageView picture, facenet::Box box, facenet::Face& face, const char** isa) {
  *isa = facenet::isa_name;
  if (!picture.holds(picture.bounds()))
    return facenet::Status(facenet::Errc::invalid_argument, "no picture").in("unit");
  face = {};
  face.box = box;
  face.landmarks[2] = {picture.crop({1, 1, 3, 3}).row(1)[0] * 1.0f, 2};

  float e[4 * 8];
  for (int i = 0; i < 32; ++i) e[i] = static_cast<float>(1 + i % 9);
  const int persons[4] = {0, 0, 1, 1};
  facenet::GalleryOptions options;
  options.threads = 2;
  auto gallery = facenet::Gallery::make(8, options);
  if (!gallery) return gallery.status();
  for (std::uint64_t i = 0; i < 4; ++i) FACENET_TRY(gallery->add(i, i, {e + 8 * i, 8}));
  facenet::Match match[2];
  int found = 0, labels[4], fold[4] = {0, 0, 1, 1};
  FACENET_TRY(gallery->search({e + 8, 8}, 2, match, found));
  face.score = static_cast<float>(match[0].id);
  facenet::ClusterOptions clusters;
  clusters.threads = 2;
  FACENET_TRY(facenet::chinese_whispers(e, 8, clusters, 1, 1, labels));
  FACENET_TRY(facenet::dbscan(e, 8, clusters, 1, labels));
  FACENET_TRY(facenet::average_link(e, 8, clusters, labels));
  const double distances[4] = {0.1, 0.9, 0.2, 0.8};
  const std::uint8_t same[4] = {1, 0, 1, 0};
  const auto rates = facenet::Comparisons::make(distances, same);
  if (!rates) return rates.status();
  FACENET_TRY(rates->bootstrap(0.1, 2, 1).status());
  FACENET_TRY(facenet::fold_accuracies(distances, same, fold, 2).status());
  FACENET_TRY(facenet::choose_threshold(distances, 0.9).status());
  const auto squared = facenet::squared_distances({e, persons, 8});
  return squared.status();
}
