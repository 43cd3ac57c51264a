// Who may do what: the keys of --keys.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "command/http/http.hpp"

namespace command::service {

constexpr std::size_t least_key = 16, most_key = 512;  // bytes

class Keys {
 public:
  /// Reads the file: a line is `KEY RIGHT[,RIGHT…]` with rights read, enroll and admin; `#` begins a comment. Its mode
  /// has to be 0600 or less. Returns what is wrong, a sentence, or "": then these keys hold instead of the ones before.
  std::string load(const std::string& file);
  /// The same of a file's text; `file` names it in the sentence.
  std::string parse(std::string_view text, const std::string& file);

  bool empty() const { return keys_.empty(); }
  std::size_t size() const { return keys_.size(); }

  struct Found {
    Right right = Right::none;
    std::string id;  // "key 2": the second of the file; "": there is no such key
  };
  /// Compares with every key of the file, in a time that depends on their number alone.
  Found find(std::string_view key) const;

 private:
  using Digest = std::array<std::uint8_t, 32>;
  struct Entry {
    Digest digest;  // SHA-256: the keys themselves are not kept
    Right right;
  };
  static Digest digest(std::string_view key);

  std::vector<Entry> keys_;
};

}  // namespace command::service
