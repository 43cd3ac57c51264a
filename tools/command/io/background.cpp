#include "command/io/background.hpp"

#include <sys/resource.h>
#include <unistd.h>

#if defined(__linux__)
#  include <sys/syscall.h>
#endif

namespace command {

void go_to_background() {
  constexpr int lowest = 19;
  (void)::setpriority(PRIO_PROCESS, 0, lowest);
#if defined(__linux__) && defined(SYS_ioprio_set)
  constexpr int of_process = 1, idle = 3 << 13;  // linux/ioprio.h
  (void)::syscall(SYS_ioprio_set, of_process, 0, idle);
#endif
}

}  // namespace command
