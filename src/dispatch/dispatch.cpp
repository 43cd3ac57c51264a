// Which table a program gets. Compiled for any CPU; see cpu.hpp.
#include "cpu.hpp"
#include "dispatch/isas.hpp"
#include "facenet/dispatch/table.hpp"

#define DECLARED(name, needs) extern "C" const facenet_dispatch::Table facenet_dispatch_table_##name;
FACENET_ISAS(DECLARED)
#undef DECLARED

extern "C" const facenet_dispatch::Table* FACENET_DISPATCH_ENTRY(const char** text, const char** place) noexcept {
#define ADDRESS(name, needs) &facenet_dispatch_table_##name,
  static const facenet_dispatch::Table* const tables[] = {FACENET_ISAS(ADDRESS)};
#undef ADDRESS
  const facenet_cpu::Choice choice = facenet_cpu::choose_isa();
  *text = choice.text;
  *place = choice.place;
  return choice.isa < 0 ? nullptr : tables[choice.isa];
}
