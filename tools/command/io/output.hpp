// Where results and messages go: stdout that reports failure, files that appear whole or not at all, stderr.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

namespace command {

enum ExitStatus { done = 0, no = 1, failed = 2 };

/// An error: "facenet: <sentence>" on stderr, escaped(): one line, whatever names are in it.
void say(const std::string& sentence);
/// The same for a note or a warning, which does not make the exit status 2. After be_quiet() it prints nothing.
void note(const std::string& sentence);
/// --quiet: no notes and no bar from now on.
void be_quiet();

/// A file that takes its name only in commit(): no reader ever sees half of it. Until then it has no name at all where
/// the system can do that (O_TMPFILE), else a short one of its own in the same folder, which a signal removes; what
/// SIGKILL leaves, the next NewFile in that folder removes. A new file is its owner's alone (mode 0600): it holds
/// faces, or what was measured on them. Functions return 0 or what errno says.
class NewFile {
 public:
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  /// Removes what was not committed.
  ~NewFile();

  /// Begins to replace `path`, or with a link its target, whose permissions it keeps.
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
  int make_named();
  void forget();

  std::string path_, folder_, temporary_;  // "": it has no name
  int descriptor_ = -1, slot_ = -1;
};
constexpr int not_regular = -1;  // what open() returns for a folder or a device

/// The whole of a NewFile.
int write_file(const std::string& path, const std::string& bytes);

/// Ends this process by the signal, as if nothing had caught it, after removing what NewFiles have not committed.
/// Process 1 of a container, which such a signal cannot end, exits with 128 + signal.
[[noreturn]] void die_by(int signal);

/// A file that a command writes at its end, such as a report: opened first, because an output that cannot be written
/// must be known before the work is done. Both functions say why and return false when the file cannot be written.
class LateFile {
 public:
  /// "": there is no such file, and finish() does nothing.
  bool open(const std::string& path);
  /// Writes what `content` returns and gives the file its name.
  bool finish(const std::function<std::string()>& content);

 private:
  std::string path_;
  NewFile file_;
};

/// Makes a folder and those above it, each its owner's alone (mode 0700, whatever the umask): they will hold faces. One
/// that is there is fine and keeps its mode. 0, or what errno says.
int make_private_folder(const std::string& path);
/// The same; says why and returns false when it cannot.
bool make_folder(const std::string& path);

/// A folder whose content appears whole or not at all: filled under a short name beside it, and renamed in commit().
/// A folder that is there must be empty. It stays, with its mode; what is new is then filled inside of it. Two
/// processes cannot fill the same: the second open() fails. What SIGKILL leaves, the next NewFile or NewFolder there
/// removes. Functions say why and return false when they cannot.
class NewFolder {
 public:
  NewFolder() = default;
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  /// Removes what was not committed.
  ~NewFolder();

  bool open(const std::string& path);
  bool commit();
  /// Where its content is put until then.
  const std::string& filled() const { return temporary_; }

 private:
  bool claim();
  bool is_ours() const;
  bool alone(std::error_code& error) const;
  void remove();
  void release();
  bool refuse(const std::string& why) const;

  std::string path_, temporary_;
  bool inside_ = false;  // path_ was there
  int descriptor_ = -1, slot_ = -1;
};

/// Whether NewFile or NewFolder gave the name: it is in nobody's folder of pictures.
bool is_temporary(const std::string& name);

/// The sentence for a `path` that cannot be written.
std::string unwritable(const std::string& path, int error);
/// Says it; always false.
bool say_unwritable(const std::string& path, int error);

/// Where the lines of results go: stdout, or a file that takes its name only in finish().
class Output {
 public:
  /// "" or "-": stdout. Says why and returns false when the file cannot be made.
  bool open(const std::string& path);
  /// A line of fields with TABs between, each escaped(). After a failure, which is reported once, it does nothing and
  /// returns false; so below.
  bool row(const std::vector<std::string>& fields);
  /// One line, its line feed added: JSON, or text that is no table. What a terminal would obey is escaped here too, and
  /// TABs are kept, so a name from outside belongs into row().
  bool line(const std::string& text);
  /// Lines as they are: CSV, which has quotes of its own, and what this program says of itself.
  bool verbatim(const std::string& lines);
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
/// to a closed stdout still fails. Makes a closed pipe, and a file above its limit, an error instead of a signal;
/// Output then dies by SIGPIPE after all, unless the caller ignores it. SIGINT, SIGTERM, SIGHUP and SIGQUIT: die_by().
void guard_standard_streams();

}  // namespace command
