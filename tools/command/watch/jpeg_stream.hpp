// JPEG files one behind the other, as `ffmpeg -f image2pipe -c:v mjpeg -` writes them, taken apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace command {

/// Bytes go in as they come, whole JPEG files come out. What lies between files is passed over: a multipart stream's
/// boundaries and headers too. A file that another one's beginning interrupts, whose markers cannot be followed, that
/// has no coded data or is longer than the limit is dropped, and the next beginning is looked for from there on.
class JpegStream {
 public:
  static constexpr std::size_t usual_limit = std::size_t{32} << 20;  // bytes of one file
  explicit JpegStream(std::size_t limit = usual_limit) : limit_(limit) {}

  void feed(const std::uint8_t* bytes, std::size_t size);
  /// The next whole file, in the order of the stream. False: more bytes are needed.
  bool next(std::vector<std::uint8_t>& file);
  /// There will be no more bytes: what is left is no whole file. True where it had begun, which counts as dropped.
  bool finish();

  std::uint64_t dropped() const { return dropped_; }           // files that had begun
  std::uint64_t passed_over() const { return passed_; }        // bytes that belong to no file that came out
  std::size_t held() const { return bytes_.size() - begin_; }  // bytes in memory: the limit and one feed() at most

 private:
  enum class At { outside, marker, length, segment, scan };
  bool step();
  void drop();

  std::vector<std::uint8_t> bytes_;
  std::size_t limit_;
  std::size_t begin_ = 0;  // of the file, or of what has not been looked at outside of one
  std::size_t at_ = 0;     // all before it has been followed
  At state_ = At::outside;
  std::uint8_t marker_ = 0;
  bool scanned_ = false;  // it has coded data
  bool whole_ = false;    // [begin_, at_) is a file
  std::uint64_t dropped_ = 0, passed_ = 0;
};

}  // namespace command
