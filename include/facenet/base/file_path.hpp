// Files by the names that the library takes: UTF-8. On Windows fopen() takes a name for bytes of the code page that is
// set, in which half of the world's folders cannot be written, so the name goes to the system as UTF-16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "facenet/base/config.hpp"
#if !defined(FACENET_NO_STDIO)
#  include <sys/stat.h>

#  include <cstdio>
#endif

FACENET_BEGIN

namespace detail {

/// `utf8` as UTF-16 with its final zero in out[room]. False where it is no UTF-8 (overlong forms and surrogates
/// included) or too long.
template <class Unit>
inline bool utf16_of(const char* utf8, Unit* out, std::size_t room) noexcept {
  static_assert(sizeof(Unit) >= 2, "UTF-16");
  std::size_t used = 0;
  while (*utf8 != 0) {
    const auto lead = static_cast<unsigned char>(*utf8++);
    const int more = lead < 0x80                   ? 0
                     : lead >= 0xc2 && lead < 0xe0 ? 1
                     : lead >= 0xe0 && lead < 0xf0 ? 2
                     : lead >= 0xf0 && lead < 0xf5 ? 3
                                                   : -1;
    if (more < 0) return false;
    std::uint32_t code = more == 0 ? lead : lead & (0x3fu >> more);
    for (int i = 0; i < more; ++i) {
      const auto next = static_cast<unsigned char>(*utf8);
      if ((next & 0xc0) != 0x80) return false;  // a final zero too
      code = code << 6 | (next & 0x3fu);
      ++utf8;
    }
    if ((more == 2 && code < 0x800) || (more == 3 && code < 0x10000) || code > 0x10ffff ||
        (code >= 0xd800 && code < 0xe000))
      return false;
    if (used + (code >= 0x10000 ? 2 : 1) >= room) return false;
    if (code >= 0x10000) {
      code -= 0x10000;
      out[used++] = static_cast<Unit>(0xd800 + (code >> 10));
      code = 0xdc00 + (code & 0x3ff);
    }
    out[used++] = static_cast<Unit>(code);
  }
  if (room == 0) return false;
  out[used] = 0;
  return true;
}

#if !defined(FACENET_NO_STDIO)
#  if defined(_WIN32)
constexpr std::size_t longest_path = 1024;
using FileStatus = struct _stat64;
/// As stat(); a name that is no UTF-8 is taken for one of the code page.
inline int file_status(const char* path, FileStatus* out) noexcept {
  wchar_t wide[longest_path];
  return utf16_of(path, wide, longest_path) ? _wstat64(wide, out) : _stat64(path, out);
}
inline std::FILE* open_to_read(const char* path) noexcept {
  wchar_t wide[longest_path];
  return utf16_of(path, wide, longest_path) ? _wfopen(wide, L"rb") : std::fopen(path, "rb");
}
#  else
using FileStatus = struct stat;
inline int file_status(const char* path, FileStatus* out) noexcept { return stat(path, out); }
inline std::FILE* open_to_read(const char* path) noexcept { return std::fopen(path, "rb"); }
#  endif
#endif

}  // namespace detail

FACENET_END
