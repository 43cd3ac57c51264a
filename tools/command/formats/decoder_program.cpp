#include "command/formats/decoder_program.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <sstream>

#include "command/formats/protocol.hpp"

extern "C" char** environ;

namespace command {

namespace {

constexpr bool is_built_in(Kind kind) {
  switch (kind) {
#if defined(FACENET_JPEG)
    case Kind::jpeg:
#endif
#if defined(FACENET_PNG)
    case Kind::png:
#endif
#if defined(FACENET_WEBP)
    case Kind::webp:
#endif
#if defined(FACENET_HEIF)
    case Kind::heic:
    case Kind::avif:
#endif
#if defined(FACENET_TIFF)
    case Kind::tiff:
#endif
#if defined(FACENET_GIF)
    case Kind::gif:
#endif
#if defined(FACENET_BMP)
    case Kind::bmp:
#endif
#if defined(FACENET_JXL)
    case Kind::jxl:
#endif
#if defined(FACENET_RAW)
    case Kind::raw:
#endif
    case Kind::none:
      return kind != Kind::none;
    default:
      return false;
  }
}

/// What `program --libraries` prints.
std::string libraries_of(const std::string& program) {
  int ends[2];
  if (program.empty() || ::pipe2(ends, O_CLOEXEC) != 0) return "";
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
  char name[] = "facenet-decode", option[] = "--libraries";
  char* const arguments[] = {name, option, nullptr};
  pid_t id = 0;
  const int error = ::posix_spawn(&id, program.c_str(), &files, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&files);
  ::close(ends[1]);
  std::string all;
  char part[1024];
  for (ssize_t n = 0; error == 0 && ((n = ::read(ends[0], part, sizeof part)) > 0 || (n < 0 && errno == EINTR));)
    if (n > 0) all.append(part, static_cast<std::size_t>(n));
  ::close(ends[0]);
  while (error == 0 && ::waitpid(id, nullptr, 0) < 0 && errno == EINTR) {
  }
  return all;
}

}  // namespace

const std::string& decoder_program() {
  static const std::string found = [] {
    char self[4096];
    const ssize_t n = ::readlink("/proc/self/exe", self, sizeof self);
    if (n <= 0 || static_cast<std::size_t>(n) == sizeof self) return std::string();
    const std::string exe(self, static_cast<std::size_t>(n)), folder = exe.substr(0, exe.rfind('/'));
    for (const char* place : {"/facenet-decode", "/../libexec/facenet/facenet-decode"})
      if (::access((folder + place).c_str(), X_OK) == 0) return folder + place;
    return std::string();
  }();
  return found;
}

bool has_decoder(Kind kind) { return is_built_in(kind) && !decoder_program().empty(); }

std::string decoder_library(Kind kind) {
  static const std::map<std::string, std::string> all = [] {
    std::map<std::string, std::string> found;
    std::istringstream lines(libraries_of(decoder_program()));
    for (std::string line; std::getline(lines, line);)
      if (const std::size_t tab = line.find('\t'); tab != std::string::npos)
        found[line.substr(0, tab)] = line.substr(tab + 1);
    return found;
  }();
  const auto at = all.find(name_of(kind));
  return at == all.end() ? "" : at->second;
}

}  // namespace command
