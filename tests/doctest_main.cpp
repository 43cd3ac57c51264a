// doctest's implementation and main(), once for all test programs.
#if defined(__wasi__)  // whose C++ library has no files; doctest can write its report into one
#  include <csignal>
#  include <fstream>
#  include <iostream>
namespace std {
template <>
class basic_fstream<char> : public ostream {
 public:
  using ostream::ostream;
  basic_fstream() : ostream(nullptr) {}
  bool is_open() const { return false; }
  void open(const char*, openmode) {}
  void close() {}
};
}  // namespace std
#endif
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
