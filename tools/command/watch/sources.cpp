#include "command/watch/sources.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#  include <sys/inotify.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "command/io/http_client.hpp"
#include "command/io/output.hpp"
#include "command/watch/jpeg_stream.hpp"

namespace command {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t block = std::size_t{1} << 18;
constexpr int poll_ms = 100;
constexpr std::size_t largest_file = JpegStream::usual_limit;

bool is_url(const std::string& text) {
  return text.compare(0, 7, "http://") == 0 || text.compare(0, 8, "https://") == 0;
}

bool is_picture(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0 || name[0] == '.' || is_temporary(name)) return false;
  std::string end = name.substr(dot + 1);
  std::transform(end.begin(), end.end(), end.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return end == "jpg" || end == "jpeg" || end == "png";
}

/// An open file that closes itself.
struct Descriptor {
  explicit Descriptor(int d) : at(d) {}
  ~Descriptor() {
    if (at > STDERR_FILENO) ::close(at);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int at;
};

}  // namespace

bool has_urls() { return HttpClient::available(); }

std::string without_secrets(const std::string& url) {
  std::string shown = url.substr(0, url.find_first_of("?#"));
  const std::size_t scheme = shown.find("://");
  if (scheme == std::string::npos) return shown;
  const std::size_t host = scheme + 3, path = shown.find('/', host), at = shown.rfind('@', path);
  if (at != std::string::npos && at >= host) shown.erase(host, at + 1 - host);
  return shown;
}

double pause_before_try(int n) { return n > 6 ? 60 : std::ldexp(1.0, n - 1); }

bool parse_source(const std::string& text, SourceName& name) {
  name.text = name.shown = text;
  if (text == "-") {
    name.kind = SourceKind::standard_input;
    return true;
  }
  if (is_url(text)) {
    name.kind = SourceKind::url;
    name.shown = without_secrets(text);
    if (has_urls()) return true;
    say(name.shown + ": this program was built without libcurl; pipe the stream: ffmpeg -i URL … | facenet watch -.");
    return false;
  }
  const std::size_t scheme = text.find("://");
  if (scheme != std::string::npos) {
    say(without_secrets(text) +
        ": only http:// and https:// can be read; for others: ffmpeg -i URL -f image2pipe -c:v mjpeg - | facenet "
        "watch -.");
    return false;
  }
  struct stat about {};
  if (::stat(text.c_str(), &about) != 0) {
    say(text + ": there is no such folder, file or URL; check the name.");
    return false;
  }
  name.kind = S_ISDIR(about.st_mode) ? SourceKind::folder : SourceKind::file;
#if !defined(__linux__)
  if (name.kind == SourceKind::folder) {
    say(text + ": folders can be watched on Linux only; pipe the pictures: cat *.jpg | facenet watch -.");
    return false;
  }
#endif
  return true;
}

/// One source and the thread that reads it.
class SourceReaders::Reader {
 public:
  Reader(const SourceName& name, const SourceOptions& options, FrameQueue& queue, std::size_t number)
      : name_(name),
        options_(options),
        queue_(queue),
        number_(number),
        live_(name.kind == SourceKind::url || (name.kind != SourceKind::folder && options.live)) {}

  void run() {
    switch (name_.kind) {
      case SourceKind::standard_input:
        read_descriptor(STDIN_FILENO);
        break;
      case SourceKind::file: {
        const Descriptor file(::open(name_.text.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        if (file.at < 0)
          fail(std::string("it cannot be opened (") + std::strerror(errno) + "); check its permissions.");
        else
          read_descriptor(file.at);
        break;
      }
      case SourceKind::folder:
        read_folder();
        break;
      case SourceKind::url:
        read_url();
        break;
    }
    queue_.close(number_);
  }

  Counts counts() const { return {left_out_, damaged_, reconnects_, failed_}; }

 private:
  void fail(const std::string& why) {
    failed_ = true;
    say(called() + ": " + why);
  }
  std::string called() const { return name_.kind == SourceKind::standard_input ? "standard input" : name_.shown; }

  /// False: stop reading.
  bool push(std::vector<std::uint8_t>&& bytes, std::string name = {}) {
    const auto now = Clock::now();
    const std::uint64_t number = frames_++;
    if (number == 0) began_ = now;
    Frame frame;
    frame.number = number;
    frame.seconds = std::chrono::duration<double>(now - began_).count();
    if (options_.input_fps > 0 && !live_ && name_.kind != SourceKind::folder)
      frame.seconds = static_cast<double>(number) / options_.input_fps;
    if (live_) {
      // Half a frame early is in time: a camera's frames jitter around the rate that it has too.
      if (number > 0 && frame.seconds < due_ - 0.5 / options_.fps) {
        ++left_out_;
        return !queue_.stopped();
      }
      due_ = std::max(due_, frame.seconds - 1 / options_.fps) + 1 / options_.fps;
    }
    frame.bytes = std::move(bytes);
    frame.name = std::move(name);
    return queue_.push(number_, std::move(frame), live_);
  }

  bool push_files(JpegStream& stream) {
    std::vector<std::uint8_t> file;
    while (stream.next(file)) {
      if (!push(std::move(file))) return false;
      file.clear();
    }
    return true;
  }

  // ---- pipes and files ----------------------------------------------------------------------------------------------

  void read_descriptor(int from) {
    JpegStream stream;
    std::vector<std::uint8_t> bytes(block), frame;
    for (;;) {
      if (queue_.stopped()) return;
      struct pollfd waiting {
        from, POLLIN, 0
      };
      if (::poll(&waiting, 1, poll_ms) == 0) continue;
      const ssize_t got = ::read(from, bytes.data(), bytes.size());
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) {
        fail(std::string("it cannot be read (") + std::strerror(errno) + "); redirect a stream of pictures to it.");
        return;
      }
      if (got == 0) break;
      const auto size = static_cast<std::size_t>(got);
      if (options_.raw) {
        for (std::size_t used = 0; used < size;) {
          const std::size_t part = std::min(size - used, options_.format.bytes() - frame.size());
          if (frame.empty()) frame.reserve(options_.format.bytes());
          frame.insert(frame.end(), bytes.data() + used, bytes.data() + used + part);
          used += part;
          if (frame.size() < options_.format.bytes()) continue;
          if (!push(std::move(frame))) return;
          frame = {};
        }
      } else {
        stream.feed(bytes.data(), size);
        if (!push_files(stream)) return;
        damaged_ = stream.dropped();
      }
    }
    const bool cut = options_.raw ? !frame.empty() : stream.finish();
    damaged_ = options_.raw ? std::uint64_t{cut} : stream.dropped();
    if (cut) note(called() + ": it ended within a frame, which was left out.");
    if (frames_ == 0)
      fail(options_.raw ? "it held no whole frame of --rawvideo's size; check the size and the pixel format."
                        : "it held no JPEG file; for other video: ffmpeg -i VIDEO -f image2pipe -c:v mjpeg - | facenet "
                          "watch -.");
  }

  // ---- a folder that fills ------------------------------------------------------------------------------------------

  bool push_file(const std::string& name) {
    const std::string path = name_.text + "/" + name;
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat about {};
    if (file.at < 0 || ::fstat(file.at, &about) != 0 || !S_ISREG(about.st_mode)) return true;  // it has gone again
    if (static_cast<std::uint64_t>(about.st_size) > largest_file) {
      ++damaged_;
      return true;
    }
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(about.st_size));
    std::size_t used = 0;
    while (used < bytes.size()) {
      const ssize_t got = ::read(file.at, bytes.data() + used, bytes.size() - used);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      used += static_cast<std::size_t>(got);
    }
    bytes.resize(used);
    return push(std::move(bytes), name);
  }

  bool push_existing() {
    std::vector<std::string> names;
    if (DIR* folder = ::opendir(name_.text.c_str())) {
      while (const dirent* entry = ::readdir(folder))
        if (is_picture(entry->d_name)) names.emplace_back(entry->d_name);
      ::closedir(folder);
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names)
      if (!push_file(name)) return false;
    return true;
  }

  /// Until the folder goes away or the queue is stopped.
  void read_folder() {
#if defined(__linux__)
    const Descriptor events(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    // A file is whole when its writer closes it or gives it its name.
    constexpr std::uint32_t whole = IN_CLOSE_WRITE | IN_MOVED_TO, gone = IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED;
    if (events.at < 0 ||
        ::inotify_add_watch(events.at, name_.text.c_str(), whole | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) < 0) {
      fail(std::string("it cannot be watched (") + std::strerror(errno) +
           "); check its permissions, and fs.inotify.max_user_watches.");
      return;
    }
    if (options_.existing && !push_existing()) return;
    alignas(inotify_event) char bytes[1 << 16];
    while (!queue_.stopped()) {
      struct pollfd waiting {
        events.at, POLLIN, 0
      };
      if (::poll(&waiting, 1, poll_ms) == 0) continue;
      const ssize_t got = ::read(events.at, bytes, sizeof bytes);
      for (ssize_t at = 0; at < got;) {
        inotify_event event;
        std::memcpy(&event, bytes + at, sizeof event);
        const std::string name = event.len > 0 ? bytes + at + sizeof event : "";
        at += static_cast<ssize_t>(sizeof event + event.len);
        if ((event.mask & IN_Q_OVERFLOW) != 0)
          note(name_.shown + ": pictures came faster than they could be looked at, and some were missed.");
        if ((event.mask & whole) != 0 && is_picture(name) && !push_file(name)) return;
        if ((event.mask & gone) == 0) continue;
        fail("the folder has gone; watch it again when it is there.");
        return;
      }
    }
#endif
  }

  // ---- a camera's URL -----------------------------------------------------------------------------------------------

  /// For as long as it may take: a camera that is gone comes back.
  void read_url() {
    HttpClient client;
    HttpRequest request;
    request.url = name_.text;
    request.redirections = 5;
    request.silent_s = 15;  // then the camera has failed
    request.stopped = [this] { return queue_.stopped(); };
    for (int tries = 0; !queue_.stopped();) {
      JpegStream stream;
      bool multipart = false;
      const std::uint64_t before = frames_;
      request.type = [&](const std::string& type) { multipart = type.rfind("multipart/", 0) == 0; };
      request.take = [&](const std::uint8_t* bytes, std::size_t size) {
        stream.feed(bytes, size);  // a multipart stream's headers lie between files
        return push_files(stream);
      };
      const HttpAnswer answer = client.send(request);
      stream.finish();
      damaged_ += stream.dropped();
      if (queue_.stopped()) return;
      const bool came = frames_ > before;
      if (came && !multipart && answer.failure.empty()) {  // a snapshot
        tries = 0;
        if (!queue_.pause(1 / options_.fps)) return;
        continue;
      }
      tries = came ? 1 : tries + 1;
      ++reconnects_;
      const double pause = pause_before_try(tries);
      const std::string why = !answer.failure.empty() ? answer.failure
                              : answer.status >= 300  ? "HTTP status " + std::to_string(answer.status)
                              : came                  ? "the stream ended"
                                                      : "no JPEG file came";
      note(name_.shown + ": " + why + "; trying again in " + std::to_string(static_cast<int>(pause)) + " s.");
      if (!queue_.pause(pause)) return;
    }
  }

  const SourceName name_;
  const SourceOptions options_;
  FrameQueue& queue_;
  const std::size_t number_;
  const bool live_;
  Clock::time_point began_;
  double due_ = 0;  // when the next frame of a live source may come
  std::uint64_t frames_ = 0;
  std::atomic<std::uint64_t> left_out_{0}, damaged_{0}, reconnects_{0};
  std::atomic<bool> failed_{false};
};

SourceReaders::SourceReaders(const std::vector<SourceName>& names, const SourceOptions& options, FrameQueue& queue)
    : queue_(queue) {
  for (std::size_t i = 0; i < names.size(); ++i)
    readers_.push_back(std::make_unique<Reader>(names[i], options, queue, i));
  for (const auto& reader : readers_) threads_.emplace_back([&r = *reader] { r.run(); });
}

SourceReaders::~SourceReaders() {
  queue_.stop();
  for (std::thread& t : threads_) t.join();
}

SourceReaders::Counts SourceReaders::counts(std::size_t source) const { return readers_[source]->counts(); }

}  // namespace command
