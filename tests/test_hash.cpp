#include "facenet/base/hash.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {

std::string hex64(std::uint64_t v) {
  char text[17];
  facenet::to_hex(v, text);
  return text;
}

std::string sha256(const std::string& data) {
  facenet::Sha256 hash;
  hash.update(data.data(), data.size());
  std::uint8_t digest[facenet::Sha256::digest_size];
  hash.digest(digest);
  char text[2 * sizeof digest + 1];
  facenet::to_hex(digest, text);
  return text;
}

// The sequence of bytes that the vectors below are over: the top byte of a 64-bit Weyl sequence.
std::vector<std::uint8_t> sequence(std::size_t n) {
  std::vector<std::uint8_t> bytes(n);
  std::uint64_t state = 0;
  for (auto& b : bytes) b = static_cast<std::uint8_t>((state += 0x9E3779B97F4A7C15u) >> 56);
  return bytes;
}

}  // namespace

// Expected values were computed with PyPI's xxhash 3 (the reference C code) and Python's hashlib (OpenSSL).
TEST_CASE("XXH64 equals the reference implementation") {
  struct Vector {
    std::size_t size;
    std::uint64_t seed, hash;
  };
  const Vector vectors[] = {
      {0, 0x0u, 0xef46db3751d8e999u},    {0, 0x9e3779b185ebca8du, 0x0b303d920ec349dfu},
      {1, 0x0u, 0x4fce394cc88952d8u},    {1, 0x9e3779b185ebca8du, 0xae63ffe552303bebu},
      {3, 0x0u, 0xbbed21604e82cdeau},    {3, 0x9e3779b185ebca8du, 0x62d386d6b0c16334u},
      {4, 0x0u, 0x55cacd24f349def9u},    {4, 0x9e3779b185ebca8du, 0x95144698875251e8u},
      {7, 0x0u, 0x0e4b821b30546b60u},    {7, 0x9e3779b185ebca8du, 0x3a95a0e752853dbcu},
      {8, 0x0u, 0x4d3b59c1b4db429du},    {8, 0x9e3779b185ebca8du, 0x133e9ca5a98040a4u},
      {11, 0x0u, 0xe947fde9b1d87027u},   {11, 0x9e3779b185ebca8du, 0x11afbb0fe69017a5u},
      {12, 0x0u, 0xfc38e00aea5d9577u},   {12, 0x9e3779b185ebca8du, 0xd37452d9a7146e28u},
      {31, 0x0u, 0x4768f109559451e6u},   {31, 0x9e3779b185ebca8du, 0x31ba32bd9b68ffa4u},
      {32, 0x0u, 0xbaaecbfca0b4ea76u},   {32, 0x9e3779b185ebca8du, 0x1b89ceb09709ad21u},
      {33, 0x0u, 0x78513d29f25e8146u},   {33, 0x9e3779b185ebca8du, 0xbbc7de11155fdfabu},
      {35, 0x0u, 0xa39eec4e0bee17fcu},   {35, 0x9e3779b185ebca8du, 0x09e5a83d308cfe3bu},
      {36, 0x0u, 0x832d6f8604a6ad40u},   {36, 0x9e3779b185ebca8du, 0xb1ed0ae0de13b020u},
      {39, 0x0u, 0xa210368dc666dc89u},   {39, 0x9e3779b185ebca8du, 0x4ac6e0b7768059c2u},
      {40, 0x0u, 0x4e4b9015985a34c0u},   {40, 0x9e3779b185ebca8du, 0x397d9feb80cd9ef9u},
      {63, 0x0u, 0x155dcd37f8b7ea13u},   {63, 0x9e3779b185ebca8du, 0x717011d0a2359cc6u},
      {64, 0x0u, 0xee2090bfd055a39eu},   {64, 0x9e3779b185ebca8du, 0xb1d6a8cbc4173239u},
      {100, 0x0u, 0xbe544f366195408eu},  {100, 0x9e3779b185ebca8du, 0xcf754809c844ab04u},
      {222, 0x0u, 0xaa930952ad211f1cu},  {222, 0x9e3779b185ebca8du, 0xd06eb5d4193148b0u},
      {4096, 0x0u, 0x210b788fa8daecb1u}, {4096, 0x9e3779b185ebca8du, 0xeeae2e958aceb644u},
  };
  const auto bytes = sequence(4096);
  for (const Vector& v : vectors) {
    CAPTURE(v.size);
    CAPTURE(v.seed);
    CHECK(hex64(facenet::xxh64(bytes.data(), v.size, v.seed)) == hex64(v.hash));
  }
  CHECK(hex64(facenet::xxh64("", 0)) == "ef46db3751d8e999");
  CHECK(hex64(facenet::xxh64("abc", 3)) == "44bc2cf5ad770999");
}

TEST_CASE("SHA-256 equals FIPS 180-4's examples and OpenSSL") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const auto bytes = sequence(4096);
  const std::pair<std::size_t, const char*> vectors[] = {
      {1, "35af2d15ebde4d67b29569ec19749e813c76f02286afc5a2a9871c2bfbdaab32"},
      {55, "f245201d69e38fb02ff18675e4c67b4a53e192a78b9486cf879035218f97e7d2"},
      {56, "c3423b136f6fd2d5ee1fc4687726ec31d90ab31c16ba6d52339e011fb2c7ea31"},
      {57, "6b9c03cf7f101f31889dfdb964a2ac96d5d1acfc7fa5dd77ba9d12aef5fe77e4"},
      {63, "05b451422b2b2149b400147f7b07a5f76497faa5af1379cd14001b3992d930b2"},
      {64, "e137d8441ef33a2a95b75f3a7257fc675f3bfbd866a60b666c7f0701603cb60f"},
      {65, "6a993d01aa6304d45e966a124c54842f9ba87058dd674d63a6a14c16a6cbd63c"},
      {119, "07e70a8d8897312d98c2a84c854ed5ee9fd38ce563970eb9a0b02c0db61ff0b7"},
      {120, "0b5f86affe4cc244b23fbaefcb6f5a50f3fc101183ce35fcf19d53b45e5ae0fa"},
      {4096, "de4178645a0729b0a82dd2d66e700d2bc4d1b464d6123740f22e37a2c85a48f9"},
  };
  for (const auto& vector : vectors) {
    const std::size_t size = vector.first;
    CAPTURE(size);
    CHECK(sha256(std::string(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size))) == vector.second);
  }
}

TEST_CASE("a stream gives the same hash however it is cut") {
  const auto bytes = sequence(300);
  for (std::size_t size = 0; size <= bytes.size(); size += 7) {
    for (std::size_t step : {1u, 3u, 31u, 32u, 33u, 63u, 64u, 65u}) {
      facenet::Xxh64 xxh(9);
      facenet::Sha256 sha;
      for (std::size_t at = 0; at < size; at += step) {
        const std::size_t n = size - at < step ? size - at : step;
        xxh.update(bytes.data() + at, n);
        sha.update(bytes.data() + at, n);
        xxh.digest();  // asking in between changes nothing
      }
      CHECK(xxh.digest() == facenet::xxh64(bytes.data(), size, 9));
      std::uint8_t digest[32];
      char text[65];
      sha.digest(digest);
      facenet::to_hex(digest, text);
      CHECK(text == sha256(std::string(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size))));
    }
  }
}

TEST_CASE("bytes are loaded in the stated order") {
  const std::uint8_t bytes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  CHECK(facenet::detail::load_le<std::uint32_t>(bytes + 1) == 0x04030201u);
  CHECK(facenet::detail::load_be<std::uint32_t>(bytes + 1) == 0x01020304u);
  CHECK(facenet::detail::load_le<std::uint64_t>(bytes + 1) == 0x0807060504030201u);
  CHECK(facenet::detail::load_be<std::uint64_t>(bytes + 1) == 0x0102030405060708u);
}

TEST_CASE("hex digits there and back") {
  std::uint8_t bytes[2];
  CHECK(facenet::from_hex("0aff", bytes));
  CHECK(bytes[0] == 0x0a);
  CHECK(bytes[1] == 0xff);
  for (const char* bad : {"", "0", "0af", "0afff", "0aFf", "0a f", "0a-1", "xyzw"}) {
    CAPTURE(bad);
    CHECK_FALSE(facenet::from_hex(bad, bytes));
  }
}
