// Threads that do one job after the other, and the bounded queue in front of them.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace command::service {

class WorkerPool {
 public:
  explicit WorkerPool(std::size_t most_waiting) : most_(most_waiting) {}
  ~WorkerPool() { finish(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void start(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  bool full() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return jobs_.size() >= most_;
  }
  std::size_t waiting() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return jobs_.size();
  }
  /// False where the queue is full. A job throws nothing.
  bool add(std::function<void()> job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (jobs_.size() >= most_) return false;
      jobs_.push_back(std::move(job));
    }
    some_.notify_one();
    return true;
  }
  /// After the jobs that wait.
  void finish() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      end_ = true;
    }
    some_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      some_.wait(lock, [&] { return end_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }

  const std::size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::function<void()>> jobs_;
  bool end_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace command::service
