#include "interrupt.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <set>

#if defined(__linux__)
#  include <sys/syscall.h>
#endif

namespace python {

namespace {

static_assert(std::atomic<std::atomic<bool>*>::is_always_lock_free, "a signal handler reads it");
std::atomic<std::atomic<bool>*> watched{nullptr};
struct sigaction before;  // only the main thread writes it, while no handler of ours is installed

extern "C" void on_interrupt(int number, siginfo_t* info, void* context) {
  if (std::atomic<bool>* flag = watched.load(std::memory_order_acquire)) flag->store(true, std::memory_order_relaxed);
  if ((before.sa_flags & SA_SIGINFO) != 0)
    before.sa_sigaction(number, info, context);
  else
    before.sa_handler(number);
}

}  // namespace

bool is_main_thread() noexcept {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return false;
#endif
}

namespace {

std::atomic<bool> closing{false};
std::atomic<int> coming{0};  // threads between the question whether all is over and the interpreter's lock

}  // namespace

Unlocked::~Unlocked() {
  coming.fetch_add(1);
  if (closing.load() && !is_main_thread()) {
    coming.fetch_sub(1);
    for (;;) pause();
  }
  PyEval_RestoreThread(state_);
  coming.fetch_sub(1);
}

namespace {

struct Mutexes {
  std::mutex mutex;
  std::set<ForkSafeMutex*> all;
};
/// Never destroyed: threads may use it until the process ends.
Mutexes& mutexes() {
  static auto* const one = new Mutexes;
  return *one;
}

void before_fork() {
  mutexes().mutex.lock();
  for (ForkSafeMutex* m : mutexes().all) m->lock();
}
void after_fork() {
  for (ForkSafeMutex* m : mutexes().all) m->unlock();
  mutexes().mutex.unlock();
}
void in_child() {
  after_fork();
  coming.store(0);  // threads that the child does not have
  if (watched.exchange(nullptr) != nullptr) sigaction(SIGINT, &before, nullptr);  // of the parent's main thread
}

}  // namespace

void watch_forks() {
  (void)mutexes();
  static const int once = pthread_atfork(before_fork, after_fork, in_child);
  (void)once;
}

ForkSafeMutex::ForkSafeMutex() {
  const std::lock_guard<std::mutex> lock(mutexes().mutex);
  mutexes().all.insert(this);
}
ForkSafeMutex::~ForkSafeMutex() {
  const std::lock_guard<std::mutex> lock(mutexes().mutex);
  mutexes().all.erase(this);
}

void keep_threads_away() {
  closing.store(true);
  PyThreadState* state = PyEval_SaveThread();
  for (int turn = 0; coming.load() != 0 && turn < 1000; ++turn) usleep(1000);
  PyEval_RestoreThread(state);
}

Interruptible::Interruptible(std::atomic<bool>& flag) noexcept {
  if (!is_main_thread() || watched.load(std::memory_order_relaxed) != nullptr) return;
  if (sigaction(SIGINT, nullptr, &before) != 0) return;
  const bool handled =
      (before.sa_flags & SA_SIGINFO) != 0 || (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN);
  if (!handled) return;
  watched.store(&flag, std::memory_order_release);
  struct sigaction ours = before;
  ours.sa_flags |= SA_SIGINFO;
  ours.sa_sigaction = on_interrupt;
  installed_ = sigaction(SIGINT, &ours, nullptr) == 0;
  if (!installed_) watched.store(nullptr, std::memory_order_release);
}

Interruptible::~Interruptible() {
  if (!installed_) return;
  sigaction(SIGINT, &before, nullptr);
  watched.store(nullptr, std::memory_order_release);
}

}  // namespace python
