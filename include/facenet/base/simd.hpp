// The only door to SIMD: one float vector `vf` and what the kernels need of it. Layer 1.
// xsimd does the work; where it has no batch (or FACENET_SCALAR is set) a float stands in behind the same names.
#pragma once

#include "facenet/memory.hpp"

#if !defined(FACENET_SCALAR)
#  include <xsimd/xsimd.hpp>
#endif
#if defined(FACENET_ISA_AVX512) || defined(FACENET_ISA_AVX2)
#  include <immintrin.h>
#elif defined(__SSE2__)
#  include <emmintrin.h>  // the other takes 0.4 s to compile
#endif

FACENET_BEGIN

/// IEEE 754 half precision, as stored; arithmetic is always in float.
struct Half {
  std::uint16_t bits;
};

namespace simd {

// Register tiles: MR pixels by NV vectors of output channels. Every ISA's accumulators, NV vectors of weights and one
// broadcast pixel must fit the registers (asserted in gemm.hpp), and MR * NV >= 9 hides an FMA of 4 cycles on two ports.
#if defined(FACENET_SCALAR)
using vf = float;
constexpr int width = 1, register_count = 16, tile_rows = 2, tile_vectors = 4;
#elif defined(FACENET_ISA_AVX512)
using arch = xsimd::avx512bw;
constexpr int register_count = 32, tile_rows = 12, tile_vectors = 2;
#elif defined(FACENET_ISA_AVX2)
using arch = xsimd::fma3<xsimd::avx2>;  // xsimd::avx2 alone has no FMA
constexpr int register_count = 16, tile_rows = 6, tile_vectors = 2;
#elif defined(FACENET_ISA_NEON64)
// FMAs take the broadcast from a lane of a register. GCC 12 loads those of all rows first, so MR registers, not one:
// 6x16 (34 of 32) kept two accumulators on the stack, 8x8 takes 26 and still has more FMAs than loads.
using arch = xsimd::neon64;
constexpr int register_count = 32, tile_rows = 8, tile_vectors = 2;
#elif defined(FACENET_ISA_WASM)
using arch = xsimd::wasm;
constexpr int register_count = 16, tile_rows = 4, tile_vectors = 2;
#else
#  if defined(__SSE4_2__)
using arch = xsimd::sse4_2;
#  else
using arch = xsimd::sse2;
#  endif
constexpr int register_count = 16, tile_rows = 6, tile_vectors = 2;
#endif

// Winograd's larger weights come from memory: tiles that must share them before it pays. Without FMA at four lanes
// arithmetic is so slow that the 4 tiles of an 8x8 output win too (mixed_7a's 3x3: 2.5 -> 1.2 ms).
// Forms with yet fewer products and yet larger weights: F(6x6, 3x3), and stride 2 (5.4 times the weights: 17x17 outputs win,
// 6.5 -> 6.1 ms with FMA and 7.9 -> 7.1 without, 8x8 outputs lose a fifth).
#if defined(FACENET_ISA_WASM)
constexpr int winograd_tiles = 4, large_winograd_tiles = 9, strided_winograd_tiles = 36;
#else
constexpr int winograd_tiles = 16, large_winograd_tiles = 1 << 30, strided_winograd_tiles = 1 << 30;
#endif

#if !defined(FACENET_SCALAR)
using vf = xsimd::batch<float, arch>;
constexpr int width = static_cast<int>(vf::size);
#endif

/// Output channels in one packed panel of weights.
constexpr int panel = tile_vectors * width;

// max and min stand in brackets, here and where they are called: windows.h has macros of these names.
#if defined(FACENET_SCALAR)
FACENET_INLINE vf load(const float* p) noexcept { return *p; }
FACENET_INLINE void store(float* p, vf v) noexcept { *p = v; }
FACENET_INLINE vf set1(float x) noexcept { return x; }
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return a * b + c; }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return c - a * b; }
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return a > b ? a : b; }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return a < b ? a : b; }
#else
/// `width` floats from any address, and back.
FACENET_INLINE vf load(const float* p) noexcept { return vf::load_unaligned(p); }
FACENET_INLINE void store(float* p, vf v) noexcept { v.store_unaligned(p); }
FACENET_INLINE vf set1(float x) noexcept { return vf(x); }
/// a * b + c, rounded once where the ISA has FMA and twice where not (SSE, WebAssembly); relaxed WebAssembly leaves that to
/// the CPU. And c - a * b, likewise.
#  if defined(FACENET_ISA_WASM) && defined(__wasm_relaxed_simd__)
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return vf(wasm_f32x4_relaxed_madd(a, b, c)); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return vf(wasm_f32x4_relaxed_nmadd(a, b, c)); }
#  else
FACENET_INLINE vf fma(vf a, vf b, vf c) noexcept { return xsimd::fma(a, b, c); }
FACENET_INLINE vf fnma(vf a, vf b, vf c) noexcept { return xsimd::fnma(a, b, c); }
#  endif
#  if defined(FACENET_ISA_AVX512)
// The unmasked forms warn of an uninitialised variable inside GCC 12's own header.
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return vf(_mm512_maskz_max_ps(0xffff, a, b)); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return vf(_mm512_maskz_min_ps(0xffff, a, b)); }
#  else
FACENET_INLINE vf(max)(vf a, vf b) noexcept { return (xsimd::max)(a, b); }
FACENET_INLINE vf(min)(vf a, vf b) noexcept { return (xsimd::min)(a, b); }
#  endif
#endif
FACENET_INLINE vf add(vf a, vf b) noexcept { return a + b; }
FACENET_INLINE vf sub(vf a, vf b) noexcept { return a - b; }
FACENET_INLINE vf mul(vf a, vf b) noexcept { return a * b; }
FACENET_INLINE vf zero() noexcept { return set1(0.0f); }
/// The place of the lowest bit that is set in a word that is not 0.
FACENET_INLINE std::size_t lowest_bit(std::uint64_t word) noexcept {
#if defined(__GNUC__)
  return static_cast<std::size_t>(__builtin_ctzll(word));
#else
  std::size_t bit = 0;
  for (; (word & 1) == 0; word >>= 1) ++bit;
  return bit;
#endif
}
/// Bit i is set where a[i] >= b[i].
FACENET_INLINE std::uint32_t at_least(vf a, vf b) noexcept {
#if defined(FACENET_SCALAR)
  return a >= b ? 1u : 0u;
#elif defined(FACENET_ISA_AVX512)
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
#else
  return static_cast<std::uint32_t>((a >= b).mask());
#endif
}

/// The first n (0 < n < width) floats at p, zeros behind them; and the way back. Masked where the ISA has that: float by
/// float, MTCNN's layers of 10 and 28 channels spent a fifth of their time here.
FACENET_INLINE vf load_partial(const float* p, int n) noexcept {
#if defined(FACENET_ISA_AVX512)
  return vf(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
#elif defined(FACENET_ISA_AVX2)
  return vf(_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))));
#else
  float t[width] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return load(t);
#endif
}
FACENET_INLINE void store_partial(float* p, vf v, int n) noexcept {
#if defined(FACENET_ISA_AVX512)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#elif defined(FACENET_ISA_AVX2)
  _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), v);
#else
  float t[width];
  store(t, v);
  for (int i = 0; i < n; ++i) p[i] = t[i];
#endif
}

/// One half as a float, exactly, subnormals and infinities included, and where denormal floats count as zero too: no
/// intermediate is one.
inline float half_to_float(Half h) noexcept {
  const std::uint32_t magnitude = h.bits & 0x7fffu;
  float f = static_cast<float>(magnitude) * 0x1p-24f;  // a subnormal half is so many times 2^-24
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  if (magnitude >= 0x400u) bits = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);  // bias 127 for 15
  bits |= (h.bits & 0x8000u) << 16;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
/// The nearest half, ties to even; overflow becomes infinity.
inline Half float_to_half(float f) noexcept {
  std::uint32_t x;
  std::memcpy(&x, &f, sizeof x);
  const auto sign = static_cast<std::uint16_t>((x >> 16) & 0x8000u);
  x &= 0x7fffffffu;
  if (x >= 0x7f800000u) return {static_cast<std::uint16_t>(sign | (x > 0x7f800000u ? 0x7e00u : 0x7c00u))};
  if (x >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (x >= 0x38800000u) {  // a normal half: rebias, round the 13 lost bits
    const std::uint32_t r = x - (112u << 23) + 0xfffu + ((x >> 13) & 1u);
    return {static_cast<std::uint16_t>(sign | (r >> 13))};
  }
  if (x < 0x33000000u) return {sign};  // below half of the smallest subnormal
  const std::uint32_t shift = 126u - (x >> 23), m = (x & 0x7fffffu) | 0x800000u;
  const std::uint32_t half = 1u << (shift - 1), q = m >> shift, rest = m & ((1u << shift) - 1);
  return {static_cast<std::uint16_t>(sign | (q + (rest > half || (rest == half && (q & 1u)) ? 1u : 0u)))};
}

/// `width` weights as floats. The half-precision form converts in registers on AVX-512, AVX2 (F16C) and NEON.
FACENET_INLINE vf load(const Half* p) noexcept {
#if defined(FACENET_ISA_AVX512)
  return vf(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(FACENET_ISA_AVX2) && defined(__F16C__)
  return vf(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(FACENET_ISA_NEON64)
  return vf(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))));
#else
  float t[width];
  for (int i = 0; i < width; ++i) t[i] = half_to_float(p[i]);
  return load(t);
#endif
}
/// `width` bytes as floats.
FACENET_INLINE vf load(const std::uint8_t* p) noexcept {
#if defined(FACENET_ISA_AVX512)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return vf(_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes)));
#elif defined(FACENET_ISA_AVX2)
  return vf(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
  float t[width];
  for (int i = 0; i < width; ++i) t[i] = static_cast<float>(p[i]);
  return load(t);
#endif
}

/// `width` signed bytes as floats.
FACENET_INLINE vf load(const std::int8_t* p) noexcept {
#if defined(FACENET_ISA_AVX512)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return vf(_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes)));
#elif defined(FACENET_ISA_AVX2)
  return vf(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
  float t[width];
  for (int i = 0; i < width; ++i) t[i] = static_cast<float>(p[i]);
  return load(t);
#endif
}

/// Whether half-precision weights are worth keeping in memory here, or are expanded on load.
#if defined(FACENET_ISA_AVX512) || (defined(FACENET_ISA_AVX2) && defined(__F16C__)) || defined(FACENET_ISA_NEON64)
constexpr bool half_in_memory = true;
#else
constexpr bool half_in_memory = false;
#endif

/// Bit i is set where p[i] >= bound, for a panel of floats.
FACENET_INLINE std::uint32_t at_least_mask(const float* p, float bound) noexcept {
  std::uint32_t bits = 0;
  for (int v = 0; v < tile_vectors; ++v) bits |= at_least(load(p + v * width), set1(bound)) << (v * width);
  return bits;
}

/// Asks for the cache line at p, into L1 or only as far as L2. WebAssembly has no such instruction: there a
/// load asks whose value nobody waits for (Block8's layers 18 -> 24 GFLOP/s in V8), so the memory must exist.
FACENET_INLINE void prefetch(const void* p) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 3);
#else
  (void)p;
#endif
}
FACENET_INLINE void prefetch_l2(const void* p) noexcept {
#if defined(FACENET_ISA_WASM)
  (void)*static_cast<const volatile char*>(p);
#elif defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#else
  (void)p;
#endif
}

/// Whether `bytes` from p may be asked for: anything anywhere, but in WebAssembly what lies in memory.
FACENET_INLINE bool may_prefetch(const void* p, std::int64_t bytes) noexcept {
#if defined(FACENET_ISA_WASM)
  return std::int64_t{static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p))} + bytes <=
         std::int64_t{static_cast<std::uint32_t>(__builtin_wasm_memory_size(0))} << 16;
#else
  (void)p, (void)bytes;
  return true;
#endif
}

/// One turn of a spinning wait.
FACENET_INLINE void pause() noexcept {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

/// Denormals are flushed to zero on this thread while it lives: arithmetic on them is up to 100 times slower on some
/// CPUs, and speed must not depend on the data. Rounding is to nearest and nothing traps, whatever the caller chose, so
/// that all threads compute the same bits. The caller's mode comes back at the end.
/// Other ISAs have no such mode (WebAssembly, RISC-V, s390x) or none that is set here (32-bit ARM): denormals count there.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
#if defined(__SSE2__)
  FlushDenormals() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(0x9fc0u); }  // FTZ, DAZ, all exceptions masked
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() noexcept {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    // FZ; every other bit is a default. The clobber keeps loads and stores, and so what is between them, on their side.
    __asm__ __volatile__("msr fpcr, %0" : : "r"(std::uint64_t{1} << 24) : "memory");
  }
  ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_) : "memory"); }

 private:
  std::uint64_t saved_ = 0;
#else
  FlushDenormals() noexcept {}
  ~FlushDenormals() {}
#endif
};

}  // namespace simd

FACENET_END
