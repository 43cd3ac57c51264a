// libFuzzer target of the service's JSON bodies, and of bodies with pictures of any type.
//
// with: tools/command/service/call.cpp tools/command/http/http.cpp tools/command/http/multipart.cpp
// with: tools/command/io/escape.cpp src/store/*.cpp -lsqlite3
//
// The input's first byte chooses the type of the body, which is the rest.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "command/service/call.hpp"

using namespace command::service;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

/// Whatever is wrong is an HttpError of the client's, a sentence; nothing else is thrown.
template <class Read>
void read(const Read& read_body) {
  try {
    read_body();
  } catch (const HttpError& e) {
    require(e.status >= 400 && e.status < 500 && !e.message.empty() && e.message.back() == '.');
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  static const char* types[] = {"application/json", "multipart/form-data; boundary=b", "multipart/form-data",
                                "image/png"};
  Request request;
  request.method = "POST";
  request.headers["content-type"] = types[data[0] % 4];
  request.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  Call call;
  call.body.kind = Body::Kind::pictures;
  call.body.fields = {"file"};
  read([&] {
    const Pictures pictures(call, request);
    for (const Picture& p : pictures.all()) require(!p.bytes.empty() && p.bytes.size() <= size);
  });
  request.headers["content-type"] = types[0];
  read([&] {
    const auto json = parse_json(request);
    read([&] { require(!text_of(json, "subject").empty()); });
    read([&] { require(!person_name(text_of(json, "subject")).empty()); });
    read([&] {
      for (const float x : embeddings_of(json.is_object() ? json.value("embeddings", json) : json, 4))
        require(std::isfinite(x));
    });
  });
  return 0;
}
