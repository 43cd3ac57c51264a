// How many requests a second who may send: a bucket of tokens each, of which a second's worth may be saved up.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>

namespace command::service {

class RateLimit {
 public:
  /// 0: any number.
  explicit RateLimit(double per_second) : rate_(per_second), most_(std::max(1.0, per_second)) {}

  /// Whether `who` may send one now; `now` in seconds, of a clock that does not go back.
  bool take(const std::string& who, double now) {
    if (rate_ <= 0) return true;
    constexpr std::size_t most_buckets = 10000;  // clients without keys are told apart by address
    if (buckets_.size() >= most_buckets && buckets_.find(who) == buckets_.end()) buckets_.clear();
    Bucket& bucket = buckets_.try_emplace(who, Bucket{most_, now}).first->second;
    bucket.tokens = std::min(most_, bucket.tokens + (now - bucket.since) * rate_);
    bucket.since = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

 private:
  struct Bucket {
    double tokens, since;
  };
  double rate_, most_;
  std::unordered_map<std::string, Bucket> buckets_;
};

}  // namespace command::service
