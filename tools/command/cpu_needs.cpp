// Compiled with the engine's flags: turns what the compiler was allowed to use into data that main.cpp can check.
#include "cpu.hpp"

namespace command {

const std::uint32_t needed_cpu_features = 0
#if defined(FACENET_NATIVE_BUILD)
#  if defined(__SSE4_2__)
    | cpu_sse42
#  endif
#  if defined(__POPCNT__)
    | cpu_popcnt
#  endif
#  if defined(__AVX__)
    | cpu_avx
#  endif
#  if defined(__F16C__)
    | cpu_f16c
#  endif
#  if defined(__FMA__)
    | cpu_fma
#  endif
#  if defined(__AVX2__)
    | cpu_avx2
#  endif
#  if defined(__BMI__)
    | cpu_bmi
#  endif
#  if defined(__BMI2__)
    | cpu_bmi2
#  endif
#  if defined(__LZCNT__)
    | cpu_lzcnt
#  endif
#  if defined(__MOVBE__)
    | cpu_movbe
#  endif
#  if defined(__AVX512F__)
    | cpu_avx512f
#  endif
#  if defined(__AVX512DQ__)
    | cpu_avx512dq
#  endif
#  if defined(__AVX512BW__)
    | cpu_avx512bw
#  endif
#  if defined(__AVX512VL__)
    | cpu_avx512vl
#  endif
#  if defined(__AVX512VNNI__)
    | cpu_avx512vnni
#  endif
#endif
    ;

}  // namespace command
