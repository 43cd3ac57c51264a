// A gallery of the disk in memory, to search it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "facenet/gallery.hpp"
#include "store/gallery_store.hpp"

namespace command {

class GalleryIndex {
 public:
  /// All templates of `store`, of one moment. A gallery that is still to be made has none.
  facenet::Status load(GalleryStore& store, int dim, int threads);
  /// One that has been added to the store since.
  facenet::Status add(const Template& added);

  /// Of whom there is a template.
  std::size_t persons() const { return names_.size(); }
  std::size_t templates() const { return index_.size(); }
  const std::string& name(const facenet::Match& match) const { return text_of(names_, match.person); }
  /// The picture that was enrolled.
  const std::string& image(const facenet::Match& match) const { return text_of(images_, match.id); }

  /// The nearest `most` persons up to a distance, each by the nearest of their templates.
  facenet::Status nearest(facenet::Span<const float> embedding, int most, double distance,
                          std::vector<facenet::Match>& matches) const;

 private:
  using Texts = std::unordered_map<std::uint64_t, std::string>;
  static const std::string& text_of(const Texts& texts, std::uint64_t id);

  facenet::Gallery index_;
  Texts names_;   // by person, of those with a template
  Texts images_;  // by template
  std::unordered_map<std::string, std::uint64_t> persons_;
};

}  // namespace command
