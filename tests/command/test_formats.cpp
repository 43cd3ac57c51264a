// Decoders in processes of their own, with decoders that do what no decoder should: each costs one picture.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

#include "command/formats/facts.hpp"
#include "command/formats/memory.hpp"
#include "command/formats/protocol.hpp"
#include "command/formats/decoder_program.hpp"
#include "command/formats/sandbox.hpp"

using namespace command;

namespace {

// Every decoder here does as the first byte of its file says.
enum Deed : std::uint8_t {
  a_picture = 'p',
  a_large_picture = 'L',
  an_abort = 'a',
  a_null_pointer = 'n',
  an_endless_loop = 'l',
  a_deadlock = 'd',
  much_memory = 'm',
  a_socket = 's',
  a_file = 'f',
  a_program = 'x',
  code_in_memory = 'c',
  half_a_picture = 'h',
  too_many_rows = 'r',
  a_false_header = 'z',
  a_huge_size = 'H',
  what_it_sees = 'w'
};

volatile int* nowhere = nullptr;

void rows(Canvas& canvas, int width, int height, int count) {
  std::vector<std::uint8_t> row(3 * static_cast<std::size_t>(width));
  canvas.begin(width, height);
  for (int y = 0; y < count; ++y) {
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::uint8_t>(y + static_cast<int>(i % 3));
    canvas.row(row.data());
  }
}

void obey(Source file, Canvas& canvas) {
  switch (file.data[0]) {
    case a_picture:
      return rows(canvas, 7, 5, 5);
    case a_large_picture:
      return rows(canvas, 1001, 700, 700);
    case an_abort:
      std::abort();
    case a_null_pointer:
      *nowhere = 1;
      return;
    case an_endless_loop:
      for (volatile int i = 0;; i = i + 1) {
      }
    case a_deadlock: {
      int ends[2] = {STDIN_FILENO, STDOUT_FILENO};
      (void)ends;
      std::this_thread::sleep_for(std::chrono::hours(1));
      return;
    }
    case much_memory: {
      for (std::vector<std::vector<char>> all;;) all.emplace_back(10 << 20, 'x');
    }
    case a_socket:
      (void)::socket(AF_INET, SOCK_STREAM, 0);
      return rows(canvas, 1, 1, 1);
    case a_file: {
      std::ofstream out("/tmp/facenet_test_formats_was_here");
      out << "x" << std::flush;
      return rows(canvas, out ? 2 : 1, 1, 1);  // 2: it could
    }
    case a_program: {
      char name[] = "/bin/true";
      char* const words[] = {name, nullptr};
      ::execv(name, words);
      return rows(canvas, 1, 1, 1);
    }
    case code_in_memory:
      (void)::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      return rows(canvas, 1, 1, 1);
    case half_a_picture:
      return rows(canvas, 7, 5, 3);
    case too_many_rows:
      return rows(canvas, 7, 5, 6);
    case a_false_header: {
      PictureHeader header{};
      header.full_width = header.full_height = 5;
      header.width = header.height = 60000;
      if (::write(STDOUT_FILENO, &header, sizeof header) < 0) _exit(3);
      _exit(0);
    }
    case a_huge_size:
      return rows(canvas, 65536, 1, 0);
    case what_it_sees: {
      // Descriptors beyond the three of its own, which the test left open.
      int open = 0;
      for (int fd = 3; fd < 64; ++fd) open += ::lseek(fd, 0, SEEK_CUR) >= 0;
      return rows(canvas, 1 + open, 1, 1);
    }
    default:
      refuse(Trouble::corrupt);
  }
}

std::string test_library() { return "test 1.0"; }

struct Got {
  Trouble trouble = Trouble::none;
  int width = 0, height = 0, full_width = 0, full_height = 0;
  std::vector<std::uint8_t> pixels{};
};

Got decode(std::uint8_t deed, Wanted wanted = {}) {
  Got got;
  const std::uint8_t file[] = {deed, 1, 2, 3};
  PictureSink sink;
  sink.begin = [&](int w, int h, int fw, int fh, int) {
    got.width = w;
    got.height = h;
    got.full_width = fw;
    got.full_height = fh;
    got.pixels.resize(3 * static_cast<std::size_t>(w) * static_cast<std::size_t>(h));
    return true;
  };
  sink.rows = [&](const std::uint8_t* rgb, int first, int count) {
    const std::size_t row = 3 * static_cast<std::size_t>(got.width);
    std::copy(rgb, rgb + row * static_cast<std::size_t>(count),
              got.pixels.begin() + static_cast<std::ptrdiff_t>(row) * first);
  };
  wanted.seconds = wanted.seconds == 60 ? 5 : wanted.seconds;
  got.trouble = decode_apart(Kind::gif, {file, sizeof file}, wanted, sink);
  return got;
}

}  // namespace

// In the place of formats/decoders.cpp.
const Decoder* command::find_decoder(Kind kind) {
  static const Decoder one{Kind::gif, test_library, nullptr, obey};
  return kind == Kind::gif ? &one : nullptr;
}

// In the place of formats/decoder_program.cpp: the program is this one.
const std::string& command::decoder_program() {
  static const std::string self = "/proc/self/exe";
  return self;
}
bool command::has_decoder(Kind kind) { return find_decoder(kind) != nullptr; }
std::string command::decoder_library(Kind kind) { return has_decoder(kind) ? test_library() : ""; }

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

int main(int argc, char** argv) {
  if (is_decoder(argc, argv)) run_decoder(argv);
  return doctest::Context(argc, argv).run();
}

TEST_CASE("a picture comes through the pipe as it was") {
  const Got got = decode(a_picture);
  REQUIRE(got.trouble == Trouble::none);
  CHECK(got.width == 7);
  CHECK(got.height == 5);
  for (std::size_t i = 0; i < got.pixels.size(); ++i) CHECK(got.pixels[i] == i / 21 + i % 3);
}

TEST_CASE("a larger one than wanted is shrunk by averaging") {
  Wanted wanted;
  wanted.most_pixels = 100'000;  // 1001 x 700 in blocks of 3 x 3
  const Got got = decode(a_large_picture, wanted);
  REQUIRE(got.trouble == Trouble::none);
  CHECK(got.full_width == 1001);
  CHECK(got.full_height == 700);
  CHECK(got.width == 334);
  CHECK(got.height == 234);
  // Row y of the source is y + c; the middle of rows 3 y, 3 y + 1, 3 y + 2 is 3 y + 1, of the last one row 699.
  CHECK(got.pixels[0] == 1);
  CHECK(got.pixels[3 * 334 * 10] == 31);
  CHECK(got.pixels[3 * 334 * 233] == static_cast<std::uint8_t>(699));
  wanted = {};
  wanted.most_side = 500;
  CHECK(decode(a_large_picture, wanted).width == 334);
}

TEST_CASE("a decoder that does what it should not costs its picture and no more") {
  Wanted soon;
  soon.seconds = 1;
  CHECK(decode(an_abort).trouble == Trouble::crashed);
  CHECK(decode(a_null_pointer).trouble == Trouble::crashed);
  CHECK(decode(an_endless_loop, soon).trouble == Trouble::slow);
  CHECK(decode(half_a_picture).trouble == Trouble::truncated);
  CHECK(decode(too_many_rows).trouble == Trouble::corrupt);
  CHECK(decode(a_false_header).trouble == Trouble::crashed);
  CHECK(decode(a_huge_size).trouble == Trouble::too_large);
  CHECK(decode(0).trouble == Trouble::corrupt);
  CHECK(decode(a_picture).trouble == Trouble::none);
}

#if !defined(FACENET_SANITIZED)

TEST_CASE("memory and system calls are limited") {
  Wanted little;
  little.memory = 64u << 20;
  const Got got = decode(much_memory, little);
  CHECK(got.trouble == Trouble::no_memory);
  CHECK(largest_decoder() < 300u << 20);
  CHECK(decode(a_deadlock).trouble == Trouble::forbidden);  // sleeping needs a call that no picture needs
  CHECK(decode(a_socket).trouble == Trouble::forbidden);
  CHECK(decode(a_program).trouble == Trouble::forbidden);
  CHECK(decode(code_in_memory).trouble == Trouble::forbidden);
  const Got file = decode(a_file);  // asking is allowed, as libraries do; nothing is opened
  CHECK(file.trouble == Trouble::none);
  CHECK(file.width == 1);
  CHECK(::access("/tmp/facenet_test_formats_was_here", F_OK) != 0);
}

#endif

TEST_CASE("no file of the program is open in a decoder") {
  std::FILE* secret = std::tmpfile();
  REQUIRE(secret != nullptr);
  const int plain = ::dup(::fileno(secret));  // without O_CLOEXEC
  const Got got = decode(what_it_sees);
  CHECK(got.trouble == Trouble::none);
  CHECK(got.width == 1);
  ::close(plain);
  std::fclose(secret);
}

TEST_CASE("several threads decode at once") {
  std::vector<std::thread> threads;
  std::vector<Got> got(8);
  for (std::size_t i = 0; i < got.size(); ++i)
    threads.emplace_back([&, i] { got[i] = decode(i % 2 == 0 ? a_picture : an_abort); });
  for (std::thread& t : threads) t.join();
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i].trouble == (i % 2 == 0 ? Trouble::none : Trouble::crashed));
}

TEST_CASE("every trouble is a sentence that names the format and a remedy") {
  for (int t = 1; t <= static_cast<int>(Trouble::not_built_in); ++t) {
    const std::string text = sentence_of(static_cast<Trouble>(t), Kind::heic);
    CHECK(text.find("HEIC") != std::string::npos);
    CHECK(text.find(": ") != std::string::npos);
    CHECK(text.back() != '.');
    CHECK(sentence_of(static_cast<Trouble>(t), Kind::heic) == sentence_of(static_cast<Trouble>(t), Kind::heic));
  }
  CHECK(decode_apart(Kind::webp, {}, {}, {}) == Trouble::not_built_in);
}

TEST_CASE("files are recognised by their content") {
  const auto kind = [](std::string bytes) {
    bytes.resize(16);
    return recognise(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  };
  using namespace std::string_literals;
  CHECK(kind("\xff\xd8\xff\xe0") == Kind::jpeg);
  CHECK(kind("\x89PNG\r\n\x1a\n") == Kind::png);
  CHECK(kind("RIFF\x10\0\0\0WEBPVP8 "s) == Kind::webp);
  CHECK(kind("RIFF\x10\0\0\0WAVEfmt "s) == Kind::none);
  CHECK(kind("\0\0\0\x18"
             "ftypheic"s) == Kind::heic);
  CHECK(kind("\0\0\0\x1c"
             "ftypavif"s) == Kind::avif);
  CHECK(kind("\0\0\0\x1c"
             "ftypmp42"s) == Kind::none);
  CHECK(kind("\0\0\0\x18"
             "ftypcrx "s) == Kind::raw);
  CHECK(kind("II*\0"s) == Kind::tiff);
  CHECK(kind("MM\0*"s) == Kind::tiff);
  CHECK(kind("II+\0"s) == Kind::tiff);
  CHECK(kind("GIF89a") == Kind::gif);
  CHECK(kind("BM\x10\0\0\0\0\0\0\0"s) == Kind::bmp);
  CHECK(kind("BMI am a text") == Kind::none);
  CHECK(kind("\xff\x0a") == Kind::jxl);
  CHECK(kind("8BPS") == Kind::psd);
  CHECK(kind("FUJIFILMCCD-RAW ") == Kind::raw);
  CHECK(kind("") == Kind::none);
  CHECK(recognise(nullptr, 0) == Kind::none);
}

TEST_CASE("a budget is never exceeded, and nobody waits for ever") {
  set_picture_memory(1000 << 20, 4);  // 125 MiB each, 500 to share
  CHECK(picture_share() == 125u << 20);
  CHECK(picture_allowance() == most_of_a_picture);
  std::atomic<int> inside{0}, most{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 20; ++n) {
        const MemoryLease lease(325u << 20);  // 200 beyond: two at a time
        const int now = ++inside;
        int before = most.load();
        while (before < now && !most.compare_exchange_weak(before, now)) {
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --inside;
        const MemoryLease small(100u << 20);  // never waits
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(most.load() == 2);
  set_picture_memory(100 << 20, 2);
  CHECK(picture_allowance() == 75u << 20);
  { const MemoryLease cut(1u << 30); }
  set_picture_memory(default_picture_memory(), 1);
}
