// The only place that knows of threads: a Team over OpenMP, workers of its own, a host's workers, or nothing.
// Chosen at compile time (config.hpp); all give the same bits, since a chunk's work never depends on who does it.
//
// fork() leaves a child the caller's thread alone. A Team that was started before notices: its own workers are started
// anew, and with OpenMP the child computes alone, since libgomp would wait for ever for threads that only the parent
// has.
#pragma once

#include <atomic>

#include "facenet/base/owned.hpp"
#include "facenet/base/simd.hpp"

#if defined(FACENET_PARALLEL_OPENMP)
#  include <omp.h>
#endif
#if !defined(FACENET_PARALLEL_SERIAL) && !defined(FACENET_PARALLEL_HOST)
// Not std::thread where it can be helped: it reports by an exception that a thread cannot start, and without exceptions
// it ends the process.
#  if defined(_WIN32)
#    include <process.h>

#    include <condition_variable>
#    include <mutex>
#    include <thread>
#  else
#    include <pthread.h>
#    include <sched.h>
#    include <unistd.h>
#    define FACENET_PTHREADS 1
#  endif
#endif
#if defined(__EMSCRIPTEN_PTHREADS__)
#  include <emscripten/threading.h>
#endif
#if defined(__linux__)
#  include <sched.h>
#  if !defined(FACENET_NO_STDIO)
#    include <cstdio>
#    define FACENET_CGROUPS 1
#  endif
#endif

#if defined(FACENET_PARALLEL_HOST)
/// Lets others run for some 50 us, where the thread that calls may wait: a page's main thread may not.
extern "C" __attribute__((import_module("env"), import_name("pause"))) void facenet_host_pause() noexcept;
#endif

#if defined(_WIN32) && !defined(FACENET_PARALLEL_SERIAL)
// As in windows.h, which is not included for two functions: it has macros named like half of the dictionary.
extern "C" __declspec(dllimport) unsigned long __stdcall WaitForSingleObject(void*, unsigned long);
extern "C" __declspec(dllimport) int __stdcall CloseHandle(void*);
#endif

FACENET_BEGIN

constexpr int max_threads = 256;

namespace detail {

/// CPUs that `quota` microseconds of every `period` pay for; 0 without a quota. Rounded up, as Java, .NET and Go do: of
/// 1.5 CPUs two threads make 1.5 times what one makes, though each then waits for a quarter of the period.
constexpr int quota_cpus(long long quota, long long period) noexcept {
  if (quota <= 0 || period <= 0) return 0;
  const long long cpus = (quota - 1) / period + 1;
  return cpus < max_threads ? static_cast<int>(cpus) : max_threads;
}

/// The smaller of two limits; 0 stands for none.
constexpr int least_limit(int a, int b) noexcept { return a == 0 || (b != 0 && b < a) ? b : a; }

#if defined(FACENET_CGROUPS)
enum class Cgroup { v1, v2 };

/// The first two integers of a small file such as /sys/fs/cgroup/cpu.max; "max" reads as -1. Returns how many were
/// read.
inline int read_integers(const char* directory, const char* file, long long out[2]) noexcept {
  char path[4608], text[64];
  if (std::snprintf(path, sizeof path, "%s/%s", directory, file) >= static_cast<int>(sizeof path)) return 0;
  std::FILE* f = std::fopen(path, "r");
  if (f == nullptr) return 0;
  const std::size_t n = std::fread(text, 1, sizeof text - 1, f);
  std::fclose(f);
  text[n] = 0;
  if (std::strncmp(text, "max", 3) == 0) return out[0] = -1, 1;
  return std::sscanf(text, "%lld %lld", &out[0], &out[1]);
}

/// What the files of one control group say; 0 when they set no quota, are not there or make no sense.
inline int group_cpus(const char* directory, Cgroup version) noexcept {
  long long quota[2] = {0, 0}, period[2] = {0, 0};
  if (version == Cgroup::v2)
    return read_integers(directory, "cpu.max", quota) == 2 ? quota_cpus(quota[0], quota[1]) : 0;
  if (read_integers(directory, "cpu.cfs_quota_us", quota) < 1) return 0;
  return read_integers(directory, "cpu.cfs_period_us", period) >= 1 ? quota_cpus(quota[0], period[0]) : 0;
}

/// The least quota of the group `mount` + `group` and of the groups above it, up to `mount` itself; 0 without any.
inline int least_cpus(const char* mount, const char* group, Cgroup version) noexcept {
  char path[4608];
  const std::size_t top = std::strlen(mount), length = std::strlen(group);
  if (top + length >= sizeof path) return group_cpus(mount, version);
  std::memcpy(path, mount, top);
  std::memcpy(path + top, group, length + 1);
  for (int least = 0;;) {
    least = least_limit(least, group_cpus(path, version));
    char* end = std::strrchr(path + top, '/');
    if (end == nullptr) return least;
    *end = 0;
  }
}

/// CPUs that the quotas on this process pay for; 0 when there is none. `root` is /sys/fs/cgroup outside tests, and
/// `membership` /proc/self/cgroup: lines "0::/group" of version 2 and "4:cpu,cpuacct:/group" of version 1. A container
/// may be told its group's path on the host; the files of its own group are then those of the root.
inline int cgroup_cpus(const char* root, const char* membership) noexcept {
  char v1_mount[512], line[4352];
  std::snprintf(v1_mount, sizeof v1_mount, "%s/cpu", root);
  int least = least_limit(group_cpus(root, Cgroup::v2), group_cpus(v1_mount, Cgroup::v1));
  std::FILE* f = std::fopen(membership, "r");
  if (f == nullptr) return least;
  while (std::fgets(line, sizeof line, f) != nullptr) {
    line[std::strcspn(line, "\n")] = 0;
    char* controllers = std::strchr(line, ':');
    char* group = controllers != nullptr ? std::strchr(controllers + 1, ':') : nullptr;
    if (group == nullptr || group[1] != '/') continue;
    *group++ = 0;
    bool v1 = false;  // "cpu" among the controllers, which are separated by commas
    for (const char* at = controllers; at != nullptr && !v1; at = std::strchr(at + 1, ','))
      v1 = std::strncmp(at + 1, "cpu", 3) == 0 && (at[4] == ',' || at[4] == 0);
    if (controllers[1] == 0)
      least = least_limit(least, least_cpus(root, group, Cgroup::v2));
    else if (v1)
      least = least_limit(least, least_cpus(v1_mount, group, Cgroup::v1));
  }
  std::fclose(f);
  return least;
}
#endif

}  // namespace detail

/// Threads to use if no number is given: the CPUs this process may run on, capped by the CPU quotas of its control
/// group and that group's ancestors (FACENET_NO_STDIO: no file is read, so no quota is known).
inline int default_threads(const char* cgroup_root = "/sys/fs/cgroup",
                           const char* cgroup_membership = "/proc/self/cgroup") noexcept {
#if defined(FACENET_PARALLEL_SERIAL) || defined(FACENET_PARALLEL_HOST)
  (void)cgroup_root, (void)cgroup_membership;
  return 1;
#else
#  if defined(FACENET_PTHREADS)
  int n = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
#  else
  int n = static_cast<int>(std::thread::hardware_concurrency());
#  endif
#  if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#  endif
#  if defined(FACENET_CGROUPS)
  if (const int quota = detail::cgroup_cpus(cgroup_root, cgroup_membership); quota > 0 && quota < n) n = quota;
#  else
  (void)cgroup_root, (void)cgroup_membership;
#  endif
  return n < 1 ? 1 : n > max_threads ? max_threads : n;
#endif
}

namespace detail {

/// One turn of waiting for another thread: spins for about 20 us, then lets others run. WebAssembly has no pause, and
/// Emscripten's yield does nothing, so there it is ten times the turns and then a sleep: with both cores wanted by
/// others, two threads that only spun took five times as long as one.
inline void wait_a_turn(int turn) noexcept {
#if defined(__EMSCRIPTEN_PTHREADS__)
  if (turn >= 10000) emscripten_thread_sleep(0.05);
#elif defined(FACENET_PARALLEL_HOST)
  if (turn >= 10000) facenet_host_pause();
#elif defined(FACENET_PTHREADS)
  if (turn < 1000)
    simd::pause();
  else
    (void)sched_yield();
#elif !defined(FACENET_PARALLEL_SERIAL)
  turn < 1000 ? simd::pause() : std::this_thread::yield();
#else
  (void)turn;
#endif
}

}  // namespace detail

/// Where a team's members meet. A stolen core must not stall its partner.
class Barrier {
 public:
  void reset(int count) noexcept {
    count_ = count;
    waiting_.store(0, std::memory_order_relaxed);
  }
  void wait() noexcept {
    if (count_ == 1) return;
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
      waiting_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int turn = 0; phase_.load(std::memory_order_acquire) == phase; ++turn) detail::wait_a_turn(turn);
  }

 private:
  alignas(cache_line) std::atomic<int> waiting_{0};
  alignas(cache_line) std::atomic<unsigned> phase_{0};
  int count_ = 1;
};

/// Hands out the chunks of one piece of work after another, each chunk to one member. A member first gets its own
/// part of 0 … count-1, always the same one, so that it finds what it wrote before in its own cache (a trunk that
/// moved between two cores at every layer cost half of their time); when that is done it takes from the others.
class ChunkQueue {
 public:
  /// `members` who all come to work(), as many as Team::run() says; in a single round also more: others do it.
  void reset(int members) noexcept {
    members_ = members;
    for (int i = 0; i < members; ++i) next_[0][i].value = next_[1][i].value = 0;
  }
  /// Calls f(chunk) until all chunks of this round are taken. Rounds are numbered from 0, with a barrier after each.
  template <class F>
  void work(int member, unsigned round, int count, F&& f) noexcept {
    // No member touches the other half now: the last round is over, the next one not begun.
    next_[(round + 1) & 1][member].value.store(0, std::memory_order_relaxed);
    for (int k = 0; k < members_; ++k) {
      const int owner = member + k < members_ ? member + k : member + k - members_;
      const int first = part(count, owner), size = part(count, owner + 1) - first;
      std::atomic<int>& next = next_[round & 1][owner].value;
      for (int i;
           next.load(std::memory_order_relaxed) < size && (i = next.fetch_add(1, std::memory_order_relaxed)) < size;)
        f(first + i);
    }
  }

 private:
  int part(int count, int owner) const noexcept { return static_cast<int>(std::int64_t{count} * owner / members_); }
  struct alignas(cache_line) Counter {
    std::atomic<int> value{0};
  };
  Counter next_[2][max_threads];
  int members_ = 1;
};

#if defined(FACENET_PARALLEL_HOST)
/// Workers that the host starts, since a WebAssembly module cannot, and that all Teams of the module share: before
/// anything is run the host says how many with expect(), and each calls serve() on a stack of its own and stays there
/// until stop().
class HostThreads {
 public:
  static HostThreads& get() noexcept {
    static HostThreads all;
    return all;
  }
  void expect(int threads) noexcept { count_ = threads; }
  int size() const noexcept { return count_; }

  void run(void (*call)(const void*, int, int), const void* object) noexcept {
    call_ = call;
    object_ = object;
    done_.store(0, std::memory_order_relaxed);
    wake();
    call(object, 0, count_);
    for (int turn = 0; done_.load(std::memory_order_acquire) != count_ - 1; ++turn) detail::wait_a_turn(turn);
  }

  /// Sends the workers out of serve(); nothing may be run afterwards.
  void stop() noexcept {
    call_ = nullptr;
    wake();
  }

  /// All take part in each run, so one who comes late finds the first still waiting for it.
  void serve(int member) noexcept {
    for (unsigned seen = 0;; ++seen) {
      for (int spins = 0; spins < 10000 && generation_.load(std::memory_order_acquire) == seen; ++spins) {
      }
      while (generation_.load(std::memory_order_acquire) == seen)
        __builtin_wasm_memory_atomic_wait32(word(), static_cast<int>(seen), -1);
      if (call_ == nullptr) return;
      call_(object_, member, count_);
      done_.fetch_add(1, std::memory_order_release);
    }
  }

 private:
  void wake() noexcept {
    generation_.fetch_add(1, std::memory_order_release);
    __builtin_wasm_memory_atomic_notify(word(), static_cast<unsigned>(count_));
  }
  int* word() noexcept { return reinterpret_cast<int*>(&generation_); }

  alignas(cache_line) std::atomic<unsigned> generation_{0};
  alignas(cache_line) std::atomic<int> done_{0};
  void (*call_)(const void*, int, int) = nullptr;
  const void* object_ = nullptr;
  int count_ = 1;
};
#endif

namespace detail {

/// Which process this is: another one after fork(). 0 where there is no fork().
inline long this_process() noexcept {
#if defined(FACENET_PTHREADS) && !defined(__EMSCRIPTEN__)
  return static_cast<long>(getpid());
#else
  return 0;
#endif
}

#if defined(FACENET_PARALLEL_POOL) || (defined(FACENET_PARALLEL_OPENMP) && defined(FACENET_PTHREADS))
/// A thread that calls f(argument). What cannot start is false, with and without exceptions.
class Thread {
 public:
  using Function = void (*)(void*);

#  if defined(FACENET_PTHREADS)
  bool start(Function f, void* argument) noexcept {
    function_ = f, argument_ = argument;
    return pthread_create(
               &id_, nullptr,
               [](void* self) noexcept -> void* {
                 static_cast<Thread*>(self)->call();
                 return nullptr;
               },
               this) == 0;
  }
  void join() noexcept { (void)pthread_join(id_, nullptr); }
#  else
  bool start(Function f, void* argument) noexcept {
    function_ = f, argument_ = argument;
    struct Entry {
      static unsigned __stdcall call(void* self) noexcept { return static_cast<Thread*>(self)->call(), 0u; }
    };
    id_ = reinterpret_cast<void*>(_beginthreadex(nullptr, 0, Entry::call, this, 0, nullptr));
    return id_ != nullptr;
  }
  void join() noexcept {
    (void)WaitForSingleObject(id_, 0xffffffffu);
    (void)CloseHandle(id_);
  }
#  endif

 private:
  void call() noexcept { function_(argument_); }
  Function function_ = nullptr;
  void* argument_ = nullptr;
#  if defined(FACENET_PTHREADS)
  pthread_t id_{};
#  else
  void* id_ = nullptr;
#  endif
};
#endif

#if defined(FACENET_PARALLEL_POOL)
/// A number that rises, for which threads sleep.
class Bell {
 public:
  Bell() noexcept = default;
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;
#  if defined(FACENET_PTHREADS)
  ~Bell() {
    (void)pthread_mutex_destroy(&mutex_);
    (void)pthread_cond_destroy(&condition_);
  }
  /// After fork(): as new, but for the number. Nothing is destroyed, since glibc would wait there for sleepers of the
  /// parent's.
  void forget() noexcept {
    mutex_ = PTHREAD_MUTEX_INITIALIZER;
    condition_ = PTHREAD_COND_INITIALIZER;
  }
  void ring() noexcept {
    (void)pthread_mutex_lock(&mutex_);
    number_.fetch_add(1, std::memory_order_release);
    (void)pthread_mutex_unlock(&mutex_);
    (void)pthread_cond_broadcast(&condition_);
  }
  /// Returns the number once it is not `seen` any more.
  unsigned wait(unsigned seen) noexcept {
    (void)pthread_mutex_lock(&mutex_);
    while (number() == seen) (void)pthread_cond_wait(&condition_, &mutex_);
    (void)pthread_mutex_unlock(&mutex_);
    return number();
  }
#  else
  void forget() noexcept {}
  void ring() noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      number_.fetch_add(1, std::memory_order_release);
    }
    condition_.notify_all();
  }
  unsigned wait(unsigned seen) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [&] { return number() != seen; });
    return number();
  }
#  endif
  unsigned number() const noexcept { return number_.load(std::memory_order_acquire); }

 private:
  std::atomic<unsigned> number_{0};
#  if defined(FACENET_PTHREADS)
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
#  else
  std::mutex mutex_;
  std::condition_variable condition_;
#  endif
};
#endif

#if defined(FACENET_PARALLEL_OPENMP) && defined(FACENET_PTHREADS)
/// How many of `wanted` threads, the caller among them, can run beside each other. libgomp ends the process where one
/// of its threads cannot start, so as many are tried first.
inline int threads_to_be_had(int wanted) noexcept {
  Thread trial[max_threads];
  std::atomic<bool> leave{false};
  int count = 1;
  while (count < wanted && trial[count].start(
                               [](void* go) {
                                 for (int turn = 0;
                                      !static_cast<std::atomic<bool>*>(go)->load(std::memory_order_acquire); ++turn)
                                   wait_a_turn(turn);
                               },
                               &leave))
    ++count;
  leave.store(true, std::memory_order_release);
  for (int i = 1; i < count; ++i) trial[i].join();
  return count;
}

/// The process whose OpenMP threads we were the first to use; 0 before. Hidden, so that a plug-in has its own and can
/// be unloaded.
FACENET_HIDDEN inline std::atomic<long>& openmp_process() noexcept {
  static std::atomic<long> process{0};
  return process;
}
#endif

}  // namespace detail

/// A fixed number of threads that run one function together. run() is not re-entrant; one Team serves one caller.
class Team {
 public:
  Team() noexcept = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Starts threads - 1 workers (the caller is member 0). Errors: invalid_argument, also where the host's workers are
  /// not as many; out_of_memory, also where the system has no more threads.
  Status start(int threads) noexcept {
    if (threads < 1 || threads > max_threads) return {Errc::invalid_argument, "threads must be 1 to 256"};
    stop();
    threads = size_of(threads);
#if defined(FACENET_PARALLEL_HOST)
    if (threads != 1 && threads != HostThreads::get().size())
      return {Errc::invalid_argument, "the host has started another number of threads"};
#endif
    process_ = detail::this_process();
    count_ = threads;
    ready_ = start_workers();
    if (ready_ == count_) return {};
    stop();
    return {Errc::out_of_memory, "the system refused to start another thread: ask for fewer"};
  }

  int size() const noexcept { return count_; }
  /// What size() is after start(threads): one thread in a serial build, whatever was asked for.
  static constexpr int size_of(int threads) noexcept {
#if defined(FACENET_PARALLEL_SERIAL)
    return threads < 1 ? threads : 1;
#else
    return threads;
#endif
  }

  /// Calls f(member, members) once on each member at the same time and returns when all have returned. There are size()
  /// members, or fewer: after fork(), and where OpenMP gives fewer. Each is in the mode of simd::FlushDenormals
  /// meanwhile.
  template <class F>
  void run(F&& f) noexcept {
    const auto job = [&f](int member, int members) noexcept {
      const simd::FlushDenormals mode;
      f(member, members);
    };
    const int count = count_ == 1 ? 1 : members();
    barrier_.reset(count);
    if (count == 1) {
      job(0, 1);
      return;
    }
#if defined(FACENET_PARALLEL_OPENMP)
#  pragma omp parallel num_threads(count)
    {
      // A smaller team than asked for (nested regions, a thread limit) would wait for ever at a barrier of count.
#  pragma omp single
      barrier_.reset(omp_get_num_threads());
      job(omp_get_thread_num(), omp_get_num_threads());
    }
#elif defined(FACENET_PARALLEL_HOST)
    HostThreads::get().run(
        [](const void* object, int member, int members) { (*static_cast<decltype(&job)>(object))(member, members); },
        &job);
#elif defined(FACENET_PARALLEL_POOL)
    call_ = [](const void* object, int member, int members) {
      (*static_cast<decltype(&job)>(object))(member, members);
    };
    object_ = &job;
    done_.store(0, std::memory_order_relaxed);
    bell_.ring();
    job(0, count);
    for (int turn = 0; done_.load(std::memory_order_acquire) != count - 1; ++turn) detail::wait_a_turn(turn);
#endif
  }

  /// Inside run(): waits until every member has come here.
  void barrier() noexcept { barrier_.wait(); }

  ~Team() { stop(); }

 private:
  bool forked() const noexcept { return process_ != detail::this_process(); }

  /// How many members the next run() has.
  int members() noexcept {
#if defined(FACENET_PARALLEL_OPENMP) && defined(FACENET_PTHREADS)
    const long here = detail::this_process();
    long user = detail::openmp_process().load(std::memory_order_relaxed);
    if (user == 0 && detail::openmp_process().compare_exchange_strong(user, here)) user = here;
    if (user != here || forked()) return 1;  // forked: the program itself may have used OpenMP before
    // Each thread that calls has OpenMP threads of its own, which start when it comes for the first time.
    if (pthread_equal(caller_, pthread_self()) == 0)
      caller_ = pthread_self(), ready_ = detail::threads_to_be_had(count_);
#elif defined(FACENET_PARALLEL_POOL)
    if (forked()) {
      bell_.forget();
      process_ = detail::this_process();
      ready_ = start_workers();
    }
#endif
    return ready_;
  }

  /// Starts all workers, or as many as the system has threads for; returns how many members that makes.
  int start_workers() noexcept {
#if defined(FACENET_PARALLEL_POOL)
    stopping_ = false;
    begin_ = bell_.number();
    for (int i = 1; i < count_; ++i) {
      workers_[i].team = this;
      const auto work = [](void* worker) {
        Team* const team = static_cast<Worker*>(worker)->team;
        team->work(static_cast<int>(static_cast<Worker*>(worker) - team->workers_));
      };
      if (!workers_[i].thread.start(work, &workers_[i])) return i;
    }
#elif defined(FACENET_PARALLEL_OPENMP) && defined(FACENET_PTHREADS)
    caller_ = pthread_self();
    return count_ == 1 ? 1 : detail::threads_to_be_had(count_);
#endif
    return count_;
  }

  void stop() noexcept {
#if defined(FACENET_PARALLEL_POOL)
    if (count_ > 1 && forked()) {
      bell_.forget();
    } else if (count_ > 1) {
      stopping_ = true;
      bell_.ring();
      for (int i = 1; i < ready_; ++i) workers_[i].thread.join();
    }
#endif
    count_ = ready_ = 1;
  }

#if defined(FACENET_PARALLEL_POOL)
  void work(int member) noexcept {
    for (unsigned seen = begin_;;) {
      // A run right after another finds the worker still spinning; a later one wakes it.
      for (int spins = 0; spins < 2000 && bell_.number() == seen; ++spins) simd::pause();
      seen = bell_.wait(seen);
      if (stopping_) return;
      call_(object_, member, ready_);
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  struct Worker {
    Team* team;
    detail::Thread thread;
  };
  Worker workers_[max_threads];
  detail::Bell bell_;
  alignas(cache_line) std::atomic<int> done_{0};
  void (*call_)(const void*, int, int) = nullptr;
  const void* object_ = nullptr;
  unsigned begin_ = 0;
  bool stopping_ = false;
#elif defined(FACENET_PARALLEL_OPENMP) && defined(FACENET_PTHREADS)
  pthread_t caller_{};
#endif
  Barrier barrier_;
  long process_ = 0;
  int count_ = 1, ready_ = 1;
};

/// A Team with its queue, on the heap: both are too large for a small stack, and cannot move. Move-only.
class OwnedTeam {
 public:
  struct TeamWithQueue : Team {
    ChunkQueue queue;
  };

  /// Errors: invalid_argument, out_of_memory.
  static Result<OwnedTeam> make(int threads, Memory from = {}) noexcept {
    OwnedTeam t;
    FACENET_TRY(detail::Owned<TeamWithQueue>::make(t.team_, 1, from));
    if (!from.measuring()) FACENET_TRY(t.team_->start(threads));
    return t;
  }

  explicit operator bool() const noexcept { return static_cast<bool>(team_); }
  TeamWithQueue* operator->() const noexcept { return team_.operator->(); }

  /// Calls f(member, chunk) once for each chunk 0 … count - 1, on all members, and returns when all is done.
  template <class F>
  void for_chunks(int count, F&& f) noexcept {
    team_->queue.reset(team_->size());
    team_->run([&](int member, int members) {
      if (members != team_->size()) {  // fewer
        if (member == 0) team_->queue.reset(members);
        team_->barrier();
      }
      team_->queue.work(member, 0, count, [&](int chunk) { f(member, chunk); });
    });
  }

 private:
  detail::Owned<TeamWithQueue> team_;
};

FACENET_END
