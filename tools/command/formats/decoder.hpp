// What a decoder of formats/ is: a function that runs in a process of its own (formats/sandbox.hpp), which ends with
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "command/formats/kinds.hpp"

namespace command {

/// Why there is no picture. The process of the decoder sends this number and never a text: what it says may be what a
/// hostile file made it say.
enum class Trouble : std::uint32_t {
  none,
  truncated,
  corrupt,
  unsupported,
  too_large,   // above most_pixels_in_file or most_side_in_file
  no_memory,   // it needs more than a picture may take
  no_preview,  // a camera raw file without one
  crashed,     // those below are seen from outside
  slow,
  forbidden,  // a system call that a decoder has no use for
  no_process,
  not_built_in
};

/// Bounds of what is decoded at all.
constexpr std::uint64_t most_pixels_in_file = 300'000'000;
constexpr int most_side_in_file = 65'535;

/// What is asked of a decoder.
struct Wanted {
  std::uint64_t most_pixels = 64u << 20;  // a larger picture is shrunk until it has at most so many
  int most_side = 16384;
  std::uint64_t memory = 300u << 20;  // bytes that the process may take beside its libraries and the file
  bool colour = false;                // whether its colour profile is applied
  int seconds = 60;                   // of CPU time
};

struct Source {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
};

/// Ends the process.
[[noreturn]] void refuse(Trouble trouble);

/// Where a decoder puts its picture: rows from the top down, as they are stored. It shrinks them by averaging where the
/// picture is larger than wanted.
class Canvas {
 public:
  explicit Canvas(const Wanted& wanted);
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;
  ~Canvas();

  /// Refuses a picture that is too large to be decoded at all, or has no pixels.
  static void check(std::uint64_t width, std::uint64_t height);
  /// Whether a picture of this size is handed on as it is.
  bool fits(std::uint64_t width, std::uint64_t height) const;
  const Wanted& wanted() const { return wanted_; }

  /// EXIF's number, 1 to 8; default 1.
  void set_orientation(int orientation) { orientation_ = orientation; }
  /// An ICC profile; one that means nothing is passed over.
  void set_profile(const std::uint8_t* icc, std::size_t size);
  /// The size of the rows to come; `full`: of the picture, where the decoder has shrunk it.
  void begin(int width, int height, int full_width = 0, int full_height = 0);
  void row(const std::uint8_t* rgb);
  /// Over white. `premultiplied`: alpha is in the colours already.
  void row_rgba(const std::uint8_t* rgba, bool premultiplied = false);
  /// All rows must have come.
  void end();

 private:
  void put(std::uint8_t* rgb);  // a row of what is handed on

  Wanted wanted_;
  int orientation_ = 1, width_ = 0, height_ = 0, shrink_ = 1, rows_ = 0, in_sum_ = 0;
  std::vector<std::uint8_t> opaque_, small_;
  std::vector<std::uint32_t> sums_;
  void* transform_ = nullptr;  // lcms2's
};

struct Decoder {
  Kind kind;
  std::string (*library)();  // "libwebp 1.2.4"
  void (*prepare)();         // what needs files, such as plug-ins; may be null
  void (*decode)(Source file, Canvas& canvas);
};

/// Null where it is not built in.
const Decoder* find_decoder(Kind kind);

/// Of EXIF, a TIFF file with or without "Exif\0\0" in front: 1 to 8, or 0 where there is none.
int orientation_of_exif(const std::uint8_t* data, std::size_t size);

void decode_jpeg(Source file, Canvas& canvas);
/// `orientation`: where the JPEG has none of its own.
void decode_jpeg(Source file, Canvas& canvas, int orientation);
void decode_raw(Source file, Canvas& canvas);

/// "NAME a.b.c" of a number such as 0x010204.
std::string version_text(const char* name, int major, int minor, int patch);

}  // namespace command
