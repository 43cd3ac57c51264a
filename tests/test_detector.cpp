// Boxes, suppression, selection, pixels, tiles, and the detector's manners. Against facenet-pytorch on pictures:
// tests/python/test_detector.py.
#include <doctest/doctest.h>

#include <atomic>
#include <cfenv>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "failing_malloc.hpp"

#include "facenet/align.hpp"
#include "facenet/detector.hpp"
#include "facenet/plan/from_values.hpp"

// The engine promises to do without the C++ library's heap: whoever calls it is counted.
static std::atomic<long> news{0};
void* operator new(std::size_t bytes) {
  ++news;
  void* const p = std::malloc(bytes != 0 ? bytes : 1);
  if (p == nullptr) std::abort();
  return p;
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return operator new(bytes); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }

using namespace facenet;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(), no_number = std::numeric_limits<float>::quiet_NaN();

bool equal(Box a, Box b) { return std::memcmp(&a, &b, sizeof a) == 0; }

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  float operator()(float low, float high) {
    return low + (high - low) * static_cast<float>(engine_() >> 8) / 16777216.0f;
  }
  int integer(int low, int high) { return low + static_cast<int>(engine_() % static_cast<unsigned>(high - low + 1)); }

 private:
  std::mt19937 engine_;
};

struct Picture {
  int width, height;
  std::vector<std::uint8_t> bytes;
  Picture(int w, int h, unsigned seed) : width(w), height(h), bytes(static_cast<std::size_t>(w * h * 3)) {
    Random random(seed);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random.integer(0, 255));
  }
  ImageView view(ChannelOrder order = ChannelOrder::rgb) const {
    return {bytes.data(), width, height, 3 * width, order};
  }
  /// The same pixels, stored from the last row on.
  ImageView upside_down() const {
    return {bytes.data() + (height - 1) * 3 * width, width, height, -3 * width, ChannelOrder::rgb};
  }
};

std::vector<std::uint8_t> weight_file() {
  std::vector<std::uint8_t> bytes;
  std::FILE* f = std::fopen("build/golden/mtcnn.safetensors", "rb");
  if (f == nullptr) return bytes;
  std::uint8_t part[4096];
  for (std::size_t n; (n = std::fread(part, 1, sizeof part, f)) != 0;) bytes.insert(bytes.end(), part, part + n);
  std::fclose(f);
  return bytes;
}

}  // namespace

// ---- Boxes ----------------------------------------------------------------------------------------------------------

TEST_CASE("a box is moved by its offsets times its side, and squared around its middle") {
  const float offset[] = {0.5f, -0.25f, 0.0f, 1.0f};
  CHECK(equal(detail::regress({10, 20, 30, 60}, offset, 0), {20, 10, 30, 100}));
  CHECK(equal(detail::regress({10, 20, 30, 60}, offset, 1), {20.5f, 9.75f, 30, 101}));
  CHECK(equal(detail::square({10, 20, 30, 60}), {0, 20, 40, 60}));
  CHECK(equal(detail::square({0, 0, 9, 4}), {0, -2.5f, 9, 6.5f}));
}

TEST_CASE("pixels are counted from 1, truncated towards zero and cut to the picture") {
  CHECK(detail::pixels_of({1.9f, 2.9f, 10.9f, 20.9f}, 100, 100) == Rect{0, 1, 10, 20});
  CHECK(detail::pixels_of({-5.5f, 0.5f, 101.5f, 100.0f}, 100, 100) == Rect{0, 0, 100, 100});
  const ImageView picture(reinterpret_cast<const std::uint8_t*>(""), 100, 100, 300, ChannelOrder::rgb);
  for (Box outside : {Box{101.5f, 5, 120, 30}, Box{5, 101, 30, 130}, Box{-30, 5, -2, 30}, Box{5, -30, 30, 0.9f},
                      Box{40, 40, 30, 60}, Box{no_number, no_number, no_number, no_number}})
    CHECK_FALSE(picture.holds(detail::pixels_of(outside, 100, 100)));
  CHECK(picture.holds(detail::pixels_of({-infinity, -1e30f, infinity, 1e30f}, 100, 100)));
}

TEST_CASE("the pyramid ends where the short side falls below 12 pixels") {
  detail::List<detail::Level> levels;
  REQUIRE(detail::make_pyramid(1200, 630, 20, 0.709, levels).ok());
  REQUIRE(levels.size() == 11);
  CHECK(levels[0].width == 721);
  CHECK(levels[0].height == 379);
  CHECK(levels[0].columns == 356);  // ceil(719 / 2) - 4
  CHECK(levels[0].rows == 185);
  CHECK(levels[10].height == 13);
  for (int side : {1, 12, 19}) {
    REQUIRE(detail::make_pyramid(side, 1000, 20, 0.709, levels).ok());
    CHECK(levels.empty());
  }
  REQUIRE(detail::make_pyramid(20, 20, 20, 0.709, levels).ok());
  REQUIRE(levels.size() == 1);
  CHECK(levels[0].rows == 2);
}

TEST_CASE("a window covers 12 pixels of its level, rounded down") {
  CHECK(equal(detail::window_box(0, 0, 1), {1, 1, 12, 12}));
  CHECK(equal(detail::window_box(3, 5, 0.5), {14, 22, 36, 44}));
  CHECK(equal(detail::window_box(1, 1, 12.0 / 20), {5, 5, 23, 23}));
}

// ---- Suppression ----------------------------------------------------------------------------------------------------

TEST_CASE("nms keeps what comparing every pair keeps") {
  Random random(1);
  detail::NmsScratch scratch;
  detail::List<int> keep;
  int suppressed = 0;
  for (int round = 0; round < 300; ++round) {
    const int count = random.integer(0, 120);
    const float threshold = round % 2 == 0 ? 0.5f : 0.7f;
    std::vector<Box> boxes;
    for (int i = 0; i < count; ++i) {
      const float x = random(-20, 200), y = random(-20, 60), w = random(-3, 60), h = random(5, 60);
      boxes.push_back({x, y, x + w, y + h});  // some are turned inside out
      if (i % 3 == 0 && i > 0) {
        boxes.back() = boxes[static_cast<std::size_t>(random.integer(0, i - 1))];
        boxes.back().x1 += random(-4, 4);
        boxes.back().x0 += random(-4, 4);
      }
      if (i % 7 == 0) boxes.back() = {std::floor(x), std::floor(y), std::floor(x) + 20, std::floor(y) + 20};
    }
    std::vector<int> want;
    for (int i = 0; i < count; ++i) {
      bool stays = true;
      for (int k : want)
        stays = stays && !(detail::overlap_union(boxes[static_cast<std::size_t>(k)],
                                                 boxes[static_cast<std::size_t>(i)]) > threshold);
      if (stays) want.push_back(i);
    }
    REQUIRE(detail::nms(boxes.data(), boxes.size(), threshold, scratch, keep).ok());
    REQUIRE(keep.size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(keep[i] == want[i]);
    suppressed += count - static_cast<int>(want.size());
  }
  CHECK(suppressed > 1000);
}

TEST_CASE("an overlap that equals the threshold suppresses nothing") {
  const Box boxes[] = {{0, 0, 30, 10}, {10, 0, 40, 10}, {0, 0, 30, 10}};  // 200 / 400, and the same box again
  detail::NmsScratch scratch;
  detail::List<int> keep;
  REQUIRE(detail::nms(boxes, 3, 0.5f, scratch, keep).ok());
  REQUIRE(keep.size() == 2);
  CHECK(keep[1] == 1);
}

TEST_CASE("the last suppression measures by the smaller box") {
  Face faces[3];
  faces[0].box = {0, 0, 99, 99};
  faces[1].box = {40, 40, 59, 59};  // wholly inside: 400 / 400, though its union is 4% only
  faces[2].box = {90, 90, 189, 189};
  for (int i = 0; i < 3; ++i) faces[i].score = 1 - 0.1f * static_cast<float>(i);
  REQUIRE(detail::nms_least(faces, 3, 0.7f) == 2);
  CHECK(faces[1].box.x0 == 90);
}

// ---- Selection ------------------------------------------------------------------------------------------------------

TEST_CASE("selection orders faces as MTCNN.select_boxes") {
  const auto make = [](Face(&faces)[4]) {
    const Box boxes[] = {{0, 0, 20, 20}, {45, 45, 55, 55}, {60, 60, 90, 90}, {5, 5, 25, 25}};
    const float scores[] = {0.99f, 0.95f, 0.91f, 0.8f};
    for (int i = 0; i < 4; ++i) {
      faces[i].box = boxes[i];
      faces[i].score = scores[i];
    }
  };
  Face f[4];
  make(f);
  CHECK(select_faces(f, 4, Selection::probability, 100, 100) == 4);
  CHECK(f[0].score == 0.99f);
  make(f);
  CHECK(select_faces(f, 4, Selection::largest, 100, 100) == 4);
  CHECK(f[0].box.x0 == 60);
  CHECK(f[1].box.x0 == 5);  // of the two of 20 x 20 the later one: argsort, read backwards
  CHECK(f[2].box.x0 == 0);
  make(f);
  CHECK(select_faces(f, 4, Selection::largest_over_threshold, 100, 100) == 3);
  CHECK(f[0].box.x0 == 60);
  CHECK(f[1].box.x0 == 0);
  make(f);
  CHECK(select_faces(f, 4, Selection::centre_weighted, 100, 100) == 4);
  CHECK(f[0].box.x0 == 45);  // 100 - 0; the largest: 900 - 2 * 1250
  CHECK(f[1].box.x0 == 60);
  CHECK(select_faces(f, 0, Selection::largest, 100, 100) == 0);
}

// ---- Pixels ---------------------------------------------------------------------------------------------------------

TEST_CASE("any part of a level has the bits of the whole picture's area resize") {
  Random random(3);
  detail::AreaScratch scratch;
  for (int round = 0; round < 120; ++round) {
    const bool tall = round % 10 == 0;  // windows of more than 256 rows: the sums of bytes are 16 bits wide
    const Picture picture(random.integer(1, tall ? 8 : 150), tall ? random.integer(600, 2000) : random.integer(1, 150),
                          static_cast<unsigned>(round));
    const int w = random.integer(2, 90), h = tall ? random.integer(2, 5) : random.integer(2, 90);
    std::vector<float> whole(static_cast<std::size_t>(w * h * 3));
    for (int kind = 0; kind < 3; ++kind) {
      const ImageView view = kind == 0   ? picture.view()
                             : kind == 1 ? picture.view(ChannelOrder::bgr)
                                         : picture.upside_down();
      REQUIRE(resize_area(view, w, h, whole).ok());
      const int x0 = random.integer(0, w - 1), y0 = random.integer(0, h - 1);
      const Rect part{x0, y0, random.integer(x0 + 1, w), random.integer(y0 + 1, h)};
      const auto columns = static_cast<std::ptrdiff_t>(part.width()), rows = static_cast<std::ptrdiff_t>(part.height());
      const std::ptrdiff_t stride = 3 * columns + 5;
      REQUIRE(scratch.reserve(picture.width, w).ok());
      for (bool planes : {false, true}) {
        std::vector<float> got(static_cast<std::size_t>(3 * stride * rows), -7);
        const detail::PixelLayout to = planes ? detail::PixelLayout{got.data(), stride, 1, stride * rows}
                                              : detail::PixelLayout{got.data(), stride, 3, 1};
        detail::area_pixels(view, w, h, part, scratch, to);
        std::ptrdiff_t wrong = 0, untouched = 0;
        for (float v : got) untouched += v == -7;
        for (std::ptrdiff_t y = 0; y < rows; ++y)
          for (std::ptrdiff_t x = 0; x < columns; ++x)
            for (int c = 0; c < 3; ++c) {
              const auto at = ((part.y0 + y) * w + part.x0 + x) * 3 + (kind == 1 ? 2 - c : c);
              const float want = (whole[static_cast<std::size_t>(at)] - 127.5f) * 0.0078125f;
              wrong += got[static_cast<std::size_t>(c * to.colour + y * to.row + x * to.pixel)] != want;
            }
        CHECK(wrong == 0);
        CHECK(untouched == 3 * stride * rows - 3 * columns * rows);
      }
    }
  }
}

// ---- Tiles ----------------------------------------------------------------------------------------------------------

TEST_CASE("small levels, made in one pass, have the bits of those made alone") {
  const Picture picture(977, 1203, 3);
  detail::List<detail::Level> levels;
  REQUIRE(detail::make_pyramid(picture.width, picture.height, 20, 0.709, levels).ok());
  const std::size_t floats = detail::place_small_levels(levels, 32);
  detail::SmallScratch scratch;
  detail::AreaScratch area;
  REQUIRE(scratch.reserve(picture.width, levels).ok());
  REQUIRE(area.reserve(picture.width, picture.width).ok());
  for (const ChannelOrder order : {ChannelOrder::rgb, ChannelOrder::bgr})
    for (const int bands : {1, 2, 7, 300}) {
      ImageView view = picture.view();
      view.order = order;
      std::vector<float> kept(floats, -9);
      for (int i = 0; i < bands; ++i)
        detail::shrink_rows(view, levels, picture.height * i / bands, picture.height * (i + 1) / bands, scratch,
                            kept.data());
      int small = 0;
      for (const detail::Level& l : levels) {
        CHECK((l.kept >= 0) == (l.scale <= 0.11));
        if (l.kept < 0) continue;
        ++small;
        const auto size = static_cast<std::size_t>(l.width * l.height);
        std::vector<float> want(3 * size);
        const Rect all{0, 0, l.width, l.height};
        detail::area_pixels(view, l.width, l.height, all, area, {want.data(), l.width, 1, l.width * l.height});
        CHECK(std::memcmp(kept.data() + l.kept, want.data(), want.size() * sizeof(float)) == 0);
      }
      CHECK(small >= 5);
    }
}

TEST_CASE("division by a known number is division") {
  Random random(5);
  bool same = true;
  for (int d = 1; d <= 16384; ++d) {
    const auto by = static_cast<float>(d);
    for (int i = 0; i < 200; ++i) {
      const float x = i < 100 ? std::floor(random(0, 2e9f)) : random(0, 255.0f * 16384);
      const float first = detail::divide_exactly(x, by, 1 / by), want = x / by;
      same = same && std::memcmp(&first, &want, sizeof want) == 0;
    }
  }
  CHECK(same);
}

TEST_CASE("a share of the picture is pixels of its shorter side") {
  CHECK(detail::share_of(0.05, 4032, 3024) == 151);
  CHECK(detail::share_of(0.05, 3024, 4032) == 151);
  CHECK(detail::share_of(1, 640, 480) == 480);
  CHECK(detail::share_of(0.01, 640, 480) == 12);
}

TEST_CASE("tiles cover every output once") {
  detail::List<detail::Level> levels;
  detail::List<detail::PyramidTile> tiles;
  for (int width : {20, 133, 640, 1201})
    for (int height : {20, 97, 480}) {
      REQUIRE(detail::make_pyramid(width, height, 20, 0.709, levels).ok());
      REQUIRE(detail::cut_into_tiles(levels, tiles).ok());
      for (std::size_t i = 0; i < levels.size(); ++i) {
        std::vector<int> times(static_cast<std::size_t>(levels[i].rows * levels[i].columns));
        for (const detail::PyramidTile& t : tiles) {
          if (t.level != static_cast<int>(i)) continue;
          CHECK(t.y % 4 == 0);  // Winograd's blocks
          CHECK(t.x % 4 == 0);
          for (int y = t.y; y < t.y + detail::pyramid_tile_rows(t.kind) && y < levels[i].rows; ++y)
            for (int x = t.x; x < t.x + detail::pyramid_tile_columns(t.kind) && x < levels[i].columns; ++x)
              ++times[static_cast<std::size_t>(y * levels[i].columns + x)];
        }
        bool once = true;
        for (int n : times) once = once && n == 1;
        CHECK(once);
      }
    }
}

TEST_CASE("an absurd pyramid is refused before it eats the memory") {
  detail::List<detail::Level> levels;
  detail::List<detail::PyramidTile> tiles;
  REQUIRE(detail::make_pyramid(16384, 16384, 1, 0.9, levels).ok());
  CHECK(detail::cut_into_tiles(levels, tiles).code() == Errc::limit_exceeded);
}

TEST_CASE("a tile has the bits of a plan for the whole level, at odd edges too") {
  detail::PnetLayers layers;
  const auto fill = [&](int op, Span<float> weights, Span<float> biases) {
    Random random(static_cast<unsigned>(op));
    for (float& w : weights) w = random(-0.3f, 0.3f);
    for (float& b : biases) b = random(-0.5f, 0.5f);  // slopes too, negative ones included
    layers.set(op, weights.data(), biases.data());
  };
  // Without SIMD every 3 x 3 convolution could be Winograd's, also the first, which the stem computes directly.
  PlanOptions options;
  if (simd::width == 1) options.conv = ConvAlgorithm::direct;
  const Picture picture(301, 255, 5);
  detail::TileScratch scratch;
  REQUIRE(scratch.reserve(picture.width).ok());
  detail::AreaScratch area;
  REQUIRE(area.reserve(picture.width, 300).ok());
  const int sizes[][2] = {{77, 60}, {76, 61}, {183, 155}, {138, 106}, {139, 107}};
  for (const auto& size : sizes) {
    detail::Level level;
    level.width = size[0];
    level.height = size[1];
    level.columns = detail::pnet_windows(level.width);
    level.rows = detail::pnet_windows(level.height);
    const Rect all{0, 0, level.width, level.height};
    std::vector<float> pixels(static_cast<std::size_t>(level.width * level.height * 3));
    detail::area_pixels(picture.view(), level.width, level.height, all, area, {pixels.data(), 3 * level.width, 3, 1});
    auto whole = compile_with(models::mtcnn_pnet(level.height, level.width), options, fill);
    REQUIRE(whole.ok());
    auto workspace = whole->workspace(1, 1);
    REQUIRE(workspace.ok());
    REQUIRE(whole->output_size() == level.rows * level.columns * 6);
    std::vector<float> want(static_cast<std::size_t>(whole->output_size()));
    PlanInput input;
    input.nhwc = pixels.data();
    REQUIRE(whole->run(*workspace, &input, 1, want).ok());

    for (int kind = 0; kind < detail::tile_kinds; ++kind) {
      auto plan = compile_with(detail::tile_network(kind), options, fill);
      REQUIRE(plan.ok());
      auto w = plan->workspace(1, 1);
      REQUIRE(w.ok());
      bool same = true;
      for (int y0 = 0; y0 < level.rows; y0 += detail::pyramid_tile_rows(kind))
        for (int x0 = 0; x0 < level.columns; x0 += detail::pyramid_tile_columns(kind)) {
          detail::run_tile(*plan, *w, layers, picture.view(), level, {0, y0, x0, kind}, scratch, nullptr, {}, [] {});
          const int rows = std::min(detail::pyramid_tile_rows(kind), level.rows - y0);
          const int columns = std::min(detail::pyramid_tile_columns(kind), level.columns - x0);
          for (const float threshold : {-1.0f, 0.6f}) {  // every window is one; some are
            int above = 0, found = 0;
            for (int y = y0; y < y0 + rows; ++y)
              for (int x = x0; x < x0 + columns; ++x)
                above += want.data()[(y * level.columns + x) * 6 + 1] >= threshold;
            const auto compare = [&](int y, int x, const float* out) -> Status {
              ++found;
              same = same &&
                     std::memcmp(out, want.data() + ((y0 + y) * level.columns + x0 + x) * 6, 6 * sizeof(float)) == 0;
              return {};
            };
            CHECK(detail::for_each_face(plan->view(*w, detail::pnet_conv3), rows, columns, layers, threshold, compare)
                      .ok());
            same = same && found == above;
          }
        }
      INFO("level " << level.width << "x" << level.height << ", tile " << kind);
      CHECK(same);
    }
  }
}

TEST_CASE("logits below the bound never reach the score") {
  for (float score : {0.0f, 0.01f, 0.3f, 0.5f, 0.6f, 0.7f, 0.99f, 0.99999f, 0.9999999f, 1.0f}) {
    const float bound = detail::least_logit(score);
    for (float below : {0.0f, 0.01f, 1.0f, 30.0f}) {
      const float logits[2] = {0.25f, 0.25f + bound - below - 1e-4f};
      float p[2];
      kernels::softmax(logits, p, 2);
      if (logits[1] > -1e30f) CHECK(p[1] < score);
    }
  }
}

// ---- The object -----------------------------------------------------------------------------------------------------

TEST_CASE("a detector with the trained weights") {
  const std::vector<std::uint8_t> file = weight_file();
  if (file.empty()) {
    MESSAGE("build/golden/mtcnn.safetensors is not there: tools/test.sh makes it");
    return;
  }
  const Span<const std::uint8_t> bytes(file.data(), file.size());
  DetectorOptions options;
  options.threads = 1;
  auto detector = Detector::load(bytes, options);
  REQUIRE(detector.ok());
  Faces faces;

  SUBCASE("blank and tiny pictures have no faces") {
    const std::vector<std::uint8_t> grey(300 * 200 * 3, 127);
    for (int w : {1, 7, 19, 20, 21, 300})
      for (int h : {1, 11, 20, 23, 200}) {
        CHECK(detector->detect({grey.data(), w, h, 3 * w, ChannelOrder::rgb}, faces).ok());
        CHECK(faces.empty());
      }
  }
  SUBCASE("a bad view is an error") {
    CHECK(detector->detect({}, faces).code() == Errc::invalid_argument);
    CHECK(detector->detect({file.data(), max_image_side + 1, 1, 3 * (max_image_side + 1), ChannelOrder::rgb}, faces)
              .code() == Errc::limit_exceeded);
  }
  SUBCASE("thousands of candidates, on any number of threads, in any state and rounding mode: the same faces") {
#if defined(__SSE2__) || defined(__aarch64__)
    const int modes[] = {FE_TONEAREST, FE_UPWARD};
#else
    const int modes[] = {FE_TONEAREST, FE_TONEAREST};
#endif
    const Picture noise(260, 190, 9);
    options.thresholds[0] = 0.1f;
    options.thresholds[1] = 0.0f;
    options.thresholds[2] = 0.0f;
    std::vector<Face> want;
    for (int threads : {1, 2, 5}) {
      options.threads = threads;
      auto many = detector->fork(options);
      REQUIRE(many.ok());
      for (const int mode : modes) {
        std::fesetround(mode);
        const Status status = many->detect(noise.view(), faces);
        const int kept = std::fegetround();
        std::fesetround(FE_TONEAREST);
        REQUIRE(status.ok());
        CHECK(kept == mode);
        if (want.empty()) want.assign(faces.begin(), faces.end());
        REQUIRE(faces.size() == static_cast<int>(want.size()));
        CHECK(std::memcmp(faces.begin(), want.data(), want.size() * sizeof(Face)) == 0);
      }
    }
    CHECK(want.size() > 10);
    options.max_faces = 3;
    auto few = detector->fork(options);
    REQUIRE(few.ok());
    REQUIRE(few->detect(noise.view(), faces).ok());
    REQUIRE(faces.size() == 3);
    CHECK(std::memcmp(faces.begin(), want.data(), 3 * sizeof(Face)) == 0);

    // The same detector set to look for more, but for its threads; then for something that makes no sense.
    options.max_faces = 0;
    options.threads = 7;
    REQUIRE(few->set_options(options).ok());
    CHECK(few->options().threads == 5);
    REQUIRE(few->detect(noise.view(), faces).ok());
    CHECK(faces.size() == static_cast<int>(want.size()));
    options.min_face = 0;
    CHECK(few->set_options(options).code() == Errc::invalid_argument);
    CHECK(few->options().min_face == 20);

    // BGR bytes that say so are the same picture.
    std::vector<std::uint8_t> swapped = noise.bytes;
    for (std::size_t i = 0; i < swapped.size(); i += 3) std::swap(swapped[i], swapped[i + 2]);
    REQUIRE(few->detect({swapped.data(), noise.width, noise.height, 3 * noise.width, ChannelOrder::bgr}, faces).ok());
    CHECK(std::memcmp(faces.begin(), want.data(), 3 * sizeof(Face)) == 0);
  }
  SUBCASE(
      "an arena of required_bytes() is filled exactly, and no picture up to the largest needs malloc or operator new") {
    const Picture noise(190, 260, 9), small(64, 64, 2);
    options.thresholds[0] = 0.1f;
    options.thresholds[1] = options.thresholds[2] = 0.0f;
    auto plain = detector->fork(options);
    REQUIRE(plain.ok());
    REQUIRE(plain->detect(noise.view(), faces).ok());
    const std::vector<Face> want(faces.begin(), faces.end());
    CHECK(want.size() > 10);
    options.max_width = options.max_height = 260;
    options.threads = 0;
    const auto need = Detector::required_bytes(bytes, options);
    REQUIRE(need.ok());
    std::vector<unsigned char> raw(*need + cache_line);
    auto* const at =
        reinterpret_cast<unsigned char*>(round_up(reinterpret_cast<std::uintptr_t>(raw.data()), cache_line));
    std::vector<Face> few(3);
    {
      Arena arena(at, *need);
      options.arena = &arena;
      failing_malloc::allocations_left = 0;
      const auto again = Detector::required_bytes(bytes, options);  // its tables are made in the arena
      auto exact = Detector::load(bytes, options);
      REQUIRE(exact.ok());
      CHECK(*again == *need);
      CHECK(arena.peak() == *need);
      {
        Faces found;
        const long before = news;
        bool same = true;
        int count = 0;
        for (int round = 0; round < 3; ++round) {
          if (round == 1) found = Faces();  // gives back what it was given
          same = same && exact->detect(noise.view(), found).ok() && found.size() == static_cast<int>(want.size()) &&
                 std::memcmp(found.begin(), want.data(), want.size() * sizeof(Face)) == 0 &&
                 exact->detect(small.view(), found).ok();
        }
        found = Faces();
        same = same && exact->detect(noise.view(), few, count).ok() && count == static_cast<int>(want.size()) &&
               std::memcmp(few.data(), want.data(), 3 * sizeof(Face)) == 0;
        const long made = news - before;
        CHECK(same);
        CHECK(made == 0);
        CHECK(exact->detect(noise.view(), Span<Face>(nullptr, 1), count).code() == Errc::invalid_argument);
        const Picture large(400, 400, 3);  // beyond what it was told: an error or not, never malloc
        const Status status = exact->detect(large.view(), found);
        CHECK((status.ok() || status.code() == Errc::out_of_memory));
        CHECK(exact->detect(noise.view(), found).ok());
      }
      *exact = Detector();
      CHECK(arena.used() == 0);
      Arena less(at, *need - 1);
      options.arena = &less;
      CHECK(Detector::load(bytes, options).status().code() == Errc::out_of_memory);
      CHECK(less.used() == 0);
      failing_malloc::allocations_left = -1;
    }
    options.arena = nullptr;
    options.max_candidates = 100;
    CHECK(*Detector::required_bytes(bytes, options) < *need);
    // A fork in an arena of its own, and its crops.
    options.max_candidates = 0;
    const auto each = detector->fork_bytes(options);
    REQUIRE(each.ok());
    std::vector<unsigned char> place(*each + cache_line + (std::size_t{1} << 20));
    Arena apart(place.data(), place.size());
    options.arena = &apart;
    ModelInfo box{}, five{};
    box.crop = Crop::box;
    five.crop = Crop::five_point;
    box.image_size = five.image_size = 40;
    five.margin = 0.25;
    const auto by_malloc = crop_face(noise.view(), want[0], box), turned = crop_face(noise.view(), want[0], five);
    failing_malloc::allocations_left = 0;
    {
      auto fork = detector->fork(options);
      REQUIRE(fork.ok());
      CHECK(apart.used() == *each);
      int count = 0;
      CHECK(fork->detect(noise.view(), few, count).ok());
      for (const ModelInfo& info : {box, five}) {
        const auto crop = crop_face(noise.view(), few[0], info, {&apart, Arena::front});
        const auto& expected = info.crop == Crop::box ? by_malloc : turned;
        REQUIRE(crop.ok() == expected.ok());
        if (crop.ok()) CHECK(std::memcmp(crop->data(), expected->data(), crop->bytes()) == 0);
      }
      CHECK(apart.used() == *each);
    }
    failing_malloc::allocations_left = -1;
    CHECK(apart.used() == 0);
  }
  SUBCASE("one that was never loaded or was moved from: defined, and an error") {
    Detector never, moved = std::move(*detector);
    const Picture noise(64, 64, 2);
    Face found[2];
    int count = 7;
    for (Detector* d : {&never, &*detector}) {
      CHECK(std::string(d->digest()) == "");
      CHECK(d->options().min_face == 20);
      CHECK(d->rnet().steps().empty());
      CHECK(d->onet().output_size() == 0);
      for (const Status& s : {d->detect(noise.view(), faces), d->detect(noise.view(), found, count), d->set_options({}),
                              d->fork({}).status(), d->fork_bytes({}).status()})
        CHECK(std::string(s.text()) == "this detector was never loaded, or was moved from");
      CHECK(count == 0);
    }
    REQUIRE(moved.detect(noise.view(), faces).ok());
    Faces taken = std::move(faces);
    CHECK(faces.empty());
    CHECK(faces.begin() == faces.end());
    faces = std::move(taken);
    CHECK(taken.empty());
    CHECK(Detector::load(static_cast<const char*>(nullptr)).status().code() == Errc::invalid_argument);
  }
  SUBCASE("a flag that is set ends the search; the next one is whole") {
    std::atomic<bool> flag{false};
    options.thresholds[0] = 0.1f;
    options.cancel = &flag;
    const Picture noise(260, 190, 9);
    for (const int threads : {1, 3}) {
      options.threads = threads;
      auto d = detector->fork(options);
      REQUIRE(d.ok());
      REQUIRE(d->detect(noise.view(), faces).ok());
      const int whole = faces.size();
      flag = true;
      CHECK(d->detect(noise.view(), faces).code() == Errc::cancelled);
      CHECK(faces.empty());
      flag = false;
      CHECK(d->detect(noise.view(), faces).ok());
      CHECK(faces.size() == whole);
    }
  }
  SUBCASE("options that make no sense") {
    CHECK(detector
              ->fork([] {
                DetectorOptions o;
                o.max_width = -1;
                return o;
              }())
              .status()
              .code() == Errc::invalid_argument);
    CHECK(detector
              ->fork([] {
                DetectorOptions o;
                o.max_height = 1 << 15;
                return o;
              }())
              .status()
              .code() == Errc::limit_exceeded);
    const auto refused = [&](auto&& change) {
      DetectorOptions o;
      change(o);
      return detector->fork(o).status().code() == Errc::invalid_argument &&
             Detector::load(bytes, o).status().code() == Errc::invalid_argument;
    };
    CHECK(refused([](DetectorOptions& o) { o.min_face = 0; }));
    CHECK(refused([](DetectorOptions& o) { o.factor = 1; }));
    CHECK(refused([](DetectorOptions& o) { o.factor = std::numeric_limits<double>::quiet_NaN(); }));
    CHECK(refused([](DetectorOptions& o) { o.max_faces = -1; }));
    CHECK(refused([](DetectorOptions& o) { o.threads = 257; }));
    CHECK(refused([](DetectorOptions& o) { o.thresholds[1] = no_number; }));
  }
  SUBCASE("damaged, shortened and other files") {
    std::vector<std::uint8_t> other = file;
    other[other.size() - 5] ^= 1;
    CHECK(Detector::load({other.data(), other.size()}, options).status().code() == Errc::corrupt);
    CHECK(Detector::load(bytes.subspan(0, bytes.size() - 4), options).status().code() != Errc::ok);
    CHECK(Detector::load("no/such/file", options).status().code() == Errc::not_found);
  }
  SUBCASE("it moves, and forks outlive it") {
    Detector moved = std::move(*detector);
    auto fork = moved.fork(options);
    REQUIRE(fork.ok());
    moved = Detector();
    const Picture noise(64, 64, 2);
    CHECK(fork->detect(noise.view(), faces).ok());
  }
}
