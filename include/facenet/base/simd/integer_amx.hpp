// AMX: a matrix unit beside AVX-512 VNNI, whose packed weights it reads as they lie. One tdpbusd sums 16,384 products.
//
// A tile register has up to 16 rows of 64 bytes. Linux lends them to a process that asks; a thread configures them
// before use and releases them after. As assembly: compilers want flags for the intrinsics, and the rest of a unit must
// not have them, since it also runs on CPUs without AMX.
#pragma once

#include <cstddef>
#include <cstdint>

#include "facenet/base/config.hpp"

#if defined(FACENET_AMX)

#  include <cpuid.h>
#  include <immintrin.h>
#  include <sys/syscall.h>
#  include <unistd.h>

FACENET_BEGIN

namespace simd {
namespace integer {
namespace amx {

/// Whether this process may use tile registers. Asks the system for them.
inline bool granted() noexcept {
  constexpr unsigned tiles = 1u << 24, bytes = 1u << 25;  // of CPUID 7's EDX
  constexpr long request_permission = 0x1023, tile_data = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles) == 0 || (d & bytes) == 0) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

/// The registers, for a thread that holds it: 0 to 3 sums, 4 and 5 activations, 6 and 7 weights, of `depth` products,
/// a multiple of 4 up to 64.
class Registers {
 public:
  explicit Registers(int depth) noexcept {
    const auto bytes = static_cast<std::uint16_t>(depth);
    const auto groups = static_cast<std::uint8_t>(depth / 4);
    struct {
      std::uint8_t palette, start_row, reserved[14];
      std::uint16_t row_bytes[16];
      std::uint8_t rows[16];
    } const all = {1, 0, {}, {64, 64, 64, 64, bytes, bytes, 64, 64}, {16, 16, 16, 16, 16, 16, groups, groups}};
    __asm__ volatile("ldtilecfg %0" : : "m"(all));
  }
  ~Registers() noexcept { __asm__ volatile("tilerelease"); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;
};

template <int tile>
FACENET_INLINE void zero() noexcept {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
}
/// Rows, each `stride` bytes after the one before.
template <int tile>
FACENET_INLINE void load(const void* p, std::ptrdiff_t stride) noexcept {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
FACENET_INLINE void store(void* p, std::ptrdiff_t stride) noexcept {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(tile) : "memory");
}
/// sum[row][channel] += sum over k of a[row][k] * w[channel][k]; w: a row holds a group of 4 of 16 channels.
template <int sum, int a, int w>
FACENET_INLINE void dot() noexcept {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(w));
}

/// Copies bytes, and writes zeros up to the next 64.
FACENET_INLINE void copy(std::uint8_t* to, const std::uint8_t* from, int bytes) noexcept {
  int k = 0;
  for (; k + 64 <= bytes; k += 64) _mm512_storeu_si512(to + k, _mm512_loadu_si512(from + k));
  if (k < bytes) _mm512_storeu_si512(to + k, _mm512_maskz_loadu_epi8((std::uint64_t{1} << (bytes - k)) - 1, from + k));
}
/// Writes 64 zeros.
FACENET_INLINE void clear_line(std::uint8_t* to) noexcept { _mm512_storeu_si512(to, _mm512_setzero_si512()); }

}  // namespace amx
}  // namespace integer
}  // namespace simd

FACENET_END

#endif
