// Several Python threads may call one object at once: each call takes a fork of the engine's, which share the weights.
#pragma once

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "arrays.hpp"
#include "interrupt.hpp"

namespace python {

/// An Embedder or Detector with the flag that Ctrl-C sets.
template <class Engine>
struct Fork {
  Engine engine;
  std::atomic<bool> cancel{false};
};

/// Forks of one engine, made when they are needed, at most as many as the CPUs can use. A process that was forked keeps
/// those that were idle; the others belong to threads that it does not have.
template <class Engine>
class Pool {
 public:
  using One = Fork<Engine>;

  /// `make` makes another fork of the first.
  Pool(std::unique_ptr<One> first, int most, std::function<Status(const One& first, One& another)> make)
      : make_(std::move(make)), first_(first.get()), most_(most), now_(new State(most)) {
    now_->all.push_back(std::move(first));
    now_->idle.push_back(first_);
    now_->made = 1;
  }
  ~Pool() {
    if (now_->pid != getpid()) (void)now_.release();  // a lock in it may be held for ever
  }

  /// Calls f(fork) without the interpreter's lock. Where Ctrl-C cancels it and Python's handler returns, it is done
  /// again.
  template <class F>
  void run(F&& f) {
    One& one = take();
    struct Give {
      Pool& pool;
      One& one;
      ~Give() { pool.give(one); }
    } const at_end{*this, one};
    interruptible(one.cancel, [&] { return f(one.engine); });
  }

 private:
  struct State {
    explicit State(int most) {
      all.reserve(static_cast<std::size_t>(most));
      idle.reserve(static_cast<std::size_t>(most));
    }
    std::mutex mutex;
    std::condition_variable given;
    std::vector<std::unique_ptr<One>> all;
    std::vector<One*> idle;  // give() must not fail: its room is there from the start
    int made = 0;            // of all, and of those that are being made
    pid_t pid = getpid();
  };

  One& take() {
    if (now_->pid != getpid()) adopt();
    for (;;) {
      bool room = false;
      {
        const std::lock_guard<std::mutex> lock(now_->mutex);
        if (!now_->idle.empty()) {
          One* one = now_->idle.back();
          now_->idle.pop_back();
          return *one;
        }
        room = now_->made < most_;
        if (room) ++now_->made;
      }
      if (room) return another();
      {
        const Unlocked others_run;
        std::unique_lock<std::mutex> lock(now_->mutex);
        now_->given.wait_for(lock, std::chrono::milliseconds(50), [&] { return !now_->idle.empty(); });
      }
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
  }
  /// Makes one more, for which there is room. An error runs Python, in which another thread may come here and wait for
  /// the mutex: so it is not held.
  One& another() {
    struct Room {
      State* state;
      ~Room() {
        if (state == nullptr) return;
        const std::lock_guard<std::mutex> lock(state->mutex);
        --state->made;
      }
    } unused{now_.get()};
    auto one = std::make_unique<One>();
    unlocked([&] { return make_(*first_, *one); });
    const std::lock_guard<std::mutex> lock(now_->mutex);
    now_->all.push_back(std::move(one));
    unused.state = nullptr;
    return *now_->all.back();
  }
  void give(One& one) {
    {
      const std::lock_guard<std::mutex> lock(now_->mutex);
      now_->idle.push_back(&one);
    }
    now_->given.notify_one();
  }
  void adopt() {
    auto mine = std::make_unique<State>(most_);
    std::unique_ptr<State> parents = std::move(now_);
    mine->idle.assign(parents->idle.begin(), parents->idle.end());
    mine->made = static_cast<int>(mine->idle.size());
    for (auto& one : parents->all) {
      bool idle = false;
      for (One* other : mine->idle) idle = idle || other == one.get();
      if (idle)
        mine->all.push_back(std::move(one));
      else
        (void)one.release();  // in the middle of a call that nobody ends
    }
    now_ = std::move(mine);
    (void)parents.release();
  }

  std::function<Status(const One&, One&)> make_;
  One* first_;
  int most_;
  std::unique_ptr<State> now_;
};

}  // namespace python
