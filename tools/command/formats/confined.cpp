// The process that decodes: it takes its own rights away, and then looks at the file.
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "command/formats/protocol.hpp"
#include "command/formats/sandbox.hpp"
#if defined(FACENET_SECCOMP)
#  include <seccomp.h>
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#  define FACENET_SANITIZED 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#    define FACENET_SANITIZED 1
#  endif
#endif

namespace command {

namespace {

void limit(int what, std::uint64_t most, std::uint64_t hard) {
  const rlimit value{static_cast<rlim_t>(most), static_cast<rlim_t>(hard)};
  if (::setrlimit(static_cast<__rlimit_resource>(what), &value) != 0) _exit(no_start);
}

/// Bytes of address space that the program and its libraries take before anything is decoded.
[[maybe_unused]] std::uint64_t mapped_now() {
  unsigned long pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr || std::fscanf(file, "%lu", &pages) != 1) _exit(no_start);
  std::fclose(file);
  return std::uint64_t{pages} * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

#if defined(FACENET_SECCOMP)

/// Everything but memory, reading, writing to what is open, time, and threads of this process ends it.
bool forbid() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == nullptr) return false;
  bool fine = true;
  const auto allow = [&](std::initializer_list<int> calls) {
    for (const int call : calls) fine = fine && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  };
  allow({SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(lseek), SCMP_SYS(fstat)});
  allow({SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(sched_yield)});
  allow({SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom), SCMP_SYS(getpid)});
  allow({SCMP_SYS(gettid), SCMP_SYS(sched_getaffinity), SCMP_SYS(set_robust_list), SCMP_SYS(rseq)});
  allow({SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn)});
  allow({SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(tgkill)});
  // No memory that can be run.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)})
    fine = fine && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) == 0;
  // Threads, as libde265 and others start them, and no processes. clone3 keeps its flags in memory, where a filter
  // cannot look: the C library then takes clone.
  constexpr scmp_datum_t clone_thread = 0x00010000;
  fine = fine && seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, clone_thread, clone_thread)) == 0;
  fine = fine && seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
  // What libraries ask in passing and can do without.
  for (const int call : {SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(readlink), SCMP_SYS(access), SCMP_SYS(newfstatat),
                         SCMP_SYS(ioctl), SCMP_SYS(sysinfo), SCMP_SYS(uname), SCMP_SYS(prctl), SCMP_SYS(prlimit64),
                         SCMP_SYS(sched_setaffinity), SCMP_SYS(sched_setscheduler), SCMP_SYS(fcntl)})
    fine = fine && seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0) == 0;
  fine = fine && seccomp_load(filter) == 0;
  seccomp_release(filter);
  return fine;
}

#endif

[[noreturn]] void out_of_memory() { refuse(Trouble::no_memory); }

}  // namespace

bool is_decoder(int argc, char** argv) { return argc == 3 && std::strcmp(argv[1], decode_flag) == 0; }

void run_decoder(char** argv) {
  int kind = 0, colour = 0;
  unsigned long long pixels = 0, memory = 0;
  Wanted wanted;
  struct stat about {};
  if (std::sscanf(argv[2], "%d,%llu,%d,%llu,%d,%d", &kind, &pixels, &wanted.most_side, &memory, &colour,
                  &wanted.seconds) != 6 ||
      kind < 0 || kind >= kind_count || ::fstat(STDIN_FILENO, &about) != 0 || about.st_size <= 0)
    _exit(no_start);
  wanted.most_pixels = pixels;
  wanted.memory = memory;
  wanted.colour = colour != 0;
  const Decoder* decoder = find_decoder(static_cast<Kind>(kind));
  if (decoder == nullptr) _exit(no_start);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_DUMPABLE, 0);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(no_start);
#if defined(SYS_close_range)
  ::syscall(SYS_close_range, 3u, ~0u, 0u);
#endif
  std::set_new_handler(out_of_memory);
  if (decoder->prepare != nullptr) decoder->prepare();
  const auto size = static_cast<std::size_t>(about.st_size);
  void* file = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, STDIN_FILENO, 0);
  if (file == MAP_FAILED) refuse(Trouble::no_memory);
  const auto seconds = static_cast<std::uint64_t>(wanted.seconds);
  limit(RLIMIT_CORE, 0, 0);
  limit(RLIMIT_FSIZE, 0, 0);
  limit(RLIMIT_CPU, seconds, seconds + 1);
#if !defined(FACENET_SANITIZED)                // sanitizers map terabytes
  ::mallopt(M_ARENA_MAX, 1);                   // each would reserve 64 MiB
  constexpr std::uint64_t stacks = 40u << 20;  // of threads: address space of which little is touched
  const std::uint64_t all = mapped_now() + wanted.memory + stacks;
  limit(RLIMIT_AS, all, all);
#  if defined(FACENET_SECCOMP)
  if (!forbid()) _exit(no_start);
#  endif
#endif
  Canvas canvas(wanted);
  decoder->decode({static_cast<const std::uint8_t*>(file), size}, canvas);
  canvas.end();
  _exit(0);
}

}  // namespace command
