#include "command/watch/frame_queue.hpp"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace command {

namespace {

// One is looked at while the next is read. More would only make what is seen older.
constexpr std::size_t most_waiting = 2;
constexpr auto longest_wait = std::chrono::milliseconds(100);

}  // namespace

struct FrameQueue::Shared {
  struct Source {
    std::deque<Frame> frames;
    std::uint64_t dropped = 0;
    bool closed = false, said = false;
  };
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::vector<Source> sources;
  std::size_t turn = 0;
  bool stopped = false;
};

FrameQueue::FrameQueue(std::size_t sources) : shared_(std::make_unique<Shared>()) { shared_->sources.resize(sources); }
FrameQueue::~FrameQueue() = default;

bool FrameQueue::push(std::size_t source, Frame&& frame, bool live) {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  Shared::Source& s = shared_->sources[source];
  if (live && s.frames.size() >= most_waiting) {
    s.frames.pop_front();
    ++s.dropped;
  }
  shared_->changed.wait(lock, [&] { return shared_->stopped || s.frames.size() < most_waiting; });
  if (shared_->stopped) return false;
  s.frames.push_back(std::move(frame));
  shared_->changed.notify_all();
  return true;
}

void FrameQueue::close(std::size_t source) {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->sources[source].closed = true;
  shared_->changed.notify_all();
}

void FrameQueue::stop() {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->stopped = true;
  shared_->changed.notify_all();
}

bool FrameQueue::stopped() const {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  return shared_->stopped;
}

bool FrameQueue::pause(double seconds) const {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return shared_->stopped; });
  return !shared_->stopped;
}

FrameQueue::Popped FrameQueue::pop(std::size_t& source, Frame& frame) {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  std::vector<Shared::Source>& all = shared_->sources;
  const auto find = [&] {
    for (std::size_t i = 0; i < all.size(); ++i) {
      source = (shared_->turn + i) % all.size();
      if (!all[source].frames.empty() || (all[source].closed && !all[source].said)) return true;
    }
    return false;
  };
  if (!shared_->changed.wait_for(lock, longest_wait, find)) return Popped::nothing;
  Shared::Source& s = all[source];
  shared_->turn = source + 1;
  if (s.frames.empty()) {
    s.said = true;
    return Popped::closed;
  }
  frame = std::move(s.frames.front());
  s.frames.pop_front();
  shared_->changed.notify_all();
  return Popped::frame;
}

std::uint64_t FrameQueue::dropped(std::size_t source) const {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  return shared_->sources[source].dropped;
}

}  // namespace command
