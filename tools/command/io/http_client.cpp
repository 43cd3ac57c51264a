#include "command/io/http_client.hpp"

#if defined(FACENET_CURL)
#  include <curl/curl.h>

#  include <memory>
#endif

namespace command {

#if defined(FACENET_CURL)

namespace {

constexpr long connect_s = 10;

struct Transfer {
  CURL* handle;
  const HttpRequest& request;
  bool began = false, ended = false;  // ended: `take` has had enough
};

std::size_t on_body(char* bytes, std::size_t, std::size_t count, void* context) {
  Transfer& t = *static_cast<Transfer*>(context);
  long status = 0;
  curl_easy_getinfo(t.handle, CURLINFO_RESPONSE_CODE, &status);
  if (!t.request.take || status >= 300) return count;  // an error's page is not what was asked for
  if (!t.began && t.request.type) {
    const char* type = nullptr;
    curl_easy_getinfo(t.handle, CURLINFO_CONTENT_TYPE, &type);
    t.request.type(type != nullptr ? type : "");
  }
  if (!t.began && t.request.begin && !t.request.begin(status)) {
    t.ended = true;
    return 0;
  }
  t.began = true;
  if (t.request.take(reinterpret_cast<const std::uint8_t*>(bytes), count)) return count;
  t.ended = true;
  return 0;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(context)->request.stopped() ? 1 : 0;
}

/// http and https alone, whatever libcurl was built with.
void allow_protocols(CURL* handle) {
#  if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#  else
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  curl_easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#  endif
}

}  // namespace

bool HttpClient::available() {
  static const bool started = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return started;
}

HttpClient::HttpClient() : handle_(available() ? curl_easy_init() : nullptr) {}
HttpClient::~HttpClient() { curl_easy_cleanup(handle_); }

HttpAnswer HttpClient::send(const HttpRequest& request) {
  if (handle_ == nullptr) return {0, "libcurl cannot be started"};
  Transfer t{handle_, request};
  curl_easy_reset(handle_);  // options; the connection stays
  curl_easy_setopt(handle_, CURLOPT_URL, request.url.c_str());
  allow_protocols(handle_);
  curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);  // several threads
  curl_easy_setopt(handle_, CURLOPT_CONNECTTIMEOUT, connect_s);
  curl_easy_setopt(handle_, CURLOPT_USERAGENT, "facenet");
  curl_easy_setopt(handle_, CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC | CURLAUTH_DIGEST));
  curl_easy_setopt(handle_, CURLOPT_FOLLOWLOCATION, request.redirections > 0 ? 1L : 0L);
  curl_easy_setopt(handle_, CURLOPT_MAXREDIRS, request.redirections);
  curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_LIMIT, request.silent_s > 0 ? 1L : 0L);
  curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_TIME, request.silent_s);
  curl_easy_setopt(handle_, CURLOPT_TIMEOUT, request.total_s);
  curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(handle_, CURLOPT_WRITEDATA, &t);
  if (request.stopped) {
    curl_easy_setopt(handle_, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle_, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(handle_, CURLOPT_XFERINFODATA, &t);
  }
  std::vector<std::string> lines = request.headers;
  if (request.json != nullptr) {
    lines.insert(lines.end(), {"Content-Type: application/json", "Expect:"});  // no round trip before the body
    curl_easy_setopt(handle_, CURLOPT_POSTFIELDS, request.json->c_str());
    curl_easy_setopt(handle_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json->size()));
  }
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_slist_free_all);
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) return {0, "there is no memory"};
    (void)headers.release();
    headers.reset(longer);
  }
  curl_easy_setopt(handle_, CURLOPT_HTTPHEADER, headers.get());
  HttpAnswer answer;
  const CURLcode code = curl_easy_perform(handle_);
  curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &answer.status);
  if (code != CURLE_OK && !t.ended) answer.failure = curl_easy_strerror(code);
  return answer;
}

#else

bool HttpClient::available() { return false; }
HttpClient::HttpClient() = default;
HttpClient::~HttpClient() = default;
HttpAnswer HttpClient::send(const HttpRequest&) { return {0, "this program was built without libcurl"}; }

#endif

}  // namespace command
