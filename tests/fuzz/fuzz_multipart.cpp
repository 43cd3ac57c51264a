// libFuzzer target of the service's bodies: multipart/form-data and base64.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude -Itools tests/fuzz/fuzz_multipart.cpp -o
//   fuzz
//
// The input's first line is the header content-type, the rest the body.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "command/http/multipart.cpp"

using namespace command::service;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check_parts(const std::string& body, const std::string& boundary) {
  std::vector<Part> parts;
  const std::string wrong = parse_multipart(body, boundary, parts);
  require(parts.size() <= most_parts);
  require(wrong.empty() || wrong.back() != '.');
  for (const Part& part : parts) {
    require(part.data.empty() ||
            (part.data.data() >= body.data() && part.data.data() + part.data.size() <= body.data() + body.size()));
    require(part.data.find("\r\n--" + boundary) == std::string_view::npos);
    require(part.name.size() + part.filename.size() + part.type.size() <= 3 * most_part_header);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\n'), input.size());
  const std::string body = input.substr(std::min(end + 1, input.size()));
  check_parts(body, multipart_boundary(std::string_view(input).substr(0, end)));
  check_parts(body, "b");
  std::string bytes, again;
  if (decode_base64(input, bytes)) require(bytes.size() <= input.size() / 4 * 3 + 3);
  require(decode_base64(encode_base64(input), again) && again == input);
  return 0;
}
