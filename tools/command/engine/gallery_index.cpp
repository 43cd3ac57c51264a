#include "command/engine/gallery_index.hpp"

namespace command {

facenet::Status GalleryIndex::load(GalleryStore& store, int dim, int threads) {
  facenet::GalleryOptions options;
  options.threads = threads;
  auto index = facenet::Gallery::make(dim, options);
  if (!index) return index.status();
  index_ = std::move(*index);
  if (!store.exists()) return {};
  const ReadTransaction reading = store.reading();  // another process may remove persons meanwhile
  FACENET_TRY(index_.reserve(static_cast<std::size_t>(store.number("SELECT count(*) FROM template"))));
  facenet::Status status;
  store.each_embedding([&](std::int64_t id, std::int64_t person, const std::string& image, const float* embedding) {
    if (!status.ok()) return;
    status = index_.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person), {embedding, index_.dim()});
    images_.emplace(static_cast<std::uint64_t>(id), image);
  });
  for (const Person& p : store.persons()) {
    if (p.templates > 0) names_.emplace(static_cast<std::uint64_t>(p.id), p.name);
    persons_.emplace(p.name, static_cast<std::uint64_t>(p.id));
  }
  return status;
}

facenet::Status GalleryIndex::add(const Template& added) {
  // Whom the gallery did not know has a number of this index's own, from the far end: SQLite's are positive.
  const auto person = persons_.emplace(added.name, UINT64_MAX - persons_.size()).first->second;
  names_.emplace(person, added.name);
  images_.emplace(static_cast<std::uint64_t>(added.id), added.image);
  return index_.add(static_cast<std::uint64_t>(added.id), person, added.embedding);
}

facenet::Status GalleryIndex::nearest(facenet::Span<const float> embedding, int most, double distance,
                                      std::vector<facenet::Match>& matches) const {
  matches.resize(static_cast<std::size_t>(most));
  int count = 0;
  const facenet::Status status = index_.identify(embedding, most, distance, matches, count);
  matches.resize(status.ok() ? static_cast<std::size_t>(count) : 0);
  return status;
}

const std::string& GalleryIndex::text_of(const Texts& texts, std::uint64_t id) {
  static const std::string none;
  const auto at = texts.find(id);
  return at == texts.end() ? none : at->second;
}

}  // namespace command
