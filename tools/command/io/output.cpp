#include "command/io/output.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <system_error>
#include <utility>

#include "command/io/escape.hpp"

namespace command {

namespace {

constexpr std::size_t flush_at = 64 << 10;

/// Named temporaries that a signal has to remove. A handler may neither allocate nor lock: whoever exchanges a pointer
/// for null owns it, the file's maker or the handler.
constexpr int slots = 320;  // a file for each of 256 threads, and some
std::atomic<char*> temporaries[slots];
std::atomic<bool> dying;
static_assert(std::atomic<char*>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "a handler must not lock");

/// Before the file is made. -1: no place is free; the file then outlives a signal.
int remember(const std::string& path) {
  char* copy = ::strdup(path.c_str());
  for (int i = 0; copy != nullptr && i < slots; ++i) {
    char* none = nullptr;
    if (temporaries[i].compare_exchange_strong(none, copy)) return i;
  }
  std::free(copy);
  return -1;
}

void remove_temporaries() {
  dying = true;  // first: a file that is made after the loop has passed its place is removed by its maker
  for (std::atomic<char*>& slot : temporaries)
    if (const char* path = slot.exchange(nullptr))
      if (::unlink(path) != 0) ::rmdir(path);  // a NewFolder's, until something is in it
}

void on_signal(int signal) { die_by(signal); }

// ---- Names of temporaries -------------------------------------------------------------------------------------------

constexpr const char* temporary_begin = ".facenet-";
constexpr const char* temporary_end = ".tmp";
constexpr std::size_t temporary_digits = 16;

std::string temporary_name(std::uint64_t number) {
  char digits[temporary_digits + 1];
  std::snprintf(digits, sizeof digits, "%016" PRIx64, number);
  return std::string(temporary_begin) + digits + temporary_end;
}

/// Short, whatever the file is called, and another one for each process of each container.
std::string new_temporary_name() {
  std::random_device random;
  return temporary_name(std::uint64_t{random()} << 32 | random());
}

/// The NAME of NAME.PID.tmp, as they were called before; "" for another name.
std::string owner_of_old_temporary(const std::string& name) {
  const std::size_t end = name.rfind(temporary_end);
  if (end == std::string::npos || end == 0 || end + std::strlen(temporary_end) != name.size()) return {};
  const std::size_t dot = name.find_last_not_of("0123456789", end - 1);
  return dot != std::string::npos && dot + 1 < end && name[dot] == '.' ? name.substr(0, dot) : std::string();
}

/// Unless a living process holds it.
void remove_leftover(const std::string& path) {
  std::error_code none;
  // Not blocking: the name may be a pipe's, whose other end is never opened.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return;
  struct stat about {};
  const bool known = ::fstat(descriptor, &about) == 0;
  const bool folder = known && S_ISDIR(about.st_mode) && about.st_uid == ::geteuid();
  if ((folder || (known && S_ISREG(about.st_mode))) && ::flock(descriptor, LOCK_EX | LOCK_NB) == 0)
    std::filesystem::remove_all(path, none);
  ::close(descriptor);
}

/// What killed processes left in `folder`, which is looked through once a run; of old names those of `name` alone,
/// since a user may have a thesis.2024.tmp.
void clean(const std::string& folder, const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, std::multimap<std::string, std::string>> looked;  // folder: file's name: old temporaries
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [at, first] = looked.try_emplace(folder);
  DIR* entries = first ? ::opendir(folder.c_str()) : nullptr;
  if (entries != nullptr) {
    while (const dirent* entry = ::readdir(entries)) {
      const std::string found = entry->d_name, owner = owner_of_old_temporary(found);
      if (is_temporary(found))
        remove_leftover(folder + "/" + found);
      else if (!owner.empty())
        at->second.emplace(owner, found);
    }
    ::closedir(entries);
  }
  const auto old = at->second.equal_range(name);
  for (auto one = old.first; one != old.second; ++one) remove_leftover(folder + "/" + one->second);
  at->second.erase(old.first, old.second);
}

// ---- Writing --------------------------------------------------------------------------------------------------------

bool pipe_was_ignored = false;

/// 0, or what errno says.
int write_all(int descriptor, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(descriptor, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return 0;
}

/// What linkat() can give a name, for a file that has none.
std::string link_of(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// Of what was just made: a umask may have taken bits of the owner's too. 0, or what errno says.
int set_private(int descriptor, mode_t mode) {
  struct stat about {};
  const bool whole = ::fstat(descriptor, &about) == 0 && (about.st_mode & mode) == mode;
  return whole || ::fchmod(descriptor, mode) == 0 ? 0 : errno;
}

int make_one_folder(const std::string& path) {
  struct stat about {};
  if (::mkdir(path.c_str(), 0700) != 0 || ::stat(path.c_str(), &about) != 0) return errno;
  return (about.st_mode & 0700) == 0700 || ::chmod(path.c_str(), 0700) == 0 ? 0 : errno;
}

/// "a/b/" and "a/b/." are a/b.
std::string without_slashes(std::string path) {
  while (path.size() > 1 && (path.back() == '/' || path.compare(path.size() - 2, 2, "/.") == 0)) path.pop_back();
  return path;
}

std::atomic<bool> quiet{false};

}  // namespace

bool is_temporary(const std::string& name) {
  const std::size_t begin = std::strlen(temporary_begin), end = begin + temporary_digits;
  return name.size() == end + std::strlen(temporary_end) && name.compare(0, begin, temporary_begin) == 0 &&
         name.compare(end, std::string::npos, temporary_end) == 0 &&
         name.find_first_not_of("0123456789abcdef", begin) == end;
}

void be_quiet() { quiet = true; }

void note(const std::string& sentence) {
  if (!quiet) say(sentence);
}

void say(const std::string& sentence) { std::fprintf(stderr, "facenet: %s\n", escaped(sentence).c_str()); }

NewFile::~NewFile() {
  if (!is_open()) return;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  forget();
  ::close(descriptor_);
}

void NewFile::forget() {
  if (slot_ >= 0) std::free(temporaries[std::exchange(slot_, -1)].exchange(nullptr));
}

int NewFile::open(const std::string& path) {
  path_ = path;
  char resolved[PATH_MAX];  // the target of a symbolic link: the link stays, the target is replaced
  struct stat old {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode)) return not_regular;
  if (!exists && errno == ENAMETOOLONG) return errno;
  if (exists && ::access(path.c_str(), W_OK) != 0) return errno;
  if (exists && ::realpath(path.c_str(), resolved) != nullptr) path_ = resolved;
  folder_ = folder_of(path_);
  clean(folder_, path_.substr(path_.rfind('/') + 1));
#if defined(O_TMPFILE)
  descriptor_ = ::open(folder_.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
  if (is_open() && ::access(link_of(descriptor_).c_str(), F_OK) != 0)
    ::close(std::exchange(descriptor_, -1));                     // no /proc
  if (is_open()) (void)::flock(descriptor_, LOCK_EX | LOCK_NB);  // for the moment when it has its short name
#endif
  if (const int error = is_open() ? 0 : make_named()) return error;
  if (!exists) return set_private(descriptor_, 0600);
  return ::fchmod(descriptor_, old.st_mode & 07777) != 0 ? errno : 0;
}

int NewFile::make_named() {
  for (;;) {
    temporary_ = folder_ + "/" + new_temporary_name();
    slot_ = remember(temporary_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const int error = is_open() ? 0 : errno;
    if (error != 0) forget();
    if (error == EEXIST) continue;
    if (error != 0) return error;
    if (dying) ::unlink(temporary_.c_str());
    // A file system without locks has to do. Another process may have taken it for a leftover before it was locked.
    (void)::flock(descriptor_, LOCK_EX);
    struct stat about {};
    if (dying || ::fstat(descriptor_, &about) != 0 || about.st_nlink != 0) return 0;
    forget();
    ::close(std::exchange(descriptor_, -1));
  }
}

int NewFile::write(const char* data, std::size_t size) { return write_all(descriptor_, data, size); }

int NewFile::write_at(std::size_t at, const char* data, std::size_t size) {
  const ssize_t n = ::pwrite(descriptor_, data, size, static_cast<off_t>(at));
  return n < 0 ? errno : static_cast<std::size_t>(n) == size ? 0 : EIO;
}

int NewFile::commit() {
  int why = ::fsync(descriptor_) == 0 ? 0 : errno;
  while (why == 0 && temporary_.empty()) {  // it gets a short name first: a link cannot replace what is there
    const std::string name = folder_ + "/" + new_temporary_name();
    slot_ = remember(name);
    const bool linked =
        ::linkat(AT_FDCWD, link_of(descriptor_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    if (!linked) forget();
    if (linked)
      temporary_ = name;
    else if (errno != EEXIST)
      why = errno;
  }
  if (why == 0 && ::rename(temporary_.c_str(), path_.c_str()) != 0) why = errno;
  if (why != 0 && !temporary_.empty()) ::unlink(temporary_.c_str());
  forget();
  ::close(std::exchange(descriptor_, -1));
  temporary_.clear();
  return why;
}

int write_file(const std::string& path, const std::string& bytes) {
  NewFile file;
  if (const int error = file.open(path)) return error;
  if (const int error = file.write(bytes.data(), bytes.size())) return error;
  return file.commit();
}

bool LateFile::open(const std::string& path) {
  path_ = path;
  const int error = path.empty() ? 0 : file_.open(path);
  return error == 0 || say_unwritable(path_, error);
}

bool LateFile::finish(const std::function<std::string()>& content) {
  if (path_.empty()) return true;
  const std::string bytes = content();
  int error = file_.write(bytes.data(), bytes.size());
  if (error == 0) error = file_.commit();
  return error == 0 || say_unwritable(path_, error);
}

int make_private_folder(const std::string& path) {
  std::error_code none;
  const std::string name = without_slashes(path);
  if (std::filesystem::is_directory(name, none)) return 0;
  if (const std::string above = folder_of(name); above != name)
    if (const int error = make_private_folder(above)) return error;
  const int error = make_one_folder(name);
  return std::filesystem::is_directory(name, none) ? 0 : error;  // another thread's will do
}

bool make_folder(const std::string& path) {
  const int error = make_private_folder(path);
  if (error != 0) say(path + ": this folder cannot be made (" + std::strerror(error) + "); give another name.");
  return error == 0;
}

NewFolder::~NewFolder() { remove(); }

bool NewFolder::refuse(const std::string& why) const {
  say(path_ + ": " + why);
  return false;
}

void NewFolder::remove() {
  std::error_code none;
  if (is_ours()) std::filesystem::remove_all(temporary_, none);
  release();
}

void NewFolder::release() {
  if (slot_ >= 0) std::free(temporaries[std::exchange(slot_, -1)].exchange(nullptr));
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

bool NewFolder::open(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code none, error;
  path_ = without_slashes(path);
  do {
    remove();
    inside_ = fs::is_directory(path_, none);
    if (!inside_ && fs::symlink_status(path_, none).type() != fs::file_type::not_found)
      return refuse("this is there already and not an empty folder; give the name of a new one.");
    const std::string where = inside_ ? path_ : folder_of(path_);
    if (!make_folder(where)) return false;
    clean(where, "");
    // The name follows from the folder's, so that all who mean the same one meet.
    const std::size_t digits = inside_ ? 0 : std::hash<std::string>{}(path_.substr(path_.rfind('/') + 1));
    temporary_ = where + "/" + temporary_name(digits);
    if (!claim()) return false;
  } while (!is_ours() || fs::is_directory(path_, none) != inside_);  // another run may have ended since
  if (!inside_ || alone(error)) return true;
  return refuse(error ? "this folder cannot be read (" + error.message() + "); give another one."
                      : "this is there already and not an empty folder; give the name of a new one.");
}

/// Whether nothing else is in the folder that was there.
bool NewFolder::alone(std::error_code& error) const {
  namespace fs = std::filesystem;
  std::error_code none;
  for (fs::directory_iterator at(path_, error); !error && at != fs::directory_iterator(); at.increment(error))
    if (!fs::equivalent(at->path(), temporary_, none)) return false;
  return !error;
}

/// Makes and locks the folder. False, and reported, when it cannot be had.
bool NewFolder::claim() {
  const int error = make_one_folder(temporary_);
  if (error != 0)
    return error != EEXIST ? say_unwritable(path_, error)
                           : refuse("another run of facenet is making this folder now (in " + temporary_ +
                                    "); wait until that has ended, or give another name.");
  descriptor_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  slot_ = remember(temporary_);
  if (dying) ::rmdir(temporary_.c_str());
  if (descriptor_ >= 0) (void)::flock(descriptor_, LOCK_EX);
  return true;
}

/// False where another process has taken it for a leftover before it was locked.
bool NewFolder::is_ours() const {
  struct stat held {
  }, named{};
  return descriptor_ >= 0 && ::fstat(descriptor_, &held) == 0 && ::lstat(temporary_.c_str(), &named) == 0 &&
         held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

bool NewFolder::commit() {
  namespace fs = std::filesystem;
  constexpr auto not_empty = std::errc::directory_not_empty;
  std::error_code error;
  std::vector<fs::path> parts;
  if (!inside_) {
    fs::rename(temporary_, path_, error);
  } else if (alone(error)) {
    for (fs::directory_iterator at(temporary_, error); !error && at != fs::directory_iterator(); at.increment(error))
      parts.push_back(at->path());
    for (const fs::path& part : parts)
      if (!error) fs::rename(part, fs::path(path_) / part.filename(), error);
    if (!error) fs::remove(temporary_, error);
  } else if (!error) {
    error = std::make_error_code(not_empty);
  }
  if (!error) release();
  if (error == not_empty || error == std::errc::file_exists || error == std::errc::not_a_directory)
    return refuse("something else was put there while this run worked, and it is left as it is; give another name.");
  return !error || say_unwritable(path_, error.value());
}

std::string unwritable(const std::string& path, int error) {
  return path + ": the output cannot be written (" +
         (error == not_regular ? "it is not a regular file" : std::strerror(error)) +
         "); choose a folder that can be, with room left.";
}

bool say_unwritable(const std::string& path, int error) {
  say(unwritable(path, error));
  return false;
}

bool Output::open(const std::string& path) {
  if (path.empty() || path == "-") return true;
  const int error = file_.open(path);
  return error == 0 || fail(error);
}

bool Output::row(const std::vector<std::string>& fields) {
  std::string text;
  for (std::size_t i = 0; i < fields.size(); ++i) text += (i == 0 ? "" : "\t") + escaped(fields[i]);
  return line(text);
}

bool Output::line(const std::string& text) { return verbatim(escaped_line(text)); }

bool Output::verbatim(const std::string& lines) {
  if (failed_) return false;
  buffer_ += lines;
  buffer_ += '\n';
  // A pipe's reader wants each result when it is there; a file can wait.
  return !file_.is_open() || buffer_.size() >= flush_at ? write_buffer() : true;
}

bool Output::finish() {
  if (failed_) return false;
  if (!write_buffer()) return false;
  if (!file_.is_open()) {
    // A network file system may report a full disk only here. Closing a duplicate leaves stdout open for the caller.
    const int copy = ::dup(STDOUT_FILENO);
    return copy < 0 || ::close(copy) == 0 || fail(errno);
  }
  if (const int error = file_.commit()) return fail(error);
  // The rename itself must survive a power cut; a folder that cannot be synced is no reason to fail.
  const int folder = ::open(folder_of(file_.path()).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    (void)::fsync(folder);
    ::close(folder);
  }
  return true;
}

bool Output::fail(int error) {
  failed_ = true;
  if (!file_.path().empty()) return say_unwritable(file_.path(), error);
  if (error == EPIPE && !pipe_was_ignored) die_by(SIGPIPE);  // silently, as GNU's tools: the reader has had enough
  say(std::string("standard output cannot be written (") + std::strerror(error) +
      "); the results are incomplete, send them elsewhere.");
  return false;
}

bool Output::write_buffer() {
  const int error = file_.is_open() ? file_.write(buffer_.data(), buffer_.size())
                                    : write_all(STDOUT_FILENO, buffer_.data(), buffer_.size());
  buffer_.clear();
  return error == 0 || fail(error);
}

Progress::Progress(std::size_t total) : total_(total), shown_(total > 1 && !quiet && ::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

void Progress::step() {
  ++at_;
  if (!shown_) return;
  const auto now = Clock::now();
  constexpr auto pause = std::chrono::milliseconds(100);  // a terminal at the other end of a slow line must keep up
  if (at_ != total_ && now - drawn_ < pause) return;
  drawn_ = now;
  constexpr std::size_t width = 30;
  char bar[width + 1];
  const std::size_t full = at_ * width / total_;
  for (std::size_t i = 0; i < width; ++i) bar[i] = i < full ? '#' : '.';
  bar[width] = 0;
  const double seconds = std::chrono::duration<double>(now - began_).count();
  const double rate = static_cast<double>(at_) / (seconds > 1e-3 ? seconds : 1e-3);
  const auto left = static_cast<long>(static_cast<double>(total_ - at_) / rate + 0.5);
  std::fprintf(stderr, "\r[%s] %zu/%zu  %.*f/s  %ld:%02ld:%02ld left\33[K", bar, at_, total_, rate < 10 ? 1 : 0, rate,
               left / 3600, left / 60 % 60, left % 60);
}

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\33[K", stderr);
  drawn_ = {};  // the next step draws it again
}

// Called by a handler too: nothing here allocates or locks.
void die_by(int signal) {
  remove_temporaries();
  std::signal(signal, SIG_DFL);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, signal);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  ::raise(signal);
  ::_exit(128 + signal);  // process 1: the system drops signals whose action is the default one
}

void guard_standard_streams() {
  // Read-only on purpose: a write to a closed stdout must not seem to work.
  for (const int d : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(d, F_GETFD) < 0 && errno == EBADF && ::open("/dev/null", d == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0)
      std::_Exit(failed);
  pipe_was_ignored = std::signal(SIGPIPE, SIG_IGN) == SIG_IGN;
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction old {};
    if (::sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace command
