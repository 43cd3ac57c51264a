// What the service does with bytes before any handler sees them: targets, routes, bodies, keys, limits, metrics.
#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "command/http/http.hpp"
#include "command/http/keys.hpp"
#include "command/http/metrics.hpp"
#include "command/http/multipart.hpp"
#include "command/http/rate_limit.hpp"
#include "command/http/worker_pool.hpp"

using namespace command::service;

namespace {

using Strings = std::vector<std::string>;

Strings segments(const char* target) {
  Request r;
  REQUIRE(parse_target(target, r));
  return r.segments;
}

bool is_target(const std::string& target) {
  Request r;
  return parse_target(target, r);
}

std::string taken(const Router& router, const char* method, const char* target, Request* request = nullptr) {
  Request r;
  r.method = method;
  REQUIRE(parse_target(target, r));
  const Router::Match match = router.find(r);
  if (request != nullptr) *request = r;
  return match.route != nullptr ? match.route->pattern : "405 " + match.allowed;
}

}  // namespace

TEST_CASE("a target becomes segments and a query") {
  CHECK(segments("/") == Strings{});
  CHECK(segments("/a/b") == Strings{"a", "b"});
  CHECK(segments("/a/b/") == Strings{"a", "b"});
  CHECK(segments("/a//b") == Strings{"a", "", "b"});
  CHECK(segments("/a%2Fb/%C3%A9+") == Strings{"a/b", "\xC3\xA9+"});
  Request r;
  REQUIRE(parse_target("/a?x=1&y=a%20b+c&x=2&z&=&&w=a=b#f", r));
  CHECK(r.path == "/a");
  CHECK(r.query == std::map<std::string, std::string>{{"x", "2"}, {"y", "a b c"}, {"z", ""}, {"", ""}, {"w", "a=b"}});
  for (const char* wrong : {"", "a", "*", "http://a/", "/%", "/%4", "/%4g", "/%00", "/a?%zz", "/a?x=%00"})
    CHECK_MESSAGE(!is_target(wrong), wrong);
  std::string deep, wide = "/?";
  for (std::size_t i = 0; i < most_fields; ++i) {
    deep += "/a";
    wide += "a=1&";
  }
  CHECK(is_target(deep));
  CHECK(is_target(wide));
  CHECK(!is_target(deep + "/a"));
  CHECK(!is_target(wide + "a=1"));
}

TEST_CASE("of two routes that match, the one with more words is taken") {
  const Handler none;
  const Router router({{"GET", "/faces/{id}", Right::read, none},
                       {"DELETE", "/faces/{id}", Right::enroll, none},
                       {"POST", "/faces/delete", Right::enroll, none},
                       {"GET", "/faces/all", Right::read, none},
                       {"GET", "/faces/{id}/img", Right::read, none},
                       {"GET", "/{any}/7/img", Right::read, none},
                       {"GET", "/", Right::none, none}});
  CHECK(taken(router, "GET", "/") == "/");
  CHECK(taken(router, "GET", "/faces/all/") == "/faces/all");
  CHECK(taken(router, "GET", "/faces/7/img") == "/faces/{id}/img");
  CHECK(taken(router, "GET", "/x/7/img") == "/{any}/7/img");
  CHECK(taken(router, "PUT", "/faces/7") == "405 GET, DELETE");
  CHECK(taken(router, "GET", "/nothing") == "405 ");
  Request r;
  CHECK(taken(router, "DELETE", "/faces/a%2Fb", &r) == "/faces/{id}");
  CHECK(r.parameters == std::map<std::string, std::string>{{"id", "a/b"}});
}

TEST_CASE("the parts of a multipart body") {
  CHECK(multipart_boundary("multipart/form-data; boundary=abc") == "abc");
  CHECK(multipart_boundary("Multipart/Form-Data ; charset=x; BOUNDARY=\"a b;c\"") == "a b;c");
  CHECK(multipart_boundary("multipart/mixed; boundary=abc").empty());
  CHECK(multipart_boundary("multipart/form-data; boundary=" + std::string(71, 'x')).empty());

  const std::string body =
      "preamble\r\n--abc\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".jpg\"\r\n"
      "content-type: image/jpeg\r\n\r\n\xFF\xD8\r\n--ab\r\n\r\n--abc \r\nContent-Disposition: form-data; name=empty\r\n"
      "\r\n\r\n--abc\r\n\r\nnameless\r\n--abc--\r\nepilogue";
  std::vector<Part> parts;
  REQUIRE(parse_multipart(body, "abc", parts) == "");
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].name == "file");
  CHECK(parts[0].filename == "a \"b\".jpg");
  CHECK(parts[0].type == "image/jpeg");
  CHECK(parts[0].data == "\xFF\xD8\r\n--ab\r\n");
  CHECK(parts[1].name == "empty");
  CHECK(parts[1].data.empty());
  CHECK(parts[2].name.empty());
  CHECK(parts[2].data == "nameless");
  // Cut anywhere before the last boundary's end, it is refused and nothing is read behind it.
  const std::size_t last = body.find("--abc--") + 7;
  for (std::size_t size = 0; size < last; ++size)
    CHECK_MESSAGE(!parse_multipart(std::string(body, 0, size), "abc", parts).empty(), size);
  CHECK(parse_multipart(body, "", parts) != "");
  CHECK(parse_multipart(body, "abcd", parts) != "");

  std::string many, header = "--b\r\nx: " + std::string(most_part_header, 'x') + "\r\n\r\n\r\n--b--";
  for (std::size_t i = 0; i < most_parts; ++i) many += "--b\r\n\r\nx\r\n";
  CHECK(parse_multipart(many + "--b--", "b", parts) == "");
  CHECK(parts.size() == most_parts);
  CHECK(parse_multipart(many + "--b\r\n\r\nx\r\n--b--", "b", parts) == "it has more than 32 parts");
  CHECK(parse_multipart(header, "b", parts) == "a part's header has more than 4096 bytes");
}

TEST_CASE("base64 comes back, in any of its spellings") {
  std::mt19937 random(7);
  std::string bytes, decoded;
  for (int size = 0; size < 70; ++size) {
    const std::string text = encode_base64(bytes);
    CHECK(text.size() == (bytes.size() + 2) / 3 * 4);
    REQUIRE(decode_base64(text, decoded));
    CHECK(decoded == bytes);
    REQUIRE(decode_base64(text.substr(0, text.find('=')), decoded));  // without padding
    CHECK(decoded == bytes);
    bytes.push_back(static_cast<char>(random()));
  }
  REQUIRE(decode_base64("data:image/png;base64,-_+/\r\nAA==", decoded));
  CHECK(decoded == std::string("\xFB\xFF\xBF\0", 4));
  for (const char* wrong : {"A", "AAAAA", "AA=", "A===", "AA==A", "A A*", "data:image/png,AAAA", "data:;base64"})
    CHECK_MESSAGE(!decode_base64(wrong, decoded), wrong);
}

TEST_CASE("keys and their rights") {
  Keys keys;
  const std::string reader = "0123456789abcdef", admin(most_key, 'x');
  REQUIRE(keys.parse("# ours\n\n" + reader + " read\r\n  " + admin + "\tadmin,read # all\n0123456789abcdeg enroll",
                     "f") == "");
  CHECK(keys.find(reader).right == Right::read);
  CHECK(keys.find(reader).id == "key 1");
  CHECK(keys.find(admin).right == Right::admin);
  CHECK(keys.find("0123456789abcdeg").id == "key 3");
  for (const std::string& other :
       {std::string(), reader.substr(1), reader + "0", admin + "x", std::string(100000, 'x')}) {
    CHECK(keys.find(other).id.empty());
    CHECK(keys.find(other).right == Right::none);
  }
  const char* wrong[] = {"",
                         "# none\n",
                         "0123456789abcde read",
                         "0123456789abcdef",
                         "0123456789abcdef reads",
                         "0123456789abcdef read,",
                         "0123456789abcdef read enroll",
                         "0123456789abcdef read\n0123456789abcdef admin"};
  for (const char* text : wrong) {
    const std::string sentence = keys.parse(text, "f");
    CHECK_MESSAGE(sentence.rfind("f: ", 0) == 0, text);
    CHECK_MESSAGE(sentence.find("0123456789abcde") == std::string::npos, sentence);  // no key in a message
  }
  CHECK(keys.size() == 3);  // what holds is what was read last without a fault
}

TEST_CASE("a second's worth of requests may be saved up") {
  RateLimit limit(10);
  int taken = 0;
  for (int i = 0; i < 100; ++i) taken += limit.take("a", 5.0);
  CHECK(taken == 10);
  CHECK(limit.take("b", 5.0));
  CHECK(!limit.take("a", 5.05));
  CHECK(limit.take("a", 5.15));
  taken = 0;
  for (int i = 0; i < 100; ++i) taken += limit.take("a", 1000.0);
  CHECK(taken == 10);
  RateLimit none(0);
  for (int i = 0; i < 100; ++i) CHECK(none.take("a", 0));
}

TEST_CASE("a full queue takes no job, and those in it are done") {
  WorkerPool pool(2);
  std::mutex gate;
  std::atomic<int> started{0}, finished{0};
  const auto job = [&] {
    ++started;
    const std::lock_guard<std::mutex> lock(gate);
    ++finished;
  };
  gate.lock();
  pool.start(1);
  REQUIRE(pool.add(job));
  while (started == 0) std::this_thread::yield();
  CHECK(pool.add(job));
  CHECK(pool.add(job));
  CHECK(pool.full());
  CHECK(!pool.add(job));
  gate.unlock();
  pool.finish();
  CHECK(finished == 3);
}

TEST_CASE("metrics in Prometheus' text format") {
  Metrics metrics;
  metrics.count_request("/v1/x", "GET", 200);
  metrics.count_request("/v1/x", "GET", 200);
  metrics.add_time(Stage::decode, 0.0015);
  metrics.add_time(Stage::decode, 100);
  metrics.count("facenet_things_total");
  metrics.add_gauge(
      "facenet_model_info", "The model.", [] { return 1.0; }, "digest=\"ab\"");
  const std::string text = metrics.text();
  for (const char* line :
       {"facenet_requests_total{route=\"/v1/x\",method=\"GET\",status=\"200\"} 2\n",
        "facenet_stage_seconds_bucket{stage=\"decode\",le=\"0.001\"} 0\n",
        "facenet_stage_seconds_bucket{stage=\"decode\",le=\"0.002\"} 1\n",
        "facenet_stage_seconds_bucket{stage=\"decode\",le=\"60\"} 1\n",
        "facenet_stage_seconds_bucket{stage=\"decode\",le=\"+Inf\"} 2\n",
        "facenet_stage_seconds_sum{stage=\"decode\"} 100.0015\n", "facenet_stage_seconds_count{stage=\"decode\"} 2\n",
        "facenet_things_total 1\n", "# TYPE facenet_model_info gauge\nfacenet_model_info{digest=\"ab\"} 1\n"})
    CHECK_MESSAGE(text.find(line) != std::string::npos, line);
}

TEST_CASE("an error is a message and a code") {
  CHECK(error(404, "No \"x\".").body == R"({"message":"No \"x\".","code":404})");
  CHECK(error(400, "\xFF", 28).body == "{\"message\":\"\xEF\xBF\xBD\",\"code\":28}");
}
