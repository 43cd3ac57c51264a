// Linked into tests that are compiled for more than every x86-64 CPU has: where it lacks, they are skipped, not killed.
// A constructor of the first priority, since the test's own initialisers may use the new instructions already; this
// file is compiled for any CPU. REQUIRED: the needs of a row of cmake/FacenetIsa.cmake.
#include <cstdio>
#include <cstdlib>

#include "dispatch/cpu.hpp"

namespace {

[[gnu::constructor(101)]] void require_cpu() {
  using namespace facenet_cpu;
  const char* lacking = missing(REQUIRED);
  if (lacking == nullptr) return;
  std::fprintf(stderr, "skipped: this CPU has no %s\n", lacking);
  std::_Exit(77);
}

}  // namespace
