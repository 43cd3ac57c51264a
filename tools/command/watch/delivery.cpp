#include "command/watch/delivery.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "command/io/http_client.hpp"
#include "command/io/output.hpp"
#include "command/watch/sources.hpp"

extern char** environ;

namespace command {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr std::size_t most_queued = 64;
constexpr int most_tries = 4;
constexpr std::size_t most_programs = 4;
constexpr auto longest_program = seconds(60), longest_end = seconds(15);

}  // namespace

class Deliveries::Queue {
 public:
  explicit Queue(std::string what) : what_(std::move(what)) {}

  void push(const Delivery& d) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.size() >= most_queued) {
      waiting_.pop_front();
      if (dropped_++ == 0) note(what_ + ": events come faster than it takes them, and the oldest are dropped.");
    }
    waiting_.push_back(d);
    changed_.notify_all();
  }
  /// Waits so long at the most. False: nothing came.
  bool pop(Delivery& d, std::chrono::milliseconds wait) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, wait, [&] { return !waiting_.empty() || ending_; });
    if (waiting_.empty()) return false;
    d = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }
  void end() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    last_ = Clock::now() + longest_end;
    changed_.notify_all();
  }
  bool ending() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ending_;
  }
  /// No more time, even for what is queued.
  bool over() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ending_ && Clock::now() >= last_;
  }
  /// Waits so long, or until it is over.
  void pause(std::chrono::milliseconds time) {
    const auto until = Clock::now() + time;
    while (Clock::now() < until && !over()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::uint64_t dropped() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return dropped_;
  }
  const std::string& what() const { return what_; }

 private:
  const std::string what_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Delivery> waiting_;
  std::uint64_t dropped_ = 0;
  bool ending_ = false;
  Clock::time_point last_;
};

class Deliveries::Webhook {
 public:
  explicit Webhook(const std::string& url) : queue(without_secrets(url)), url_(url), thread_([this] { run(); }) {}
  ~Webhook() {
    queue.end();
    thread_.join();
  }
  Queue queue;

 private:
  void run() {
    Delivery d;
    while (!queue.over()) {
      if (queue.pop(d, std::chrono::milliseconds(500)))
        send(d);
      else if (queue.ending())
        return;
    }
  }
  void send(const Delivery& d) {
    HttpRequest request;
    request.url = url_;
    request.json = &d.json;
    request.total_s = 10;
    request.stopped = [this] { return queue.over(); };
    HttpAnswer answer;
    for (int n = 1; n <= most_tries; ++n) {
      answer = client_.send(request);
      const bool refused = answer.status >= 400 && answer.status < 500 && answer.status != 429;
      if (answer.failure.empty() && answer.status >= 200 && answer.status < 300) return;
      if (refused || n == most_tries || queue.over()) break;
      queue.pause(std::chrono::seconds(1 << (n - 1)));
    }
    note(queue.what() + ": an event could not be delivered (" +
         (answer.failure.empty() ? "HTTP status " + std::to_string(answer.status) : answer.failure) + ").");
  }
  const std::string url_;
  HttpClient client_;  // the thread's
  std::thread thread_;
};

class Deliveries::Program {
 public:
  Program(std::string program, std::vector<std::string> arguments)
      : queue(program), program_(std::move(program)), arguments_(std::move(arguments)), thread_([this] { run(); }) {}
  ~Program() {
    queue.end();
    thread_.join();
  }
  Queue queue;

 private:
  struct Child {
    pid_t id;
    Clock::time_point until;
    bool killed;
  };

  void run() {
    Delivery d;
    for (;;) {
      reap();
      if (children_.size() < most_programs && !queue.over()) {
        if (queue.pop(d, std::chrono::milliseconds(children_.empty() ? 500 : 50))) {
          start(d);
          continue;
        }
        if (queue.ending() && children_.empty()) return;
        if (queue.ending()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      if (!queue.over()) continue;
      for (const Child& c : children_) ::kill(c.id, SIGKILL);
      if (children_.empty()) return;
    }
  }

  void reap() {
    for (std::size_t i = 0; i < children_.size();) {
      Child& c = children_[i];
      int status = 0;
      const pid_t ended = ::waitpid(c.id, &status, WNOHANG);
      if (ended == 0) {
        if (!c.killed && Clock::now() >= c.until) {
          c.killed = ::kill(c.id, SIGKILL) == 0;
          note(program_ + ": it took more than 60 seconds over an event, and was ended.");
        }
        ++i;
        continue;
      }
      if (ended > 0 && !c.killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        note(program_ + ": " +
             (WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                                : "signal " + std::to_string(WTERMSIG(status))) +
             " for an event.");
      children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void start(const Delivery& d) {
    std::vector<std::string> environment;
    for (char** at = environ; at != nullptr && *at != nullptr; ++at) environment.emplace_back(*at);
    for (const auto& [name, value] : d.variables) environment.push_back(name + "=" + value);
    std::vector<char*> words, variables;
    words.push_back(program_.data());
    for (std::string& a : arguments_) words.push_back(a.data());
    words.push_back(nullptr);
    for (std::string& v : environment) variables.push_back(v.data());
    variables.push_back(nullptr);

    int ends[2];
    if (::pipe(ends) != 0) return refuse(errno);
    for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&files, ends[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);  // standard output is for our lines
    sigset_t usual;
    ::sigemptyset(&usual);
    ::sigaddset(&usual, SIGPIPE);  // which we ignore
    ::sigaddset(&usual, SIGXFSZ);
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    pid_t child = 0;
    const int error = ::posix_spawnp(&child, program_.c_str(), &files, &attributes, words.data(), variables.data());
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
    ::close(ends[0]);
    if (error == 0) {
      // A line is far below the 64 KiB that a pipe holds, and a child that reads nothing must not stop us.
      ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
      const std::string line = d.json + "\n";
      if (::write(ends[1], line.data(), line.size()) < 0 && errno != EPIPE)
        note(program_ + ": an event could not be handed over.");
      children_.push_back({child, Clock::now() + longest_program, false});
    } else {
      refuse(error);
    }
    ::close(ends[1]);
  }
  void refuse(int error) { note(program_ + ": it cannot be started (" + std::strerror(error) + ")."); }

  std::string program_;
  std::vector<std::string> arguments_;
  std::vector<Child> children_;
  std::thread thread_;
};

Deliveries::Deliveries(const DeliveryOptions& options) {
  if (!options.webhook.empty()) webhook_ = std::make_unique<Webhook>(options.webhook);
  if (!options.program.empty()) program_ = std::make_unique<Program>(options.program, options.arguments);
}
Deliveries::~Deliveries() = default;

void Deliveries::post(const Delivery& d) {
  if (webhook_) webhook_->queue.push(d);
  if (program_) program_->queue.push(d);
}

}  // namespace command
