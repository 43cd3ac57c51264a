// Version, build switches and the ISA tag.
//
// Switches a user may define, the same in every translation unit of one program:
//   FACENET_SCALAR            no SIMD, no xsimd: plain C++ loops under the same names
//   FACENET_PARALLEL_SERIAL   one thread, no <thread>
//   FACENET_PARALLEL_POOL     std::thread workers even where OpenMP is on
//   FACENET_PARALLEL_HOST     WebAssembly without <thread>: workers that the program around the module starts
//                             (HostThreads)
//   FACENET_NO_INTEGER        no integer arithmetic: 30 KB less of each program
//   FACENET_NO_WINOGRAD       no Winograd forms: 50 KB less, and floats take longer. For who multiplies integers
//   FACENET_NO_INT8_WEIGHTS   int8 weights become floats when a file is loaded: PlanOptions::int8_weights is refused.
//   10 KB
//                             less
//   FACENET_NO_STDIO          no files and no <cstdio>: weights and pictures from memory, no Plan::describe
//   FACENET_MALLOC(bytes), FACENET_FREE(pointer)   where memory comes from; Embedder also takes an Arena
//   FACENET_ALLOW_DEBUG       no message where the compiler does not optimise
// Units that are compiled otherwise than each other (these switches, -m flags, exceptions, -ffast-math) may be linked
// into one program: all that such a difference touches has another name in each. Two FACENET_MALLOCs in one program
// look alike from here: define FACENET_TAG beside them, as another word in each unit.
#pragma once

#if defined(FACENET_VERSION_MAJOR)
#  error \
      "facenet: another copy of these headers, or the one file of tools/amalgamate.py, was included before: include one of them"
#  include <facenet: include one copy of the headers>  // ends the compilation: all that follows would be defined twice
#endif

#include "facenet/base/abi.hpp"

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
#    if defined(__clang_major__) && __clang_major__ >= 19  // older headers lack its dot
#      define FACENET_RELAXED_DOT 1
#    endif
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

// Instructions for dot products of bytes, which base/simd.hpp uses where the ISA above has them. abi.hpp gives each a
// letter; on x86-64 they make an ISA of their own, which facenet::dispatch knows.
#if defined(FACENET_ISA_AVX512) && defined(__AVX512VNNI__)
#  undef FACENET_ISA
#  define FACENET_ISA avx512vnni
#  define FACENET_VNNI 1
#  if defined(FACENET_HAS_AMX)
#    define FACENET_AMX 1
#  endif
#elif defined(FACENET_ISA_AVX2) && defined(__AVXVNNI__)
#  undef FACENET_ISA
#  define FACENET_ISA avxvnni
#  define FACENET_VNNI 1
#elif defined(FACENET_ISA_NEON64) && defined(__ARM_FEATURE_MATMUL_INT8)
#  define FACENET_I8MM 1
#elif defined(FACENET_ISA_NEON64) && defined(__ARM_FEATURE_DOTPROD)
#  define FACENET_DOTPROD 1
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
// GCC defines it for MinGW's win32 threads and for bare machines too, where the library has no std::thread.
// On WebAssembly libc++ defines it with or without -pthread, so it would depend on who included what first.
#elif defined(__STDCPP_THREADS__) && (!defined(__wasm__) || defined(_REENTRANT)) && \
    (!defined(__GLIBCXX__) || defined(_GLIBCXX_HAS_GTHREADS))
#  define FACENET_PARALLEL pool
#  define FACENET_PARALLEL_POOL 1
#else
#  define FACENET_PARALLEL serial
#  define FACENET_PARALLEL_SERIAL 1
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

// Not seen from outside of a shared object, where a variable of an inline function would else keep plug-ins from being
// unloaded.
#if defined(__GNUC__) && !defined(_WIN32)
#  define FACENET_HIDDEN __attribute__((visibility("hidden")))
#else
#  define FACENET_HIDDEN
#endif

#if !defined(__OPTIMIZE__) && defined(__GNUC__) && !defined(FACENET_ALLOW_DEBUG)
#  pragma message( \
      "facenet: compiled without optimisation an embedding takes some 400 times as long: add -O2, or define FACENET_ALLOW_DEBUG")
#endif

// Two units of one program may be compiled otherwise than each other, and the linker keeps one copy of an inline
// function. So the inline namespace of everything with a body names the version, the ISA, the threads and what abi.hpp
// adds.
#define FACENET_VERSION_NAME_(a, b, c) v##a##_##b##_##c
#define FACENET_VERSION_NAME(a, b, c) FACENET_VERSION_NAME_(a, b, c)
#define FACENET_DATA FACENET_VERSION_NAME(FACENET_VERSION_MAJOR, FACENET_VERSION_MINOR, FACENET_VERSION_PATCH)
#define FACENET_JOIN_ABI_(version, isa, parallel, cpu, math, switches) \
  version##_##isa##_##parallel##_c##cpu##_m##math##_s##switches
#define FACENET_JOIN_ABI(version, isa, parallel, cpu, math, switches) \
  FACENET_JOIN_ABI_(version, isa, parallel, cpu, math, switches)
#define FACENET_ABI \
  FACENET_JOIN_ABI(FACENET_DATA, FACENET_ISA, FACENET_PARALLEL, FACENET_CPU, FACENET_MATH, FACENET_SWITCHES)
#define FACENET_BEGIN \
  namespace facenet { \
  inline namespace FACENET_ABI {
#define FACENET_END \
  } \
  }
// Around what runs once, while a model is loaded, apart from reading and packing of weights, which take 32 ms and took
// 45 so. GCC compiles it for size: a unit that uses Embedder then takes 6 to 10% less time to compile, and its code is
// 7 to 14% smaller. Around integer kernels: at -O3, whatever the unit's level, an inference takes 7% less time than at
// -O2. Elsewhere the level of the unit holds: on 32-bit ARM GCC 12's pragma also changes how unaligned words are read.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__OPTIMIZE__)
#  define FACENET_SETUP_BEGIN FACENET_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"Os\")")
#  define FACENET_SETUP_END _Pragma("GCC pop_options") FACENET_END
#else
#  define FACENET_SETUP_BEGIN FACENET_BEGIN
#  define FACENET_SETUP_END FACENET_END
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__OPTIMIZE__) && \
    !defined(__OPTIMIZE_SIZE__)
#  define FACENET_FAST_BEGIN FACENET_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"O3\")")
#  define FACENET_FAST_END _Pragma("GCC pop_options") FACENET_END
#else
#  define FACENET_FAST_BEGIN FACENET_BEGIN
#  define FACENET_FAST_END FACENET_END
#endif
// Records that people put into interfaces of their own live in a namespace that names the version alone, the same type
// for every unit. What they have of functions is trivial or FACENET_INLINE, so that no unit shares its code with
// another.
#define FACENET_DATA_BEGIN \
  namespace facenet { \
  inline namespace FACENET_DATA {
#define FACENET_DATA_END FACENET_END
#define FACENET_STRING2_(x) #x
#define FACENET_STRING_(x) FACENET_STRING2_(x)

FACENET_BEGIN

constexpr const char* version = FACENET_VERSION;
constexpr const char* isa_name = FACENET_STRING_(FACENET_ISA);            // "avx2", "neon64", …
constexpr const char* parallel_name = FACENET_STRING_(FACENET_PARALLEL);  // "openmp", "pool", "host" or "serial"

FACENET_END
