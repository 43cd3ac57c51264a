// The sockets of `facenet serve`: HTTP/1.1 on TCP and Unix sockets, with TLS or without. One thread (epoll) has all
// connections, so that an idle one costs a few hundred bytes and no thread; handlers run on a fixed number of workers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "command/http/http.hpp"
#include "command/http/metrics.hpp"

namespace command::service {

struct ServerOptions {
  std::vector<std::string> listen;  // "127.0.0.1:8000", "[::1]:8000", "unix:/run/facenet.sock"; port 0: any
  std::string certificate, key;     // PEM files; "": no TLS
  std::string keys;                 // file; "": none, and then on loopback alone
  std::vector<std::string> cors;    // origins whose pages may call, "https://door.example"
  std::string access_log = "-";     // a file, "-": stdout, "none"
  int workers = 1;                  // threads for handlers
  int queue = 256;                  // requests that wait for one: 503 beyond
  int connections = 16000;          // at a time
  std::size_t most_body = 16u << 20, most_header = 16u << 10;  // bytes: 413, 431
  std::size_t most_buffered = 512u << 20;                      // of all bodies at a time: 503 beyond
  double header_seconds = 10,
         body_seconds = 60;   // to send all of it: 408 beyond. An answer is taken in body_seconds too
  double idle_seconds = 75;   // between two requests
  double drain_seconds = 30;  // for what is under way at SIGTERM
  double rate = 1000;         // requests a second and key, 0: any number; 429 beyond
};

/// Sockets that systemd opened (sd_listen_fds(3)); the variables that say so are removed.
std::vector<int> inherited_sockets();
/// Tells systemd, where it started this process (sd_notify(3)): "READY=1".
void notify_service_manager(const std::string& state);

class HttpServer {
 public:
  /// `report` takes sentences for the operator, from any thread.
  HttpServer(ServerOptions options, Metrics& metrics, std::function<void(const std::string&)> report);
  ~HttpServer();

  /// Reads keys and certificate and binds. Returns what is wrong, a sentence, or "".
  std::string open(const std::vector<int>& inherited);
  /// What it listens on: "http://127.0.0.1:8000", "unix:/run/facenet.sock".
  std::vector<std::string> addresses() const;

  /// Answers until SIGTERM or SIGINT; then no new connection is taken, and what is under way is finished. SIGHUP reads
  /// keys and certificate again and opens the access log anew. Adds /health, /ready and /metrics to the routes.
  /// False where drain_seconds did not suffice: threads are at work still, so the process has to end at once.
  bool run(std::vector<Route> routes);

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace command::service
