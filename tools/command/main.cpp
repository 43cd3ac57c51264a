// Compiled for the oldest CPU of its kind, unlike the rest: it asks the CPU whether it can run the rest, or which of several
// copies of the rest. No header with inline functions here: the linker keeps one copy of each, perhaps one with AVX in it.
#include "cpu.hpp"

#include <string.h>
#include <unistd.h>

#include "../../src/dispatch/cpu.hpp"

namespace {

[[maybe_unused]] void say(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) return;  // nowhere else to say it
}

}  // namespace

#if defined(FACENET_COMMAND_DISPATCH)

extern "C" int facenet_command_sse4(int, char**), facenet_command_avx2(int, char**), facenet_command_avx512(int, char**);

int main(int argc, char** argv) {
  const facenet_cpu::Choice choice = facenet_cpu::choose_isa();
  switch (choice.isa) {
    case 0: return facenet_command_sse4(argc, argv);
    case 1: return facenet_command_avx2(argc, argv);
    case 2: return facenet_command_avx512(argc, argv);
  }
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

int main(int argc, char** argv) { return command::run(argc, argv); }

#endif
