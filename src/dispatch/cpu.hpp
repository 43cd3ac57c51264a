// What this CPU can do, and which of several ISAs a program takes. Compiled for the oldest CPU of its kind, and nothing
// here is inline: the linker keeps one copy of an inline function, perhaps the one with AVX in it.
#pragma once

#include <cstdint>

namespace facenet_cpu {

enum Feature : std::uint32_t {
  sse42 = 1u << 0,
  popcnt = 1u << 1,
  avx = 1u << 2,
  f16c = 1u << 3,
  fma = 1u << 4,
  avx2 = 1u << 5,
  bmi = 1u << 6,
  bmi2 = 1u << 7,
  lzcnt = 1u << 8,
  movbe = 1u << 9,
  avx512f = 1u << 10,
  avx512dq = 1u << 11,
  avx512bw = 1u << 12,
  avx512vl = 1u << 13,
  avx512vnni = 1u << 14,
  avx512cd = 1u << 15,
  avxvnni = 1u << 16,
};

/// The name of the first of `features` that this CPU, or its operating system, lacks; null where all are there.
const char* missing(std::uint32_t features);

/// The ISA of $FACENET_FORCE_ISA, else the best that this CPU has.
struct Choice {
  int isa;            // its place in FACENET_ISAS (dispatch/isas.hpp, which CMake makes); -1: none
  const char* text;   // why none, with a remedy; null otherwise
  const char* place;  // the feature that is missing, the word that is unknown, or ""
};
Choice choose_isa();

}  // namespace facenet_cpu
