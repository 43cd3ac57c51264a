// Teams, queues and the default number of threads. Built for OpenMP, std::thread and serial.
#include <doctest/doctest.h>

#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "facenet/parallel.hpp"

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
TEST_CASE("a container's CPU quota limits the default") {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / ("facenet-cgroup-" + std::to_string(std::rand()));
  fs::create_directories(root / "cpu");
  const std::string path = root.string();
  const auto write = [&](const char* file, const char* text) { std::ofstream(root / file) << text; };
  const int all = default_threads("/nowhere");
  CHECK(all >= 1);
  CHECK(default_threads(path.c_str()) == all);  // no files: no quota
  write("cpu/cpu.cfs_quota_us", "-1\n");
  write("cpu/cpu.cfs_period_us", "100000\n");
  CHECK(default_threads(path.c_str()) == all);
  write("cpu/cpu.cfs_quota_us", "50000\n");  // half a CPU, cgroup v1
  CHECK(default_threads(path.c_str()) == 1);
  write("cpu.max", "max 100000\n");
  CHECK(detail::cgroup_cpus(path.c_str()) == 1);
  write("cpu.max", "150000 100000\n");  // one and a half, cgroup v2
  CHECK(detail::cgroup_cpus(path.c_str()) == 2);
  write("cpu.max", "rubbish\n");
  CHECK(default_threads(path.c_str()) >= 1);
  fs::remove_all(root);
}
#endif
