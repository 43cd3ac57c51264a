// Large files from the network: nothing that has come is lost, and nothing takes its name that is not what was wanted.
#pragma once

#include <cstdint>
#include <string>

namespace command {

struct Wanted {
  std::string url;
  std::int64_t size;   // 0: not known
  std::string sha256;  // "": not known; then a download that was cut short begins anew
};

/// Puts the file at `target`, unless it is there. Until it is whole it is target.part, from which a later call goes on.
/// Says why and returns false when it cannot.
bool download(const Wanted& wanted, const std::string& target);

/// The file's SHA-256, "" when it cannot be read.
std::string sha256_of(const std::string& path);

}  // namespace command
