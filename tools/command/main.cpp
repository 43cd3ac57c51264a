// Compiled for the oldest CPU of its kind, unlike the rest: it asks the CPU whether it can run the rest at all.
// No header with inline functions here: the linker keeps one copy of each, perhaps the one with AVX in it.
#include "cpu.hpp"

#if defined(__x86_64__) || defined(__i386__)
#  include <cpuid.h>
#  include <string.h>
#  include <unistd.h>

namespace {

using namespace command;

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  explicit Leaf(unsigned number) { __get_cpuid_count(number, 0, &a, &b, &c, &d); }
};

/// Registers the operating system saves when it switches tasks: AVX needs bits 1 and 2, AVX-512 5 to 7 as well.
unsigned saved_registers(const Leaf& one) {
  if ((one.c & bit_OSXSAVE) == 0) return 0;
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

const char* missing_feature() {
  const Leaf one(1), seven(7), extended(0x80000001u);
  const unsigned saved = saved_registers(one);
  const bool avx = (saved & 0x06) == 0x06, avx512 = (saved & 0xe6) == 0xe6;
  const struct {
    CpuFeature feature;
    const char* name;
    bool there;
  } table[] = {
      {cpu_sse42, "SSE4.2", (one.c & bit_SSE4_2) != 0},
      {cpu_popcnt, "POPCNT", (one.c & bit_POPCNT) != 0},
      {cpu_avx, "AVX", avx && (one.c & bit_AVX) != 0},
      {cpu_f16c, "F16C", avx && (one.c & bit_F16C) != 0},
      {cpu_fma, "FMA", avx && (one.c & bit_FMA) != 0},
      {cpu_avx2, "AVX2", avx && (seven.b & bit_AVX2) != 0},
      {cpu_bmi, "BMI1", (seven.b & bit_BMI) != 0},
      {cpu_bmi2, "BMI2", (seven.b & bit_BMI2) != 0},
      {cpu_lzcnt, "LZCNT", (extended.c & (1u << 5)) != 0},
      {cpu_movbe, "MOVBE", (one.c & bit_MOVBE) != 0},
      {cpu_avx512f, "AVX-512F", avx512 && (seven.b & (1u << 16)) != 0},
      {cpu_avx512dq, "AVX-512DQ", avx512 && (seven.b & (1u << 17)) != 0},
      {cpu_avx512bw, "AVX-512BW", avx512 && (seven.b & (1u << 30)) != 0},
      {cpu_avx512vl, "AVX-512VL", avx512 && (seven.b & (1u << 31)) != 0},
      {cpu_avx512vnni, "AVX-512 VNNI", avx512 && (seven.c & (1u << 11)) != 0},
  };
  for (const auto& row : table)
    if ((needed_cpu_features & row.feature) != 0 && !row.there) return row.name;
  return nullptr;
}

void say(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) return;  // nowhere else to say it
}

// Priority 101 runs before the constructors of the other units' global objects, which may hold AVX instructions.
__attribute__((constructor(101))) void check_cpu() {
  const char* missing = missing_feature();
  if (missing == nullptr) return;
  say("facenet: this build is tuned for a CPU with ");
  say(missing);
  say(", which this one lacks; build again on this machine, or with -DFACENET_NATIVE=OFF.\n");
  _exit(2);
}

}  // namespace
#endif

int main(int argc, char** argv) { return command::run(argc, argv); }
