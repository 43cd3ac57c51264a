// A running instance of CompreFace, or of `facenet serve`, from which faces are taken over. Over libcurl; a program
// that was built without it says so.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "command/io/http_client.hpp"

namespace command {

/// What went wrong, a whole sentence that names the address.
class ComprefaceError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ComprefaceExample {
  std::string id, subject;
};

/// Functions throw ComprefaceError.
class ComprefaceClient {
 public:
  /// `url`: "http://host:8000". `key`: of its recognition service.
  ComprefaceClient(std::string url, std::string key);

  std::vector<std::string> subjects();
  std::vector<ComprefaceExample> examples();
  /// The picture's bytes; "" where the instance has none of this example.
  std::string picture(const std::string& id);

 private:
  /// The answer's body; `status` is HTTP's.
  std::string get(const std::string& path, long& status);
  std::string get_json(const std::string& path);
  [[noreturn]] void refuse(const std::string& why) const;

  std::string url_, key_;
  HttpClient client_;
};

}  // namespace command
