// Events on their way out of the process: to a webhook, or to a program. Nothing of it ever waits for a frame, nor a
// frame for it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace command {

struct Delivery {
  std::string json;                                            // one line, without its line feed
  std::vector<std::pair<std::string, std::string>> variables;  // of the program's environment
};

struct DeliveryOptions {
  std::string webhook;                 // "": none
  std::string program;                 // "": none; found as execvp does it
  std::vector<std::string> arguments;  // the program's
};

/// Queues of 64 events each; what comes while one is full takes the place of the oldest, which is counted. A POST that
/// fails is tried three times more, after 1, 2 and 4 seconds, unless the answer is 400 to 499 (429 apart). Programs: 4
/// at once, 60 seconds each. Their standard input is the JSON, their standard output goes to standard error.
class Deliveries {
 public:
  explicit Deliveries(const DeliveryOptions& options);
  /// Waits up to 15 seconds for what is queued.
  ~Deliveries();
  Deliveries(const Deliveries&) = delete;
  Deliveries& operator=(const Deliveries&) = delete;

  void post(const Delivery& delivery);

 private:
  class Queue;
  class Webhook;
  class Program;
  std::unique_ptr<Webhook> webhook_;
  std::unique_ptr<Program> program_;
};

}  // namespace command
