#include "command/formats/sandbox.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "command/formats/decoder_program.hpp"
#include "command/formats/protocol.hpp"

extern "C" char** environ;

namespace command {

namespace {

constexpr int wall_factor = 5;  // seconds of the clock for each of CPU time: the machine may be busy
std::atomic<std::uint64_t> most_resident{0};

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int number() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_;
};

// ---- the process that waits ----------------------------------------------------------------------------------------

bool write_all(int to, const std::uint8_t* data, std::size_t size) {
  while (size != 0) {
    const ssize_t n = ::write(to, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

/// A file without a name that nobody can change any more; -1 where there is no memory for it.
int sealed_copy(Source file) {
  const int copy = ::memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (copy < 0) return -1;
  if (write_all(copy, file.data, file.size) &&
      ::fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
    return copy;
  ::close(copy);
  return -1;
}

class Process {
 public:
  Process() = default;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { wait(); }

  bool start(Kind kind, const Wanted& wanted, int file, int pipe) {
    char words[120];
    std::snprintf(words, sizeof words, "%d,%llu,%d,%llu,%d,%d", static_cast<int>(kind),
                  static_cast<unsigned long long>(wanted.most_pixels), wanted.most_side,
                  static_cast<unsigned long long>(wanted.memory), wanted.colour ? 1 : 0, wanted.seconds);
    char name[] = "facenet-decode", option[32];
    std::snprintf(option, sizeof option, "%s", decode_flag);
    char* const arguments[] = {name, option, words, nullptr};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigfillset(&defaults);
    sigdelset(&defaults, SIGKILL);
    sigdelset(&defaults, SIGSTOP);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, file, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, pipe, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    const int error = ::posix_spawn(&id_, decoder_program().c_str(), &files, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) id_ = 0;
    return error == 0;
  }

  void kill() {
    if (id_ != 0) ::kill(id_, SIGKILL);
  }
  /// As waitpid has it; 0 where it never ran.
  int wait() {
    if (id_ == 0) return 0;
    int status = 0;
    rusage usage{};
    while (::wait4(id_, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    id_ = 0;
    const std::uint64_t resident = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
    std::uint64_t most = most_resident.load();
    while (most < resident && !most_resident.compare_exchange_weak(most, resident)) {
    }
    return status;
  }

 private:
  pid_t id_ = 0;
};

/// Reads with a deadline.
class PipeReader {
 public:
  using Clock = std::chrono::steady_clock;
  PipeReader(int from, int seconds) : from_(from), until_(Clock::now() + std::chrono::seconds(seconds)) {}

  /// Whether all bytes came.
  bool read(void* to, std::size_t size) {
    auto* at = static_cast<std::uint8_t*>(to);
    while (size != 0) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until_ - Clock::now()).count();
      pollfd waited{from_, POLLIN, 0};
      const int ready = left <= 0 ? 0 : ::poll(&waited, 1, static_cast<int>(std::min<long long>(left, 1000)));
      late_ = left <= 0;
      if (late_) return false;
      if (ready <= 0) continue;
      const ssize_t n = ::read(from_, at, size);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n <= 0) return false;
      at += n;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  }
  bool late() const { return late_; }

 private:
  int from_;
  Clock::time_point until_;
  bool late_ = false;
};

/// What a process that did not finish its picture died of.
Trouble post_mortem(int status, bool late) {
  if (late) return Trouble::slow;
  if (WIFSIGNALED(status)) {
    if (WTERMSIG(status) == SIGSYS) return Trouble::forbidden;
    if (WTERMSIG(status) == SIGXCPU) return Trouble::slow;
    return Trouble::crashed;
  }
  const int code = WEXITSTATUS(status);
  if (code > static_cast<int>(Trouble::none) && code <= static_cast<int>(Trouble::no_preview))
    return static_cast<Trouble>(code);
  return code == no_start || code == 127 ? Trouble::no_process : Trouble::crashed;
}

/// The process's words are checked as those of a stranger.
bool is_sound(const PictureHeader& h, const Wanted& wanted) {
  const auto within = [](std::int32_t v, std::int64_t most) { return v >= 1 && v <= most; };
  return within(h.full_width, most_side_in_file) && within(h.full_height, most_side_in_file) &&
         within(h.width, std::min(wanted.most_side, int{h.full_width})) &&
         within(h.height, std::min(wanted.most_side, int{h.full_height})) && within(h.orientation, 8) &&
         static_cast<std::uint64_t>(h.width) * static_cast<std::uint64_t>(h.height) <= wanted.most_pixels;
}

/// The whole conversation. False with `trouble` set, or left as it is where the process's end must tell.
bool receive(PipeReader& pipe, const Wanted& wanted, const PictureSink& sink, Trouble& trouble) {
  PictureHeader header;
  if (!pipe.read(&header, sizeof header)) return false;
  if (header.trouble != Trouble::none) {
    if (header.trouble <= Trouble::no_preview) trouble = header.trouble;
    return false;
  }
  if (!is_sound(header, wanted)) {
    trouble = Trouble::crashed;
    return false;
  }
  if (!sink.begin(header.width, header.height, header.full_width, header.full_height, header.orientation)) {
    trouble = Trouble::no_memory;
    return false;
  }
  const std::size_t row = static_cast<std::size_t>(header.width) * 3;
  const int band = static_cast<int>(std::max<std::size_t>(1, (512 << 10) / row));
  std::vector<std::uint8_t> rows(row * static_cast<std::size_t>(band));
  for (int y = 0; y < header.height; y += band) {
    const int count = std::min(band, header.height - y);
    if (!pipe.read(rows.data(), row * static_cast<std::size_t>(count))) return false;
    sink.rows(rows.data(), y, count);
  }
  std::uint32_t end = 1;
  return pipe.read(&end, sizeof end) && end == 0;
}

}  // namespace

Trouble decode_apart(Kind kind, Source file, const Wanted& wanted, const PictureSink& sink,
                     const std::function<void()>& copied) {
  if (!has_decoder(kind)) return Trouble::not_built_in;
  Descriptor copy(sealed_copy(file));
  if (copy.number() < 0) return Trouble::no_memory;
  if (copied) copied();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Trouble::no_process;
  Descriptor from(ends[0]), to(ends[1]);
  ::fcntl(from.number(), F_SETPIPE_SZ, 1 << 20);  // fewer changes between the two; the default serves too
  Process process;
  if (!process.start(kind, wanted, copy.number(), to.number())) return Trouble::no_process;
  to.close();
  copy.close();
  PipeReader pipe(from.number(), wanted.seconds * wall_factor);
  Trouble trouble = Trouble::none;
  const bool whole = receive(pipe, wanted, sink, trouble);
  // One that has said all it may say has no more to do; one whose pipe is closed is dying of what is to be told.
  if (whole || pipe.late() || trouble != Trouble::none) process.kill();
  from.close();
  const int status = process.wait();
  if (whole) return Trouble::none;
  return trouble != Trouble::none ? trouble : post_mortem(status, pipe.late());
}

const char* sentence_of(Trouble trouble, Kind kind) {
  const std::string name = std::string("the ") + name_of(kind);
  std::string text;
  switch (trouble) {
    case Trouble::none:
      return "";
    case Trouble::truncated:
      text = name + " picture ends before it is whole: the file is truncated";
      break;
    case Trouble::corrupt:
      text = name + " picture is damaged: get the file again from where it came";
      break;
    case Trouble::unsupported:
      text = name + " picture is of a kind that is not read: convert it to JPEG or PNG";
      break;
    case Trouble::too_large:
      text =
          name + " picture has over 300 M pixels, or over 65535 in one direction (a JPEG 65500): make it smaller first";
      break;
    case Trouble::no_memory:
      text = name + " picture needs more memory than one may take: raise --memory, or save it as a baseline JPEG";
      break;
    case Trouble::no_preview:
      text = name + " file holds no preview: convert it to JPEG";
      break;
    case Trouble::crashed:
      text = std::string("the decoder of ") + name_of(kind) +
             " pictures crashed: the file is damaged or hostile; get it again from where it came";
      break;
    case Trouble::slow:
      text = std::string("the decoder of ") + name_of(kind) +
             " pictures did not come to an end: the file is damaged or hostile; get it again from where it came";
      break;
    case Trouble::forbidden:
      text = std::string("the decoder of ") + name_of(kind) +
             " pictures was stopped, for it wanted what no picture needs: the file may be hostile; do not open it "
             "elsewhere";
      break;
    case Trouble::no_process:
      text = std::string("the decoder of ") + name_of(kind) +
             " pictures cannot be started: check that processes may be made";
      break;
    case Trouble::not_built_in:
      text = std::string("this is a picture of the format ") + name_of(kind) +
             ", which this build of facenet does not read: convert it to JPEG or PNG";
      break;
  }
  static std::mutex mutex;
  static std::set<std::string> all;  // as many as there are formats and troubles: a Status keeps a pointer
  const std::lock_guard<std::mutex> lock(mutex);
  return all.insert(text).first->c_str();
}

std::uint64_t largest_decoder() { return most_resident.load(); }

}  // namespace command
