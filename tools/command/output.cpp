#include "output.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace command {

namespace {

constexpr std::size_t flush_at = 64 << 10;

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void say(const std::string& sentence) {
  std::string text = "facenet: " + sentence;
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  std::fprintf(stderr, "%s\n", text.c_str());
}

Output::~Output() {
  if (!temporary_.empty()) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

bool Output::open(const std::string& path) {
  if (path.empty() || path == "-") return true;
  path_ = path;
  char resolved[PATH_MAX];  // behind a symbolic link: the link stays, its target is replaced
  struct stat old {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode)) {
    say(path + ": the output is not a regular file; give another name, or leave --out out for standard output.");
    return !(failed_ = true);
  }
  if (exists && ::access(path.c_str(), W_OK) != 0) return fail(std::strerror(errno));
  if (exists && ::realpath(path.c_str(), resolved) != nullptr) path_ = resolved;
  temporary_ = path_ + "." + std::to_string(::getpid()) + ".tmp";
  const int made = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (made < 0) {
    temporary_.clear();
    return fail(std::strerror(errno));
  }
  descriptor_ = made;
  if (exists && ::fchmod(made, old.st_mode & 07777) != 0) return fail(std::strerror(errno));
  return true;
}

bool Output::line(const std::string& text) {
  if (failed_) return false;
  buffer_ += text;
  buffer_ += '\n';
  // A pipe's reader wants each result when it is there; a file can wait.
  return temporary_.empty() || buffer_.size() >= flush_at ? write_buffer() : true;
}

bool Output::finish() {
  if (failed_) return false;
  if (!write_buffer()) return false;
  if (temporary_.empty()) {
    // A network file system may report a full disk only here. Closing a duplicate leaves stdout open for the caller.
    const int copy = ::dup(descriptor_);
    return copy < 0 || ::close(copy) == 0 || fail(std::strerror(errno));
  }
  if (::fsync(descriptor_) != 0) return fail(std::strerror(errno));
  const int descriptor = std::exchange(descriptor_, 1);
  const std::string temporary = std::exchange(temporary_, std::string());
  if (::close(descriptor) != 0 || ::rename(temporary.c_str(), path_.c_str()) != 0) {
    const int why = errno;
    ::unlink(temporary.c_str());
    return fail(std::strerror(why));
  }
  // The rename itself must survive a power cut; a folder that cannot be synced is no reason to fail.
  if (const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); folder >= 0) {
    (void)::fsync(folder);
    ::close(folder);
  }
  return true;
}

bool Output::fail(const char* what) {
  failed_ = true;
  if (path_.empty())
    say(std::string("standard output cannot be written (") + what + "); the results are incomplete, send them elsewhere.");
  else
    say(path_ + ": the output cannot be written (" + what + "); choose a folder that can be, with room left.");
  return false;
}

bool Output::write_buffer() {
  for (std::size_t at = 0; at < buffer_.size();) {
    const ssize_t n = ::write(descriptor_, buffer_.data() + at, buffer_.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(std::strerror(errno));
    at += static_cast<std::size_t>(n);
  }
  buffer_.clear();
  return true;
}

Progress::Progress(std::size_t total) : total_(total), shown_(total > 1 && ::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

void Progress::step() {
  ++at_;
  if (!shown_) return;
  constexpr std::size_t width = 40;
  char bar[width + 1];
  const std::size_t full = at_ * width / total_;
  for (std::size_t i = 0; i < width; ++i) bar[i] = i < full ? '#' : '.';
  bar[width] = 0;
  std::fprintf(stderr, "\r[%s] %zu/%zu", bar, at_, total_);
}

void Progress::clear() {
  if (shown_) std::fputs("\r\33[K", stderr);
}

void guard_standard_streams() {
  // Read-only on purpose: a write to a closed stdout must not seem to work.
  for (const int d : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(d, F_GETFD) < 0 && errno == EBADF && ::open("/dev/null", d == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0)
      std::_Exit(failed);
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace command
