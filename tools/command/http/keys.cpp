#include "command/http/keys.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace command::service {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/// none: there is no such right.
Right right_named(std::string_view word) {
  if (word == "read") return Right::read;
  if (word == "enroll") return Right::enroll;
  if (word == "admin") return Right::admin;
  return Right::none;
}

std::string_view next_word(std::string_view& line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  std::size_t end = 0;
  while (end < line.size() && !is_blank(line[end])) ++end;
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

}  // namespace

Keys::Digest Keys::digest(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

std::string Keys::load(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    return file + ": the keys cannot be read: " + std::strerror(errno) + "; check the name and who may read it.";
  struct Closed {
    int descriptor;
    ~Closed() { ::close(descriptor); }
  } closed{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return file + ": is no file; name a file of keys.";
  if ((status.st_mode & 077) != 0)
    return file + ": others than its owner may read or change the keys; run: chmod 600 " + file + ".";
  constexpr std::size_t most = 1 << 20;
  std::string text;
  char block[4096];
  for (;;) {
    const ssize_t n = ::read(descriptor, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file + ": the keys cannot be read: " + std::strerror(errno) + "; check the disk.";
    if (n == 0) break;
    text.append(block, static_cast<std::size_t>(n));
    if (text.size() > most) return file + ": has more than 1 MiB; a file of keys has a line for each.";
  }
  std::string wrong = parse(text, file);
  OPENSSL_cleanse(text.data(), text.size());
  OPENSSL_cleanse(block, sizeof block);
  return wrong;
}

std::string Keys::parse(std::string_view text, const std::string& file) {
  std::vector<Entry> entries;
  int number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string place = file + ": line " + std::to_string(++number) + ": ";
    const std::string_view key = next_word(line);
    if (key.empty() || key.front() == '#') continue;
    std::string_view rights = next_word(line);
    const std::string_view rest = next_word(line);
    if (rights.empty() || rights.front() == '#' || (!rest.empty() && rest.front() != '#'))
      return place + "is no key with its rights; write KEY RIGHT[,RIGHT...] with read, enroll or admin.";
    if (key.size() < least_key || key.size() > most_key)
      return place + "the key has less than 16 characters or more than 512; make one with: openssl rand -hex 16.";
    Right right = Right::none;
    for (;;) {
      const std::size_t comma = std::min(rights.find(','), rights.size());
      const Right one = right_named(rights.substr(0, comma));
      if (one == Right::none) return place + "a right is none of read, enroll and admin; correct it.";
      right = std::max(right, one);
      if (comma == rights.size()) break;
      rights.remove_prefix(comma + 1);
    }
    const Entry entry{digest(key), right};
    for (const Entry& other : entries)
      if (other.digest == entry.digest) return place + "this key stands in the file already; remove one of the two.";
    entries.push_back(entry);
  }
  if (entries.empty()) return file + ": holds no key; write a line KEY RIGHT[,RIGHT...] for each.";
  keys_ = std::move(entries);
  return "";
}

Keys::Found Keys::find(std::string_view key) const {
  Found found;
  const Digest wanted = digest(key.substr(0, most_key + 1));
  std::size_t place = 0;
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    const bool same = CRYPTO_memcmp(keys_[i].digest.data(), wanted.data(), wanted.size()) == 0;
    place = same ? i + 1 : place;
  }
  if (place > 0) found = {keys_[place - 1].right, "key " + std::to_string(place)};
  return found;
}

}  // namespace command::service
