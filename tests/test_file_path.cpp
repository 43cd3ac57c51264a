// Names of files as UTF-16, which only Windows asks for: checked everywhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "facenet/base/file_path.hpp"

using namespace facenet;

TEST_CASE("UTF-8 becomes UTF-16, and nothing else does") {
  char16_t out[32];
  const std::u16string text = u"C:\\\u00e4\u20ac\U0001f600z";
  REQUIRE(detail::utf16_of("C:\\\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z", out, 32));
  CHECK(std::equal(text.c_str(), text.c_str() + text.size() + 1, out));
  for (const char* edge : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", ""})
    CHECK(detail::utf16_of(edge, out, 32));
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3z", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "caf\xe9"}) {
    CAPTURE(bad);
    CHECK_FALSE(detail::utf16_of(bad, out, 32));
  }
  CHECK(detail::utf16_of("1234567", out, 8));
  CHECK_FALSE(detail::utf16_of("12345678", out, 8));
  CHECK_FALSE(detail::utf16_of("123456\xf0\x9f\x98\x80", out, 8));
  CHECK_FALSE(detail::utf16_of("", out, 0));
}

TEST_CASE("a file is opened by its name") {
  detail::FileStatus status;
  CHECK(detail::file_status("no such file", &status) != 0);
  CHECK(detail::open_to_read("no such file") == nullptr);
}
