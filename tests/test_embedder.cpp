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
    const long before = builder::blocks_alive;
    builder::allocations_left = k;
    Errc code;
    {
      auto embedder = Embedder::load(span(file), one_thread());
      code = embedder.status().code();
      if (embedder.ok()) code = embedder->embed(view, (k < 0 ? want : got).data()).code();
    }
    builder::allocations_left = -1;
    CHECK(builder::blocks_alive == before);
    if (k < 0) REQUIRE(code == Errc::ok);
    if (k >= 0 && code == Errc::ok) break;
    if (k >= 0) CHECK(code == Errc::out_of_memory);
    failures += k >= 0;
  }
  CHECK(failures > 20);
  CHECK(want[0] > 0);
  CHECK(got == want);
}
