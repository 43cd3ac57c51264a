#include "command/io/compreface.hpp"

#include <cstdint>

#include "command/io/json.hpp"

namespace command {

namespace {

constexpr std::size_t most_body = std::size_t{64} << 20;  // of one answer

bool plain_id(const std::string& id) {
  return !id.empty() && id.size() <= 64 && id.find_first_not_of("0123456789abcdefABCDEF-") == std::string::npos;
}

}  // namespace

void ComprefaceClient::refuse(const std::string& why) const { throw ComprefaceError(url_ + ": " + why + "."); }

ComprefaceClient::ComprefaceClient(std::string url, std::string key) : url_(std::move(url)), key_(std::move(key)) {
  if (!HttpClient::available())
    refuse("this facenet was built without libcurl, which --compreface needs; build it where libcurl is");
  while (!url_.empty() && url_.back() == '/') url_.pop_back();
  if (url_.compare(0, 7, "http://") != 0 && url_.compare(0, 8, "https://") != 0)
    refuse("this is no address; give one such as http://localhost:8000");
  for (const char c : key_)
    if (c <= ' ' || c > '~') refuse("the key has a character that no key has");
}

std::string ComprefaceClient::get(const std::string& path, long& status) {
  std::string body;
  bool too_long = false;
  HttpRequest request;
  request.url = url_ + "/api/v1/recognition/" + path;
  request.headers = {"x-api-key: " + key_};  // no redirection is followed: the key would go along
  request.silent_s = 60;
  request.take = [&](const std::uint8_t* bytes, std::size_t count) {
    too_long = body.size() + count > most_body;
    if (!too_long) body.append(reinterpret_cast<const char*>(bytes), count);
    return !too_long;
  };
  const HttpAnswer answer = client_.send(request);
  status = answer.status;
  if (too_long) refuse("an answer is longer than 64 MiB");
  if (!answer.failure.empty()) refuse("it does not answer (" + answer.failure + "); check the address");
  if (status == 401 || status == 403) refuse("it does not take this key; give the one of its recognition service");
  return body;
}

std::string ComprefaceClient::get_json(const std::string& path) {
  long status = 0;
  std::string body = get(path, status);
  if (status != 200)
    refuse("it answers " + std::to_string(status) + " to /api/v1/recognition/" + path + "; is it CompreFace?");
  return body;
}

std::vector<std::string> ComprefaceClient::subjects() {
  const Json j = Json::parse(get_json("subjects/"), nullptr, false);
  if (!j.is_object() || !j.contains("subjects") || !j["subjects"].is_array()) refuse("it lists no subjects");
  std::vector<std::string> names;
  for (const Json& name : j["subjects"]) {
    if (!name.is_string()) refuse("it lists a subject that is no name");
    names.push_back(name.get<std::string>());
  }
  return names;
}

std::vector<ComprefaceExample> ComprefaceClient::examples() {
  constexpr std::int64_t size = 500, most_pages = 100'000;
  std::vector<ComprefaceExample> all;
  for (std::int64_t page = 0; page < most_pages; ++page) {
    const std::string path = "faces?page=" + std::to_string(page) + "&size=" + std::to_string(size);
    const Json j = Json::parse(get_json(path), nullptr, false);
    if (!j.is_object() || !j.contains("faces") || !j["faces"].is_array()) refuse("it lists no examples");
    if (j["faces"].empty()) return all;
    for (const Json& face : j["faces"]) {
      const auto text = [&](const char* key) {
        if (!face.is_object() || !face.contains(key) || !face[key].is_string())
          refuse("an example lacks its " + std::string(key));
        return face[key].get<std::string>();
      };
      ComprefaceExample example{text("image_id"), text("subject")};
      if (!plain_id(example.id)) refuse("an example's image_id is no UUID");
      all.push_back(std::move(example));
    }
    const auto total = j.find("total_pages");
    if (total != j.end() && total->is_number_integer() && page + 1 >= total->get<std::int64_t>()) return all;
  }
  return all;
}

std::string ComprefaceClient::picture(const std::string& id) {
  long status = 0;
  std::string body = get("faces/" + id + "/img", status);
  return status == 200 ? body : "";
}

}  // namespace command
