// Where results and messages go: stdout that reports failure, files that appear whole or not at all, stderr.
#pragma once

#include <chrono>
#include <set>
#include <string>

namespace command {

enum ExitStatus { done = 0, no = 1, failed = 2 };

/// "facenet: <sentence>" on stderr. Control characters, such as a file name may hold, become '?'.
void say(const std::string& sentence);

/// A name or a value for a line of text: a control character (C0, DEL, C1), a byte that is not UTF-8 and the backslash
/// are written \t, \n, \xHH, \\, so that none moves the cursor, ends the line or the field, or passes for another.
std::string escaped(const std::string& text);

/// A file that takes its name only in commit(): nobody ever sees half of it. Functions return 0 or what errno says.
class NewFile {
 public:
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  /// Removes what was not committed.
  ~NewFile();

  /// Begins to replace `path`, or with a link the file behind it, whose permissions it keeps.
  int open(const std::string& path);
  int write(const char* data, std::size_t size);
  /// Replaces bytes that were written.
  int write_at(std::size_t at, const char* data, std::size_t size);
  /// Syncs and renames.
  int commit();
  /// Where the renamed file is.
  const std::string& path() const { return path_; }
  bool is_open() const { return descriptor_ >= 0; }

 private:
  void release();

  std::string path_, temporary_;
  int descriptor_ = -1, slot_ = -1;
};
constexpr int not_regular = -1;  // what open() returns for a folder or a device

/// The whole of a NewFile.
int write_file(const std::string& path, const std::string& bytes);

/// Removes what killed processes left of their NewFiles called `names` in `folder`; those of living ones stay.
void remove_leftovers(const std::string& folder, const std::set<std::string>& names);

/// Kills this process by the signal, as if nothing had caught it, after removing what NewFiles have not committed.
[[noreturn]] void die_by(int signal);

/// Makes a folder and those above it; one that is there is fine. Says why and returns false when it cannot.
bool make_folder(const std::string& path);

/// The sentence for a `path` that cannot be written.
std::string unwritable(const std::string& path, int error);
/// Says it; always false.
bool say_unwritable(const std::string& path, int error);

/// Where the lines of results go: stdout, or a file that takes its name only in finish().
class Output {
 public:
  /// "" or "-": stdout. Says why and returns false when the file cannot be made.
  bool open(const std::string& path);
  /// One line, its line feed added. After a failure, which is said once, it does nothing and returns false.
  bool line(const std::string& text);
  /// Writes what is buffered; a file is synced and renamed. False when anything was lost.
  bool finish();

 private:
  bool fail(int error);
  bool write_buffer();

  std::string buffer_;
  NewFile file_;
  bool failed_ = false;
};

/// A bar on stderr with rate and time left, only where that is a terminal.
class Progress {
 public:
  explicit Progress(std::size_t total);
  ~Progress();
  void step();
  /// Removes the bar, so that a message has the line for itself.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::size_t total_, at_ = 0;
  bool shown_;
  Clock::time_point began_ = Clock::now(), drawn_{};
};

/// Opens the null device for standard streams that the caller closed, so that no file of ours gets their number; output
/// to a closed stdout still fails. Makes a closed pipe, and a file above its limit, an error instead of a signal; Output
/// then dies by SIGPIPE after all, unless the caller ignores it. SIGINT, SIGTERM and SIGHUP remove NewFiles first.
void guard_standard_streams();

}  // namespace command
