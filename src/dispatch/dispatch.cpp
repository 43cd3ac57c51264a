// Which table a program gets. Compiled for any CPU; see cpu.hpp.
#include "cpu.hpp"
#include "facenet/dispatch_table.hpp"

#if !defined(FACENET_DISPATCH_ANY)
extern "C" const facenet_dispatch::Table facenet_dispatch_table_sse4, facenet_dispatch_table_avx2,
    facenet_dispatch_table_avx512;
#else
extern "C" const facenet_dispatch::Table facenet_dispatch_table_any;
#endif

extern "C" const facenet_dispatch::Table* FACENET_DISPATCH_ENTRY(const char** text, const char** place) noexcept {
#if !defined(FACENET_DISPATCH_ANY)
  static const facenet_dispatch::Table* const tables[] = {&facenet_dispatch_table_sse4, &facenet_dispatch_table_avx2,
                                                          &facenet_dispatch_table_avx512};
#else
  static const facenet_dispatch::Table* const tables[] = {&facenet_dispatch_table_any};
#endif
  const facenet_cpu::Choice choice = facenet_cpu::choose_isa();
  *text = choice.text;
  *place = choice.place;
  return choice.isa < 0 ? nullptr : tables[choice.isa];
}
