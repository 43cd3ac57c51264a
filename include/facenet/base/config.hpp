// Version, build switches and the ISA tag. Layer 0: includes nothing of ours.
//
// Switches a user may define, the same in every translation unit of one program:
//   FACENET_SCALAR            no SIMD, no xsimd: plain C++ loops behind the same names
//   FACENET_PARALLEL_SERIAL   one thread, no <thread>
//   FACENET_PARALLEL_POOL     std::thread workers even where OpenMP is on
//   FACENET_PARALLEL_HOST     WebAssembly without <thread>: workers that the program around the module starts (HostThreads)
//   FACENET_NO_STDIO          no files and no <cstdio>: weights and pictures from memory, no Plan::describe
//   FACENET_MALLOC(bytes), FACENET_FREE(pointer)   where memory comes from; Embedder also takes an Arena
#pragma once

#define FACENET_VERSION_MAJOR 0
#define FACENET_VERSION_MINOR 1
#define FACENET_VERSION_PATCH 0
#define FACENET_VERSION "0.1.0"

// The ISA is what this translation unit is compiled for; facenet::dispatch chooses among several at run time.
#if defined(FACENET_SCALAR)
#  define FACENET_ISA scalar
#elif defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#  define FACENET_ISA avx512
#  define FACENET_ISA_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#  define FACENET_ISA avx2
#  define FACENET_ISA_AVX2 1
#elif defined(__SSE4_2__)
#  define FACENET_ISA sse4
#  define FACENET_ISA_SSE 1
#elif defined(__SSE2__)
#  define FACENET_ISA sse2
#  define FACENET_ISA_SSE 1
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
#  define FACENET_ISA neon64
#  define FACENET_ISA_NEON64 1
#elif defined(__wasm_simd128__)
#  if defined(__wasm_relaxed_simd__)
#    define FACENET_ISA relaxed_wasm
#  else
#    define FACENET_ISA wasm
#  endif
#  define FACENET_ISA_WASM 1
#else
#  define FACENET_ISA scalar
#  ifndef FACENET_SCALAR
#    define FACENET_SCALAR 1
#  endif
#endif

#if defined(FACENET_PARALLEL_SERIAL)
#  define FACENET_PARALLEL serial
#elif defined(FACENET_PARALLEL_HOST)
#  define FACENET_PARALLEL host
#elif defined(FACENET_PARALLEL_POOL)
#  define FACENET_PARALLEL pool
#elif defined(_OPENMP)
#  define FACENET_PARALLEL openmp
#  define FACENET_PARALLEL_OPENMP 1
// On WebAssembly libc++ defines it with or without -pthread, so it would depend on who included what first.
#elif defined(__STDCPP_THREADS__) && (!defined(__wasm__) || defined(_REENTRANT))
#  define FACENET_PARALLEL pool
#  define FACENET_PARALLEL_POOL 1
#else
#  define FACENET_PARALLEL serial
#  define FACENET_PARALLEL_SERIAL 1
#endif

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#  define FACENET_EXCEPTIONS 1
#else
#  define FACENET_EXCEPTIONS 0
#endif

#if defined(_MSC_VER)
#  define FACENET_INLINE __forceinline
#  define FACENET_NOINLINE __declspec(noinline)
#  define FACENET_UNROLL
#elif defined(__clang__)
#  define FACENET_INLINE inline __attribute__((always_inline))
#  define FACENET_NOINLINE __attribute__((noinline))
#  define FACENET_UNROLL _Pragma("clang loop unroll(full)")
#else
#  define FACENET_INLINE inline __attribute__((always_inline))
#  define FACENET_NOINLINE __attribute__((noinline))
// GCC 12 keeps an array of vectors on the stack unless the loops over it are unrolled: 3-4 times slower.
#  define FACENET_UNROLL _Pragma("GCC unroll 64")
#endif

// Two units of one program may be compiled for different ISAs, and the linker keeps one copy of an inline
// function. The inline namespace gives each ISA and threading back end names of its own.
#define FACENET_JOIN2_(a, b) v0_##a##_##b
#define FACENET_JOIN_(a, b) FACENET_JOIN2_(a, b)
#define FACENET_ABI FACENET_JOIN_(FACENET_ISA, FACENET_PARALLEL)
#define FACENET_BEGIN \
  namespace facenet { \
  inline namespace FACENET_ABI {
#define FACENET_END \
  } \
  }
#define FACENET_STRING2_(x) #x
#define FACENET_STRING_(x) FACENET_STRING2_(x)

FACENET_BEGIN

constexpr const char* version = FACENET_VERSION;
constexpr const char* isa_name = FACENET_STRING_(FACENET_ISA);            // "avx2", "neon64", …
constexpr const char* parallel_name = FACENET_STRING_(FACENET_PARALLEL);  // "openmp", "pool", "host" or "serial"

FACENET_END
