// Frames on their way from the threads that read sources to the one that looks at them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace command {

struct Frame {
  std::vector<std::uint8_t> bytes;  // a picture's file, or pixels
  std::string name;                 // of the file, in a folder
  std::uint64_t number = 0;         // in its source, from 0; those that were dropped count
  double seconds = 0;               // since the source's beginning
};

/// A few frames for each source, in order. Any thread may call anything.
class FrameQueue {
 public:
  explicit FrameQueue(std::size_t sources);
  ~FrameQueue();
  FrameQueue(const FrameQueue&) = delete;
  FrameQueue& operator=(const FrameQueue&) = delete;

  /// Waits for room; `live`: takes the place of the oldest instead, which is counted. False once stop() was called.
  bool push(std::size_t source, Frame&& frame, bool live);
  /// There will be no more frames of it.
  void close(std::size_t source);
  void stop();
  bool stopped() const;
  /// Waits until stop(), this long at the most. False: stopped.
  bool pause(double seconds) const;

  enum class Popped { frame, nothing, closed };
  /// One frame, of each source in turn. closed: that source has ended, which is said once. Waits 100 ms at the most.
  Popped pop(std::size_t& source, Frame& frame);
  std::uint64_t dropped(std::size_t source) const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace command
