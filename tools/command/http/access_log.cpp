#include "command/http/access_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

namespace command::service {

namespace {

constexpr std::size_t most_lines = 65536;  // that wait: 10 MB

int open_file(const std::string& file) { return ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600); }

std::string now() {
  const auto time = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[64], all[80];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(all, sizeof all, "%s.%03dZ", text, static_cast<int>(milliseconds));
  return all;
}

void write_line(int descriptor, const std::string& line) {
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t n = ::write(descriptor, line.data() + at, line.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // a full disk, a closed pipe: the service goes on
    at += static_cast<std::size_t>(n);
  }
}

}  // namespace

AccessLog::~AccessLog() {
  if (!writer_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = true;
  }
  some_.notify_one();
  writer_.join();
  if (descriptor_ != STDOUT_FILENO) ::close(descriptor_);
}

std::string AccessLog::open(const std::string& file) {
  if (file == "none") return "";
  file_ = file;
  descriptor_ = file == "-" ? STDOUT_FILENO : open_file(file);
  if (descriptor_ < 0)
    return file + ": the access log cannot be written: " + std::strerror(errno) + "; name a file that can be.";
  writer_ = std::thread([this] { write_all(); });
  return "";
}

void AccessLog::reopen() {
  const std::lock_guard<std::mutex> lock(mutex_);
  reopen_ = true;
}

void AccessLog::add(const Entry& entry) {
  if (!writer_.joinable()) return;
  nlohmann::ordered_json j;
  j["time"] = now();
  j["method"] = entry.method;
  j["route"] = entry.route;
  j["status"] = entry.status;
  j["bytes"] = entry.bytes;
  j["ms"] = static_cast<double>(static_cast<std::int64_t>(entry.milliseconds * 1000)) / 1000;
  j["key"] = entry.key;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lines_.size() == most_lines) {
      ++dropped_;
      return;
    }
    if (dropped_ > 0) {
      lines_.push_back("{\"dropped_lines\":" + std::to_string(dropped_) + "}\n");
      dropped_ = 0;
    }
    lines_.push_back(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  }
  some_.notify_one();
}

void AccessLog::write_all() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    some_.wait(lock, [&] { return end_ || !lines_.empty(); });
    if (lines_.empty()) return;
    std::deque<std::string> lines;
    lines.swap(lines_);
    const bool again = reopen_ && file_ != "-";
    reopen_ = false;
    lock.unlock();
    if (again) {
      const int descriptor = open_file(file_);
      if (descriptor >= 0) {
        ::close(descriptor_);
        descriptor_ = descriptor;
      }
    }
    for (const std::string& line : lines) write_line(descriptor_, line);
    lock.lock();
  }
}

}  // namespace command::service
