#include "command/io/download.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <vector>

#include "command/io/http_client.hpp"
#include "command/io/output.hpp"
#include "facenet/base/hash.hpp"

namespace command {

namespace {

constexpr int most_tries = 5;  // in a row that bring nothing
constexpr long silent_s = 30, most_redirections = 10;
constexpr std::int64_t most_bytes = std::int64_t{2} << 30;

/// target.part, for one process at a time.
class Part {
 public:
  explicit Part(const std::string& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor_ < 0) return;
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      note(path + ": another process downloads it; waiting for that one.");
      (void)::flock(descriptor_, LOCK_EX);
    }
    have_ = ::lseek(descriptor_, 0, SEEK_END);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() {
    if (descriptor_ < 0) return;
    if (have_ == 0) ::unlink(path_.c_str());
    ::close(descriptor_);
  }
  bool is_open() const { return descriptor_ >= 0; }
  std::int64_t size() const { return have_; }
  int error() const { return error_; }
  void restart() {
    have_ = 0;
    if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) != 0) error_ = errno;
  }
  bool append(const std::uint8_t* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t n = ::write(descriptor_, bytes, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        error_ = n < 0 ? errno : ENOSPC;
        return false;
      }
      bytes += n, size -= static_cast<std::size_t>(n), have_ += n;
    }
    return true;
  }
  /// Gives the file its name.
  int commit(const std::string& target) {
    if (::fsync(descriptor_) != 0 || ::rename(path_.c_str(), target.c_str()) != 0) return errno;
    ::close(descriptor_);
    descriptor_ = -1;
    return 0;
  }

 private:
  std::string path_;
  int descriptor_ = -1, error_ = 0;
  std::int64_t have_ = 0;
};

std::string kept(const Part& part) {
  return part.size() == 0 ? "; try again later."
                          : "; the " + std::to_string(part.size()) +
                                " bytes that have come are kept, and the next call goes on from there.";
}

}  // namespace

std::string sha256_of(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return {};
  facenet::Sha256 hash;
  std::vector<char> block(1 << 16);
  for (std::size_t n; (n = std::fread(block.data(), 1, block.size(), file)) > 0;) hash.update(block.data(), n);
  const bool read = std::ferror(file) == 0;
  std::fclose(file);
  std::uint8_t digest[facenet::Sha256::digest_size];
  char digits[2 * sizeof digest + 1];
  hash.digest(digest);
  facenet::to_hex({digest, sizeof digest}, digits);
  return read ? digits : "";
}

bool download(const Wanted& wanted, const std::string& target) {
  const std::string name = std::filesystem::path(target).filename().string(), part_name = target + ".part";
  if (::access(target.c_str(), R_OK) == 0) {
    if (wanted.sha256.empty() || sha256_of(target) == wanted.sha256) return true;
    note(target + ": this is not what it should be, and is downloaded again.");
  }
  if (!HttpClient::available()) {
    say(name + ": this facenet was built without libcurl and downloads nothing; fetch " + wanted.url + " as " + target +
        ", and run this again.");
    return false;
  }
  if (!make_folder(std::filesystem::path(target).parent_path().string())) return false;
  Part part(part_name);
  if (!part.is_open()) return say_unwritable(part_name, errno);
  if (wanted.sha256.empty() || (wanted.size > 0 && part.size() > wanted.size)) part.restart();
  HttpClient client;
  const std::int64_t most = wanted.size > 0 ? wanted.size : most_bytes;
  std::string refused;
  for (int in_vain = 0; wanted.size == 0 || part.size() < wanted.size;) {
    const std::int64_t before = part.size();
    bool page = false;
    HttpRequest request;
    request.url = wanted.url;
    request.redirections = most_redirections;
    request.silent_s = silent_s;
    request.headers = {"Accept-Encoding: identity"};
    if (before > 0) request.headers.push_back("Range: bytes=" + std::to_string(before) + "-");
    request.type = [&](const std::string& type) { page = type.rfind("text/html", 0) == 0; };
    request.begin = [&](long status) {
      if (page) return false;
      if (status != 206 && before > 0) part.restart();  // the server sends all of it
      return true;
    };
    request.take = [&](const std::uint8_t* bytes, std::size_t size) {
      if (part.size() + static_cast<std::int64_t>(size) > most) {
        refused = "the server sends more than the file has";
        return false;
      }
      return part.append(bytes, size);
    };
    const HttpAnswer answer = client.send(request);
    if (part.error() != 0) return say_unwritable(part_name, part.error());
    if (page) refused = "the server sends a web page in its place, maybe a login or a proxy's";
    if (!refused.empty()) {
      if (!page) part.restart();
      say(name + ": it cannot be downloaded (" + refused + ")" + kept(part));
      return false;
    }
    const bool passing = answer.failure.empty() == (answer.status == 0) || answer.status == 408 ||
                         answer.status == 429 || answer.status >= 500 || !answer.failure.empty();
    if (answer.failure.empty() && answer.status >= 200 && answer.status < 300) {
      if (wanted.size == 0) break;
      if (part.size() >= wanted.size) break;
    } else if (!passing) {
      if (answer.status == 416) part.restart();
      say(name + ": it cannot be downloaded (status " + std::to_string(answer.status) + ")" + kept(part));
      return false;
    }
    in_vain = part.size() > before ? 0 : in_vain + 1;
    if (answer.status == 0 || in_vain >= most_tries) {  // without a network the first try says all
      say(name + ": it cannot be downloaded (" +
          (answer.failure.empty() ? "status " + std::to_string(answer.status) : answer.failure) + ")" + kept(part));
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(in_vain == 0 ? 100 : 500 << in_vain));
  }
  if (!wanted.sha256.empty()) {
    const std::string digest = sha256_of(part_name);
    if (digest != wanted.sha256) {
      part.restart();
      say(name + ": what was downloaded has the SHA-256 " + digest + ", not " + wanted.sha256 +
          ": it was damaged or replaced on the way, and is removed; try again, or fetch it from elsewhere.");
      return false;
    }
  }
  const int error = part.commit(target);
  return error == 0 || say_unwritable(target, error);
}

}  // namespace command
