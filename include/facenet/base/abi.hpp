// A word for how this unit is compiled: one letter for each thing that an instruction set has or has not, and for each
// switch that changes what a function does. It becomes part of every name of ours (FACENET_ABI in config.hpp), so that
// of two units that differ in it the linker never takes one's code for the other: -mavx encodes what -msse4.2 does too,
// and kills a CPU without it.
#pragma once

#include <cstddef>  // which standard library this is

// FACENET_IF(macro, letter) is the letter where the macro is 1, else nothing: FACENET_IF_1 brings a comma, which makes
// the letter the second argument.
#define FACENET_IF_1 0,
#define FACENET_IF(macro, letter) FACENET_IF_OF_(macro, letter)
#define FACENET_IF_OF_(value, letter) FACENET_SECOND_(FACENET_IF_##value letter, , 0)
#define FACENET_SECOND_(...) FACENET_SECOND_OF_(__VA_ARGS__)
#define FACENET_SECOND_OF_(first, second, ...) second
#define FACENET_JOIN8_(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define FACENET_JOIN8(a, b, c, d, e, f, g, h) FACENET_JOIN8_(a, b, c, d, e, f, g, h)

#if defined(__x86_64__) || defined(__i386__)
#  define FACENET_CPU1 \
    FACENET_JOIN8(FACENET_IF(__SSE3__, a), FACENET_IF(__SSSE3__, b), FACENET_IF(__SSE4_1__, c), \
                  FACENET_IF(__SSE4_2__, d), FACENET_IF(__POPCNT__, e), FACENET_IF(__LZCNT__, f), \
                  FACENET_IF(__BMI__, g), FACENET_IF(__BMI2__, h))
#  define FACENET_CPU2 \
    FACENET_JOIN8(FACENET_IF(__MOVBE__, i), FACENET_IF(__AVX__, j), FACENET_IF(__F16C__, k), FACENET_IF(__FMA__, l), \
                  FACENET_IF(__AVX2__, m), FACENET_IF(__AVXVNNI__, n), FACENET_IF(__AVX512F__, o), \
                  FACENET_IF(__AVX512CD__, p))
#  define FACENET_CPU3 \
    FACENET_JOIN8(FACENET_IF(__AVX512BW__, q), FACENET_IF(__AVX512DQ__, r), FACENET_IF(__AVX512VL__, s), \
                  FACENET_IF(__AVX512VNNI__, t), FACENET_IF(__AVX512VBMI__, u), FACENET_IF(__AVX512VBMI2__, v), \
                  FACENET_IF(__AVX512BITALG__, w), FACENET_IF(__AVX512VPOPCNTDQ__, x))
#  define FACENET_CPU4 \
    FACENET_JOIN8(FACENET_IF(__AVX512IFMA__, y), FACENET_IF(__AVX512BF16__, z), FACENET_IF(__AVX512FP16__, A), \
                  FACENET_IF(__AVX512ER__, B), FACENET_IF(__AVXVNNIINT8__, C), FACENET_IF(__AVXIFMA__, D), \
                  FACENET_IF(__AVX10_1__, E), FACENET_IF(__APX_F__, F))
#  define FACENET_CPU5 \
    FACENET_JOIN8(FACENET_IF(__GFNI__, G), FACENET_IF(__SSE4A__, H), FACENET_IF(__FMA4__, I), FACENET_IF(__XOP__, J), \
                  FACENET_IF(__TBM__, K), FACENET_IF(__ADX__, L), FACENET_IF(__LAHF_SAHF__, M), \
                  FACENET_IF(__PRFCHW__, N))
#  define FACENET_CPU FACENET_JOIN8(FACENET_CPU1, FACENET_CPU2, FACENET_CPU3, FACENET_CPU4, FACENET_CPU5, , , )
#elif defined(__aarch64__) || defined(__arm__)
#  define FACENET_CPU1 \
    FACENET_JOIN8(FACENET_IF(__ARM_NEON, a), FACENET_IF(__ARM_FEATURE_FMA, b), FACENET_IF(__ARM_FEATURE_DOTPROD, c), \
                  FACENET_IF(__ARM_FEATURE_MATMUL_INT8, d), FACENET_IF(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, e), \
                  FACENET_IF(__ARM_FEATURE_BF16, f), FACENET_IF(__ARM_FEATURE_ATOMICS, g), \
                  FACENET_IF(__ARM_FEATURE_QRDMX, h))
#  define FACENET_CPU2 \
    FACENET_JOIN8(FACENET_IF(__ARM_FEATURE_CRC32, i), FACENET_IF(__ARM_FEATURE_JCVT, j), \
                  FACENET_IF(__ARM_FEATURE_FRINT, k), FACENET_IF(__ARM_FEATURE_COMPLEX, l), \
                  FACENET_IF(__ARM_FEATURE_SVE, m), FACENET_IF(__ARM_FEATURE_SVE2, n), \
                  FACENET_IF(__ARM_FEATURE_IDIV, o), FACENET_IF(__ARM_FEATURE_SME, p))
#  define FACENET_CPU FACENET_JOIN8(FACENET_CPU1, FACENET_CPU2, , , , , , )
#elif defined(__riscv)
#  if defined(__riscv_vector)
#    define FACENET_CPU1 v
#  else
#    define FACENET_CPU1
#  endif
#  if defined(__riscv_zbb)
#    define FACENET_CPU FACENET_JOIN8(FACENET_CPU1, b, , , , , , )
#  else
#    define FACENET_CPU FACENET_CPU1
#  endif
#elif defined(__s390x__)
#  define FACENET_CPU FACENET_JOIN8(z, __ARCH__, , , , , , )
#elif defined(__powerpc__)
#  define FACENET_CPU \
    FACENET_JOIN8(FACENET_IF(__VSX__, a), FACENET_IF(_ARCH_PWR7, b), FACENET_IF(_ARCH_PWR8, c), \
                  FACENET_IF(_ARCH_PWR9, d), FACENET_IF(_ARCH_PWR10, e), , , )
#elif defined(__wasm__)
#  define FACENET_CPU \
    FACENET_JOIN8(FACENET_IF(__wasm_simd128__, a), FACENET_IF(__wasm_relaxed_simd__, b), \
                  FACENET_IF(__wasm_atomics__, c), FACENET_IF(__wasm_bulk_memory__, d), \
                  FACENET_IF(__wasm_sign_ext__, e), FACENET_IF(__wasm_nontrapping_fptoint__, f), , )
#elif defined(_M_X64) || defined(_M_IX86)  // MSVC
#  define FACENET_CPU \
    FACENET_JOIN8(FACENET_IF(__AVX__, j), FACENET_IF(__AVX2__, m), FACENET_IF(__AVX512F__, o), , , , , )
#else
#  define FACENET_CPU
#endif

// Arithmetic: -ffast-math and its parts (Clang names only the whole, and that nothing is infinite), x87.
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#  define FACENET_FINITE F
#else
#  define FACENET_FINITE
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#  define FACENET_EXCESS X
#else
#  define FACENET_EXCESS
#endif
#define FACENET_MATH \
  FACENET_JOIN8(FACENET_FINITE, FACENET_EXCESS, FACENET_IF(__FAST_MATH__, M), FACENET_IF(__ASSOCIATIVE_MATH__, A), \
                FACENET_IF(__RECIPROCAL_MATH__, R), FACENET_IF(__NO_SIGNED_ZEROS__, Z), \
                FACENET_IF(__ROUNDING_MATH__, N), )

// Switches of ours, exceptions, and code without optimisation, which would be another unit's slow copy.
#if defined(FACENET_NO_STDIO)
#  define FACENET_IS_NO_STDIO S
#else
#  define FACENET_IS_NO_STDIO
#endif
#if defined(FACENET_NO_INTEGER)
#  define FACENET_IS_NO_INTEGER I
#else
#  define FACENET_IS_NO_INTEGER
#endif
#if defined(FACENET_NO_WINOGRAD)
#  define FACENET_IS_NO_WINOGRAD W
#else
#  define FACENET_IS_NO_WINOGRAD
#endif
#if defined(FACENET_NO_INT8_WEIGHTS)
#  define FACENET_IS_NO_INT8_WEIGHTS K
#else
#  define FACENET_IS_NO_INT8_WEIGHTS
#endif
// AMX is no ISA of its own: it is asked for when weights are loaded. As assembly, which old compilers' assemblers lack.
#if !defined(FACENET_NO_INTEGER) && defined(__AVX512VNNI__) && defined(__x86_64__) && defined(__linux__) && \
    (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 11))
#  define FACENET_IS_AMX T
#  define FACENET_HAS_AMX
#else
#  define FACENET_IS_AMX
#endif
#if defined(FACENET_MALLOC)
#  define FACENET_IS_MALLOC M
#else
#  define FACENET_IS_MALLOC
#endif
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#  define FACENET_EXCEPTIONS 1
#  define FACENET_IS_NOEXCEPT
#else
#  define FACENET_EXCEPTIONS 0
#  define FACENET_IS_NOEXCEPT E
#endif
#if defined(__GNUC__) && !defined(__OPTIMIZE__)
#  define FACENET_IS_DEBUG D
#else
#  define FACENET_IS_DEBUG
#endif
#if !defined(FACENET_TAG)
#  define FACENET_TAG
#endif
#define FACENET_SWITCHES \
  FACENET_JOIN8(FACENET_IS_NO_STDIO, FACENET_IS_MALLOC, FACENET_IS_NOEXCEPT, FACENET_IS_DEBUG, FACENET_TAG, \
                FACENET_IS_NO_INTEGER, FACENET_IS_AMX, \
                FACENET_JOIN8(FACENET_IS_NO_WINOGRAD, FACENET_IS_NO_INT8_WEIGHTS, , , , , , ))
