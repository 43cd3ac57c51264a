// Teams, queues and the default number of threads. Built for OpenMP, std::thread and serial.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfenv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "facenet/base/parallel.hpp"

#if defined(__linux__)
#  include <dlfcn.h>
#  include <sys/wait.h>
#  include <unistd.h>

#  include <cerrno>
#  include <thread>
#endif

using namespace facenet;

TEST_CASE("every chunk of every round is done once, whatever the number of members") {
  for (int threads : {1, 2, 3, 8}) {
    Team team;
    REQUIRE(team.start(threads).ok());
    ChunkQueue queue;
    const int counts[] = {0, 1, 2, 7, 100, 3, 64};
    std::vector<std::vector<int>> seen;
    for (int c : counts) seen.emplace_back(static_cast<std::size_t>(c), 0);
    for (int repeat = 0; repeat < 20; ++repeat) {
      queue.reset(team.size());
      team.run([&](int member, int) {
        unsigned round = 0;
        for (std::size_t i = 0; i < seen.size(); ++i) {
          queue.work(member, round++, counts[i], [&](int chunk) { ++seen[i][static_cast<std::size_t>(chunk)]; });
          team.barrier();
        }
      });
    }
    bool once = true;
    for (const auto& s : seen)
      for (int n : s) once = once && n == 20;
    CHECK(once);
  }
}

TEST_CASE("the barrier separates rounds") {
  Team team;
  REQUIRE(team.start(4).ok());
  std::atomic<int> arrived{0};
  std::atomic<bool> early{false};
  team.run([&](int, int members) {
    for (int round = 1; round <= 200; ++round) {
      arrived.fetch_add(1);
      team.barrier();
      if (arrived.load() < round * members) early = true;
      team.barrier();
    }
  });
  CHECK_FALSE(early.load());
}

TEST_CASE("a team can be started again, and refuses nonsense") {
  Team team;
  for (int threads : {3, 1, 2}) {
    REQUIRE(team.start(threads).ok());
    std::atomic<int> calls{0};
    team.run([&](int, int) { calls.fetch_add(1); });
    CHECK(calls.load() == team.size());
  }
  CHECK(team.start(0).code() == Errc::invalid_argument);
  CHECK(team.start(max_threads + 1).code() == Errc::invalid_argument);
}

#if defined(__SSE2__) || defined(__aarch64__)
namespace {

bool denormals_count() {
  volatile float tiny = 0x1p-127f;  // its double is normal, so that flushed results alone would not hide it
  volatile float twice = tiny * 2;
  return twice != 0;
}
/// Up and down differ from nearest, and from each other, in one of these thirds.
bool rounds_to_nearest() {
  volatile float one = 1, three = 3;
  volatile float third = one / three, minus = -one / three;
  return third == 0x1.555556p-2f && minus == -0x1.555556p-2f;
}

}  // namespace

TEST_CASE("every member of a team flushes denormals and rounds to nearest; the caller's mode is out of it") {
  for (int threads : {1, 2, 3, 8})
    for (int mode : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD}) {
      CAPTURE(threads);
      CAPTURE(mode);
      std::fesetround(mode);
      Team team;  // started in the caller's mode, which new threads inherit
      REQUIRE(team.start(threads).ok());
      std::atomic<int> members_in_mode{0}, came{0};
      team.run([&](int, int members) {
        came = members;
        if (!denormals_count() && rounds_to_nearest()) members_in_mode.fetch_add(1);
      });
      const bool counted = denormals_count();
      const int kept = std::fegetround();
      std::fesetround(FE_TONEAREST);
      CHECK(came.load() == team.size());
      CHECK(members_in_mode.load() == team.size());
      CHECK(counted);
      CHECK(kept == mode);
    }
}

#  if defined(FACENET_PARALLEL_OPENMP)
TEST_CASE("OpenMP's threads are the caller's too: outside of run() they are in the mode they had") {
  Team team;
  REQUIRE(team.start(3).ok());
  team.run([](int, int) {});
  int counted = 0, came = 0;
#    pragma omp parallel num_threads(3) reduction(+ : counted, came)
  {
    counted += denormals_count();
    came += 1;
  }
  CHECK(counted == came);
  CHECK(came > 1);
}
#  endif

#  if defined(__GLIBC__) && defined(__SSE2__)
TEST_CASE("a caller who traps floating-point exceptions gets none from a team") {
  Team team;
  REQUIRE(team.start(2).ok());
  feenableexcept(FE_INEXACT | FE_UNDERFLOW | FE_DIVBYZERO);  // a trap would end this program
  std::atomic<bool> infinite{true};
  team.run([&](int, int) {
    volatile float one = 1, none = 0, tiny = 0x1p-100f;
    volatile float quotient = one / none, product = tiny * tiny;
    if (!(quotient > 1) || product != 0) infinite = false;
  });
  const int kept = fegetexcept();
  fedisableexcept(FE_ALL_EXCEPT);
  CHECK(infinite.load());
  CHECK(kept == (FE_INEXACT | FE_UNDERFLOW | FE_DIVBYZERO));
}
#  endif
#endif

#if defined(__linux__) && !defined(FACENET_PARALLEL_SERIAL)
namespace {

/// A made-up /sys/fs/cgroup and /proc/self/cgroup.
class Groups {
 public:
  Groups() : root_(std::filesystem::temp_directory_path() / ("facenet-cgroup-" + std::to_string(getpid()))) {
    std::filesystem::remove_all(root_);
  }
  Groups(const Groups&) = delete;
  Groups& operator=(const Groups&) = delete;
  ~Groups() { std::filesystem::remove_all(root_); }

  Groups& write(const std::string& file, const std::string& text) {
    std::filesystem::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
    return *this;
  }
  Groups& v1(const std::string& group, const char* quota) {
    write("cpu" + group + "/cpu.cfs_period_us", "100000\n");
    return write("cpu" + group + "/cpu.cfs_quota_us", quota);
  }
  Groups& member(const std::string& lines) { return write("membership", lines); }
  int cpus() const { return detail::cgroup_cpus(root_.c_str(), (root_ / "membership").c_str()); }
  int threads() const { return default_threads(root_.c_str(), (root_ / "membership").c_str()); }

 private:
  std::filesystem::path root_;
};

/// Threads where no control group says anything.
int unlimited() { return default_threads("/nowhere", "/nowhere"); }

}  // namespace

TEST_CASE("a quota pays for its CPUs rounded up") {
  CHECK(detail::quota_cpus(50000, 100000) == 1);
  CHECK(detail::quota_cpus(100000, 100000) == 1);
  CHECK(detail::quota_cpus(100001, 100000) == 2);
  CHECK(detail::quota_cpus(150000, 100000) == 2);
  CHECK(detail::quota_cpus(1, 1000000) == 1);
  for (long long none : {-1LL, 0LL}) {
    CHECK(detail::quota_cpus(none, 100000) == 0);
    CHECK(detail::quota_cpus(100000, none) == 0);
  }
  CHECK(detail::quota_cpus(INT64_MAX, 1) == max_threads);
}

TEST_CASE("a container's CPU quota limits the default, in either version of control groups") {
  CHECK(Groups().threads() == unlimited());  // no files
  CHECK(Groups().v1("", "-1\n").threads() == unlimited());
  CHECK(Groups().v1("", "50000\n").threads() == 1);
  CHECK(Groups().v1("", "150000\n").cpus() == 2);
  CHECK(Groups().write("cpu.max", "max 100000\n").threads() == unlimited());
  CHECK(Groups().write("cpu.max", "50000 100000\n").threads() == 1);
  CHECK(Groups().write("cpu.max", "150000 100000\n").cpus() == 2);
  CHECK(Groups().write("cpu.max", "100000000 100000\n").threads() == unlimited());  // more than there are
  // Both at once, as on systems that moved half-way: the smaller holds.
  CHECK(Groups().v1("", "100000\n").write("cpu.max", "300000 100000\n").cpus() == 1);
  CHECK(Groups().v1("", "300000\n").write("cpu.max", "max 100000\n").cpus() == 3);
}

TEST_CASE("the quotas of the process's own group and of those above it count") {
  const char* own = "/system.slice/app.service";
  const auto v2 = [&](const char* top, const char* middle, const char* bottom) {
    Groups g;
    g.member(std::string("0::") + own + "\n").write("cpu.max", top);
    g.write("system.slice/cpu.max", middle).write("system.slice/app.service/cpu.max", bottom);
    return g.write("other.slice/cpu.max", "100000 100000\n").cpus();
  };
  CHECK(v2("max 100000\n", "max 100000\n", "200000 100000\n") == 2);
  CHECK(v2("max 100000\n", "200000 100000\n", "max 100000\n") == 2);
  CHECK(v2("max 100000\n", "200000 100000\n", "500000 100000\n") == 2);
  CHECK(v2("300000 100000\n", "700000 100000\n", "500000 100000\n") == 3);
  CHECK(v2("max 100000\n", "max 100000\n", "max 100000\n") == 0);

  const char* lines = "9:cpuset:/b\n4:cpuacct,cpu:/a/b\n0::/\n";
  CHECK(Groups().member(lines).v1("/a/b", "200000\n").v1("/a", "-1\n").cpus() == 2);
  CHECK(Groups().member(lines).v1("/a/b", "-1\n").v1("/a", "400000\n").cpus() == 4);
  CHECK(Groups().member(lines).v1("/b", "100000\n").cpus() == 0);               // cpuset's group is not cpu's
  CHECK(Groups().member("4:cpu:/host/path\n").v1("", "200000\n").cpus() == 2);  // seen from inside a container
  CHECK(Groups().member("0::/../host\n").write("cpu.max", "200000 100000\n").cpus() == 2);
}

TEST_CASE("control group files that make no sense set no limit") {
  for (const char* text : {"", "\n", "rubbish\n", "100000\n", "100000 0\n", "0 100000\n", "-5 100000\n",
                           "100000 -100000\n", "max", "maximum", ": 5 5"})
    CHECK(Groups().write("cpu.max", text).cpus() == 0);
  for (const char* text : {"", "\n", "rubbish\n", "0\n", "max\n"}) CHECK(Groups().v1("", text).cpus() == 0);
  CHECK(Groups().write("cpu/cpu.cfs_quota_us", "50000\n").cpus() == 0);  // of what period?
  CHECK(Groups().write("cpu.max/is/a/directory", "").cpus() == 0);
  CHECK(Groups().write("cpu.max", "99999999999999999999999 1\n").cpus() == max_threads);  // scanf's largest
  for (const std::string& lines :
       {std::string("\n"), std::string("0:"), std::string("0::"), std::string("::::"), std::string("4:cpu:relative\n"),
        std::string("4:cpux:/a\n4:xcpu:/a\n"), "0::/" + std::string(9000, 'x') + "\n", std::string("0:\0:/a\n", 7)}) {
    CHECK(Groups().member(lines).v1("/a", "100000\n").cpus() == 0);
    CHECK(Groups().member(lines).v1("", "300000\n").cpus() == 3);  // the root's still holds
  }
}

TEST_CASE("the CPUs that a process may run on limit the default") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(unlimited() == std::min(CPU_COUNT(&before), max_threads));
  cpu_set_t some;
  CPU_ZERO(&some);
  int wanted = 1;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE && wanted <= 3; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &some);
    REQUIRE(sched_setaffinity(0, sizeof some, &some) == 0);
    CHECK(unlimited() == wanted++);
    CHECK(Groups().write("cpu.max", "150000 100000\n").threads() == std::min(wanted - 1, 2));
  }
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(unlimited() == std::min(CPU_COUNT(&before), max_threads));
}
#endif

#if defined(__linux__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
// ---- Processes and threads that do not come as asked for ------------------------------------------------------------

namespace {

// How many more threads may run in this program; each that ends makes room for another.
std::atomic<int> threads_left{1 << 20};

struct Begin {
  void* (*function)(void*);
  void* argument;
};
void* counted(void* begin) {
  const Begin b = *static_cast<Begin*>(begin);
  delete static_cast<Begin*>(begin);
  void* const result = b.function(b.argument);
  threads_left.fetch_add(1);
  return result;
}

/// What f returns in a child that is given 20 seconds; -1 where it is stuck or crashes.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    alarm(20);
    _exit(f());
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Members that took part in three rounds; 0 where a chunk was not done once.
int members_of(Team& team) {
  ChunkQueue queue;
  std::atomic<int> members{0}, done{0};
  for (int repeat = 0; repeat < 3; ++repeat) {
    queue.reset(team.size());
    team.run([&](int member, int count) {
      if (count != team.size()) {
        if (member == 0) queue.reset(count);
        team.barrier();
      }
      members = count;
      queue.work(member, 0, 100, [&](int) { done.fetch_add(1); });
      team.barrier();
    });
  }
  return done.load() == 300 ? members.load() : 0;
}

}  // namespace

/// The system's, but for the number of threads: libgomp and the standard library call this one too.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*function)(void*),
                              void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left.fetch_sub(1) <= 0) return threads_left.fetch_add(1), EAGAIN;
  return create(thread, attributes, counted, new Begin{function, argument});
}

TEST_CASE("after fork() the child's teams work, those from before and new ones, and the parent's go on") {
#  if defined(FACENET_PARALLEL_POOL)
  constexpr int expected = 3;  // started anew
#  else
  constexpr int expected = 1;  // serial; OpenMP's threads stayed with the parent
#  endif
  for (const bool used_before : {true, false}) {
    CAPTURE(used_before);
    auto team = std::make_unique<Team>();
    auto shared = OwnedTeam::make(3);
    REQUIRE(team->start(3).ok());
    REQUIRE(shared.ok());
    if (used_before) REQUIRE(members_of(*team) >= 1);
    const auto child = [&] {
      if (members_of(*team) != expected) return 1;
      std::atomic<int> chunks{0};
      shared->for_chunks(50, [&](int, int) { chunks.fetch_add(1); });
      if (chunks.load() != 50) return 2;
      Team another;
      if (!another.start(2).ok() || members_of(another) < 1) return 3;
      if (in_child([&] { return members_of(*team) == expected && members_of(another) >= 1 ? 0 : 4; }) != 0) return 5;
      std::thread([&] { shared = OwnedTeam::make(2); }).join();  // ends one team on another thread, and starts one
      shared->for_chunks(50, [&](int, int) { chunks.fetch_add(1); });
      if (chunks.load() != 100) return 6;
      team.reset();
      return 0;
    };
    CHECK(in_child(child) == 0);
    CHECK(in_child([&] { return team.reset(), 0; }) == 0);
    CHECK(in_child([&] { return team->start(2).ok() && members_of(*team) >= 1 ? 0 : 7; }) == 0);
    CHECK(members_of(*team) >= 1);
  }
}

#  if !defined(FACENET_PARALLEL_SERIAL)
TEST_CASE("threads that cannot start are an error, or fewer members, and never the end of the process") {
  const char* const wanted = std::getenv("FACENET_TEST_THREADS_LEFT");
  if (wanted == nullptr) {  // each in a program of its own, where nobody has used OpenMP before
    for (const char* left : {"0", "1", "2", "3", "4"}) {
      CAPTURE(left);
      CHECK(in_child([&] {
              setenv("FACENET_TEST_THREADS_LEFT", left, 1);
              execl("/proc/self/exe", "test_parallel", "--test-case=threads that cannot start*", nullptr);
              return 1;
            }) == 0);
    }
    return;
  }
  const int left = std::atoi(wanted);
  Team team;
  threads_left = left;
  const Status status = team.start(4);
  threads_left = left;
  if (left < 3) {
    CHECK(status.code() == Errc::out_of_memory);
    CHECK_FALSE(OwnedTeam::make(4).ok());
    CHECK(team.size() == 1);
    CHECK(members_of(team) == 1);
    threads_left = 3;
    REQUIRE(team.start(4).ok());
#    if defined(FACENET_PARALLEL_OPENMP)
    CHECK(members_of(team) == 4);
    threads_left = left + 1;  // one for the caller itself, whose OpenMP threads are others
    std::thread([&] { CHECK(members_of(team) == left + 1); }).join();
#    endif
  } else {
    CHECK(status.ok());
    CHECK(members_of(team) == 4);
  }
  CHECK(in_child([&] {  // the workers are started anew, of which fewer are to be had
          threads_left = 1;
          const int members = members_of(team);
          return members == 1 || members == 2 ? 0 : 1;
        }) == 0);
}
#  endif
#endif
