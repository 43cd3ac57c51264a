// Errors as values: what is printed, where places go, and whose Result lives how long.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "facenet/base/status.hpp"

using namespace facenet;

namespace {

std::string printed(const Status& s, std::size_t size = 512) {
  std::string text(size, '#');
  s.print(text.data(), size);
  return text.substr(0, text.find('\0'));
}

/// Counts those alive, so that a value destroyed twice or never shows.
struct Counted {
  static inline int alive = 0;
  int value = 0;
  explicit Counted(int v) : value(v) { ++alive; }
  Counted(Counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++alive; }
  Counted& operator=(Counted&&) = delete;
  ~Counted() { --alive; }
};

Status pass_on(Status s, int& reached) {
  FACENET_TRY(s);
  ++reached;
  return {};
}

}  // namespace

TEST_CASE("a default Status is success, each code has a name of its own") {
  const Status s;
  CHECK(s.ok());
  CHECK(static_cast<bool>(s));
  CHECK(s.offset() == -1);
  for (int i = 0; i <= static_cast<int>(Errc::weights_mismatch); ++i)
    for (int k = 0; k < i; ++k) CHECK(std::string(name(static_cast<Errc>(i))) != name(static_cast<Errc>(k)));
  CHECK(std::string(name(Errc::ok)) == "ok");
  CHECK(std::string(name(Errc::weights_mismatch)) == "weights_mismatch");
}

TEST_CASE("print: place, text, byte, and no byte past the buffer") {
  Status s(Errc::corrupt, "the hash does not agree");
  CHECK(printed(s) == "the hash does not agree");
  s.in("tensor").in("file").at(1234567890123);
  CHECK(std::string(s.place()) == "file: tensor");
  CHECK(printed(s) == "file: tensor: the hash does not agree (byte 1234567890123)");
  CHECK(printed(Status(Errc::corrupt, "x").at(0)) == "x (byte 0)");
  const std::string whole = printed(s);
  for (std::size_t size = 1; size <= whole.size() + 2; ++size) {
    std::string text(whole.size() + 8, '#');
    CHECK(s.print(text.data(), size) == text.data());
    const std::size_t kept = std::min(size - 1, whole.size());
    CHECK(text.substr(0, kept) == whole.substr(0, kept));
    CHECK(text[kept] == '\0');
    CHECK(text[kept + 1] == '#');
  }
  char untouched = '#';
  s.print(&untouched, 0);
  CHECK(untouched == '#');
}

TEST_CASE("places longer than the room are cut at their ends, the outermost name stays") {
  for (std::size_t outer : {0u, 1u, 380u, 381u, 382u, 383u, 384u, 5000u})
    for (std::size_t inner : {1u, 100u, 382u, 383u, 400u}) {
      Status s(Errc::io_error, "x");
      s.in(std::string(inner, 'i').c_str()).in(std::string(outer, 'o').c_str());
      const std::string place = s.place();
      CHECK(place.size() <= 383);
      const std::size_t kept = std::min<std::size_t>(outer, 381);
      CHECK(place.substr(0, kept) == std::string(kept, 'o'));
      CHECK(place.substr(kept, 2) == ": ");
      CHECK(place.find_first_not_of('i', kept + 2) == std::string::npos);
    }
}

TEST_CASE("Result holds a value or says why not, and destroys what it holds once") {
  {
    Result<Counted> value(Counted(7));
    CHECK(value.ok());
    CHECK(value->value == 7);
    CHECK(Counted::alive == 1);
    Result<Counted> moved(std::move(value));
    CHECK((*moved).value == 7);
    Result<Counted> error(Errc::truncated, "short");
    CHECK_FALSE(error);
    CHECK(error.status().code() == Errc::truncated);
    error = std::move(moved);
    CHECK(error.ok());
    CHECK(error->value == 7);
    error = Result<Counted>(Status(Errc::corrupt, "bad").at(3));
    CHECK_FALSE(error.ok());
    CHECK(error.status().offset() == 3);
  }
  CHECK(Counted::alive == 0);
}

TEST_CASE("FACENET_TRY goes on after success and hands an error up") {
  int reached = 0;
  CHECK(pass_on({}, reached).ok());
  CHECK(reached == 1);
  CHECK(pass_on(Status(Errc::not_found, "x").in("here"), reached).code() == Errc::not_found);
  CHECK(reached == 1);
}

#if FACENET_EXCEPTIONS
TEST_CASE("value() throws what print() says") {
  Result<int> good(3);
  CHECK(good.value() == 3);
  CHECK(Result<int>(4).value() == 4);
  Result<int> bad(Status(Errc::io_error, "cannot read").in("file"));
  CHECK_THROWS_WITH_AS(bad.value(), "file: cannot read", std::runtime_error);
}
#endif
