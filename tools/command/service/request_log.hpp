// The last requests that the service answered, for the page's log. No name, no address and no embedding is in it: a
// request stands there with its route's pattern.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace command::service {

struct LoggedRequest {
  std::uint64_t number = 0;  // counts from 1
  std::string time;          // UTC
  std::string method, route;
  int status = 0;
  double seconds = 0;
};

class RequestLog {
 public:
  void add(LoggedRequest request);
  /// Those after `number`, the oldest first.
  std::vector<LoggedRequest> after(std::uint64_t number) const;

 private:
  static constexpr std::size_t most = 200;
  mutable std::mutex mutex_;
  std::deque<LoggedRequest> requests_;
  std::uint64_t count_ = 0;
};

}  // namespace command::service
