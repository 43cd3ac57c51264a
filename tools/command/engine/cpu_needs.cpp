// Compiled with the engine's flags: turns what the compiler was allowed to use into data that main.cpp can check.
#include "dispatch/cpu.hpp"

#include "command/cpu.hpp"
#include "facenet/base/config.hpp"

namespace command {

const std::uint32_t needed_cpu_features = 0
#if defined(FACENET_NATIVE_BUILD)
#  if defined(__SSE4_2__)
                                          | facenet_cpu::sse42
#  endif
#  if defined(__POPCNT__)
                                          | facenet_cpu::popcnt
#  endif
#  if defined(__AVX__)
                                          | facenet_cpu::avx
#  endif
#  if defined(__F16C__)
                                          | facenet_cpu::f16c
#  endif
#  if defined(__FMA__)
                                          | facenet_cpu::fma
#  endif
#  if defined(__AVX2__)
                                          | facenet_cpu::avx2
#  endif
#  if defined(__BMI__)
                                          | facenet_cpu::bmi
#  endif
#  if defined(__BMI2__)
                                          | facenet_cpu::bmi2
#  endif
#  if defined(__LZCNT__)
                                          | facenet_cpu::lzcnt
#  endif
#  if defined(__MOVBE__)
                                          | facenet_cpu::movbe
#  endif
#  if defined(__AVXVNNI__)
                                          | facenet_cpu::avxvnni
#  endif
#  if defined(__AVX512F__)
                                          | facenet_cpu::avx512f
#  endif
#  if defined(__AVX512DQ__)
                                          | facenet_cpu::avx512dq
#  endif
#  if defined(__AVX512BW__)
                                          | facenet_cpu::avx512bw
#  endif
#  if defined(__AVX512VL__)
                                          | facenet_cpu::avx512vl
#  endif
#  if defined(__AVX512VNNI__)
                                          | facenet_cpu::avx512vnni
#  endif
#endif
    ;

const char* const engine_name = FACENET_STRING_(FACENET_ISA) ", " FACENET_STRING_(FACENET_PARALLEL);

}  // namespace command
