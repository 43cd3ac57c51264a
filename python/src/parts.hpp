// What the units of facenet._engine have of each other.
#pragma once

#include <nanobind/stl/array.h>

#include <array>
#include <optional>
#include <tuple>

#include "arrays.hpp"

namespace python {

using Box = std::tuple<float, float, float, float>;
using Landmarks = std::array<float, 10>;  // x, y of each

/// A face cut out as `model` wants it, with another size or margin where one is given.
Array<std::uint8_t> crop_of(nb::handle array, Box box, std::optional<Landmarks> landmarks, std::optional<int> size,
                            std::optional<double> margin, const std::string& channels, const facenet::ModelInfo& model);

void define_recognition(nb::module_& m);
void define_gallery(nb::module_& m);

}  // namespace python
