// Where results and messages go: stdout that reports failure, files that appear whole or not at all, stderr.
#pragma once

#include <string>

namespace command {

enum ExitStatus { done = 0, no = 1, failed = 2 };

/// "facenet: <sentence>" on stderr. Control characters, such as a file name may hold, become '?'.
void say(const std::string& sentence);

/// Where the lines of results go: stdout, or a file that takes its name only in finish().
class Output {
 public:
  Output() = default;
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output();

  /// "" or "-": stdout. Says why and returns false when the file cannot be made.
  bool open(const std::string& path);
  /// One line, its line feed added. After a failure, which is said once, it does nothing and returns false.
  bool line(const std::string& text);
  /// Writes what is buffered; a file is synced and renamed. False when anything was lost.
  bool finish();

 private:
  bool fail(const char* what);
  bool write_buffer();

  std::string path_, temporary_, buffer_;
  int descriptor_ = 1;
  bool failed_ = false;
};

/// A bar on stderr, only where that is a terminal.
class Progress {
 public:
  explicit Progress(std::size_t total);
  ~Progress();
  void step();
  /// Removes the bar, so that a message has the line for itself.
  void clear();

 private:
  std::size_t total_, at_ = 0;
  bool shown_;
};

/// Opens the null device for standard streams that the caller closed, so that no file of ours gets their number; output
/// to a closed stdout still fails. Makes a closed pipe an error to report instead of a signal.
void guard_standard_streams();

}  // namespace command
