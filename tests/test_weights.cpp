#include "weights_builder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>

#include "facenet/models/all.hpp"
#if defined(__unix__)
#  include <sys/stat.h>
#  include <unistd.h>
#endif

using builder::File, builder::Layers, builder::Tensor;
using facenet::Errc, facenet::Network, facenet::ReadOptions, facenet::Result, facenet::Span, facenet::Status,
    facenet::WeightsReader;

namespace {

constexpr Network toy = builder::toy_network();

Span<const std::uint8_t> span(const std::string& s) {
  return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()};
}

/// A reader together with the bytes it reads.
struct Opened {
  std::string bytes;
  Result<WeightsReader> result;

  explicit Opened(std::string file, ReadOptions options)
      : bytes(std::move(file)), result(WeightsReader::from_memory(span(bytes), options)) {
    if (!result.ok()) return;
    const Status recognised = result->recognise(facenet::models::all());
    if (!recognised.ok()) result = recognised;
  }
  bool ok() const { return result.ok(); }
  const Status& status() const { return result.status(); }
  WeightsReader& operator*() { return *result; }
  WeightsReader* operator->() { return &*result; }
};
Opened open(const std::string& file, ReadOptions options = {}) { return Opened(file, options); }

/// Reads all layers; a second call for an operator is an error.
Status layers(WeightsReader& reader, Layers& out, const Network& network = toy) {
  return reader.for_each_layer(network, [&](int op, Span<const float> weight, Span<const float> bias) -> Status {
    if (out.count(op) != 0) return {Errc::invalid_argument, "a layer came twice"};
    out[op] = {{weight.begin(), weight.end()}, {bias.begin(), bias.end()}};
    return {};
  });
}

Status read(const std::string& file, Layers* out = nullptr, ReadOptions options = {}, const Network& network = toy) {
  auto reader = open(file, options);
  if (!reader.ok()) return reader.status();
  Layers ignored;
  return layers(*reader, out != nullptr ? *out : ignored, network);
}

std::string printed(const Status& s) {
  char text[640];
  return s.print(text, sizeof text);
}

/// One wrong file: the code, the whole sentence, and what the place must contain.
void rejects(const std::string& file, Errc code, const std::string& sentence, const std::string& place = "",
             ReadOptions options = {}) {
  const Status s = read(file, nullptr, options);
  INFO(printed(s));
  CHECK(s.code() == code);
  CHECK(std::string(s.text()) == sentence);
  CHECK(std::string(s.place()).find(place) != std::string::npos);
}

std::string with_header(const std::string& header, const std::string& data = "") {
  return File::assemble(header, data);
}

File with_threshold(File file) {
  file.meta("threshold") = "0.83";
  file.meta("threshold_source") = "a test";
  return file;
}

const std::string damaged_header = "the header's XXH64 does not agree: the file is damaged, copy or convert it again";
const std::string damaged_data = "the data's XXH64 does not agree: the file is damaged, copy or convert it again";

}  // namespace

TEST_CASE("a converted file of each dtype gives its values exactly") {
  for (const char* dtype : {"F32", "F16", "I8"}) {
    CAPTURE(dtype);
    Layers want, got;
    const std::string file = builder::converted(toy, dtype, &want).bytes();
    CHECK(printed(read(file, &got)) == "ok");
    CHECK(got == want);
  }
}

namespace {

struct Int8Layer {
  const std::int8_t* at;
  std::vector<float> scale, bias;
};
Status int8_layers(WeightsReader& reader, const Network& n, std::map<int, std::vector<std::int8_t>>& places,
                   std::map<int, Int8Layer>& got) {
  return reader.for_each_int8_layer(
      n,
      [&](int op) {
        places[op].resize(static_cast<std::size_t>(weight_count(n, n[op])));
        return places[op].data();
      },
      [&](int op, const std::int8_t* weight, Span<const float> scale, Span<const float> bias) -> Status {
        got[op] = {weight, {scale.begin(), scale.end()}, {bias.begin(), bias.end()}};
        return {};
      });
}

}  // namespace

TEST_CASE("int8 weights are handed out as they are, where they lie, with their scales") {
  Layers want;
  File file = builder::converted(toy, "I8", &want);
  for (bool turned : {false, true}) {
    if (turned) std::reverse(file.tensors.begin(), file.tensors.end());  // then weights come before their scales
    const std::string bytes = file.bytes();
    auto reader = WeightsReader::from_memory({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
    REQUIRE(reader.ok());
    CHECK(reader->from_memory());
    std::map<int, std::vector<std::int8_t>> places;
    std::map<int, Int8Layer> got;
    CHECK(printed(int8_layers(*reader, toy, places, got)) == "ok");
    CHECK(places.empty());  // nothing is copied
    CHECK(got.size() == want.size());
    for (const auto& [op, layer] : got) {
      const auto* begin = reinterpret_cast<const std::int8_t*>(bytes.data());
      const auto count = want[op].first.size();
      CHECK(layer.at > begin);
      CHECK(layer.at + count <= begin + bytes.size());
      CHECK(layer.bias == want[op].second);
      const std::size_t row = count / layer.scale.size();
      for (std::size_t i = 0; i < count; ++i)
        CHECK(static_cast<float>(layer.at[i]) * layer.scale[i / row] == want[op].first[i]);
    }
  }
}

TEST_CASE("int8 weights that stay: what is not int8, damaged, or too large") {
  std::map<int, std::vector<std::int8_t>> places;
  std::map<int, Int8Layer> got;
  for (const std::string& bytes : {builder::converted(toy).bytes(), builder::state_dict(toy).bytes()}) {
    auto reader = open(bytes);
    REQUIRE(reader.ok());
    const Status s = int8_layers(*reader, toy, places, got);
    CHECK(s.code() == Errc::weights_mismatch);
    CHECK(printed(s).find("must be int8 in the file: convert them with --dtype i8") != std::string::npos);
  }
  File file = builder::converted(toy, "I8");
  file["stem.weight_scale"] = builder::f32("stem.weight_scale", {5}, {1, 1, 1, 1, 3e36f});
  const std::string large = file.bytes();
  auto reader = open(large);
  REQUIRE(reader.ok());
  CHECK(printed(int8_layers(*reader, toy, places, got)).find("becomes infinite when its scale is applied") !=
        std::string::npos);
  std::string damaged = builder::converted(toy, "I8").bytes();
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  auto other = open(damaged);
  REQUIRE(other.ok());
  CHECK(printed(int8_layers(*other, toy, places, got)) == "data_xxh64: " + damaged_data);
}

TEST_CASE("an imported state_dict is folded in double") {
  Layers want, got;
  File file = builder::state_dict(toy, &want);
  auto reader = open(file.bytes());
  REQUIRE(reader.ok());
  CHECK(reader->metadata().assumed);
  CHECK(reader->metadata().trained);
  CHECK(reader->metadata().embedding_dim == 4);
  CHECK(std::string(reader->metadata().architecture) == "inception_resnet_v1");
  CHECK(std::string(reader->digest()).empty());
  CHECK(printed(layers(*reader, got)) == "ok");
  CHECK(got == want);
  CHECK(std::string(reader->digest()).size() == 16);

  SUBCASE("with module. in front, Hugging Face's format key, and the mark of an untrained checkpoint") {
    for (Tensor& t : file.tensors) t.name = "module." + t.name;
    file.tensors.push_back({"facenet_untrained", "BOOL", {1}, std::string(1, '\1')});
    file.meta("format") = "pt";
    auto other = open(file.bytes());
    REQUIRE(other.ok());
    CHECK(other->metadata().assumed);
    CHECK_FALSE(other->metadata().trained);
    CHECK(other->find("stem.conv.weight") >= 0);
    CHECK(other->find("module.stem.conv.weight") < 0);
    Layers again;
    CHECK(printed(layers(*other, again)) == "ok");
    CHECK(again == want);
  }
  SUBCASE("half precision is expanded before it is folded") {
    Tensor& t = file["stem.conv.weight"];
    t.dtype = "F16";
    std::string halves;
    for (std::size_t i = 0; i < t.bytes.size(); i += 4) {
      float f;
      const std::uint32_t bits = facenet::detail::load_le<std::uint32_t>(t.bytes.data() + i);
      std::memcpy(&f, &bits, sizeof f);
      halves += builder::little_endian(builder::exact_half(f));
    }
    t.bytes = halves;
    Layers again;
    CHECK(printed(read(file.bytes(), &again)) == "ok");
    CHECK(again == want);
  }
  SUBCASE("a state_dict of another network is opened, and said not to fit") {
    file.tensors = {builder::f32("fc.weight", {1, 1}, {1})};
    auto other = open(file.bytes());
    REQUIRE(other.ok());
    CHECK(std::string(other->metadata().architecture) == "unknown");
    file.tensors = {builder::f32("mixed_5b.branch0.conv.weight", {1}, {1}),
                    builder::f32("last_linear.weight", {1, 1}, {1})};
    CHECK(std::string(open(file.bytes())->metadata().architecture) == "inception_resnet_v2");
    file.tensors = {builder::f32("last_linear.weight", {1}, {1})};
    CHECK(std::string(open(file.bytes())->metadata().architecture) == "unknown");
    CHECK(layers(*other, got).code() == Errc::weights_mismatch);
  }
}

TEST_CASE(
    "PReLU's slopes come after the biases; a detector's file may hold what is not its own, and lie beside an "
    "embedder's") {
  constexpr Network detector = [] {
    Network n("mtcnn.pnet", {6, 6, 3});
    n.conv_bias("mtcnn.pnet.head", n.conv_prelu("mtcnn.pnet.conv1", n.input(), 2, facenet::k(3)), 3, facenet::k(1));
    return n;
  }();
  Layers want, got;
  File file = builder::converted(detector, "F32", &want);
  file.meta("architecture") = "mtcnn";
  file.meta("embedding_dim") = "0";
  const std::vector<float> slopes = {0.25f, -0.5f};
  file.tensors.insert(file.tensors.begin() + 1, builder::f32("mtcnn.pnet.conv1.slope", {2}, slopes));
  want[1].second.insert(want[1].second.end(), slopes.begin(), slopes.end());
  file.tensors.push_back(builder::f32("mtcnn.rnet.conv1.bias", {1}, {1}));
  file.tensors.push_back(builder::f32("stem.bias", {1}, {1}));
  CHECK(printed(read(file.bytes(), &got, {}, detector)) == "ok");
  CHECK(got == want);
  file["mtcnn.pnet.conv1.slope"].name = "mtcnn.pnet.conv1.slop";
  const Status s = read(file.bytes(), nullptr, {}, detector);
  CHECK(std::string(s.place()) == "missing mtcnn.pnet.conv1.slope; extra mtcnn.pnet.conv1.slop");
  file.meta("architecture") = "another";
  CHECK(read(file.bytes(), nullptr, {}, detector).code() == Errc::corrupt);  // dimension 0 is for detectors only
  file.meta("architecture") = "mtcn";                                        // the whole name, up to its dot
  CHECK(read(file.bytes(), nullptr, {}, detector).code() == Errc::corrupt);
}

namespace {

// A model of somebody else's, declared here alone: the names of torchvision's ResNet, PyTorch's own epsilon, a head
// with a batch norm of its own name, and a preprocessing that differs from the usual in each field.
constexpr facenet::FileTraits resnet_traits = [] {
  facenet::FileTraits t;
  t.beside = "pose.";
  t.ignored = "arc_margin.";
  t.layer = [](const facenet::Op& op) { return op.name; };
  t.batch_norm = [](const facenet::Op& op) {  // layer1.conv2 -> layer1.bn2
    if (op.kind == facenet::OpKind::linear) return facenet::Name("features");
    facenet::Name n;
    int at = op.name.length - 1;
    while (at > 0 && op.name.text[at - 1] != '.') --at;
    for (int i = 0; i < at; ++i) n.push(op.name.text[i]);
    n.push('b');
    n.push('n');
    for (int i = at + 4; i < op.name.length; ++i) n.push(op.name.text[i]);
    return n;
  };
  t.batch_norm_eps = 1e-5;
  t.mark = "layer1.bn2.weight";
  t.embedding = "fc.weight";
  t.stem = "conv1.weight";
  t.stem_channels = 4;
  t.preprocessing = {8,
                     facenet::ChannelOrder::bgr,
                     facenet::Scaling::unit,
                     facenet::Crop::five_point,
                     facenet::Normalise::none,
                     0.25,
                     "none"};
  return t;
}();
constexpr Network resnet(int dim, bool normalise, double width) {
  Network n("resnet", {8, 8, 3}, width, &resnet_traits);
  facenet::Ref x = n.conv("conv1", n.input(), 4, facenet::k(3).stride(2));
  x = n.conv("layer1.conv2", x, 4, facenet::k(1, 3));
  x = n.residual("layer1.down", x, x, 0.5f, facenet::relu);
  x = n.linear_bn("fc", n.global_avg_pool("mean", x), dim);
  if (normalise) n.l2_normalise("normalise", x);
  return n;
}
constexpr facenet::models::Entry my_models[] = {{"resnet", resnet, 1.2, &resnet_traits}};

}  // namespace

TEST_CASE("a plain state_dict of a model that is declared elsewhere is recognised, named and folded as its page says") {
  const Network n = resnet(6, false, 2);
  REQUIRE(n.ok());
  File file;
  Layers want, got;
  builder::Numbers numbers;
  const auto layer = [&](int op, const std::string& name, const std::string& norm, std::vector<std::int64_t> shape) {
    std::int64_t count = 1;
    for (std::int64_t d : shape) count *= d;
    const std::int64_t outputs = shape[0];
    std::vector<float> weight = numbers.some(count), bias = numbers.some(outputs);
    file.tensors.push_back(builder::f32(name + ".weight", shape, weight));
    file.tensors.push_back(builder::f32((norm.empty() ? name : norm) + ".bias", {outputs}, bias));
    if (!norm.empty()) {
      const std::vector<float> gamma = numbers.some(outputs), mean = numbers.some(outputs);
      std::vector<float> variance = numbers.some(outputs);
      for (float& v : variance) v = std::abs(v) / 1024;  // small, so that the epsilon shows
      file.tensors.push_back(builder::f32(norm + ".weight", {outputs}, gamma));
      file.tensors.push_back(builder::f32(norm + ".running_mean", {outputs}, mean));
      file.tensors.push_back(builder::f32(norm + ".running_var", {outputs}, variance));
      file.tensors.push_back({norm + ".num_batches_tracked", "I64", {}, std::string(8, '\x01')});
      for (std::size_t o = 0; o < gamma.size(); ++o) {
        const double s = double{gamma[o]} / std::sqrt(double{variance[o]} + 0.00001);
        const std::size_t row = weight.size() / gamma.size();
        for (std::size_t j = 0; j < row; ++j) weight[o * row + j] = static_cast<float>(double{weight[o * row + j]} * s);
        bias[o] = static_cast<float>(double{bias[o]} - double{mean[o]} * s);
      }
    }
    want[op] = {weight, bias};
  };
  layer(1, "conv1", "bn1", {8, 3, 3, 3});
  layer(2, "layer1.conv2", "layer1.bn2", {8, 8, 1, 3});
  layer(3, "layer1.down", "", {8, 8, 1, 1});
  layer(5, "fc", "features", {6, 8});
  file.tensors.push_back(builder::f32("arc_margin.kernel", {2, 3}, numbers.some(6)));

  const std::string bytes = file.bytes();
  auto reader = WeightsReader::from_memory(span(bytes));
  REQUIRE(reader.ok());
  CHECK(reader->recognise(facenet::models::all()).ok());  // which does not know it
  CHECK(std::string(reader->metadata().architecture) == "unknown");
  CHECK(reader->metadata().embedding_dim == 0);
  CHECK(printed(layers(*reader, got, n)) == "ok");  // the network is all that reading takes
  CHECK(got == want);
  const std::string digest = reader->digest();
  CHECK(printed(reader->recognise(my_models)) == "ok");
  const facenet::Metadata& m = reader->metadata();
  CHECK(std::string(m.architecture) == "resnet");
  CHECK(m.assumed);
  CHECK(m.embedding_dim == 6);
  CHECK(m.width == 2);
  CHECK(m.image_size == 8);
  CHECK(m.channel_order == facenet::ChannelOrder::bgr);
  CHECK(m.scaling == facenet::Scaling::unit);
  CHECK(m.crop == facenet::Crop::five_point);
  CHECK(m.normalise == facenet::Normalise::none);
  CHECK(m.margin == 0.25);
  CHECK(std::string(m.resize) == "none");
  CHECK(std::string(reader->digest()).empty());  // the old one stood for another preprocessing
  got.clear();
  CHECK(printed(layers(*reader, got, n)) == "ok");
  CHECK(got == want);
  CHECK(std::string(reader->digest()).size() == 16);
  CHECK(reader->digest() != digest);

  const std::string names = "the file's tensors are not the network's: these weights are for another network";
  const auto place = [&](const File& f) {
    const std::string changed = f.bytes();
    auto other = WeightsReader::from_memory(span(changed));
    REQUIRE(other.ok());
    Layers ignored;
    const Status s = layers(*other, ignored, n);
    CHECK(std::string(s.text()) == names);
    return std::string(s.place());
  };
  File wrong = file;
  wrong["features.running_var"].name = "features.var";
  CHECK(place(wrong) == "missing features.running_var; extra features.var");
  wrong = file;
  wrong.tensors.push_back(builder::f32("logits.weight", {1}, {1}));  // another model's classifier
  CHECK(place(wrong) == "extra logits.weight");

  wrong = file;  // recognised by its mark and its embedding together
  wrong["fc.weight"].shape = {6, 8, 1};
  const std::string rank3 = wrong.bytes();
  auto other = WeightsReader::from_memory(span(rank3));
  CHECK(other->recognise(my_models).ok());
  CHECK(std::string(other->metadata().architecture) == "unknown");
  wrong["fc.weight"] = {"fc.weight", "I8", {16385, 1}, std::string(16385, '\0')};
  const std::string large = wrong.bytes();
  other = WeightsReader::from_memory(span(large));
  const Status s = other->recognise(my_models);
  CHECK(s.code() == Errc::limit_exceeded);
  CHECK(printed(s) == "fc.weight: an embedding has at most 16384 components");

  File converted = builder::converted(n);  // says itself what it is, and may lie beside what its page names
  converted.tensors.push_back(builder::f32("pose.fc.weight", {1}, {1}));
  CHECK(printed(read(converted.bytes(), nullptr, {}, n)) == "ok");
  converted.tensors.push_back(builder::f32("mtcnn.pnet.conv1.bias", {1}, {1}));
  CHECK(std::string(read(converted.bytes(), nullptr, {}, n).place()) == "extra mtcnn.pnet.conv1.bias");
}

TEST_CASE("tensors may stand in any order") {
  std::mt19937 random(7);
  for (int turn = 0; turn < 60; ++turn) {
    Layers want, got;
    File file =
        turn % 3 == 0 ? builder::state_dict(toy, &want) : builder::converted(toy, turn % 3 == 1 ? "I8" : "F16", &want);
    std::shuffle(file.tensors.begin(), file.tensors.end(), random);
    CHECK(printed(read(file.bytes(), &got)) == "ok");
    CHECK(got == want);
  }
}

TEST_CASE("metadata is read and identifies the model") {
  File file = builder::converted(toy);
  file.meta("licence") = "Li\\u00e9\\ud83d\\ude00\\n\\\"x\\\"";
  auto reader = open(file.bytes());
  REQUIRE(reader.ok());
  const facenet::Metadata& m = reader->metadata();
  CHECK_FALSE(m.assumed);
  CHECK(std::string(m.architecture) == "toy");
  CHECK(m.embedding_dim == 4);
  CHECK_FALSE(m.trained);
  CHECK(m.normalise == facenet::Normalise::l2);
  CHECK(m.width == 1.0);
  CHECK(m.image_size == 6);
  CHECK(m.channel_order == facenet::ChannelOrder::rgb);
  CHECK(m.scaling == facenet::Scaling::fixed);
  CHECK(m.crop == facenet::Crop::box);
  CHECK(m.margin == 0.25);
  CHECK(std::string(m.resize) == "pillow_bilinear");
  CHECK(std::string(m.source_sha256) == std::string(64, 'a'));
  CHECK(std::string(m.licence) == "Li\xc3\xa9\xf0\x9f\x98\x80\n\"x\"");
  CHECK(reader->entries().size() == 18);
  CHECK(std::string(reader->entries()[0].key) == "format");

  const std::string digest = reader->digest();
  CHECK(digest.size() == 16);
  WeightsReader moved = std::move(*reader);
  Layers got;
  CHECK(printed(layers(moved, got)) == "ok");
  CHECK(moved.digest() == digest);  // what the header said is what the data is

  auto digest_of = [](const File& f) { return std::string(open(f.bytes())->digest()); };
  file.meta("licence") = "another";
  CHECK(digest_of(file) == digest);
  for (auto [key, value] : {std::pair<const char*, const char*>{"scaling", "prewhiten"},
                            {"channel_order", "bgr"},
                            {"normalise", "none"},
                            {"image_size", "7"},
                            {"embedding_dim", "5"},
                            {"architecture", "toys"},
                            {"width", "0.5"}}) {
    File other = file;
    other.meta(key) = value;
    CHECK(digest_of(other) != digest);
  }
  file["stem.bias"].bytes[0] ^= 1;
  CHECK(digest_of(file) != digest);
}

TEST_CASE("rule 1: size and header length") {
  const std::string good = builder::converted(toy).bytes();
  rejects("", Errc::truncated, "the file is empty: copy or download it again");
  rejects(good.substr(0, 9), Errc::truncated, "the file is shorter than 10 bytes: copy or download it again");
  auto length = [&](std::uint64_t n) { return builder::little_endian(n) + good.substr(8); };
  rejects(length(good.size() - 7), Errc::truncated, "the file ends inside its header: copy or download it again");
  for (std::uint64_t n : {std::uint64_t{1048577}, std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{7}})
    rejects(length(n), Errc::limit_exceeded, "the header's length is above 1 MiB: this is not a safetensors file");
  rejects(length(1), Errc::corrupt, "the header's length is below 2: this is not a safetensors file");
  for (const char* start : {"PK\3\4", "\x80\x02\x8a\x0a"})  // the zip and the old serialisation
    rejects(start + good.substr(4, 3) + "\x46" + good.substr(8), Errc::unsupported,
            "this is a PyTorch checkpoint: convert it with tools/convert_weights.py");
  // 512 MiB and a byte that are never touched: only the size is looked at.
  auto reader =
      WeightsReader::from_memory({reinterpret_cast<const std::uint8_t*>(good.data()), (std::size_t{512} << 20) + 1});
  CHECK(reader.status().code() == Errc::limit_exceeded);
  CHECK(std::string(reader.status().text()) == "the file is larger than 512 MiB");
}

TEST_CASE("rule 2: the header is one JSON object in UTF-8, padded with spaces") {
  const std::string json = "the header's JSON ";
  auto meta = [](const std::string& value) { return with_header("{\"__metadata__\":{\"a\":\"" + value + "\"}}"); };
  rejects(with_header("[]"), Errc::corrupt, "the header does not begin with '{': this is not a safetensors file");
  rejects(with_header(" {}"), Errc::corrupt, "the header does not begin with '{': this is not a safetensors file");
  rejects(with_header("{} \t"), Errc::corrupt, "only spaces may follow the header's JSON");
  rejects(with_header("{}{}"), Errc::corrupt, "only spaces may follow the header's JSON");
  rejects(with_header(std::string("{}\0", 3)), Errc::corrupt, "only spaces may follow the header's JSON");
  rejects(with_header("{\"a\""), Errc::corrupt, json + "lacks a ':' here");
  rejects(with_header("{a:1}"), Errc::corrupt, json + "needs a string here");
  rejects(with_header("{\"a"), Errc::corrupt, "a string in the header has no end");
  rejects(with_header("{\"a\":{\"dtype\":\"F32\" \"shape\":[]}}"), Errc::corrupt, json + "lacks a ',' or a '}' here",
          "a");
  rejects(with_header("{\"a\":{\"shape\":[1 2]}}"), Errc::corrupt, json + "lacks a ',' or a ']' here", "a");
  rejects(with_header("{\"a\":{\"shape\":{}}}"), Errc::corrupt, json + "needs a list of integers here", "a");
  rejects(with_header("{\"a\":[[[[[[]]]]]]}"), Errc::corrupt,
          "a tensor must be an object with dtype, shape and data_offsets", "a");
  rejects(with_header("{\"__metadata__\":[]}"), Errc::corrupt, "__metadata__ must be an object of strings");
  rejects(with_header("{\"__metadata__\":{\"a\":{}}}"), Errc::corrupt, json + "needs a string here", "a");
  rejects(meta("a\nb"), Errc::corrupt, "a string in the header has a raw control character", "a");
  rejects(with_header("{\"a\\nb\":{}}"), Errc::corrupt, "a name or key in the header has a control character");
  rejects(with_header("{\"a\x7f\":{}}"), Errc::corrupt, "a name or key in the header has a control character");
  rejects(with_header("{\"\":{}}"), Errc::corrupt, "a name or key in the header is empty");
  for (const char* bad : {"\\x", "\\u12", "\\u000g", "\\u0000", "\\udc00", "\\ud800", "\\ud800\\u0041", "\\ud800x"}) {
    CAPTURE(bad);
    rejects(meta(bad), Errc::corrupt, "a string in the header has a bad escape", "a");
  }
  // The header ends in the middle of one, so that nothing after it may be looked at.
  for (const char* bad : {"\\", "\\u", "\\u12", "\\ud800", "\\ud800\\u", "\\ud800\\udc0"}) {
    CAPTURE(bad);
    const Status s = read(with_header(std::string("{\"__metadata__\":{\"a\":\"") + bad));
    CHECK(s.code() == Errc::corrupt);
  }
  rejects(meta("\\ud800\\ud800"), Errc::corrupt, "a string in the header has a bad escape", "a");
  rejects(meta("\\ud800\\udczz"), Errc::corrupt, "a string in the header has a bad escape", "a");
  const char* not_utf8[] = {"\x80",
                            "\xc0\x80",
                            "\xc1\xbf",
                            "\xc3",
                            "\xe0\x9f\xbf",
                            "\xed\xa0\x80",
                            "\xf0\x8f\xbf\xbf",
                            "\xf4\x90\x80\x80",
                            "\xf5\x80\x80\x80",
                            "\xff",
                            "\xe2\x82",
                            "\xe2\x28\xa1",
                            "\xf0\x90\x28\x80",
                            "\xf0\x90\x80\x28"};
  for (const char* bad : not_utf8) rejects(meta(bad), Errc::corrupt, "the header is not valid UTF-8");
  rejects("\x02" + std::string(7, '\0') + "{\xc3", Errc::corrupt, "the header is not valid UTF-8");
  rejects(with_header("{\"" + std::string(129, 'n') + "\":{}}"), Errc::limit_exceeded,
          "a name or key in the header is longer than 128 bytes");
  rejects(meta(std::string(4097, 'v')), Errc::limit_exceeded, "a metadata value is longer than 4096 bytes", "a");
  std::string many = "{\"__metadata__\":{\"k\":\"\"";
  for (int i = 0; i < 64; ++i) many += ",\"" + std::to_string(i) + "\":\"\"";
  rejects(with_header(many + "}}"), Errc::limit_exceeded, "the header has more than 64 metadata keys");
  File crowd;
  for (int i = 0; i < 4097; ++i) crowd.tensors.push_back({std::to_string(i), "U8", {1}, "x"});
  rejects(crowd.bytes(), Errc::limit_exceeded, "the file has more than 4096 tensors");
  crowd.tensors.pop_back();
  CHECK(open(crowd.bytes()).ok());
  CHECK(open(crowd.bytes())->find("4095") == 4095);
  // All that JSON allows and the format does not forbid.
  auto spaced = open(
      with_header("{ \"__metadata__\" :\t{ \"a\\u002fb\":\n\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\\u20AC\" }\r, \"t\": "
                  "{\"shape\" : [ 1 , 1 ], \"data_offsets\": [0,1] , \"dtype\":\"U8\"} }  ",
                  "x"));
  REQUIRE(spaced.ok());
  CHECK(std::string(spaced->entries()[0].key) == "a/b");
  CHECK(std::string(spaced->entries()[0].value) == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x82\xac");
  CHECK(spaced->tensor(0).rank == 2);
}

TEST_CASE("rule 3: plain integers; no key twice, none unknown") {
  auto tensor = [](const std::string& rest) { return with_header("{\"t\":{" + rest + "}}", "data"); };
  const std::string dtype = "\"dtype\":\"F32\",", shape = "\"shape\":[1],", offsets = "\"data_offsets\":[0,4]";
  CHECK(open(tensor(dtype + shape + offsets)).ok());
  const std::string plain = "an integer in the header is not plain digits (no sign, zeros in front, exponent)";
  for (const char* bad : {"-1", "+1", "01", "00", "1.0", "1e0", "1E0", "\"1\"", "", "true", "[1]"}) {
    CAPTURE(bad);
    rejects(tensor(dtype + "\"shape\":[" + bad + (*bad == 0 ? ",1]," : "],") + offsets), Errc::corrupt, plain, "t");
  }
  rejects(tensor(dtype + shape + "\"data_offsets\":[0,99999999999999999999999]"), Errc::limit_exceeded,
          "an integer in the header is too large", "t");
  rejects(tensor(dtype + shape + offsets + "," + shape.substr(0, shape.size() - 1)), Errc::corrupt,
          "a tensor has a key twice", "t");
  rejects(tensor(dtype + shape + offsets + ",\"x\":1"), Errc::corrupt, "a tensor has an unknown key", "t");
  rejects(tensor(dtype + offsets), Errc::corrupt, "a tensor lacks its dtype, shape or data_offsets", "t");
  rejects(tensor(""), Errc::corrupt, "a tensor lacks its dtype, shape or data_offsets", "t");
  rejects(tensor(dtype + shape + "\"data_offsets\":[0,4,4]"), Errc::corrupt, "data_offsets has more than 2 integers",
          "t");
  rejects(tensor(dtype + shape + "\"data_offsets\":[0]"), Errc::corrupt, "data_offsets has less than 2 integers", "t");
  rejects(with_header("{\"__metadata__\":{},\"__metadata__\":{}}"), Errc::corrupt, "the header has __metadata__ twice");
  rejects(with_header("{\"__metadata__\":{\"a\":\"\",\"\\u0061\":\"\"}}"), Errc::corrupt,
          "a metadata key is there twice", "a");
  File twice;
  twice.tensors = {builder::f32("t", {1}, {1}), builder::f32("t", {1}, {1})};
  rejects(twice.bytes(), Errc::corrupt, "a tensor is there twice", "t");
  twice.tensors[1].name = "module.t";
  rejects(twice.bytes(), Errc::corrupt, "a tensor is there with and without the same prefix: save the file again", "t");
  File unknown = builder::converted(toy);
  unknown.meta("colour") = "red";
  rejects(unknown.bytes(), Errc::corrupt,
          "the metadata has a key that its format does not know: convert the weights again", "colour");
}

// ---- Format 2: what integer arithmetic needs
// --------------------------------------------------------------------------

namespace {

File with_scales(Layers* want = nullptr) {
  File file = builder::converted(toy, "I8", want);
  file.meta("format") = "2";
  file.meta("arithmetic") = "int8";
  file.meta("calibration_sha256") = std::string(64, 'b');
  file.tensors.push_back(builder::f32("stem.input_scale", {1}, {1.0f / 128}));
  file.tensors.push_back(builder::f32("up.input_scale", {2}, {0.5f, 0.25f}));
  return file;
}
Status scales(const File& file, int op, std::vector<float>& got) {
  const std::string bytes = file.bytes();
  auto reader = open(bytes);
  if (!reader.ok()) return reader.status();
  got.assign(static_cast<std::size_t>(in_channels(toy, toy[op])), -1.0f);
  std::size_t count = 0;
  const Status s = reader->input_scales(toy, op, got, count);
  got.resize(count);
  return s;
}
int op_of(const char* name) {
  for (int i = 0; i < toy.size(); ++i)
    if (toy[i].name == name) return i;
  return -1;
}

}  // namespace

TEST_CASE("format 2: input scales, integer layers as they are, and the same file in float") {
  Layers want, got;
  const File file = with_scales(&want);
  const std::string bytes = file.bytes();
  CHECK(printed(read(bytes, &got)) == "ok");
  CHECK(got == want);
  auto reader = open(bytes);
  REQUIRE(reader.ok());
  CHECK(reader->metadata().integer);
  CHECK(*reader->metadata().float_layers == 0);
  std::vector<float> found;
  CHECK(scales(file, op_of("stem"), found).ok());
  CHECK(found == std::vector<float>{1.0f / 128});
  CHECK(scales(file, op_of("up"), found).ok());
  CHECK(found == std::vector<float>{0.5f, 0.25f});
  CHECK(scales(file, op_of("branch.0"), found).ok());
  CHECK(found.empty());

  for (bool turned : {false, true}) {
    File other = file;
    if (turned) std::reverse(other.tensors.begin(), other.tensors.end());
    const std::string text = other.bytes();
    auto again = open(text);
    REQUIRE(again.ok());
    Layers floats, integers;
    CHECK(again
              ->for_each_integer_layer(
                  toy, [&](int op) { return op == op_of("stem") || op == op_of("up"); },
                  [&](int op, const std::int8_t* weight, Span<const float> scale, Span<const float> bias) -> Status {
                    auto& layer = integers[op];
                    const auto row = static_cast<std::size_t>(weight_count(toy, toy[op])) / scale.size();
                    for (std::size_t i = 0; i < row * scale.size(); ++i)
                      layer.first.push_back(static_cast<float>(weight[i]) * scale[i / row]);
                    layer.second.assign(bias.begin(), bias.end());
                    return {};
                  },
                  [&](int op, Span<const float> weight, Span<const float> bias) -> Status {
                    floats[op] = {{weight.begin(), weight.end()}, {bias.begin(), bias.end()}};
                    return {};
                  },
                  nullptr)
              .ok());
    CHECK(integers.size() == 2);
    integers.merge(floats);
    CHECK(integers == want);
  }
}

TEST_CASE("format 2: what is wrong is named") {
  std::vector<float> found;
  for (const char* key : {"arithmetic", "calibration_sha256"}) {
    File file = with_scales();
    for (std::size_t i = 0; i < file.metadata.size(); ++i)
      if (file.metadata[i].first == key) file.metadata.erase(file.metadata.begin() + static_cast<std::ptrdiff_t>(i));
    rejects(file.bytes(), Errc::not_found, "the metadata lacks this key: calibrate the weights again", key);
    file = with_scales();
    file.meta(key) = "int4";
    CHECK(read(file.bytes()).code() == Errc::corrupt);
    file = builder::converted(toy, "I8");  // of format 1
    file.meta(key) = key == std::string("arithmetic") ? "int8" : std::string(64, 'b');
    rejects(file.bytes(), Errc::corrupt,
            "the metadata has a key that its format does not know: convert the weights again", key);
  }
  File file = with_scales();
  file.tensors.push_back(builder::f32("pool.input_scale", {1}, {1}));
  CHECK(read(file.bytes()).code() == Errc::weights_mismatch);  // it belongs to no convolution
  for (float bad : {0.0f, -1.0f, 1e-38f, 1e30f}) {
    file = with_scales();
    file["stem.input_scale"] = builder::f32("stem.input_scale", {1}, {bad});
    CHECK(scales(file, op_of("stem"), found).code() == Errc::corrupt);
  }
  file = with_scales();
  file["up.input_scale"] = builder::f32("up.input_scale", {3}, {1, 1, 1});
  CHECK(scales(file, op_of("up"), found).code() == Errc::weights_mismatch);
  file = with_scales();
  file["stem.weight"].bytes[5] = static_cast<char>(-128);
  const std::string bytes = file.bytes();
  auto reader = open(bytes);
  REQUIRE(reader.ok());
  const Status s = reader->for_each_integer_layer(
      toy, [&](int op) { return op == op_of("stem"); },
      [](int, const std::int8_t*, Span<const float>, Span<const float>) { return Status(); },
      [](int, Span<const float>, Span<const float>) { return Status(); }, nullptr);
  CHECK(s.code() == Errc::corrupt);
  CHECK(std::string(s.place()).find("stem.weight") != std::string::npos);
}

TEST_CASE("rule 4: dtypes, ranks and dimensions") {
  auto tensor = [](const std::string& dtype, const std::string& shape) {
    return with_header("{\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[0,4]}}",
                       "data");
  };
  for (const char* bad : {"F31", "f32", "", "F8_E4M3", "F32 "})
    rejects(tensor(bad, "1"), Errc::unsupported, "a tensor has an unknown dtype", "t");
  rejects(tensor("F32", "1,1,1,1,1"), Errc::corrupt, "a tensor has more than 4 dimensions", "t");
  rejects(tensor("F32", "0"), Errc::limit_exceeded, "a dimension is not in 1 ... 1048576", "t");
  rejects(tensor("F32", "1048577"), Errc::limit_exceeded, "a dimension is not in 1 ... 1048576", "t");
  rejects(tensor("F32", "1048576,1048576,1048576,1048576"), Errc::limit_exceeded, "a tensor is larger than 512 MiB",
          "t");
  rejects(tensor("I8", "1048576,513"), Errc::limit_exceeded, "a tensor is larger than 512 MiB", "t");
  File file = builder::converted(toy);
  file.tensors.push_back({"selftest.count", "I64", {}, std::string(8, '\0')});
  rejects(file.bytes(), Errc::unsupported, "a tensor's dtype is not F32, F16, I8 or U8", "selftest.count");
  File import = builder::state_dict(toy);
  import["stem.conv.weight"].dtype = "I32";
  rejects(import.bytes(), Errc::weights_mismatch,
          "a layer's tensor cannot have this dtype: convert it with tools/convert_weights.py", "stem.conv.weight");
  file = builder::converted(toy, "I8");
  file["stem.bias"] = {"stem.bias", "I8", {5}, "abcde"};
  rejects(file.bytes(), Errc::weights_mismatch,
          "a layer's tensor cannot have this dtype: convert it with tools/convert_weights.py", "stem.bias");
  file = builder::converted(toy, "I8");
  file["stem.weight_scale"] = {"stem.weight_scale", "F16", {5}, std::string(10, '\1')};
  rejects(file.bytes(), Errc::weights_mismatch,
          "a layer's tensor cannot have this dtype: convert it with tools/convert_weights.py", "stem.weight_scale");
}

TEST_CASE("rule 5: the data is covered without gap, overlap or rest") {
  auto two = [](const std::string& a, const std::string& b, std::size_t data = 8) {
    auto one = [](const char* name, const std::string& range) {
      return std::string("\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" + range + "]}";
    };
    return with_header("{" + one("a", a) + "," + one("b", b) + "}", std::string(data, 'd'));
  };
  CHECK(open(two("0,4", "4,8")).ok());
  const std::string gap = "there is a gap in the data before a tensor";
  const std::string overlap = "a tensor overlaps the one before, or is not listed in the order of the data";
  const std::string disagree = "data_offsets do not agree with dtype and shape";
  rejects(two("1,5", "5,9", 9), Errc::corrupt, gap, "a");
  rejects(two("0,4", "5,9", 9), Errc::corrupt, gap, "b");
  rejects(two("0,4", "0,4"), Errc::corrupt, overlap, "b");
  rejects(two("0,4", "3,7"), Errc::corrupt, overlap, "b");
  rejects(two("4,8", "0,4"), Errc::corrupt, gap, "a");
  rejects(two("0,4", "4,7"), Errc::corrupt, disagree, "b");
  rejects(two("0,4", "8,4"), Errc::corrupt, disagree, "b");
  rejects(two("0,4", "4,8", 7), Errc::truncated,
          "the file ends before the end of a tensor's data: copy or download it again", "b");
  rejects(two("0,4", "4,8", 9), Errc::corrupt,
          "bytes follow the data of the last tensor: copy or convert the file again");
  rejects(with_header("{}", "x"), Errc::corrupt,
          "bytes follow the data of the last tensor: copy or convert the file again");
  CHECK(open(with_header("{}")).ok());
}

TEST_CASE("rule 6: every metadata key is there and makes sense") {
  const File good = builder::converted(toy);
  for (const auto& pair : good.metadata) {
    const std::string key = pair.first;
    if (key == "format") continue;
    File file = good;
    file.metadata.erase(std::find(file.metadata.begin(), file.metadata.end(), pair));
    rejects(file.bytes(), Errc::not_found, "the metadata lacks this key: convert the weights again", key);
  }
  const char* empty = "this metadata key must not be empty";
  const struct {
    const char *key, *value, *sentence;
  } wrong[] = {
      {"architecture", "", empty},
      {"resize", "", empty},
      {"dataset", "", empty},
      {"source", "", empty},
      {"licence", "", empty},
      {"embedding_dim", "0", "must be a number in 1 ... 16384"},
      {"embedding_dim", "16385", "must be a number in 1 ... 16384"},
      {"embedding_dim", "0512", "must be a number in 1 ... 16384"},
      {"embedding_dim", "-1", "must be a number in 1 ... 16384"},
      {"embedding_dim", "", "must be a number in 1 ... 16384"},
      {"embedding_dim", "18446744073709551617", "must be a number in 1 ... 16384"},
      {"image_size", "4097", "must be a number in 1 ... 4096"},
      {"image_size", "160px", "must be a number in 1 ... 4096"},
      {"width", "0", "must be a decimal number above 0"},
      {"width", "1e0", "must be a decimal number above 0"},
      {"width", "nan", "must be a decimal number above 0"},
      {"width", "1.", "must be a decimal number above 0"},
      {"margin", "-1", "must be a decimal number, 0 or above"},
      {"margin", ".5", "must be a decimal number, 0 or above"},
      {"margin", "1.2.3", "must be a decimal number, 0 or above"},
      {"margin", "1234567890123456", "must be a decimal number, 0 or above"},
      {"trained", "yes", "must be true or false"},
      {"trained", "True", "must be true or false"},
      {"normalise", "L2", "must be l2 or none"},
      {"channel_order", "RGB", "must be rgb or bgr"},
      {"scaling", "mean", "must be fixed, prewhiten, unit or mean_255"},
      {"crop", "boxes", "must be box or five_point"},
      {"source_sha256", "abc", "must be 64 lowercase hex digits"},
  };
  for (const auto& w : wrong) {
    CAPTURE(w.value);
    File file = good;
    file.meta(w.key) = w.value;
    rejects(file.bytes(), Errc::corrupt, w.sentence, w.key);
  }
  for (const char* key : {"data_xxh64", "header_xxh64"})
    rejects(with_header("{\"__metadata__\":{\"format\":\"1\",\"" + std::string(key) + "\":\"123\"}}"), Errc::corrupt,
            "must be 16 lowercase hex digits", key);
  File file = good;
  file.meta("format") = "3";
  rejects(file.bytes(), Errc::unsupported,
          "the metadata's format is not 1 or 2: a newer version of facenet wrote this file");
  file.metadata.erase(file.metadata.begin());
  rejects(file.bytes(), Errc::not_found,
          "the metadata has this key of a converted file but not format: convert the weights again", "header_xxh64");
}

TEST_CASE("a measured threshold is optional, and makes sense where it is there") {
  const File old = builder::converted(toy);
  auto before = open(old.bytes());
  REQUIRE(before.ok());
  CHECK(before->metadata().threshold == 0);
  CHECK(std::string(before->metadata().threshold_source).empty());
  File file = old;
  file.meta("threshold") = "0.83";
  file.meta("threshold_source") = "train.py on 120 pairs";
  auto reader = open(file.bytes());
  REQUIRE(reader.ok());
  CHECK(reader->metadata().threshold == 0.83);
  CHECK(std::string(reader->metadata().threshold_source) == "train.py on 120 pairs");
  CHECK(std::string(reader->digest()) == before->digest());  // it changes no embedding
  CHECK(printed(read(file.bytes())) == "ok");
  rejects(builder::replaced(file.bytes(), "0.83", "1.83"), Errc::corrupt, damaged_header, "header_xxh64");
  for (const char* fine : {"2", "2.0", "0.000001", "1.999999999999"}) {
    file.meta("threshold") = fine;
    CHECK(printed(read(file.bytes())) == "ok");
  }
  const char* sentence = "must be a decimal number above 0, and at most 2 as unit vectors are";
  for (const char* bad : {"", "0", "0.0", "-0.83", "+1", "nan", "inf", "1e0", "0x1", "1,1", ".5", "1.", "2.000001",
                          "1000000", "99999999999999999999", " 1", "1 "}) {
    CAPTURE(bad);
    file.meta("threshold") = bad;
    rejects(file.bytes(), Errc::corrupt, sentence, "threshold");
  }
  file.meta("normalise") = "none";  // whose distances have no such end
  file.meta("threshold") = "1000000";
  CHECK(printed(read(file.bytes())) == "ok");
  for (const char* bad : {"1000000.5", "0"}) {
    file.meta("threshold") = bad;
    rejects(file.bytes(), Errc::corrupt, "must be a decimal number above 0, and at most 1000000", "threshold");
  }
  file.meta("threshold") = "1";
  file.meta("threshold_source") = "";
  rejects(file.bytes(), Errc::corrupt, "this metadata key must not be empty", "threshold_source");
  const char* together = "threshold and threshold_source belong together: convert the weights again";
  file = old;
  file.meta("threshold") = "1";
  rejects(file.bytes(), Errc::not_found, together, "threshold_source");
  file = old;
  file.meta("threshold_source") = "somebody";
  rejects(file.bytes(), Errc::not_found, together, "threshold");
  file.meta("threshold") = "1";
  file.meta("architecture") = "mtcnn";
  file.meta("embedding_dim") = "0";
  file.tensors.push_back(builder::f32("mtcnn.pnet.conv1.bias", {1}, {1}));
  CHECK(std::string(open(file.bytes()).status().text()) == "a detector has no threshold: convert the weights again");
  File import = builder::state_dict(toy);  // says nothing that is believed
  import.meta("threshold") = "nan";
  auto plain = open(import.bytes());
  REQUIRE(plain.ok());
  CHECK(plain->metadata().threshold == 0);
}

TEST_CASE("rule 7: the tensors are the network's") {
  const std::string names = "the file's tensors are not the network's: these weights are for another network";
  const std::string shape = "a tensor's shape is not the network's: these weights are for another network";
  File file = builder::converted(toy);
  file["stem.bias"].name = "stern.bias";
  rejects(file.bytes(), Errc::weights_mismatch, names, "missing stem.bias; extra stern.bias");
  file = builder::converted(toy);
  file.tensors.pop_back();
  rejects(file.bytes(), Errc::weights_mismatch, names, "missing last_linear.weight");
  file = builder::converted(toy, "I8");
  file["up.weight_scale"].name = "up.weight_scales";
  rejects(file.bytes(), Errc::weights_mismatch, names, "missing up.weight_scale; extra up.weight_scales");
  file = builder::converted(toy);
  file.tensors.push_back(builder::f32("up.weight_scale", {5}, {1, 1, 1, 1, 1}));
  rejects(file.bytes(), Errc::weights_mismatch, names, "extra up.weight_scale");
  file = builder::state_dict(toy);
  file["last_bn.running_var"].name = "last_bn.var";
  rejects(file.bytes(), Errc::weights_mismatch, names, "missing last_bn.running_var; extra last_bn.var");
  file = builder::converted(toy);
  std::swap(file["branch.0.weight"].shape[2], file["branch.0.weight"].shape[3]);
  rejects(file.bytes(), Errc::weights_mismatch, shape, "branch.0.weight is [2,5,3,1], not [2,5,1,3]");
  file = builder::converted(toy);
  file["last_linear.weight"].shape = {4, 5, 1, 1};
  rejects(file.bytes(), Errc::weights_mismatch, shape, "last_linear.weight is [4,5,1,1], not [4,5]");
  file = builder::converted(toy);
  file["stem.bias"].shape = {};
  file["stem.bias"].bytes.resize(4);
  rejects(file.bytes(), Errc::weights_mismatch, shape, "stem.bias is [], not [5]");

  file = builder::converted(toy);
  for (int i = 0; i < 50; ++i)
    file.tensors.push_back(builder::f32("a_tensor_with_a_rather_long_name." + std::to_string(i), {1}, {1}));
  file["stem.bias"].name = "x";
  rejects(file.bytes(), Errc::weights_mismatch, names,
          "missing stem.bias; extra x, a_tensor_with_a_rather_long_name.0, ");
  const std::string place = read(file.bytes()).place();
  CHECK(place.size() <= 383);
  CHECK(place.size() > 300);
  CHECK(place.substr(place.size() - 5) == " more");

  constexpr Network two_alike = [] {
    Network n("two", {6, 6, 3});
    n.conv("a", n.conv("a", n.input(), 3, facenet::k(1)), 3, facenet::k(1));
    return n;
  }();
  CHECK(read(builder::converted(builder::toy_network()).bytes(), nullptr, {}, Network("bad", {0, 0, 0})).code() ==
        Errc::invalid_argument);
  File alike = builder::converted(two_alike);
  alike.tensors.resize(2);
  CHECK(std::string(read(alike.bytes(), nullptr, {}, two_alike).text()) == "the network has two layers of one name");
}

TEST_CASE("extra tensors that a file may have") {
  Layers want, got;
  File file = builder::converted(toy, "F32", &want);
  file.tensors.insert(file.tensors.begin() + 1, {"padding", "U8", {3}, std::string(3, '\0')});
  file.tensors.push_back(builder::f32("selftest.stem", {2}, {1, 2}));
  file.tensors.push_back({"mtcnn.pnet.conv1.weight", "I8", {2}, "xy"});
  CHECK(printed(read(file.bytes(), &got)) == "ok");
  CHECK(got == want);

  auto reader = open(file.bytes());
  REQUIRE(reader.ok());
  float two[2] = {};
  CHECK(reader->read_f32(reader->find("selftest.stem"), two).ok());
  CHECK(two[1] == 2);
  CHECK(reader->read_f32(reader->find("mtcnn.pnet.conv1.weight"), two).ok());
  CHECK(two[0] == 'x');
  CHECK(reader->find("selftest") == -1);
  CHECK(open(with_header("{}"))->find("selftest") == -1);
  File halves = file;
  halves.tensors.push_back({"selftest.input", "F16", {1}, builder::little_endian(builder::exact_half(0.5f))});
  CHECK(printed(read(halves.bytes())) == "ok");

  file["selftest.stem"] = builder::f32("selftest.stem", {2}, {1, std::numeric_limits<float>::infinity()});
  rejects(file.bytes(), Errc::corrupt, "a value is NaN or infinite", "selftest.stem");
  file["selftest.stem"] = builder::f32("selftest.stem", {2}, {1, 2});
  file["padding"].bytes[2] = 1;
  rejects(file.bytes(), Errc::corrupt, "a padding tensor is not zero", "padding");

  File plain;  // any safetensors file can be looked into, tensor by tensor
  plain.tensors = {{"pixels", "U8", {2}, "\x01\xff"}, {"count", "I64", {}, std::string(8, '\1')}};
  auto other = open(plain.bytes());
  REQUIRE(other.ok());
  CHECK(other->read_f32(0, two).ok());
  CHECK(two[1] == 255);
  CHECK(other->read_f32(1, two).code() == Errc::unsupported);
}

TEST_CASE("rule 8: finite values, signs, hashes") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (float bad : {inf, -inf, nan, -nan})
    for (const char* name : {"stem.weight", "stem.bias", "last_linear.weight"}) {
      File file = builder::converted(toy);
      Tensor& t = file[name];
      const std::size_t last = t.bytes.size() - 4;
      t.bytes.replace(last, 4, builder::f32_bytes({bad}));
      const std::string bytes = file.bytes();
      rejects(bytes, Errc::corrupt, "a value is NaN or infinite", name);
      const std::int64_t at = read(bytes).offset();
      REQUIRE(at > 0);
      CHECK(bytes.substr(static_cast<std::size_t>(at), 4) == builder::f32_bytes({bad}));
    }
  File file = builder::converted(toy, "F16");
  file["up.weight"].bytes.replace(6, 2, builder::little_endian(std::uint16_t{0xfc00}));
  rejects(file.bytes(), Errc::corrupt, "a value is NaN or infinite", "up.weight");
  for (float bad : {0.0f, -0.0f, -1.0f}) {
    file = builder::converted(toy, "I8");
    file["up.weight_scale"].bytes.replace(4, 4, builder::f32_bytes({bad}));
    rejects(file.bytes(), Errc::corrupt, "a quantisation scale is not above 0", "up.weight_scale");
  }
  file = builder::converted(toy, "I8");
  file["up.weight_scale"].bytes.replace(4, 4, builder::f32_bytes({3e38f}));
  rejects(file.bytes(), Errc::corrupt, "a value becomes infinite when its scale is applied", "up.weight");
  file = builder::state_dict(toy);
  file["stem.bn.running_mean"].bytes.replace(0, 4, builder::f32_bytes({3e38f}));
  file["stem.bn.weight"].bytes.replace(0, 4, builder::f32_bytes({-1e3f}));
  rejects(file.bytes(), Errc::corrupt, "a value becomes infinite when its scale is applied", "stem.conv.weight");
  file = builder::state_dict(toy);
  file["stem.bn.running_var"].bytes.replace(8, 4, builder::f32_bytes({-1e-30f}));
  rejects(file.bytes(), Errc::corrupt, "a running_var is below 0", "stem.bn.running_var");

  file = builder::converted(toy);
  std::string bytes = file.bytes();
  bytes.back() ^= 1;
  rejects(bytes, Errc::corrupt, damaged_data, "data_xxh64");
  Layers got;
  CHECK(read(bytes, &got, {false, nullptr}).ok());
  CHECK(got.size() == 4);
  bytes = builder::replaced(file.bytes(), "a test", "a tset");
  rejects(bytes, Errc::corrupt, damaged_header, "header_xxh64");
  CHECK(read(bytes, nullptr, {false, nullptr}).ok());
}

TEST_CASE("the SHA-256 of the whole file, if one is expected") {
  const std::string file = builder::converted(toy).bytes();
  facenet::Sha256 hash;
  hash.update(file.data(), file.size());
  std::uint8_t digest[32];
  hash.digest(digest);
  char hex[65];
  facenet::to_hex(digest, hex);
  CHECK(read(file, nullptr, {true, hex}).ok());
  std::string damaged = file;
  damaged[20] ^= 1;
  rejects(damaged, Errc::corrupt, "the file's SHA-256 is not the expected one: this is another file, or a forged one",
          "", {true, hex});
  for (const char* bad : {"", "abc", static_cast<const char*>(hex + 1)})
    rejects(file, Errc::invalid_argument, "the expected SHA-256 must be 64 lowercase hex digits", "", {true, bad});
}

TEST_CASE("every truncation is rejected") {
  for (const std::string& good : {with_threshold(builder::converted(toy)).bytes(),
                                  builder::converted(toy, "I8").bytes(), builder::state_dict(toy).bytes()}) {
    for (std::size_t n = 0; n < good.size(); ++n) {
      CAPTURE(n);
      // A copy of exactly n bytes, so that the address sanitizer sees a read past the end.
      const std::vector<char> copy(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
      const auto r = WeightsReader::from_memory({reinterpret_cast<const std::uint8_t*>(copy.data()), n});
      CHECK(r.status().code() == Errc::truncated);
    }
    CHECK(open(good + "x").status().code() == Errc::corrupt);
  }
}

TEST_CASE("10,000 random cuts of a file of the real network are rejected") {
  const std::string good = builder::converted(facenet::models::inception_resnet_v1(), "I8").bytes();
  std::mt19937 random(11);
  for (int i = 0; i < 10000; ++i) {
    // Half of the cuts in the header and near it: the data is 400 times as long.
    const std::size_t end = i % 2 == 0 ? good.size() : std::min<std::size_t>(good.size(), 100000);
    const std::size_t n = random() % end;
    const auto r = WeightsReader::from_memory({reinterpret_cast<const std::uint8_t*>(good.data()), n});
    if (r.status().code() != Errc::truncated) {
      CAPTURE(n);
      CHECK(r.status().code() == Errc::truncated);
    }
  }
  CHECK(open(good).ok());
}

TEST_CASE("every flipped bit is rejected") {
  for (const char* dtype : {"F32", "F16", "I8"}) {
    const File file = with_threshold(builder::converted(toy, dtype));
    std::string bytes = file.bytes();
    const std::size_t data = 8 + file.header().size();
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      const char mask = static_cast<char>(1 << bit % 8);
      bytes[bit / 8] ^= mask;
      const Status s = read(bytes);
      CAPTURE(bit);
      CHECK_FALSE(s.ok());
      if (bit / 8 >= data) CHECK(s.code() == Errc::corrupt);
      bytes[bit / 8] ^= mask;
    }
  }
}

TEST_CASE("a failing allocation is an error, leaks nothing, and the next call works") {
  for (const File& file : {builder::converted(toy, "I8"), builder::state_dict(toy)}) {
    const std::string bytes = file.bytes();
    int failures = 0;
    for (long k = 0;; ++k) {
      const long before = failing_malloc::blocks_alive;
      failing_malloc::allocations_left = k;
      Errc code;
      {
        auto reader = open(bytes);
        code = reader.status().code();
        if (reader.ok())
          code = reader->for_each_layer(toy, [](int, Span<const float>, Span<const float>) { return Status(); }).code();
      }
      failing_malloc::allocations_left = -1;
      CHECK(failing_malloc::blocks_alive == before);
      if (code == Errc::ok) break;
      CHECK(code == Errc::out_of_memory);
      ++failures;
      CHECK(read(bytes).ok());
    }
    CHECK(failures == 10);
  }
}

TEST_CASE("an error of the callback ends the reading") {
  const std::string bytes = builder::converted(toy).bytes();
  auto reader = open(bytes);
  int calls = 0;
  const auto stop = [&](int, Span<const float>, Span<const float>) -> Status {
    return {++calls == 2 ? Errc::cancelled : Errc::ok, "no"};
  };
  CHECK(reader->for_each_layer(toy, stop).code() == Errc::cancelled);
  CHECK(calls == 2);
  Layers got;
  CHECK(layers(*reader, got).ok());  // and the reader can start again
}

TEST_CASE("values are converted exactly") {
  // Every half, by the definition of the format.
  std::vector<std::uint8_t> raw;
  std::vector<float> want;
  for (int i = 0; i < 0x10000; ++i) {
    const int exponent = i >> 10 & 31, fraction = i & 1023;
    if (exponent == 31) continue;
    raw.push_back(static_cast<std::uint8_t>(i));
    raw.push_back(static_cast<std::uint8_t>(i >> 8));
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                          : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    want.push_back(i >> 15 != 0 ? -magnitude : magnitude);
  }
  raw.resize(raw.size() - 2 * 3);  // so that the last block is not whole
  want.resize(want.size() - 3);
  std::vector<float> got(want.size());
  facenet::detail::expand_f16(raw.data(), got.data(), got.size());
  CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
  CHECK(facenet::detail::first_non_finite_f16(raw.data(), got.size()) == got.size());
  // Not finite, at every place of a block and of the tail.
  std::vector<float> x(130, std::numeric_limits<float>::max());
  std::vector<std::uint8_t> h;
  for (std::size_t i = 0; i < 130; ++i) h.insert(h.end(), {0xff, 0xfb});
  CHECK(facenet::detail::first_non_finite_f32(x.data(), x.size()) == 130);
  CHECK(facenet::detail::first_non_finite_f16(h.data(), 130) == 130);
  for (std::size_t i = 0; i < 130; ++i) {
    const float old = x[i];
    x[i] = i % 2 != 0 ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::quiet_NaN();
    CHECK(facenet::detail::first_non_finite_f32(x.data(), x.size()) == i);
    x[i] = old;
    h[2 * i + 1] = i % 2 != 0 ? 0x7c : 0xff;
    CHECK(facenet::detail::first_non_finite_f16(h.data(), 130) == i);
    h[2 * i + 1] = 0xfb;
  }
}

#if !defined(FACENET_NO_STDIO) && defined(__unix__)
TEST_CASE("files on disk") {
  char folder[] = "/tmp/facenet-weights-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/toy.safetensors";
  auto write = [&](const std::string& bytes) {
    std::FILE* f = std::fopen(path.c_str(), "wb");
    REQUIRE(f != nullptr);
    CHECK(std::fwrite(bytes.data(), 1, bytes.size(), f) == bytes.size());
    std::fclose(f);
  };
  auto fails = [](const std::string& file, Errc code, const std::string& text) {
    auto reader = WeightsReader::open(file.c_str());
    CHECK(reader.status().code() == code);
    CHECK(printed(reader.status()).find(file + ": " + text) == 0);
  };
  SUBCASE("read like memory, tensors larger than a chunk included, in any order") {
    constexpr Network wide = [] {
      Network n("wide", {3, 3, 64}, 1, &builder::toy_traits);
      n.conv("b", n.conv("a", n.input(), 200, facenet::k(3)), 150, facenet::k(1));
      return n;
    }();
    std::mt19937 random(3);
    for (const char* dtype : {"F32", "F16", "I8", "import"}) {
      Layers want, got;
      File file = *dtype == 'i' ? builder::state_dict(wide, &want) : builder::converted(wide, dtype, &want);
      std::shuffle(file.tensors.begin(), file.tensors.end(), random);
      write(file.bytes());
      auto reader = WeightsReader::open(path.c_str());
      REQUIRE(reader.ok());
      CHECK(printed(layers(*reader, got, wide)) == "ok");
      CHECK(got == want);
    }
  }
  SUBCASE("int8 weights that stay are copied to their places") {
    Layers want;
    write(builder::converted(toy, "I8", &want).bytes());
    auto reader = WeightsReader::open(path.c_str());
    REQUIRE(reader.ok());
    CHECK_FALSE(reader->from_memory());
    std::map<int, std::vector<std::int8_t>> places;
    std::map<int, Int8Layer> got;
    CHECK(printed(int8_layers(*reader, toy, places, got)) == "ok");
    CHECK(places.size() == want.size());
    for (const auto& [op, layer] : got) {
      CHECK(layer.at == places[op].data());
      const std::size_t count = want[op].first.size(), row = count / layer.scale.size();
      for (std::size_t i = 0; i < count; ++i)
        CHECK(static_cast<float>(layer.at[i]) * layer.scale[i / row] == want[op].first[i]);
    }
  }
  SUBCASE("a file that shrinks while it is read") {
    write(builder::converted(toy).bytes());
    auto reader = WeightsReader::open(path.c_str());
    REQUIRE(reader.ok());
    CHECK(truncate(path.c_str(), static_cast<off_t>(reader->file_bytes() - 1)) == 0);
    Layers got;
    const Status s = layers(*reader, got);
    CHECK(s.code() == Errc::truncated);
    CHECK(printed(s).find(path + ": last_linear.weight: the file became shorter while it was read") == 0);
  }
  SUBCASE("what is not a weight file") {
    write("");
    fails(path, Errc::truncated, "the file is empty");
    fails(folder, Errc::unsupported, "weights must be a regular file");
    fails("/dev/null", Errc::unsupported, "weights must be a regular file");
    fails(path + ".not", Errc::not_found, "there is no such file");
    fails(path + "/x", Errc::not_found, "there is no such file");
    const Status too_long = WeightsReader::open(std::string(5000, 'x').c_str()).status();
    CHECK(std::string(too_long.text()) == "the file could not be opened: check its permissions");
    const std::string pipe = std::string(folder) + "/pipe";
    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    fails(pipe, Errc::unsupported, "weights must be a regular file");
    std::remove(pipe.c_str());
    REQUIRE(truncate(path.c_str(), (off_t{512} << 20) + 1) == 0);
    fails(path, Errc::limit_exceeded, "the file is larger than 512 MiB");
    if (geteuid() != 0) {
      REQUIRE(chmod(path.c_str(), 0) == 0);
      fails(path, Errc::io_error, "the file could not be opened: check its permissions");
    }
  }
  std::remove(path.c_str());
  rmdir(folder);
}
#endif
