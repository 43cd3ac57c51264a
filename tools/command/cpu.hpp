// Which CPU features this build needs. Plain data: reading it runs no instruction that an old CPU lacks.
#pragma once

#include <cstdint>

namespace command {

enum CpuFeature : std::uint32_t {
  cpu_sse42 = 1u << 0,
  cpu_popcnt = 1u << 1,
  cpu_avx = 1u << 2,
  cpu_f16c = 1u << 3,
  cpu_fma = 1u << 4,
  cpu_avx2 = 1u << 5,
  cpu_bmi = 1u << 6,
  cpu_bmi2 = 1u << 7,
  cpu_lzcnt = 1u << 8,
  cpu_movbe = 1u << 9,
  cpu_avx512f = 1u << 10,
  cpu_avx512dq = 1u << 11,
  cpu_avx512bw = 1u << 12,
  cpu_avx512vl = 1u << 13,
  cpu_avx512vnni = 1u << 14,
};

/// What the units with the engine were compiled for; 0 where nothing need be checked.
extern const std::uint32_t needed_cpu_features;

/// The command proper: parses, works, returns the exit status.
int run(int argc, char** argv) noexcept;

}  // namespace command
