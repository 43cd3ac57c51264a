// Golden activations: an honest file passes with room, and each fault fails at its layer. tests/python/test_models.py
// does the same with files of the converter.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "weights_builder.hpp"

#include "facenet/selftest.hpp"
#include "support.hpp"

using namespace support;
using builder::File;

namespace {

/// Every operator that has golden activations, with shapes in which a transposed 1x7 and swapped channels go unnoticed.
Network toy() {
  Network n("toy", {24, 24, 3});
  Ref x = n.conv("stem", n.input(), 32, k(3).stride(2));  // 11
  const Ref y = n.conv("b1", n.conv("b0", x, 32, k(1)), 32, k(1, 7).pad(0, 3));
  x = n.residual("up", n.concat("cat", y, n.conv("a", x, 32, k(3).pad(1, 1))), x, 0.2f, relu);
  x = n.concat("cat2", n.max_pool("pool", x, k(3).stride(2)),
               n.conv("d", n.avg_pool("mean", x, k(3).pad(1, 1)), 32, k(3).stride(2)));
  x = n.residual_affine("down2", n.conv_affine("down1", x, 64, k(3).stride(2)),
                        n.avg_pool("half", x, k(2).stride(2), 64), k(1));
  n.l2_normalise("normalise", n.linear_bn("last_linear", n.global_avg_pool("all", x), 16));
  return n;
}
const Network net = toy();

int op_of(const std::string& name) {
  for (int i = 0; i < net.size(); ++i)
    if (net[i].name == name.c_str()) return i;
  FAIL("no such layer");
  return -1;
}

bool is_golden(const Op& op) {
  return has_weights(op) || op.kind == OpKind::max_pool || op.kind == OpKind::avg_pool ||
         op.kind == OpKind::global_avg_pool;
}

/// A Converted file of the parameters, with golden activations of `source`: by the naive executor, which rounds to
/// float after each operator only.
File file_of(const Parameters& parameters, const Parameters& source) {
  File file;
  file.metadata = builder::toy_metadata();
  file.meta("embedding_dim") = "16";
  file.meta("image_size") = "24";
  std::vector<float> pixels(z(net[0].out.size())), input;
  Random random(77);
  for (float& p : pixels) input.push_back(((p = static_cast<float>(random.integer(0, 255))) - 127.5f) / 128.0f);
  const auto out = execute(net, source, input);
  for (int i = 0; i < net.size(); ++i) {
    if (!has_weights(net[i])) continue;
    const std::string name = net[i].name.text;
    file.tensors.push_back(builder::f32(name + ".bias", {net[i].out.c}, parameters.bias[z(i)]));
    file.tensors.push_back(builder::f32(name + ".weight", builder::weight_shape(net, net[i]), parameters.weight[z(i)]));
  }
  file.tensors.push_back(builder::f32("selftest.input", {24, 24, 3}, pixels));
  for (int i = 0; i < net.size(); ++i) {
    if (!is_golden(net[i])) continue;
    const std::string name = std::string("selftest.") + net[i].name.text;
    const std::uint64_t n = static_cast<std::uint64_t>(net[i].out.size());
    std::vector<float> samples, norms;
    for (std::uint64_t j = 0; j < std::min<std::uint64_t>(64, n); ++j)
      samples.push_back(out[z(i)][static_cast<std::size_t>(j * 2654435761u % n)]);
    for (int c = 0; c < net[i].out.c; ++c) {
      double sum = 0;
      for (std::size_t at = z(c); at < out[z(i)].size(); at += z(net[i].out.c))
        sum += static_cast<double>(out[z(i)][at]) * static_cast<double>(out[z(i)][at]);
      norms.push_back(static_cast<float>(std::sqrt(sum)));
    }
    file.tensors.push_back(builder::f32(name + ".samples", {static_cast<std::int64_t>(samples.size())}, samples));
    file.tensors.push_back(builder::f32(name + ".norms", {net[i].out.c}, norms));
  }
  file.tensors.push_back(builder::f32("selftest.embedding", {16}, out.back()));
  return file;
}

struct Outcome {
  Status status;
  std::string first;  // the first layer that left its bound
  int layers = 0;
  double largest_share = 0;
  bool numbers = true;  // none of what is printed is NaN
};
Outcome test(const File& file) {
  Outcome o;
  const std::string bytes = file.bytes();
  auto reader = WeightsReader::from_memory({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  REQUIRE(reader.ok());
  auto plan = Plan::compile(net, *reader);
  REQUIRE(plan.ok());
  auto w = plan->workspace(1, 2);
  REQUIRE(w.ok());
  o.status = selftest(*plan, *w, *reader, [&](const LayerError& e) {
    ++o.layers;
    o.numbers = o.numbers && e.share == e.share && e.max_abs_error == e.max_abs_error;
    o.largest_share = std::fmax(o.largest_share, e.share);
    if (!e.passed() && o.first.empty()) o.first = e.name;
  });
  return o;
}

}  // namespace

TEST_CASE("a file that is what it was made from passes, with room") {
  REQUIRE(net.ok());
  for (unsigned seed : {1u, 2u, 3u}) {
    const Parameters p(net, seed);
    const Outcome o = test(file_of(p, p));
    CHECK(o.status.ok());
    CHECK(o.first == "");
    CHECK(o.layers == 14);
    CHECK(o.largest_share < 0.5);
    CHECK(o.largest_share > 0);
  }
}

TEST_CASE("values that overflow fail, and are never NaN times a bound; a golden embedding of zeros is no golden") {
  const Parameters good(net, 1);
  Parameters wild = good;
  for (float& w : wild.weight[z(op_of("stem"))]) w *= 1e38f;
  const Outcome o = test(file_of(wild, good));
  CHECK(o.status.ok());
  CHECK(o.first == "stem");
  CHECK(o.numbers);
  CHECK(o.largest_share == HUGE_VAL);
  Parameters dead = good;
  for (float& w : dead.weight[z(op_of("last_linear"))]) w = 0;
  for (float& b : dead.bias[z(op_of("last_linear"))]) b = 0;
  const Outcome zero = test(file_of(dead, dead));
  CHECK(zero.status.code() == Errc::corrupt);
  CHECK(zero.numbers);
}

TEST_CASE("each fault fails at its layer") {
  const Parameters good(net, 1);
  const auto fails_at = [&](const std::string& layer, const std::function<void(Parameters&)>& spoil) {
    CAPTURE(layer);
    Parameters bad = good;
    spoil(bad);
    const Outcome o = test(file_of(bad, good));
    CHECK(o.status.ok());
    CHECK(o.first == layer);
  };
  fails_at("stem", [](Parameters& p) { p = Parameters(net, 2); });          // another training set's tensors
  for (const char* layer : {"b1", "a", "up", "d", "down2", "last_linear"})  // one of them
    fails_at(layer, [&](Parameters& p) {
      const Parameters other(net, 2);
      p.weight[z(op_of(layer))] = other.weight[z(op_of(layer))];
    });
  fails_at("stem", [](Parameters& p) {  // BGR weights in a file that says RGB
    std::vector<float>& w = p.weight[z(op_of("stem"))];
    for (std::size_t o = 0; o < 32; ++o) std::swap_ranges(&w[o * 27], &w[o * 27] + 9, &w[o * 27 + 18]);
  });
  for (const char* layer : {"stem", "b0", "down1"})  // folded with epsilon 1e-5 for 1e-3, variance 1: w' = w * 1.0005
    fails_at(layer, [&](Parameters& p) {
      for (float& w : p.weight[z(op_of(layer))]) w *= std::sqrt(1.001f / 1.00001f);
    });
  fails_at("b1", [](Parameters& p) {  // [O][I][1][7] read as [I][O][1][7]
    std::vector<float>& w = p.weight[z(op_of("b1"))];
    const std::vector<float> from = w;
    for (std::size_t o = 0; o < 32; ++o)
      for (std::size_t i = 0; i < 32; ++i)
        for (std::size_t t = 0; t < 7; ++t) w[(o * 32 + i) * 7 + t] = from[(i * 32 + o) * 7 + t];
  });
  fails_at("down1", [](Parameters& p) { p.bias[z(op_of("down1"))][5] += 0.01f; });  // one channel
}

TEST_CASE("a wrong picture, and goldens that are missing, too many or of another size") {
  const Parameters p(net, 1);
  const File good = file_of(p, p);
  File file = good;
  file.meta("channel_order") = "bgr";
  CHECK(test(file).first == "stem");
  file = good;
  file.meta("scaling") = "unit";
  CHECK(test(file).first == "stem");
  file = good;
  file["selftest.input"].bytes.replace(0, 4, builder::f32_bytes({1.5f}));
  CHECK(std::string(test(file).status.place()).find("selftest.input") != std::string::npos);
  CHECK(test(file).status.code() == Errc::corrupt);
  file = good;
  file["selftest.embedding"].bytes.replace(0, 4, builder::f32_bytes({0.5f}));
  CHECK(test(file).first == "embedding");
  file = good;
  file["selftest.pool.norms"].name = "selftest.pond.norms";
  CHECK(test(file).status.code() == Errc::weights_mismatch);
  CHECK(std::string(test(file).status.place()) == "selftest.pool.norms");
  file = good;
  file.tensors.push_back(builder::f32("selftest.more.norms", {1}, {1}));
  CHECK(test(file).status.code() == Errc::weights_mismatch);
  file = good;
  file["selftest.up.norms"] = builder::f32("selftest.up.norms", {31}, std::vector<float>(31, 1.0f));
  CHECK(test(file).status.code() == Errc::weights_mismatch);
  file = good;
  while (file.tensors.back().name.rfind("selftest.", 0) == 0) file.tensors.pop_back();
  CHECK(test(file).status.code() == Errc::not_found);
}
