// Ctrl-C during a long call. Python's own handler only notes the signal, and nobody looks at the note while the
// interpreter waits for C++. So SIGINT also sets the flag of the call that the main thread is in, and goes on to
// Python's handler.
#pragma once

#include <Python.h>

#include <atomic>
#include <mutex>

namespace python {

/// While it lives, SIGINT sets `flag`, if this is the main thread and Python handles the signal: Python runs handlers
/// in no other. Costs two system calls.
class Interruptible {
 public:
  explicit Interruptible(std::atomic<bool>& flag) noexcept;
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;
  ~Interruptible();

 private:
  bool installed_ = false;
};

/// While it lives, other Python threads run. A thread that comes back when the interpreter ends stays here: Python
/// would end it in the middle of C++, which ends the process with abort().
class Unlocked {
 public:
  Unlocked() noexcept : state_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked();

 private:
  PyThreadState* state_;
};
/// For atexit: from here on no other thread comes back.
void keep_threads_away();

/// What fork() must be told, once, when the module is loaded: a process may be forked before anything else here is
/// used.
void watch_forks();

/// A mutex whose owner is never in the middle of something when the process is forked: fork() waits for it, and in the
/// child it is free. It is held without the interpreter's lock, which the thread that forks has.
class ForkSafeMutex {
 public:
  ForkSafeMutex();
  ForkSafeMutex(const ForkSafeMutex&) = delete;
  ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
  ~ForkSafeMutex();
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

/// Whether the caller is the thread in which Python handles signals.
bool is_main_thread() noexcept;

}  // namespace python
