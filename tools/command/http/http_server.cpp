// The only unit that includes Boost: half a minute to compile. All of Server and of its sessions runs on the thread
// that called run(), so there is nothing to lock; workers come back to it with post().
#include "command/http/http_server.hpp"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <list>
#include <new>
#include <optional>
#include <unordered_set>
#include <utility>

#include "command/http/access_log.hpp"
#include "command/http/keys.hpp"
#include "command/http/rate_limit.hpp"
#include "command/http/worker_pool.hpp"

namespace command::service {

namespace net = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Protocol = net::generic::stream_protocol;  // TCP and Unix sockets alike
using Socket = Protocol::socket;
using Acceptor = net::basic_socket_acceptor<Protocol>;
using TlsStream = net::ssl::stream<Socket>;
using Clock = std::chrono::steady_clock;

namespace {

constexpr double linger_seconds = 2;          // after an answer that came before the request's end
constexpr double slowest_reader = 64 * 1024;  // bytes a second of a long answer
constexpr int client_gone = 499;              // nginx's number, in log and metrics alone

double seconds_now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::string without_spaces(boost::beast::string_view text) {
  std::string word(text.data(), text.size());
  word.erase(word.find_last_not_of(" \t") + 1);
  return word.erase(0, std::min(word.find_first_not_of(" \t"), word.size()));
}

std::string in_lower_case(boost::beast::string_view text) {
  std::string word(text.data(), text.size());
  for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return word;
}

/// Where a socket is bound to or connected with, as text, and whether nobody from outside can reach it.
struct Address {
  std::string text;
  bool loopback = false, local_socket = false;
};

Address describe(const sockaddr* address, std::size_t size) {
  Address described;
  if (address->sa_family == AF_UNIX) {
    described.local_socket = described.loopback = true;
    sockaddr_un local{};
    std::memcpy(&local, address, std::min(size, sizeof local));
    described.text =
        std::string("unix:") + std::string(local.sun_path, ::strnlen(local.sun_path, sizeof local.sun_path));
    return described;
  }
  net::ip::tcp::endpoint endpoint;
  endpoint.resize(std::min(size, endpoint.capacity()));
  std::memcpy(endpoint.data(), address, std::min(size, endpoint.capacity()));
  const net::ip::address ip = endpoint.address();
  described.loopback = ip.is_loopback();
  if (ip.is_v6() && ip.to_v6().is_v4_mapped())
    described.loopback = net::ip::make_address_v4(net::ip::v4_mapped, ip.to_v6()).is_loopback();
  described.text = (ip.is_v6() ? "[" + ip.to_string() + "]" : ip.to_string()) + ":" + std::to_string(endpoint.port());
  return described;
}

Address bound_address(int descriptor) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
  return describe(reinterpret_cast<const sockaddr*>(&storage), size);
}

/// The name in a Host header, without its port.
std::string host_name(const std::string& host) {
  if (!host.empty() && host.front() == '[') return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

bool is_loopback_name(const std::string& name) {
  if (name == "localhost" || name == "[::1]") return true;
  error_code ec;
  const auto address = net::ip::make_address_v4(name, ec);
  return !ec && address.is_loopback();
}

Response busy(const char* message) {
  Response response = error(503, message);
  response.headers["Retry-After"] = "1";
  return response;
}

/// The routes that every server has, for whoever operates it.
bool is_own(const Route& route) {
  return route.pattern == "/health" || route.pattern == "/ready" || route.pattern == "/metrics";
}

}  // namespace

class HttpServer::Server {
 public:
  Server(ServerOptions options, Metrics& metrics, std::function<void(const std::string&)> report)
      : options_(std::move(options)),
        metrics_(metrics),
        report_(std::move(report)),
        limit_(options_.rate),
        workers_(static_cast<std::size_t>(options_.queue)) {}

  std::string open(const std::vector<int>& inherited);
  bool run(std::vector<Route> routes);
  std::vector<std::string> addresses() const;

  // What sessions use.
  class Session;
  template <class Stream>
  class SessionOn;

  net::io_context& context() { return context_; }
  const ServerOptions& options() const { return options_; }
  bool draining() const { return draining_; }
  bool has_keys() const { return !keys_.empty(); }

  /// What is known of a request once its header is there: its answer already, or the route that it takes.
  struct Verdict {
    std::optional<Response> answer;
    const Route* route = nullptr;
    std::size_t most_body = 0;
  };
  Verdict judge(Request& request, const Address& peer, bool tls, std::optional<std::uint64_t> length);
  /// The headers that every answer has, and those for a page of another origin that --cors names.
  void add_headers(const Request& request, Response& response) const;
  /// Room for a body in memory.
  bool reserve(std::size_t bytes) {
    if (bytes > options_.most_buffered - buffered_) return false;
    buffered_ += bytes;
    return true;
  }
  void release(std::size_t bytes) { buffered_ -= bytes; }
  /// The session must not change the request until its answer is there.
  void handle(const std::shared_ptr<Session>& session, const Route& route, const Request& request);
  Response call(const Route& route, const Request& request) const;
  void log(const Request& request, const std::string& method, const Route* route, int status, std::size_t bytes,
           double seconds);
  void add(Session* session) { sessions_.insert(session); }
  void remove(Session* session) {
    sessions_.erase(session);
    if (draining_ && sessions_.empty()) end();
  }

 private:
  struct Listener {
    Acceptor acceptor;
    Address address;
    std::string made_file;  // of a Unix socket, removed at the end
    net::steady_timer pause;
  };

  std::string listen_on(const std::string& text);
  std::string adopt(int descriptor);
  std::string load_certificate(std::shared_ptr<net::ssl::context>& into) const;
  void raise_file_limit();
  void accept(Listener& listener);
  void take(Socket socket, const Address& at);
  void wait_for_signal();
  void reload();
  void drain();
  void end();
  bool is_known_origin(const std::string& origin) const {
    return std::find(options_.cors.begin(), options_.cors.end(), origin) != options_.cors.end();
  }
  std::optional<Response> refuse_strangers(const Request& request, const Address& peer, bool tls) const;
  std::vector<Route> own_routes();

  ServerOptions options_;
  Metrics& metrics_;
  std::function<void(const std::string&)> report_;
  net::io_context context_{1};
  net::signal_set signals_{context_};
  net::steady_timer drain_timer_{context_};
  std::list<Listener> listeners_;
  std::shared_ptr<net::ssl::context> tls_;
  Keys keys_;
  RateLimit limit_;
  AccessLog log_;
  std::optional<Router> router_;
  std::unordered_set<Session*> sessions_;
  WorkerPool workers_;
  std::size_t buffered_ = 0;
  bool draining_ = false, drained_ = true;
};

// ---- A connection ---------------------------------------------------------------------------------------------------

class HttpServer::Server::Session : public std::enable_shared_from_this<Session> {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;
  /// The answer to the request at hand, on the thread of the sockets.
  virtual void answer(Response&& response) = 0;
  /// Closes the connection where no request is under way.
  virtual void stop_if_idle() = 0;
  /// Whether the client closed the connection; from any thread, while a request is with a worker.
  virtual bool is_gone() const = 0;
};

template <class Stream>
class HttpServer::Server::SessionOn final : public Session {
 public:
  static constexpr bool tls = std::is_same_v<Stream, TlsStream>;

  template <class... Arguments>
  SessionOn(Server& server, Address peer, Socket&& socket, Arguments&... context)
      : server_(server),
        peer_(std::move(peer)),
        stream_(std::move(socket), context...),
        deadline_(server.context()),
        buffer_(server.options().most_header + 65536) {
    server_.add(this);
  }
  ~SessionOn() override {
    server_.release(reserved_);
    server_.remove(this);
  }

  void start(std::shared_ptr<net::ssl::context> context) {
    context_ = std::move(context);
    arm(server_.options().header_seconds);
    if constexpr (tls) {
      stream_.async_handshake(net::ssl::stream_base::server, [self = self()](error_code ec) {
        if (!ec) self->wait();
      });
    } else {
      wait();
    }
  }

  void answer(Response&& response) override {
    server_.add_headers(request_, response);
    const bool early = !parser_ || !parser_->is_done();  // more of the request is to come, for nobody
    close_ = close_ || early || server_.draining();
    status_ = response.status;
    bytes_ = response.body.size();
    message_ = {};
    message_.version(version_);
    message_.result(static_cast<unsigned>(response.status));
    const bool bodiless = response.status == 204 || response.status == 304;
    if (!bodiless) message_.set(http::field::content_type, response.type);
    for (const auto& [name, value] : response.headers)
      if (value.find_first_of("\r\n") == std::string::npos) message_.set(name, value);
    message_.keep_alive(!close_);
    message_.body() = std::move(response.body);
    if (!bodiless) message_.content_length(message_.body().size());
    serializer_.emplace(message_);
    phase_ = Phase::writing;
    arm(server_.options().body_seconds + static_cast<double>(bytes_) / slowest_reader);
    const auto written = [self = self()](error_code ec, std::size_t) { self->after_answer(ec); };
    if (head_)
      http::async_write_header(stream_, *serializer_, written);
    else
      http::async_write(stream_, *serializer_, written);
  }

  void stop_if_idle() override {
    if (phase_ == Phase::waiting && buffer_.size() == 0) close();
  }

  bool is_gone() const override {
    char byte;
    const ssize_t n = ::recv(const_cast<SessionOn*>(this)->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
  }

 private:
  enum class Phase { waiting, reading_header, reading_body, handling, writing, lingering };

  std::shared_ptr<SessionOn> self() { return std::static_pointer_cast<SessionOn>(this->shared_from_this()); }

  typename Stream::lowest_layer_type& socket() { return stream_.lowest_layer(); }

  void close() {
    error_code ignored;
    deadline_.cancel();
    socket().shutdown(Socket::shutdown_both, ignored);
    socket().close(ignored);
  }

  /// From now on there are so many seconds, however many bytes come.
  void arm(double seconds) {
    deadline_.expires_after(duration_of(seconds));
    deadline_.async_wait([weak = this->weak_from_this()](error_code ec) {
      const auto self = std::static_pointer_cast<SessionOn>(weak.lock());
      if (!ec && self && self->deadline_.expiry() <= Clock::now()) self->out_of_time();
    });
  }

  void out_of_time() {
    const bool reading = phase_ == Phase::reading_header || phase_ == Phase::reading_body;
    if (!reading || timed_out_) return close();
    timed_out_ = true;  // the read ends now, and answers 408
    error_code ignored;
    socket().cancel(ignored);
    arm(1);  // where it had just ended, and another began
  }

  /// For the first byte of the next request, without a buffer for it.
  void wait() {
    if (server_.draining() && !first_) return close();
    phase_ = Phase::waiting;
    head_ = false;
    parser_.reset();
    serializer_.reset();
    message_ = {};
    request_ = {};
    method_.clear();
    route_ = nullptr;
    if (buffer_.size() > 0) return read_header();
    buffer_.shrink_to_fit();
    if (!first_) arm(server_.options().idle_seconds);
    if constexpr (tls) {
      stream_.async_read_some(buffer_.prepare(1024), [self = self()](error_code ec, std::size_t size) {
        self->buffer_.commit(size);
        if (!ec) self->read_header();
      });
    } else {
      stream_.async_wait(Socket::wait_read, [self = self()](error_code ec) {
        if (!ec) self->read_header();
      });
    }
  }

  void read_header() {
    if (!first_) arm(server_.options().header_seconds);  // the first: since the connection
    first_ = false;
    phase_ = Phase::reading_header;
    began_ = Clock::now();
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(server_.options().most_header));
    parser_->body_limit(std::numeric_limits<std::uint64_t>::max());  // judge() knows it
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = self()](error_code ec, std::size_t) { self->after_header(ec); });
  }

  /// Tells the client what is wrong with what it sends, where there is a client.
  void refuse_read(error_code ec) {
    static const boost::system::error_category& parsing = http::make_error_code(http::error::bad_method).category();
    if (!timed_out_ &&
        (ec.category() != parsing || ec == http::error::end_of_stream || ec == http::error::partial_message))
      return close();
    close_ = true;
    if (ec == http::error::header_limit || ec == http::error::buffer_overflow)
      answer(error(431, "The request's header is too large."));
    else if (ec == http::error::body_limit)
      answer(error(413, "The request's body is larger than this server takes."));
    else if (timed_out_)
      answer(error(408, "The request took too long to arrive."));
    else if (ec == http::error::bad_version)
      answer(error(505, "This server speaks HTTP/1.1."));
    else
      answer(error(400, "The request is no HTTP that this server understands."));
  }

  void after_header(error_code ec) {
    if (!ec && timed_out_) ec = net::error::operation_aborted;
    if (ec) return refuse_read(ec);
    const auto& message = parser_->get();
    version_ = message.version();
    close_ = !parser_->keep_alive();
    method_ = std::string(message.method_string());
    request_.method = method_;
    head_ = method_ == "HEAD";
    if (head_) request_.method = "GET";
    request_.peer = peer_.local_socket ? "unix" : peer_.text.substr(0, peer_.text.rfind(':'));
    for (const auto& field : message) {
      std::string& value = request_.headers[in_lower_case(field.name_string())];
      value += (value.empty() ? "" : ", ") + without_spaces(field.value());
    }
    const bool has_length = request_.headers.count("content-length") > 0;
    if (request_.headers.count("transfer-encoding") > 0 && (has_length || !parser_->chunked())) {
      close_ = true;
      return answer(error(400, "The request's transfer-encoding is none that this server takes."));
    }
    std::optional<std::uint64_t> length;
    if (const auto declared = parser_->content_length()) length = *declared;
    if (!parser_->chunked() && !length) length = 0;
    const boost::beast::string_view target = message.target();
    if (!parse_target({target.data(), target.size()}, request_))
      return answer(error(400, "The request's target is no path with a query that this server understands."));
    Verdict verdict = server_.judge(request_, peer_, tls, length);
    route_ = verdict.route;
    if (verdict.answer) return answer(std::move(*verdict.answer));
    read_body(verdict.most_body, length);
  }

  void read_body(std::size_t most, std::optional<std::uint64_t> length) {
    if (parser_->is_done()) return handle();
    const std::size_t room = length ? static_cast<std::size_t>(*length) : most;
    if (!server_.reserve(room)) return answer(busy("The server holds as many bodies as it may; try again later."));
    reserved_ = room;
    parser_->body_limit(most);
    phase_ = Phase::reading_body;
    arm(server_.options().body_seconds);
    const std::string expected = in_lower_case(header(request_, "expect"));
    if (expected.empty() || version_ < 11) return continue_body();
    if (expected != "100-continue") return answer(error(417, "This server knows no expectation but 100-continue."));
    static constexpr char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    net::async_write(stream_, net::buffer(go_on, sizeof go_on - 1), [self = self()](error_code ec, std::size_t) {
      if (ec)
        self->close();
      else
        self->continue_body();
    });
  }

  void continue_body() {
    http::async_read(stream_, buffer_, *parser_, [self = self()](error_code ec, std::size_t) {
      if (!ec && self->timed_out_) ec = net::error::operation_aborted;
      if (ec)
        self->refuse_read(ec);
      else
        self->handle();
    });
  }

  void handle() {
    phase_ = Phase::handling;
    deadline_.cancel();
    began_ = Clock::now();
    request_.body = std::move(parser_->get().body());
    if (route_->immediate) return answer(server_.call(*route_, request_));
    server_.handle(this->shared_from_this(), *route_, request_);
  }

  void after_answer(error_code ec) {
    server_.release(std::exchange(reserved_, 0));
    const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    server_.log(request_, method_, route_, ec ? client_gone : status_, ec ? 0 : bytes_, seconds);
    message_.body() = {};
    request_.body = {};
    if (ec) return close();
    if (close_) return linger();
    wait();
  }

  /// What the client still sends is thrown away for a while: closing now would make its system forget the answer.
  void linger() {
    if (phase_ != Phase::lingering) {
      phase_ = Phase::lingering;
      arm(linger_seconds);
      if constexpr (!tls) {
        error_code ignored;
        socket().shutdown(Socket::shutdown_send, ignored);
      }
    }
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(16384), [self = self()](error_code ec, std::size_t) {
      if (!ec) return self->linger();
      if constexpr (tls) {
        if (self->socket().is_open()) return self->stream_.async_shutdown([self](error_code) { self->close(); });
      }
      self->close();
    });
  }

  Server& server_;
  const Address peer_;
  std::shared_ptr<net::ssl::context> context_;
  Stream stream_;
  net::steady_timer deadline_;
  boost::beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> message_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  Request request_;
  std::string method_;
  const Route* route_ = nullptr;
  Phase phase_ = Phase::waiting;
  Clock::time_point began_ = Clock::now();
  std::size_t reserved_ = 0, bytes_ = 0;
  unsigned version_ = 11;
  int status_ = 0;
  bool first_ = true, head_ = false, close_ = false, timed_out_ = false;
};

// ---- Opening --------------------------------------------------------------------------------------------------------

std::string HttpServer::Server::listen_on(const std::string& text) {
  Listener listener{Acceptor(context_), {}, "", net::steady_timer(context_)};
  error_code ec;
  Protocol::endpoint endpoint;
  constexpr const char* prefix = "unix:";
  const bool local = text.rfind(prefix, 0) == 0;
  if (local) {
    const std::string file = text.substr(std::strlen(prefix));
    if (file.empty() || file.size() >= sizeof(sockaddr_un{}.sun_path))
      return "--listen " + text + ": a Unix socket's name has 1 to 107 bytes; give a shorter one.";
    const net::local::stream_protocol::endpoint at(file);
    Socket probe(context_);
    probe.connect(at, ec);
    if (!ec) return "--listen " + text + ": another process listens there; end it, or give another name.";
    struct stat status {};
    if (::lstat(file.c_str(), &status) == 0 && S_ISSOCK(status.st_mode))
      ::unlink(file.c_str());  // of one that was killed
    endpoint = at;
    listener.made_file = file;
  } else {
    const std::size_t colon = text.rfind(':');
    std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
    if (host == "localhost") host = "127.0.0.1";
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    const auto address = net::ip::make_address(host, ec);
    char* end = nullptr;
    const unsigned long port = colon == std::string::npos ? 65536 : std::strtoul(text.c_str() + colon + 1, &end, 10);
    if (ec || port > 65535 || end == text.c_str() + colon + 1 || *end != 0)
      return "--listen " + text +
             ": is no address with a port; give one such as 127.0.0.1:8000, [::1]:8000 or "
             "unix:/run/facenet.sock.";
    endpoint = net::ip::tcp::endpoint(address, static_cast<unsigned short>(port));
  }
  listener.acceptor.open(endpoint.protocol(), ec);
  if (!ec && !local) listener.acceptor.set_option(net::socket_base::reuse_address(true), ec);
  if (!ec && endpoint.protocol().family() == AF_INET6) listener.acceptor.set_option(net::ip::v6_only(true), ec);
  if (!ec) {
    // Whoever may write to a Unix socket may call: its owner, and with keys its group too, such as a proxy's.
    const mode_t before = local ? ::umask(has_keys() ? 0117 : 0177) : 0;
    listener.acceptor.bind(endpoint, ec);
    if (local) ::umask(before);
  }
  if (!ec) listener.acceptor.listen(net::socket_base::max_listen_connections, ec);
  if (ec) return "--listen " + text + ": this address cannot be used: " + ec.message() + "; give another one.";
  listener.address = bound_address(listener.acceptor.native_handle());
  listeners_.push_back(std::move(listener));
  return "";
}

std::string HttpServer::Server::adopt(int descriptor) {
  const Address address = bound_address(descriptor);
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  error_code ec;
  if (address.text.empty() || ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    return "a descriptor that the service manager handed over is no socket; correct its unit.";
  Listener listener{Acceptor(context_), address, "", net::steady_timer(context_)};
  listener.acceptor.assign(Protocol(storage.ss_family, address.local_socket ? 0 : IPPROTO_TCP), descriptor, ec);
  if (ec) return "the socket " + address.text + " of the service manager cannot be used: " + ec.message() + ".";
  listeners_.push_back(std::move(listener));
  return "";
}

std::string HttpServer::Server::load_certificate(std::shared_ptr<net::ssl::context>& into) const {
  auto context = std::make_shared<net::ssl::context>(net::ssl::context::tls_server);
  error_code ec;
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  // A key that wants a password: nobody is there to type it.
  context->set_password_callback([](std::size_t, net::ssl::context::password_purpose) { return std::string(); }, ec);
  context->use_certificate_chain_file(options_.certificate, ec);
  if (ec) return options_.certificate + ": is no certificate in PEM that can be read; give the chain, leaf first.";
  context->use_private_key_file(options_.key, net::ssl::context::pem, ec);
  if (ec || SSL_CTX_check_private_key(context->native_handle()) != 1)
    return options_.key + ": is no private key in PEM, without a password, of that certificate; give its key.";
  into = std::move(context);
  return "";
}

void HttpServer::Server::raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  constexpr rlim_t others = 256;  // galleries, weights, pictures
  if (limit.rlim_cur < static_cast<rlim_t>(options_.connections) + others)
    options_.connections = static_cast<int>(std::max<rlim_t>(limit.rlim_cur, others + 1) - others);
}

std::string HttpServer::Server::open(const std::vector<int>& inherited) {
  raise_file_limit();
  std::string wrong;
  if (!options_.keys.empty()) wrong = keys_.load(options_.keys);
  if (wrong.empty() && options_.certificate.empty() != options_.key.empty())
    wrong = "--cert and --key go together; give both.";
  if (wrong.empty() && !options_.certificate.empty()) wrong = load_certificate(tls_);
  for (const std::string& address : options_.listen)
    if (wrong.empty()) wrong = listen_on(address);
  for (const int descriptor : inherited)
    if (wrong.empty()) wrong = adopt(descriptor);
  if (wrong.empty()) wrong = log_.open(options_.access_log);
  if (!wrong.empty()) return wrong;
  for (const Listener& listener : listeners_)
    if (!listener.address.loopback && keys_.empty())
      return "listening on " + listener.address.text +
             " without keys would let everybody in the network see and change "
             "the galleries; give --keys FILE, or listen on 127.0.0.1.";
  return "";
}

std::vector<std::string> HttpServer::Server::addresses() const {
  std::vector<std::string> all;
  for (const Listener& listener : listeners_)
    all.push_back(listener.address.local_socket ? listener.address.text
                                                : (tls_ ? "https://" : "http://") + listener.address.text);
  return all;
}

// ---- Answering ------------------------------------------------------------------------------------------------------

/// Without keys a page of any site could call this server through its visitor's browser: by its address, since nothing
/// asks a browser for a key, or by a name of the site's that suddenly means 127.0.0.1 (DNS rebinding).
std::optional<Response> HttpServer::Server::refuse_strangers(const Request& request, const Address& peer,
                                                             bool tls) const {
  const std::string& host = header(request, "host");
  const std::string& origin = header(request, "origin");
  if (!peer.local_socket && !host.empty() && !is_loopback_name(in_lower_case(host_name(host))))
    return error(403, "Without keys this server answers to localhost alone: start it with --keys.");
  const bool own = origin == (tls ? "https://" : "http://") + host;
  if (!origin.empty() && !own && !is_known_origin(origin))
    return error(403, "Pages of this origin may not call this server: name the origin in --cors.");
  return {};
}

HttpServer::Server::Verdict HttpServer::Server::judge(Request& request, const Address& peer, bool tls,
                                                      std::optional<std::uint64_t> length) {
  Verdict verdict;
  if (!has_keys()) {
    verdict.answer = refuse_strangers(request, peer, tls);
    if (verdict.answer) return verdict;
  }
  const Router::Match match = router_->find(request);
  verdict.route = match.route;
  if (request.method == "OPTIONS" && is_known_origin(header(request, "origin")) && !match.allowed.empty()) {
    verdict.answer = Response{204, "", "", {}};
    verdict.answer->headers["Access-Control-Allow-Methods"] = match.allowed;
    verdict.answer->headers["Access-Control-Allow-Headers"] = "x-api-key, authorization, content-type";
    verdict.answer->headers["Access-Control-Max-Age"] = "600";
    return verdict;
  }
  // Whoever has no key learns nothing of which paths there are.
  Keys::Found found{Right::admin, ""};
  const Right needed = match.route != nullptr ? match.route->right : Right::read;
  if (has_keys()) {
    std::string key = header(request, "x-api-key");
    const std::string& bearer = header(request, "authorization");
    constexpr std::size_t prefix = 7;
    if (key.empty() && in_lower_case(bearer.substr(0, prefix)) == "bearer ") key = bearer.substr(prefix);
    if (match.route != nullptr && key.empty() && !match.route->key_parameter.empty())
      key = request.parameters[match.route->key_parameter];
    found = key.empty() ? Keys::Found{} : keys_.find(key);
    const bool open_to_operator = match.route != nullptr && is_own(*match.route) && peer.loopback;
    if (found.id.empty() && needed != Right::none && !open_to_operator) {
      verdict.answer = error(401, "This needs a key that the server knows, in the header x-api-key.");
      verdict.answer->headers["WWW-Authenticate"] = "Bearer";
      return verdict;
    }
    if (!open_to_operator && needed > found.right) {
      verdict.answer = error(403, "The key does not have the right to do this.");
      request.key_id = found.id;
      return verdict;
    }
  }
  request.right = found.right;
  request.key_id = found.id;
  if (!limit_.take(found.id.empty() ? request.peer : found.id, seconds_now())) {
    verdict.answer = error(429, "This key has sent more requests a second than it may; send fewer.");
    verdict.answer->headers["Retry-After"] = "1";
    return verdict;
  }
  if (match.route == nullptr && match.allowed.empty()) {
    verdict.answer = error(404, "There is no such path; /openapi.json names all.");
    return verdict;
  }
  if (match.route == nullptr) {
    verdict.answer = error(405, "This path has no such method.");
    verdict.answer->headers["Allow"] = match.allowed;
    return verdict;
  }
  verdict.most_body = match.route->most_body != 0 ? match.route->most_body : options_.most_body;
  if (length && *length > verdict.most_body) {
    verdict.answer = error(413, "The request's body is larger than this server takes.");
  } else if (!match.route->immediate && workers_.full()) {
    verdict.answer = busy("As many requests wait as may; try again later.");
  }
  return verdict;
}

void HttpServer::Server::add_headers(const Request& request, Response& response) const {
  auto& headers = response.headers;
  headers.emplace("Cache-Control", "no-store");
  headers.emplace("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  headers.emplace("Cross-Origin-Resource-Policy", "same-origin");
  headers.emplace("Referrer-Policy", "no-referrer");
  headers.emplace("X-Content-Type-Options", "nosniff");
  if (options_.cors.empty()) return;
  headers["Vary"] = "Origin";
  const std::string& origin = header(request, "origin");
  if (!is_known_origin(origin)) return;
  headers["Access-Control-Allow-Origin"] = origin;
  headers["Cross-Origin-Resource-Policy"] = "cross-origin";
}

Response HttpServer::Server::call(const Route& route, const Request& request) const {
  try {
    return route.handler(request);
  } catch (HttpError& e) {
    Response response = error(e.status, e.message, e.code);
    response.headers = std::move(e.headers);
    return response;
  } catch (const std::bad_alloc&) {
    report_("there was not enough memory for a request of " + route.pattern + "; free some, or lower --queue.");
    return error(503, "The server has not enough memory for this.");
  } catch (const std::exception& e) {
    report_("a request of " + route.pattern + " failed: " + e.what());
  } catch (...) {
    report_("a request of " + route.pattern + " failed.");
  }
  return error(500, "The server failed; its operator finds the reason in its messages.");
}

void HttpServer::Server::handle(const std::shared_ptr<Session>& session, const Route& route, const Request& request) {
  const bool added = workers_.add([this, session, &route, &request] {
    auto response = std::make_shared<Response>();
    if (session->is_gone())
      response->status = client_gone;
    else
      *response = call(route, request);
    net::post(context_, [session, response] { session->answer(std::move(*response)); });
  });
  if (!added) session->answer(busy("As many requests wait as may; try again later."));
}

void HttpServer::Server::log(const Request& request, const std::string& method, const Route* route, int status,
                             std::size_t bytes, double seconds) {
  static const char* known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
  const bool named = std::find(std::begin(known), std::end(known), method) != std::end(known);
  const std::string word = named ? method : "other", pattern = route != nullptr ? route->pattern : "none";
  metrics_.count_request(pattern, word, status);
  if (route != nullptr && !route->immediate) metrics_.add_time(Stage::total, seconds);
  log_.add({word, pattern, request.key_id, status, bytes, seconds * 1000});
}

std::vector<Route> HttpServer::Server::own_routes() {
  const auto text = [](std::string body) {
    Response response;
    response.body = std::move(body);
    return response;
  };
  std::vector<Route> routes;
  routes.push_back({"GET", "/health", Right::read, [=](const Request&) { return text("{\"status\":\"ok\"}"); }, true});
  routes.push_back({"GET", "/ready", Right::read,
                    [this, text](const Request&) {
                      if (draining_) return error(503, "The server is about to end.");
                      return text("{\"status\":\"ready\"}");
                    },
                    true});
  routes.push_back({"GET", "/metrics", Right::read,
                    [this, text](const Request&) {
                      Response response = text(metrics_.text());
                      response.type = "text/plain; version=0.0.4; charset=utf-8";
                      return response;
                    },
                    true});
  return routes;
}

// ---- Running --------------------------------------------------------------------------------------------------------

void HttpServer::Server::accept(Listener& listener) {
  listener.acceptor.async_accept([this, &listener](error_code ec, Socket socket) {
    if (ec == net::error::operation_aborted || !listener.acceptor.is_open()) return;
    if (ec) {  // no descriptor is left: some will be, and the clients wait
      listener.pause.expires_after(std::chrono::milliseconds(100));
      listener.pause.async_wait([this, &listener](error_code stopped) {
        if (!stopped) accept(listener);
      });
      return;
    }
    take(std::move(socket), listener.address);
    accept(listener);
  });
}

void HttpServer::Server::take(Socket socket, const Address& at) {
  error_code ec;
  if (sessions_.size() >= static_cast<std::size_t>(options_.connections)) {
    metrics_.count("facenet_connections_refused_total");
    static constexpr char full[] =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    socket.non_blocking(true, ec);
    if (!tls_) socket.write_some(net::buffer(full, sizeof full - 1), ec);
    return;
  }
  Address peer{"unix", true, true};
  if (!at.local_socket) {
    const auto remote = socket.remote_endpoint(ec);
    if (ec) return;  // gone already
    peer = describe(remote.data(), remote.size());
    socket.set_option(net::ip::tcp::no_delay(true), ec);
  }
  if (tls_)
    std::make_shared<SessionOn<TlsStream>>(*this, peer, std::move(socket), *tls_)->start(tls_);
  else
    std::make_shared<SessionOn<Socket>>(*this, peer, std::move(socket))->start(nullptr);
}

void HttpServer::Server::wait_for_signal() {
  signals_.async_wait([this](error_code ec, int signal) {
    if (ec) return;
    wait_for_signal();  // first: at the end of drain() nobody may wait for one
    if (signal == SIGHUP)
      reload();
    else
      drain();
  });
}

void HttpServer::Server::reload() {
  if (!options_.keys.empty()) {
    const std::string wrong = keys_.load(options_.keys);
    report_(wrong.empty() ? "the keys were read again: there are " + std::to_string(keys_.size()) + "."
                          : wrong + " The keys from before stay in force.");
  }
  if (tls_) {
    const std::string wrong = load_certificate(tls_);
    report_(wrong.empty() ? "the certificate was read again." : wrong + " The one from before stays in use.");
  }
  log_.reopen();
}

void HttpServer::Server::drain() {
  if (std::exchange(draining_, true)) {  // asked twice: at once
    drained_ = sessions_.empty();
    return context_.stop();
  }
  notify_service_manager("STOPPING=1");
  for (Listener& listener : listeners_) {
    error_code ignored;
    listener.acceptor.close(ignored);
    if (!listener.made_file.empty()) ::unlink(listener.made_file.c_str());
  }
  const std::vector<Session*> now(sessions_.begin(), sessions_.end());
  for (Session* session : now) session->stop_if_idle();
  drain_timer_.expires_after(duration_of(options_.drain_seconds));
  drain_timer_.async_wait([this](error_code ec) {
    if (ec) return;
    drained_ = false;
    context_.stop();
  });
  if (sessions_.empty()) end();
}

void HttpServer::Server::end() {
  drain_timer_.cancel();
  signals_.cancel();
}

bool HttpServer::Server::run(std::vector<Route> routes) {
  for (Route& route : own_routes()) routes.push_back(std::move(route));
  router_.emplace(std::move(routes));
  metrics_.add_gauge("facenet_queue_length", "Requests that wait for a worker.",
                     [this] { return static_cast<double>(workers_.waiting()); });
  metrics_.add_gauge("facenet_connections", "Connections at this moment.",
                     [this] { return static_cast<double>(sessions_.size()); });
  metrics_.add_gauge("facenet_body_bytes", "Memory that is set aside for bodies of requests.",
                     [this] { return static_cast<double>(buffered_); });
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) signals_.add(signal);
  wait_for_signal();
  workers_.start(options_.workers);
  for (Listener& listener : listeners_) accept(listener);
  notify_service_manager("READY=1");
  context_.run();
  if (drained_) workers_.finish();
  return drained_;
}

// ---- The service manager --------------------------------------------------------------------------------------------

std::vector<int> inherited_sockets() {
  constexpr int first = 3;
  const char* process = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  std::vector<int> sockets;
  if (process != nullptr && count != nullptr && std::atol(process) == static_cast<long>(::getpid()))
    for (int i = 0; i < std::atoi(count) && i < 64; ++i) {
      ::fcntl(first + i, F_SETFD, FD_CLOEXEC);
      sockets.push_back(first + i);
    }
  for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(variable);
  return sockets;
}

void notify_service_manager(const std::string& state) {
  const char* name = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  const std::size_t size = name != nullptr ? std::strlen(name) : 0;
  if (size < 2 || size >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name, size);
  if (name[0] == '@') address.sun_path[0] = 0;
  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
  if (::sendto(descriptor, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
               length) < 0) {
    // It waits for READY=1 in vain, and says so itself.
  }
  ::close(descriptor);
}

// ---- The door -------------------------------------------------------------------------------------------------------

HttpServer::HttpServer(ServerOptions options, Metrics& metrics, std::function<void(const std::string&)> report)
    : server_(std::make_unique<Server>(std::move(options), metrics, std::move(report))) {}
HttpServer::~HttpServer() = default;
std::string HttpServer::open(const std::vector<int>& inherited) { return server_->open(inherited); }
std::vector<std::string> HttpServer::addresses() const { return server_->addresses(); }
bool HttpServer::run(std::vector<Route> routes) { return server_->run(std::move(routes)); }

}  // namespace command::service
