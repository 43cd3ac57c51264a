// What the units of test_units.py call each other by: signatures that name the library's records, as a user's own do.
#pragma once

#include "facenet/detector/boxes.hpp"

// clang-format would make a line of each unit, one more each time.
// clang-format off
#define UNITS(X) X(sse2) X(sse4) X(avx) X(avx2) X(f16c) X(avx512) X(vnni) X(scalar) X(no_stdio) X(no_integer) X(no_winograd) \
  X(no_int8_weights) \
  X(no_exceptions) X(own_malloc) X(fast_math) X(finite_math) X(serial) X(openmp) X(debug) X(tagged)
// clang-format on
#define UNITS_DECLARE(name) facenet::Status name(facenet::ImageView, facenet::Box, facenet::Face&, const char**);
UNITS(UNITS_DECLARE)
