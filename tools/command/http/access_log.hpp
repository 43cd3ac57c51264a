// The access log: a line of JSON for each request, written by a thread of its own, so that whoever reads it slowly
// holds no request up.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

namespace command::service {

class AccessLog {
 public:
  AccessLog() = default;
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  /// "-": stdout; "none": nothing is written. Returns what is wrong, a sentence, or "".
  std::string open(const std::string& file);
  /// After the file was renamed: a new one takes its name.
  void reopen();

  struct Entry {
    std::string method, route, key;  // the route's pattern: a path may hold a name
    int status = 0;
    std::size_t bytes = 0;  // of the answer's body
    double milliseconds = 0;
  };
  void add(const Entry& entry);

 private:
  void write_all();

  std::string file_;
  int descriptor_ = -1;
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::string> lines_;
  std::size_t dropped_ = 0;
  bool reopen_ = false, end_ = false;
  std::thread writer_;
};

}  // namespace command::service
