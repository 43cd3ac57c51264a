// Compiled for the oldest CPU of its kind, unlike the rest: it asks the CPU whether it can run the rest, or which of
// several copies of the rest. No header with inline functions here: the linker keeps one copy of each, perhaps one with
// AVX in it.
#include "command/cpu.hpp"

#include <unistd.h>

#include "dispatch/cpu.hpp"

namespace {

/// Control characters, and all else that is not ASCII, as '?': a variable's value is shown too.
[[maybe_unused]] void say(const char* text) {
  for (; *text != 0; ++text) {
    const bool plain = (*text >= ' ' && *text <= '~') || (*text == '\n' && text[1] == 0);
    if (write(STDERR_FILENO, plain ? text : "?", 1) < 0) return;  // nowhere else to say it
  }
}

}  // namespace

#if defined(FACENET_COMMAND_DISPATCH)

#  include "dispatch/isas.hpp"

#  define DECLARED(name, needs) extern "C" int facenet_command_##name(int, char**);
FACENET_ISAS(DECLARED)

int main(int argc, char** argv) {
#  define FUNCTION(name, needs) facenet_command_##name,
  constexpr int (*commands[])(int, char**) = {FACENET_ISAS(FUNCTION)};
  const facenet_cpu::Choice choice = facenet_cpu::choose_isa();
  if (choice.isa >= 0) return commands[choice.isa](argc, argv);
  say("facenet: ");
  say(choice.place);
  say(": ");
  say(choice.text);
  say(".\n");
  return 2;
}

#else

namespace {

// Priority 101 runs before the constructors of the other units' global objects, which may hold AVX instructions.
__attribute__((constructor(101))) void check_cpu() {
  const char* missing = facenet_cpu::missing(command::needed_cpu_features);
  if (missing == nullptr) return;
  say("facenet: this build is tuned for a CPU with ");
  say(missing);
  say(", which this one lacks; build again on this machine, or with -DFACENET_NATIVE=OFF.\n");
  _exit(2);
}

}  // namespace

int main(int argc, char** argv) { return facenet_command(argc, argv); }

#endif
