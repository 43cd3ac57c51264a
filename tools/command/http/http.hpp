// A request and its answer, as the handlers of `facenet serve` see them. Nothing here knows of sockets, and nothing in
// this folder knows of faces: it is compiled once, for any CPU, and linked once.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace command::service {

/// What a key allows. admin includes enroll, enroll includes read.
enum class Right { none, read, enroll, admin };

/// One part of a multipart/form-data body. `data` points into the request's body.
struct Part {
  std::string name, filename, type;
  std::string_view data;
};

struct Request {
  std::string method;                             // "GET"; HEAD is served as GET without its body
  std::string path;                               // "/api/v1/recognition/recognize", percent-decoded, without the query
  std::vector<std::string> segments;              // of the path, each decoded by itself: a name may hold %2F
  std::map<std::string, std::string> parameters;  // of the route: {"name": "Ada"} for "/v1/galleries/{name}"
  std::map<std::string, std::string> query;       // decoded; of one that is given twice, the last
  std::map<std::string, std::string> headers;     // names in lower case; of one that is given twice, joined by ", "
  std::string body;
  std::string peer;           // the client's address, for limits; never logged with a name
  Right right = Right::none;  // of the key it came with
  std::string key_id;         // stands for the key in limits and logs: no part of the key itself
};

struct Response {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  std::map<std::string, std::string> headers;
};

/// {"message": …, "code": …}, what every error looks like. `code` below 0: the status.
Response error(int status, const std::string& message, int code = -1);

/// What a handler throws for an answer that is an error. The message is a sentence for the client: it names no file of
/// the server's and nobody.
struct HttpError {
  int status;
  std::string message;
  int code = -1;
  std::map<std::string, std::string> headers = {};
};

/// Called on a worker thread. An HttpError becomes its answer; whatever else it throws becomes status 500 without a
/// text of its own, and is reported on stderr.
using Handler = std::function<Response(const Request&)>;

/// A segment of a pattern in braces takes any one segment, and is a parameter. The pattern stands for the path in logs
/// and metrics, where no name may be.
struct Route {
  std::string method, pattern;  // "GET", "/v1/galleries/{name}"
  Right right = Right::read;    // the least that the key has to allow; none: no key is needed
  Handler handler;
  bool immediate = false;     // answered by the thread of the sockets: microseconds, no file, no lock that is held long
  std::size_t most_body = 0;  // bytes; 0: the server's limit
  std::string key_parameter = {};  // of the pattern, which holds the key where no header does; "": a header has to
};

/// Which route a path takes. Of two that match, the one with a word where the other has a parameter, from the left.
class Router {
 public:
  explicit Router(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // null: none
    std::string allowed;           // methods that this path has, "GET, POST"; "": there is no such path
  };
  /// Sets request.parameters. A slash at the end of the path makes no difference.
  Match find(Request& request) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
  std::vector<std::vector<std::string>> patterns_;
};

/// Sets path, segments and query from a request's target. False for what is no target: a path without a slash in front,
/// a percent sign without two hex digits, a NUL, more than `most_fields` segments or parameters.
bool parse_target(std::string_view target, Request& request);
constexpr std::size_t most_fields = 64;

/// The header's value, or "".
const std::string& header(const Request& request, const char* name);

}  // namespace command::service
