// Where frames come from: a pipe or file of JPEGs or raw pixels, a folder that fills, a camera's URL.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "command/watch/frame_queue.hpp"
#include "command/watch/raw_video.hpp"

namespace command {

struct SourceOptions {
  bool raw = false;  // pipes and files hold frames of `format`
  RawFormat format;
  double input_fps = 0;   // above 0: frame k of a pipe or file is of the second k / input_fps; else: of its arrival
  double fps = 10;        // at most so many frames a second of a live source
  bool live = false;      // a pipe is one too: what comes while there is no time for it is dropped
  bool existing = false;  // pictures that lie in a folder already count too, in the order of their names
};

enum class SourceKind { standard_input, file, folder, url };

/// A source as the user named it.
struct SourceName {
  std::string text, shown;  // shown: without a URL's user, password and query
  SourceKind kind = SourceKind::file;
};

/// False, and reported, where it can be no source: not there, or a URL where this program was built without libcurl.
bool parse_source(const std::string& text, SourceName& name);
/// A URL without what may be secret in it: user and password, query, fragment.
std::string without_secrets(const std::string& url);
/// Seconds to wait before try number n (from 1) after a failure: 1, 2, 4, … 60.
double pause_before_try(int n);

/// Whether this program was built with libcurl.
bool has_urls();

/// Threads that read sources into a queue until they end or it is stopped.
class SourceReaders {
 public:
  SourceReaders(const std::vector<SourceName>& names, const SourceOptions& options, FrameQueue& queue);
  /// Stops the queue and waits for the threads.
  ~SourceReaders();
  SourceReaders(const SourceReaders&) = delete;
  SourceReaders& operator=(const SourceReaders&) = delete;

  struct Counts {
    std::uint64_t left_out = 0;  // frames above --fps
    std::uint64_t damaged = 0;   // files that had begun and were not whole
    std::uint64_t reconnects = 0;
    bool failed = false;  // it ended because of an error, which has been reported
  };
  Counts counts(std::size_t source) const;

 private:
  class Reader;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::vector<std::thread> threads_;
  FrameQueue& queue_;
};

}  // namespace command
