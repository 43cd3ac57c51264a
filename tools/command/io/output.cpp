#include "output.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace command {

namespace {

constexpr std::size_t flush_at = 64 << 10;
constexpr const char* temporary_end = ".tmp";

/// The NAME of NAME.DIGITS.tmp, "" for another name.
std::string name_of_temporary(const std::string& temporary) {
  const std::size_t end = temporary.rfind(temporary_end);
  if (end == std::string::npos || end == 0 || end + std::strlen(temporary_end) != temporary.size()) return {};
  const std::size_t dot = temporary.find_last_not_of("0123456789", end - 1);
  const bool digits = dot != std::string::npos && dot + 1 < end && temporary[dot] == '.';
  return digits ? temporary.substr(0, dot) : std::string();
}

/// Temporaries that a signal has to remove. A handler may neither allocate nor lock, so the paths lie in fixed places,
/// and a place belongs to whoever moved its state: the thread that fills it, or the handler that takes it for good.
struct Slot {
  std::atomic<int> state;
  char path[PATH_MAX];
};
enum { slot_free, slot_claimed, slot_ready, slot_taken };
constexpr int slots = 320;  // a file for each of 256 threads, and some
Slot temporaries[slots];
std::atomic<bool> dying;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free, "a handler must not lock");

/// Before the file is made. -1: no place is free or the path is too long; the file then outlives a signal.
int remember(const std::string& path) {
  if (path.size() >= PATH_MAX) return -1;
  for (int i = 0; i < slots; ++i) {
    int state = slot_free;
    if (!temporaries[i].state.compare_exchange_strong(state, slot_claimed)) continue;
    std::memcpy(temporaries[i].path, path.c_str(), path.size() + 1);
    temporaries[i].state = slot_ready;
    return i;
  }
  return -1;
}

void remove_temporaries() {
  dying = true;  // first: a file that is made after the loop has passed its place is removed by its maker
  for (Slot& slot : temporaries) {
    int state = slot_ready;
    if (slot.state.compare_exchange_strong(state, slot_taken)) ::unlink(slot.path);
  }
}

void on_signal(int signal) {
  remove_temporaries();
  ::raise(signal);  // SA_RESETHAND: its default action now, once this returns
}

/// The bytes of the character at text[i] if it may go to a terminal; 0 for control characters and what is not UTF-8.
std::size_t printable(const std::string& text, std::size_t i) {
  const auto byte = [&](std::size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const unsigned c = byte(i), next = byte(i + 1);
  if (c < 0x80) return c >= 0x20 && c != 0x7f ? 1 : 0;
  const std::size_t length = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
  for (std::size_t k = 1; k < length; ++k)
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  const bool control = c == 0xc2 && next < 0xa0;
  const bool overlong = (c == 0xe0 && next < 0xa0) || (c == 0xf0 && next < 0x90);
  return control || overlong ? 0 : length;
}

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

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void say(const std::string& sentence) {
  std::string text = "facenet: " + sentence;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = printable(text, i);
    if (length == 0) text[i] = '?';
    i += length == 0 ? 1 : length;
  }
  std::fprintf(stderr, "%s\n", text.c_str());
}

std::string escaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = printable(text, i);
    if (length != 0) {
      out += text[i] == '\\' ? "\\\\" : text.substr(i, length);
      i += length;
      continue;
    }
    char code[8];
    std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(text[i])));
    out += text[i] == '\t' ? "\\t" : text[i] == '\n' ? "\\n" : text[i] == '\r' ? "\\r" : code;
    ++i;
  }
  return out;
}

NewFile::~NewFile() {
  if (!is_open()) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
  release();
}

void NewFile::release() {
  if (slot_ < 0) return;
  int state = slot_ready;  // a place that a handler took stays its
  temporaries[std::exchange(slot_, -1)].state.compare_exchange_strong(state, slot_free);
}

int NewFile::open(const std::string& path) {
  path_ = path;
  char resolved[PATH_MAX];  // behind a symbolic link: the link stays, its target is replaced
  struct stat old {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode)) return not_regular;
  if (exists && ::access(path.c_str(), W_OK) != 0) return errno;
  if (exists && ::realpath(path.c_str(), resolved) != nullptr) path_ = resolved;
  temporary_ = path_ + "." + std::to_string(::getpid()) + temporary_end;
  slot_ = remember(temporary_);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (!is_open()) {
    const int why = errno;
    release();
    return why;
  }
  if (dying) ::unlink(temporary_.c_str());
  (void)::flock(descriptor_, LOCK_EX | LOCK_NB);  // for remove_leftovers; a file system without locks has to do
  return exists && ::fchmod(descriptor_, old.st_mode & 07777) != 0 ? errno : 0;
}

int NewFile::write(const char* data, std::size_t size) { return write_all(descriptor_, data, size); }

int NewFile::write_at(std::size_t at, const char* data, std::size_t size) {
  const ssize_t n = ::pwrite(descriptor_, data, size, static_cast<off_t>(at));
  return n < 0 ? errno : static_cast<std::size_t>(n) == size ? 0 : EIO;
}

int NewFile::commit() {
  if (::fsync(descriptor_) != 0) return errno;
  const int descriptor = std::exchange(descriptor_, -1);
  const bool named = ::close(descriptor) == 0 && ::rename(temporary_.c_str(), path_.c_str()) == 0;
  const int why = named ? 0 : errno;
  if (!named) ::unlink(temporary_.c_str());
  release();
  return why;
}

int write_file(const std::string& path, const std::string& bytes) {
  NewFile file;
  if (const int error = file.open(path)) return error;
  if (const int error = file.write(bytes.data(), bytes.size())) return error;
  return file.commit();
}

void remove_leftovers(const std::string& folder, const std::set<std::string>& names) {
  DIR* entries = ::opendir(folder.c_str());
  if (entries == nullptr) return;
  while (const dirent* entry = ::readdir(entries)) {
    const std::string name = entry->d_name;
    if (names.count(name_of_temporary(name)) == 0) continue;
    const std::string path = folder + "/" + name;
    // Not blocking: the name may be a pipe's, whose other end nobody opens.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) continue;
    struct stat about {};
    const bool regular = ::fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode);
    // Its writer would hold the lock.
    if (regular && ::flock(descriptor, LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
    ::close(descriptor);
  }
  ::closedir(entries);
}

bool make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);  // a slash at the end is no error of its own
  if (!error || std::filesystem::is_directory(path)) return true;
  say(path + ": this folder cannot be made (" + error.message() + "); give another name.");
  return false;
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

bool Output::line(const std::string& text) {
  if (failed_) return false;
  buffer_ += text;
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

Progress::Progress(std::size_t total) : total_(total), shown_(total > 1 && ::isatty(STDERR_FILENO) != 0) {}

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

void die_by(int signal) {
  remove_temporaries();
  std::signal(signal, SIG_DFL);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, signal);
  ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
  ::raise(signal);
  std::_Exit(failed);
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
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    if (::sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace command
