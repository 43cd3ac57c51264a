#include "command/service/request_log.hpp"

#include <utility>

namespace command::service {

void RequestLog::add(LoggedRequest request) {
  const std::lock_guard<std::mutex> lock(mutex_);
  request.number = ++count_;
  requests_.push_back(std::move(request));
  if (requests_.size() > most) requests_.pop_front();
}

std::vector<LoggedRequest> RequestLog::after(std::uint64_t number) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<LoggedRequest> found;
  for (const LoggedRequest& r : requests_)
    if (r.number > number) found.push_back(r);
  return found;
}

}  // namespace command::service
