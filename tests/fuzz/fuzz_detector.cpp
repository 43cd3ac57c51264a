// libFuzzer target of the detector: pictures of odd sizes, options, and weights that find faces everywhere.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_detector.cpp
//     -o fuzz_detector
//   ./fuzz_detector -max_len=4096 CORPUS    (from the project's root; needs no seeds)
//
// An input is a head of options and sizes, and bytes that fill the picture again and again. Made-up weights reach what
// real ones never do: thousands of candidates, boxes far outside, offsets that overflow. The real weights come in where
// weights/mtcnn.safetensors is there.
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "facenet/detector.hpp"

namespace {

using namespace facenet;

void require(bool holds) {
  if (!holds) std::abort();
}

/// A plain state_dict of the three networks: uniform numbers, `gain` times what keeps a layer's variance.
std::vector<std::uint8_t> made_up_weights(float gain, unsigned seed) {
  std::mt19937 engine(seed);
  std::string header = "{", data;
  const auto add = [&](const std::string& name, const std::string& shape, std::size_t count, float most) {
    const std::size_t begin = data.size();
    for (std::size_t i = 0; i < count; ++i) {
      const float value = most * (static_cast<float>(engine() >> 8) / 8388608.0f - 1);
      data.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape +
              "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  };
  for (const Network& n : {models::mtcnn_pnet(12, 12), models::mtcnn_rnet(), models::mtcnn_onet()})
    for (int i = 0; i < n.size(); ++i) {
      const Op& op = n[i];
      if (!has_weights(op)) continue;
      const auto count = static_cast<std::size_t>(weight_count(n, op)), out = static_cast<std::size_t>(op.out.c);
      const std::string name = op.name.text, o = std::to_string(out);
      const int kh = op.kind == OpKind::linear ? n[op.inputs[0]].out.h : op.window.kh;
      const int kw = op.kind == OpKind::linear ? n[op.inputs[0]].out.w : op.window.kw;
      const std::string window = std::to_string(kh) + "," + std::to_string(kw);
      const std::size_t in = count / out / static_cast<std::size_t>(kh * kw);
      add(name + ".weight", o + "," + std::to_string(in) + "," + window, count,
          gain * std::sqrt(6 * static_cast<float>(out) / static_cast<float>(count)));
      add(name + ".bias", o, out, 0.5f);
      if (op.act == Act::prelu) add(name + ".slope", o, out, 0.5f);
    }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  const std::uint64_t length = header.size();
  std::vector<std::uint8_t> file(sizeof length);
  for (unsigned i = 0; i < sizeof length; ++i) file[i] = static_cast<std::uint8_t>(length >> (8 * i));
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

/// Modest, large and absurd weights, and the real ones last.
std::vector<Detector>& detectors() {
  static std::vector<Detector> all = [] {
    std::vector<Detector> made;
    DetectorOptions options;
    options.threads = 1;
    unsigned seed = 1;
    for (float gain : {1.0f, 1.5f, 10.0f, 1e9f}) {
      const auto file = made_up_weights(gain, seed++);
      auto detector = Detector::load({file.data(), file.size()}, options);
      if (!detector) {
        char text[512];
        std::fprintf(stderr, "fuzz_detector: %s\n", detector.status().print(text, sizeof text));
        std::abort();
      }
      made.push_back(std::move(*detector));
    }
    auto real = Detector::load("weights/mtcnn.safetensors", options);
    if (real) made.push_back(std::move(*real));
    return made;
  }();
  return all;
}

/// Reads the head of an input; zeros after its end.
class Head {
 public:
  Head(const std::uint8_t* data, std::size_t size) : at_(data), left_(size) {}
  unsigned byte() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  const std::uint8_t* rest() const { return at_; }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* at_;
  std::size_t left_;
};

bool equal(const Faces& a, const Faces& b) {
  if (a.size() != b.size()) return false;
  for (int i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(Face)) != 0) return false;
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Head head(data, size);
  auto& all = detectors();
  const std::size_t which = head.byte() % all.size();
  const unsigned flags = head.byte();
  DetectorOptions o;
  o.threads = 1;
  o.min_face = 1 + static_cast<int>(head.byte());
  for (float& t : o.thresholds) t = static_cast<float>(head.byte()) / 200 - 0.1f;  // -0.1 … 1.175
  o.factor = 0.02 + static_cast<double>(head.byte()) / 350;                        // 0.02 … 0.749
  o.max_faces = static_cast<int>(head.byte() % 8);
  o.selection = static_cast<Selection>(head.byte() % 4);
  // Mostly small; a strip may be long. Where every window is a candidate, a large picture would take a minute.
  int width = 1 + static_cast<int>(head.byte() % 64), height = 1 + static_cast<int>(head.byte() % 64);
  if (flags & 1) (width < height ? height : width) *= 4;
  // P-Net has 36 windows a pixel at min_face 1.
  while (36 * width * height > 1500 * o.min_face * o.min_face) ++o.min_face;

  const int row = 3 * width + static_cast<int>(head.byte() % 4);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(row * (height - 1) + 3 * width));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = head.left() == 0 ? 128 : head.rest()[i % head.left()];
  const ChannelOrder order = (flags & 2) ? ChannelOrder::bgr : ChannelOrder::rgb;
  ImageView picture(bytes.data(), width, height, row, order);
  if (flags & 4) picture = ImageView(bytes.data() + row * (height - 1), width, height, -row, order);

  auto detector = all[which].fork(o);
  require(detector.ok());
  Faces faces;
  require(detector->detect(picture, faces).ok());
  require(o.max_faces == 0 || faces.size() <= o.max_faces);
  for (const Face& f : faces) require(f.score > o.thresholds[2]);  // a score that is no number is no face
  if (flags & 8) {
    o.threads = 2;
    auto pair = all[which].fork(o);
    Faces again;
    require(pair.ok() && pair->detect(picture, again).ok() && equal(faces, again));
  }
  if (flags & 16) {  // the same object again: nothing is left of the first run
    Faces again;
    require(detector->detect(picture, again).ok() && equal(faces, again));
  }
  return 0;
}
