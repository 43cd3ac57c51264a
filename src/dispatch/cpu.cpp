#include "cpu.hpp"

#include <stdlib.h>
#include <string.h>

#include "dispatch/isas.hpp"

#if defined(__x86_64__) || defined(__i386__)
#  include <cpuid.h>
#endif

namespace facenet_cpu {

#if defined(__x86_64__) || defined(__i386__)

namespace {

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  explicit Leaf(unsigned number, unsigned part = 0) { __get_cpuid_count(number, part, &a, &b, &c, &d); }
};

/// Registers the operating system saves when it switches tasks: AVX needs bits 1 and 2, AVX-512 5 to 7 as well.
unsigned saved_registers(const Leaf& one) {
  if ((one.c & bit_OSXSAVE) == 0) return 0;
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace

const char* missing(std::uint32_t features) {
  const Leaf one(1), seven(7), more(7, 1), extended(0x80000001u);
  const unsigned saved = saved_registers(one);
  const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6;
  const struct {
    Feature feature;
    const char* name;
    bool there;
  } table[] = {
      {sse42, "SSE4.2", (one.c & bit_SSE4_2) != 0},
      {popcnt, "POPCNT", (one.c & bit_POPCNT) != 0},
      {avx, "AVX", ymm && (one.c & bit_AVX) != 0},
      {f16c, "F16C", ymm && (one.c & bit_F16C) != 0},
      {fma, "FMA", ymm && (one.c & bit_FMA) != 0},
      {avx2, "AVX2", ymm && (seven.b & bit_AVX2) != 0},
      {bmi, "BMI1", (seven.b & bit_BMI) != 0},
      {bmi2, "BMI2", (seven.b & bit_BMI2) != 0},
      {lzcnt, "LZCNT", (extended.c & (1u << 5)) != 0},
      {movbe, "MOVBE", (one.c & bit_MOVBE) != 0},
      {avxvnni, "AVX-VNNI", ymm && (more.a & (1u << 4)) != 0},
      {avx512f, "AVX-512F", zmm && (seven.b & (1u << 16)) != 0},
      {avx512dq, "AVX-512DQ", zmm && (seven.b & (1u << 17)) != 0},
      {avx512cd, "AVX-512CD", zmm && (seven.b & (1u << 28)) != 0},
      {avx512bw, "AVX-512BW", zmm && (seven.b & (1u << 30)) != 0},
      {avx512vl, "AVX-512VL", zmm && (seven.b & (1u << 31)) != 0},
      {avx512vnni, "AVX-512 VNNI", zmm && (seven.c & (1u << 11)) != 0},
  };
  for (const auto& row : table)
    if ((features & row.feature) != 0 && !row.there) return row.name;
  return nullptr;
}

#else

const char* missing(std::uint32_t) { return nullptr; }

#endif

namespace {

struct Isa {
  const char* name;
  std::uint32_t needs;
};
#define ROW(name, needs) {#name, needs},
constexpr Isa isas[] = {FACENET_ISAS(ROW)};
#undef ROW
constexpr int isa_count = sizeof isas / sizeof *isas;

}  // namespace

Choice choose_isa() {
  const char* forced = getenv("FACENET_FORCE_ISA");
  if (forced != nullptr && *forced != 0) {
    if (*FACENET_ISA_NAMES == 0)
      return {-1, "FACENET_FORCE_ISA is for x86-64, and this build has one instruction set: unset it", forced};
    for (int i = 0; i < isa_count; ++i) {
      if (strcmp(forced, isas[i].name) != 0) continue;
      const char* lacking = missing(isas[i].needs);
      if (lacking == nullptr) return {i, nullptr, ""};
      return {-1, "this CPU lacks it, and FACENET_FORCE_ISA needs it: unset the variable", lacking};
    }
    return {-1, "FACENET_FORCE_ISA names no instruction set of this build: unset it, or give " FACENET_ISA_NAMES,
            forced};
  }
  for (int i = isa_count - 1; i >= 0; --i)
    if (missing(isas[i].needs) == nullptr) return {i, nullptr, ""};
  return {-1, "this CPU lacks it, and each part of this build needs it: compile for this CPU", missing(isas[0].needs)};
}

}  // namespace facenet_cpu
