// HTTP by libcurl, for cameras, webhooks and a running CompreFace. Without libcurl every request says so.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace command {

struct HttpRequest {
  std::string url;                    // http or https, and so is what it redirects to
  std::vector<std::string> headers;   // "name: value"
  const std::string* json = nullptr;  // POSTs it; null: GETs
  long redirections = 0;              // that are followed, with the headers
  long silent_s = 0;                  // fails where nothing came for so long; 0: any time
  long total_s = 0;                   // of the whole transfer; 0: any time
  /// Takes the body of an answer below 300, piece by piece, until it returns false, which is no failure.
  std::function<bool(const std::uint8_t*, std::size_t)> take;
  std::function<void(const std::string&)> type;  // Content-Type, before the first piece
  std::function<bool(long)> begin;               // the status, before the first piece; false ends the transfer
  std::function<bool()> stopped;                 // asked about once a second; true ends the transfer
};

struct HttpAnswer {
  long status = 0;      // 0: there was none
  std::string failure;  // "": the transfer went well, whatever the status
};

/// Keeps its connection for the next request. For one thread at a time.
class HttpClient {
 public:
  /// Called once before any thread starts. False: this program was built without libcurl, or it does not start.
  static bool available();

  HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  HttpAnswer send(const HttpRequest& request);

 private:
  void* handle_ = nullptr;  // CURL
};

}  // namespace command
