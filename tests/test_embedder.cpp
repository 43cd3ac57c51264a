// The object users hold, over a whole weight file: what it says of the model, and memory that runs out anywhere.
#include <cmath>
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "weights_builder.hpp"

#include "facenet/embedder.hpp"

using namespace facenet;

namespace {

/// A file of dlib's network, 5.6 MB; each layer's weights are scaled to an average of its inputs.
std::string dlib_file() {
  builder::File file = builder::converted(models::dlib_resnet(), "I8");
  for (std::size_t i = 1; i < file.tensors.size(); ++i) {
    builder::Tensor& scale = file.tensors[i - 1];  // it comes right before its weight
    if (scale.name.find(".weight_scale") == std::string::npos) continue;
    const auto outputs = scale.shape[0], inputs = static_cast<std::int64_t>(file.tensors[i].bytes.size()) / outputs;
    const std::vector<float> values(static_cast<std::size_t>(outputs), 1.0f / static_cast<float>(63 * inputs));
    scale = builder::f32(scale.name, {outputs}, values);
  }
  for (auto [key, value] : builder::Pairs{{"architecture", "dlib_resnet"}, {"embedding_dim", "128"},
                                          {"normalise", "none"}, {"image_size", "150"}, {"scaling", "mean_255"}})
    file.meta(key) = value;
  return file.bytes();
}
Span<const std::uint8_t> span(const std::string& s) {
  return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()};
}
EmbedderOptions one_thread() {
  EmbedderOptions options;
  options.threads = 1;
  return options;
}

}  // namespace

TEST_CASE("every model of the table can be built, and is found by its name alone") {
  for (const models::Entry& entry : models::all()) {
    CAPTURE(entry.architecture);
    CHECK(models::find(entry.architecture) == &entry);
    for (bool normalise : {false, true}) {
      const auto n = std::make_unique<Network>(entry.build(128, normalise, 1));
      CHECK(n->ok());
      CHECK(n->architecture() == entry.architecture);
      CHECK((*n)[n->size() - 1].out == Shape{1, 1, 128});
      CHECK(((*n)[n->size() - 1].kind == OpKind::l2_normalise) == normalise);
    }
    CHECK(entry.threshold > 0);
    const auto whole = std::make_unique<Network>(entry.build(64, true, 1)), half = std::make_unique<Network>(entry.build(64, true, 0.5));
    CHECK(half->ok());
    REQUIRE(half->size() == whole->size());
    for (int i = 1; i < half->size(); ++i) {
      const bool embedding = (*whole)[i].kind == OpKind::linear || (*whole)[i].kind == OpKind::l2_normalise;
      CHECK((*half)[i].out.c * (embedding ? 1 : 2) == (*whole)[i].out.c);
    }
    for (double width : {0.0, -1.0, 1.0 / 3, 1.0 / 64, 1e9, std::nan("")})
      CHECK_FALSE(std::make_unique<Network>(entry.build(64, true, width))->ok());
  }
  CHECK(models::find("inception_resnet") == nullptr);
  CHECK(models::find("") == nullptr);
}

TEST_CASE("the file's metadata chooses the model") {
  std::string file = dlib_file();
  auto embedder = Embedder::load(span(file), one_thread());
  REQUIRE(embedder.ok());
  CHECK(embedder->dim() == 128);
  CHECK(embedder->info().image_size == 150);
  CHECK(embedder->info().normalise == Normalise::none);
  CHECK(embedder->info().threshold == 0.6);
  file = builder::replaced(file, "dlib_resnet", "dlib_resnot");
  EmbedderOptions trusting = one_thread();
  trusting.read.verify_hashes = false;
  CHECK(Embedder::load(span(file), trusting).status().code() == Errc::unsupported);
}

TEST_CASE("a failing allocation anywhere from the file to the embedding is an error, leaks nothing, and the next call works") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(31 * 17 * 3, 100);  // another size than the model's: resizing allocates too
  const ImageView view(pixels.data(), 31, 17, 31 * 3, ChannelOrder::rgb);
  std::vector<float> want(128), got(128);
  int failures = 0;
  for (long k = -1;; ++k) {  // -1: none fails
    const long before = failing_malloc::blocks_alive;
    failing_malloc::allocations_left = k;
    Errc code;
    {
      auto embedder = Embedder::load(span(file), one_thread());
      code = embedder.status().code();
      if (embedder.ok()) code = embedder->embed(view, (k < 0 ? want : got).data()).code();
    }
    failing_malloc::allocations_left = -1;
    CHECK(failing_malloc::blocks_alive == before);
    if (k < 0) REQUIRE(code == Errc::ok);
    if (k >= 0 && code == Errc::ok) break;
    if (k >= 0) CHECK(code == Errc::out_of_memory);
    failures += k >= 0;
  }
  CHECK(failures > 20);
  CHECK(want[0] > 0);
  CHECK(got == want);
}

namespace {

/// Memory that begins at a cache line.
struct Block {
  explicit Block(std::size_t bytes) : raw(bytes + cache_line) {
    at = reinterpret_cast<unsigned char*>(round_up(reinterpret_cast<std::uintptr_t>(raw.data()), cache_line));
  }
  std::vector<unsigned char> raw;
  unsigned char* at;
};

}  // namespace

TEST_CASE("an arena of required_bytes() is filled exactly, malloc is never called, and one byte less is an error") {
  const std::string file = dlib_file();
  std::vector<std::uint8_t> pixels(150 * 150 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31 / 7);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb);
  std::vector<float> want(128);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(face, want.data()).ok());

  for (const bool int8 : {false, true})
    for (const int batch : {1, 3}) {
      CAPTURE(int8);
      CAPTURE(batch);
      EmbedderOptions options;
      options.int8_weights = int8;
      options.batch = batch;
      const auto need = Embedder::required_bytes(span(file), options);
      REQUIRE(need.ok());
      Block memory(*need);
      Arena arena(memory.at, *need);
      options.arena = &arena;
      failing_malloc::allocations_left = 0;  // from here on malloc fails
      CHECK(*Embedder::required_bytes(span(file), options) == *need);  // its tables are made in the arena
      CHECK(arena.used() == 0);
      {
        std::vector<float> got(128);
        auto embedder = Embedder::load(span(file), options);
        REQUIRE(embedder.ok());
        CHECK(arena.peak() == *need);
        CHECK(embedder->workspace().threads() == 1);
        CHECK(embedder->embed(face, got.data()).ok());
        CHECK(got == want);
        CHECK(embedder->fork(1, 1).status().code() == Errc::out_of_memory);
        // The exact arena has no room to resize a picture in, unless the file was read there.
        const Status small = embedder->embed({pixels.data(), 149, 150, 450, ChannelOrder::rgb}, got.data());
        CHECK((small.ok() || small.code() == Errc::out_of_memory));
        CHECK(embedder->embed(face, got.data()).ok());
        CHECK(got == want);
      }
      CHECK(arena.used() == 0);
      Arena less(memory.at, *need - 1);
      options.arena = &less;
      CHECK(Embedder::load(span(file), options).status().code() == Errc::out_of_memory);
      CHECK(less.used() == 0);
      failing_malloc::allocations_left = -1;
    }
}

TEST_CASE("an arena with room to spare: pictures of other sizes, forks, another embedder when the first is gone") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(331 * 217 * 3, 90);
  const ImageView view(pixels.data(), 331, 217, 331 * 3, ChannelOrder::rgb);
  EmbedderOptions options;
  options.int8_weights = true;
  std::vector<float> want(128), got(128);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(view, want.data()).ok());
  const std::size_t bytes = 3 * *Embedder::required_bytes(span(file), options);
  Block memory(bytes);
  Arena arena(memory.at, bytes);
  options.arena = &arena;
  failing_malloc::allocations_left = 0;
  for (int round = 0; round < 3; ++round) {
    auto embedder = Embedder::load(span(file), options);
    REQUIRE(embedder.ok());
    auto other = embedder->fork(1, 1);
    REQUIRE(other.ok());
    { const Embedder first = std::move(*embedder); }
    CHECK(other->embed(view, got.data()).ok());
    CHECK(got == want);
  }
  failing_malloc::allocations_left = -1;
  CHECK(arena.used() == 0);
}

TEST_CASE("int8 weights stay where they are, need an int8 file, and exclude half precision") {
  const std::string file = dlib_file();
  EmbedderOptions options = one_thread();
  options.int8_weights = true;
  const auto embedder = Embedder::load(span(file), options);
  REQUIRE(embedder.ok());
  CHECK(embedder->plan().weight_bytes() == 0);
  options.half_weights = true;
  CHECK(Embedder::load(span(file), options).status().code() == Errc::invalid_argument);
  CHECK(Embedder::required_bytes(span(file), options).status().code() == Errc::invalid_argument);
  CHECK(Embedder::required_bytes(Span<const std::uint8_t>()).status().code() == Errc::truncated);
}
