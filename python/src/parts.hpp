// What the units of facenet._engine have of each other.
#pragma once

#include <nanobind/stl/array.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "arrays.hpp"

namespace python {

using Box = std::tuple<float, float, float, float>;
using Landmarks = std::array<float, 10>;  // x, y of each

/// A face cut out as `model` wants it, with another size or margin where one is given.
Array<std::uint8_t> crop_of(nb::handle array, Box box, std::optional<Landmarks> landmarks, std::optional<int> size,
                            std::optional<double> margin, const std::string& channels, const facenet::ModelInfo& model);

/// What a weight file and a gallery say of the embeddings.
template <class Model>
nb::dict described(const Model& m, std::string_view normalise, std::string_view crop) {
  nb::dict d;
  d["architecture"] = m.architecture;
  d["embedding_dim"] = m.embedding_dim;
  d["input_size"] = m.image_size;
  d["trained"] = m.trained;
  d["digest"] = m.digest;
  d["normalise"] = normalise;
  d["crop"] = crop;
  d["margin"] = m.margin;
  return d;
}

void define_recognition(nb::module_& m);
void define_gallery(nb::module_& m);

}  // namespace python
