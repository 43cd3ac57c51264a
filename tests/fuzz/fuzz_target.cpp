// libFuzzer target of the service's URLs: path, query and route.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude -Itools tests/fuzz/fuzz_target.cpp -o fuzz
#include <cstdint>
#include <cstdlib>
#include <string>

#include "command/http/http.cpp"

using namespace command::service;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Router router({{"GET", "/", Right::none, {}},
                              {"GET", "/v1/galleries/{name}", Right::read, {}},
                              {"GET", "/v1/galleries/{name}/{id}", Right::read, {}},
                              {"GET", "/v1/{kind}/all/img", Right::read, {}},
                              {"GET", "/v1/galleries/all", Right::read, {}}});
  const std::string_view target(reinterpret_cast<const char*>(data), size);
  Request request;
  request.method = "GET";
  if (!parse_target(target, request)) return 0;
  require(request.segments.size() <= most_fields && request.query.size() <= most_fields);
  require(request.path.size() <= size && request.path.find('\0') == std::string::npos);
  for (const auto& [name, value] : request.query) require(name.size() + value.size() < size);
  const Router::Match match = router.find(request);
  require(match.route == nullptr || match.route->method == "GET");
  for (const auto& [name, value] : request.parameters) require(!name.empty() && value.size() <= size);
  return 0;
}
