// Linked into tests that are compiled for more than every x86-64 CPU has: where it lacks, they are skipped, not killed.
// A constructor of the first priority, since the test's own initialisers may use the new instructions already; this
// file is compiled for any CPU.
#include <cstdio>
#include <cstdlib>

namespace {

[[gnu::constructor(101)]] void require_cpu() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#if defined(REQUIRE_AVX512)
  const char* what = "AVX-512 (F, DQ, BW, VL)";
  const bool able = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  const char* what = "AVX2 and FMA";
  const bool able = avx2;
#endif
  if (able) return;
  std::fprintf(stderr, "skipped: this CPU has no %s\n", what);
  std::_Exit(77);
}

}  // namespace
