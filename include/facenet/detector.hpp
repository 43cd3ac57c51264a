// The object users hold: a picture in, faces out. MTCNN as facenet-pytorch 2.6 runs it. Layer 5.
//
// P-Net never sees a whole picture: every level of the pyramid is cut into tiles of a few fixed sizes, a tile is resized
// from the picture's bytes straight into the network's input, and its activations stay in the L2 cache. Threads share
// the tiles out, not the layers. So memory is the tiles' and the candidates', whatever the picture's size, and no picture
// compiles anything. A tile's outputs have the bits that the whole level would give.
#pragma once

#include <atomic>

#include "facenet/detector_boxes.hpp"
#include "facenet/detector_pixels.hpp"
#include "facenet/models/mtcnn.hpp"
#include "facenet/plan.hpp"

FACENET_BEGIN

struct DetectorOptions {
  int min_face = 20;                       // pixels, the smallest face to look for
  float thresholds[3] = {0.6f, 0.7f, 0.7f};  // scores that P-, R- and O-Net's candidates must reach
  double factor = 0.709;                   // from a level of the pyramid to the next
  int max_faces = 0;                       // of those found, in the order of `selection`; 0: all
  Selection selection = Selection::largest;
  int threads = 0;                         // 0: default_threads()
  ReadOptions read;
};

/// The faces of one picture. Reused for the next picture it keeps its memory.
class Faces {
 public:
  int size() const noexcept { return static_cast<int>(list_.size()); }
  bool empty() const noexcept { return list_.empty(); }
  const Face& operator[](int i) const noexcept { return list_[static_cast<std::size_t>(i)]; }
  const Face* begin() const noexcept { return list_.begin(); }
  const Face* end() const noexcept { return list_.end(); }

 private:
  friend class Detector;
  detail::List<Face> list_;
};

namespace detail {

/// P-Net outputs computed at once. Input: 2 * side + 10 pixels.
struct TileSize {
  int rows, columns;
};
/// The largest keeps its activations (some 0.5 MB) in an L2 of 1 MB; the others are for what it would overshoot.
constexpr TileSize tile_sizes[] = {{32, 64}, {16, 32}, {8, 16}};
constexpr int tile_kinds = static_cast<int>(sizeof tile_sizes / sizeof *tile_sizes);

constexpr int tiles_over(int total, int side) noexcept { return (total + side - 1) / side; }

/// Multiply-adds of a tile, its channels filled up to vectors of 16.
constexpr std::int64_t tile_cost(TileSize t) noexcept {
  const auto pixels = [&](int grow, int scale) {
    return std::int64_t{scale * t.rows + grow} * (scale * t.columns + grow);
  };
  return pixels(8, 2) * 27 * 16 + pixels(2, 1) * 90 * 16 + pixels(0, 1) * (144 * 32 + 2 * 32 * 16);
}
/// The size whose tiles cover `rows` x `columns` outputs with the least work.
constexpr int choose_tile(int rows, int columns) noexcept {
  int best = 0;
  std::int64_t least = INT64_MAX;
  for (int i = 0; i < tile_kinds; ++i) {
    const TileSize t = tile_sizes[i];
    const std::int64_t cost = tile_cost(t) * tiles_over(rows, t.rows) * tiles_over(columns, t.columns);
    if (cost < least) least = cost, best = i;
  }
  return best;
}

/// A window of P-Net that may hold a face.
struct Window {
  float score;
  float offset[4];
  std::int32_t level, x, y;
};

/// A level cut into tiles.
struct TiledLevel {
  Level level;
  int kind = 0, across = 0;  // tiles side by side
  int first = 0;             // number of its first tile among those of all levels
};

/// Below this difference of logits no softmax reaches `score`. A tenth less than the inverse of the sigmoid, and 10 for
/// scores so near to 1 that float32 has no steps left (1 - sigmoid(10) is 400 of them).
inline float least_logit(float score) noexcept {
  if (!(score > 0)) return -INFINITY;
  const double exact = score < 1 ? std::log(static_cast<double>(score) / (1 - static_cast<double>(score))) : 10;
  return static_cast<float>(exact < 10 ? exact : 10) - 0.1f;
}

constexpr int head_group = 16;  // R-Net's or O-Net's pictures in one run: their dense layers' weights are read once

}  // namespace detail

/// Finds faces. One Detector serves one caller at a time; fork() makes another that shares the weights. Move-only.
class Detector {
 public:
  /// Loads a weight file (tools/convert_weights.py --mtcnn). Errors: those of WeightsReader, with the file's name;
  /// invalid_argument for the options.
  static Result<Detector> load(const char* path, const DetectorOptions& options = {}) noexcept {
    auto reader = WeightsReader::open(path, options.read);
    if (!reader) return reader.status();
    return from(*reader, options);
  }
  /// The same from memory, which may go away afterwards.
  static Result<Detector> load(Span<const std::uint8_t> file, const DetectorOptions& options = {}) noexcept {
    auto reader = WeightsReader::from_memory(file, options.read);
    if (!reader) return reader.status();
    return from(*reader, options);
  }
  /// Another detector over the same weights, for another thread. Errors: invalid_argument, out_of_memory.
  Result<Detector> fork(const DetectorOptions& options) const noexcept {
    Detector d;
    d.model_ = model_;
    model_->users.fetch_add(1, std::memory_order_relaxed);
    FACENET_TRY(d.prepare(options));
    return d;
  }

  Detector() noexcept = default;
  Detector(Detector&& other) noexcept
      : model_(std::exchange(other.model_, nullptr)), desk_(std::exchange(other.desk_, nullptr)) {}
  Detector& operator=(Detector&& other) noexcept {
    std::swap(model_, other.model_);
    std::swap(desk_, other.desk_);
    return *this;
  }
  ~Detector() {
    if (desk_ != nullptr) {
      desk_->~Desk();
      detail::deallocate(desk_);
    }
    if (model_ == nullptr || model_->users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    model_->~Model();
    detail::deallocate(model_);
  }

  const DetectorOptions& options() const noexcept { return desk_->options; }
  /// 16 hex digits that stand for the weights.
  const char* digest() const noexcept { return model_->digest; }
  const Plan& rnet() const noexcept { return model_->rnet; }
  const Plan& onet() const noexcept { return model_->onet; }

  /// Finds the faces of `picture`, in the order of options().selection. No face is an empty result, not an error.
  /// Errors: invalid_argument, limit_exceeded, out_of_memory.
  Status detect(ImageView picture, Faces& faces) noexcept {
    faces.list_.clear();
    FACENET_TRY(detail::check(picture));
    Desk& d = *desk_;
    FACENET_TRY(propose(d, picture));
    FACENET_TRY(refine(d, picture));
    FACENET_TRY(output(d, picture, faces.list_));
    std::size_t count = select_faces(faces.list_.data(), faces.list_.size(), d.options.selection, picture.width,
                                     picture.height);
    const auto most = static_cast<std::size_t>(d.options.max_faces);
    if (most != 0 && count > most) count = most;
    faces.list_.shrink(count);
    return {};
  }

 private:
  struct Model {
    std::atomic<int> users{1};
    Plan pnet[detail::tile_kinds], rnet, onet;
    char digest[17] = "";
  };

  /// What one thread needs for itself.
  struct Member {
    Workspace pnet[detail::tile_kinds], rnet, onet;
    detail::AreaScratch area;
    Buffer<float> pixels;
    detail::List<detail::Window> found;
    Status status;
  };

  /// What one caller needs: threads, and lists that grow with the candidates.
  struct Desk {
    DetectorOptions options;
    Team team;
    ChunkQueue queue;
    Member* members = nullptr;
    int member_count = 0;
    detail::List<detail::Level> pyramid;
    detail::List<detail::TiledLevel> levels;
    detail::List<detail::Window> windows;
    detail::List<Box> boxes, staged;
    detail::List<float> scores, outputs;
    detail::List<int> order, keep;
    detail::List<int> indices;
    detail::NmsScratch nms;

    ~Desk() {
      for (int i = 0; i < member_count; ++i) members[i].~Member();
      detail::deallocate(members);
    }
  };

  // -- loading ------------------------------------------------------------------------------------------------------

  static Result<Detector> from(WeightsReader& reader, const DetectorOptions& options) noexcept {
    FACENET_TRY(check(options));
    void* memory = detail::allocate(sizeof(Model));
    if (memory == nullptr) return {Errc::out_of_memory, "there is not enough memory"};
    Detector d;
    Model& m = *(d.model_ = ::new (memory) Model);
    const auto compile = [&](const Network& network, Plan& plan) -> Status {
      auto made = Plan::compile(network, reader);
      if (!made) return made.status();
      plan = std::move(*made);
      return {};
    };
    for (int i = 0; i < detail::tile_kinds; ++i) {
      const detail::TileSize t = detail::tile_sizes[i];
      FACENET_TRY(compile(models::mtcnn_pnet(2 * t.rows + 10, 2 * t.columns + 10), m.pnet[i]));
    }
    FACENET_TRY(compile(models::mtcnn_rnet(), m.rnet));
    FACENET_TRY(compile(models::mtcnn_onet(), m.onet));
    std::snprintf(m.digest, sizeof m.digest, "%s", reader.digest());
    FACENET_TRY(d.prepare(options));
    return d;
  }

  static Status check(const DetectorOptions& o) noexcept {
    if (o.min_face < 1) return {Errc::invalid_argument, "min_face must be at least 1 pixel"};
    // 0.99: 700 levels for the largest picture. Nearer to 1 the pyramid does not end.
    if (!(o.factor > 0 && o.factor <= 0.99)) return {Errc::invalid_argument, "factor must be above 0 and at most 0.99"};
    if (o.max_faces < 0) return {Errc::invalid_argument, "max_faces must be 0 or above"};
    if (o.threads < 0 || o.threads > max_threads) return {Errc::invalid_argument, "threads must be 1 to 256"};
    return {};
  }

  Status prepare(const DetectorOptions& options) noexcept {
    FACENET_TRY(check(options));
    void* memory = detail::allocate(sizeof(Desk));
    if (memory == nullptr) return {Errc::out_of_memory, "there is not enough memory"};
    Desk& d = *(desk_ = ::new (memory) Desk);
    d.options = options;
    FACENET_TRY(d.team.start(options.threads == 0 ? default_threads() : options.threads));
    const int count = d.team.size();
    d.members = static_cast<Member*>(detail::allocate(sizeof(Member) * static_cast<std::size_t>(count)));
    if (d.members == nullptr) return {Errc::out_of_memory, "there is not enough memory"};
    for (; d.member_count < count; ++d.member_count) {
      Member& m = *::new (static_cast<void*>(d.members + d.member_count)) Member;
      m.status = equip(m);
      if (!m.status.ok()) {
        ++d.member_count;
        return m.status;
      }
    }
    return {};
  }
  Status equip(Member& m) const noexcept {
    const auto workspace = [](const Plan& plan, int batch, Workspace& to) -> Status {
      auto made = plan.workspace(batch, 1);
      if (!made) return made.status();
      to = std::move(*made);
      return {};
    };
    for (int i = 0; i < detail::tile_kinds; ++i) FACENET_TRY(workspace(model_->pnet[i], 1, m.pnet[i]));
    FACENET_TRY(workspace(model_->rnet, detail::head_group, m.rnet));
    FACENET_TRY(workspace(model_->onet, detail::head_group, m.onet));
    auto pixels = Buffer<float>::make(static_cast<std::size_t>(model_->onet.input_shape().size()) * detail::head_group);
    if (!pixels) return pixels.status();
    m.pixels = std::move(*pixels);
    return {};
  }

  /// Calls f(member, chunk) for all chunks, on all threads. Returns the first member's error.
  template <class F>
  static Status share_out(Desk& d, int chunks, F&& f) noexcept {
    for (int i = 0; i < d.member_count; ++i) d.members[i].status = {};
    d.queue.reset(d.member_count);
    d.team.run([&](int index, int) {
      Member& m = d.members[index];
      d.queue.work(index, 0, chunks, [&](int chunk) {
        if (m.status.ok()) m.status = f(m, chunk);
      });
    });
    for (int i = 0; i < d.member_count; ++i) FACENET_TRY(d.members[i].status);
    return {};
  }

  // -- P-Net: windows of the pyramid ----------------------------------------------------------------------------------

  /// Fills d.boxes with squares that may hold a face, best first.
  Status propose(Desk& d, ImageView picture) const noexcept {
    FACENET_TRY(detail::make_pyramid(picture.width, picture.height, d.options.min_face, d.options.factor, d.pyramid));
    d.levels.clear();
    std::int64_t tiles = 0;
    for (const detail::Level& l : d.pyramid) {
      detail::TiledLevel t;
      t.level = l;
      t.kind = detail::choose_tile(l.rows, l.columns);
      t.across = detail::tiles_over(l.columns, detail::tile_sizes[t.kind].columns);
      t.first = static_cast<int>(tiles);
      tiles += std::int64_t{t.across} * detail::tiles_over(l.rows, detail::tile_sizes[t.kind].rows);
      if (tiles > INT32_MAX) return {Errc::limit_exceeded, "min_face is too small for so large a picture"};
      FACENET_TRY(d.levels.push(t));
    }
    for (int i = 0; i < d.member_count; ++i) {
      d.members[i].found.clear();
      FACENET_TRY(d.members[i].area.reserve(picture.width, 2 * detail::tile_sizes[0].columns + 10));
    }
    FACENET_TRY(share_out(d, static_cast<int>(tiles),
                          [&](Member& m, int tile) noexcept { return search_tile(d, m, picture, tile); }));
    return merge_windows(d);
  }

  Status search_tile(const Desk& d, Member& m, ImageView picture, int tile) const noexcept {
    std::size_t index = d.levels.size() - 1;
    while (d.levels[index].first > tile) --index;
    const detail::TiledLevel& t = d.levels[index];
    const detail::Level& l = t.level;
    const detail::TileSize size = detail::tile_sizes[t.kind];
    const int y0 = (tile - t.first) / t.across * size.rows, x0 = (tile - t.first) % t.across * size.columns;
    const int rows = size.rows < l.rows - y0 ? size.rows : l.rows - y0;
    const int columns = size.columns < l.columns - x0 ? size.columns : l.columns - x0;

    const Plan& plan = model_->pnet[t.kind];
    Workspace& w = m.pnet[t.kind];
    const TensorView in = plan.view(w, 0);
    const Rect level{0, 0, l.width, l.height};
    Rect part{2 * x0, 2 * y0, 2 * x0 + in.shape.w, 2 * y0 + in.shape.h};
    if (part.x1 > level.x1) part.x1 = level.x1;
    if (part.y1 > level.y1) part.y1 = level.y1;
    detail::area_pixels(picture, l.width, l.height, part, m.area, in.data, in.row_stride);
    run_trunk(plan, w, static_cast<int>(part.height()) - 2, static_cast<int>(part.width()) - 2);

    // Most tiles hold nothing: their softmax and offsets need not be computed.
    const float threshold = d.options.thresholds[0];
    const int steps = static_cast<int>(plan.steps().size());
    const TensorView logits = plan.view(w, plan.steps()[plan.steps().size() - 3].op);
    if (!any_above(logits, rows, columns, detail::least_logit(threshold))) return {};
    plan.run_step(w, steps - 2);
    plan.run_step(w, steps - 1);
    const TensorView out = plan.view(w, plan.network().size() - 1);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        const float* p = out.pixel(0, y, x);
        if (!(p[1] >= threshold)) continue;
        const detail::Window found{p[1], {p[2], p[3], p[4], p[5]}, static_cast<std::int32_t>(index), x0 + x, y0 + y};
        FACENET_TRY(m.found.push(found));
      }
    return {};
  }

  /// The steps between the input, which is in place, and the last two, softmax and offsets. Of the first convolution only
  /// `rows` x `columns` outputs are the level's: one more row and column are made the least of numbers, so that a pool's
  /// window that sticks out of the level ignores them, as ceil mode asks.
  static void run_trunk(const Plan& plan, Workspace& w, int rows, int columns) noexcept {
    plan.run_step(w, 1);
    const TensorView first = plan.view(w, 1);
    constexpr float least = -3e38f;
    const int c = first.shape.c;
    if (rows < first.shape.h)
      for (float *p = first.pixel(0, rows, 0), *end = p + first.shape.w * c; p != end; ++p) *p = least;
    if (columns < first.shape.w)
      for (int y = 0; y < first.shape.h; ++y)
        for (float *p = first.pixel(0, y, columns), *end = p + c; p != end; ++p) *p = least;
    for (int i = 2, end = static_cast<int>(plan.steps().size()) - 2; i < end; ++i) plan.run_step(w, i);
  }
  /// Whether face - no face is at least `bound` anywhere.
  static bool any_above(TensorView logits, int rows, int columns, float bound) noexcept {
    for (int y = 0; y < rows; ++y) {
      const float* p = logits.pixel(0, y, 0);
      bool any = false;
      for (int x = 0; x < columns; ++x, p += logits.pixel_stride) any |= p[1] - p[0] >= bound;
      if (any) return true;
    }
    return false;
  }

  /// Suppression within each level (0.5) and over all of them (0.7), then P-Net's regression.
  static Status merge_windows(Desk& d) noexcept {
    d.windows.clear();
    for (int i = 0; i < d.member_count; ++i)
      for (const detail::Window& w : d.members[i].found) FACENET_TRY(d.windows.push(w));
    // Which thread found a window leaves no trace: row by row among equal scores, as the reference lists them.
    std::sort(d.windows.begin(), d.windows.end(), [](const detail::Window& a, const detail::Window& b) {
      if (a.level != b.level) return a.level < b.level;
      if (a.score != b.score) return a.score > b.score;
      return a.y != b.y ? a.y < b.y : a.x < b.x;
    });
    const std::size_t count = d.windows.size();
    FACENET_TRY(d.boxes.resize(count));
    for (std::size_t i = 0; i < count; ++i) {
      const detail::Window& w = d.windows[i];
      d.boxes[i] = detail::window_box(w.x, w.y, d.pyramid[static_cast<std::size_t>(w.level)].scale);
    }
    d.indices.clear();
    for (std::size_t first = 0, end; first < count; first = end) {
      for (end = first + 1; end < count && d.windows[end].level == d.windows[first].level;) ++end;
      FACENET_TRY(detail::nms(d.boxes.data() + first, end - first, 0.5f, d.nms, d.keep));
      for (const int k : d.keep) FACENET_TRY(d.indices.push(static_cast<int>(first) + k));
    }
    FACENET_TRY(d.scores.resize(count));
    for (std::size_t i = 0; i < count; ++i) d.scores[i] = d.windows[i].score;
    FACENET_TRY(suppress(d, 0.7f));
    FACENET_TRY(d.staged.resize(d.indices.size()));
    for (std::size_t i = 0; i < d.indices.size(); ++i) {
      const auto k = static_cast<std::size_t>(d.indices[i]);
      d.staged[i] = detail::square(detail::regress(d.boxes[k], d.windows[k].offset, 0));
    }
    std::swap(d.boxes, d.staged);
    return {};
  }

  /// Orders d.indices (into d.boxes and d.scores) by descending score and drops what overlaps a better one.
  static Status suppress(Desk& d, float threshold) noexcept {
    const std::size_t count = d.indices.size();
    FACENET_TRY(d.order.resize(count));
    for (std::size_t i = 0; i < count; ++i) d.order[i] = static_cast<int>(i);
    const auto score = [&](int i) {
      return d.scores[static_cast<std::size_t>(d.indices[static_cast<std::size_t>(i)])];
    };
    std::sort(d.order.begin(), d.order.end(),
              [&](int a, int b) { return score(a) != score(b) ? score(a) > score(b) : a < b; });
    FACENET_TRY(d.staged.resize(count));
    for (std::size_t i = 0; i < count; ++i) {
      int& k = d.order[i];
      k = d.indices[static_cast<std::size_t>(k)];
      d.staged[i] = d.boxes[static_cast<std::size_t>(k)];
    }
    FACENET_TRY(detail::nms(d.staged.data(), count, threshold, d.nms, d.keep));
    d.indices.clear();
    for (const int k : d.keep) FACENET_TRY(d.indices.push(d.order[static_cast<std::size_t>(k)]));
    return {};
  }

  // -- R-Net and O-Net: one box after the other -------------------------------------------------------------------------

  /// Runs a network on the pixels of each of d.boxes: d.outputs[box][output_size()]. Boxes without pixels leave d.boxes.
  static Status look(Desk& d, ImageView picture, const Plan& plan, Workspace Member::*workspace) noexcept {
    const auto in_picture = [&](Box b) {
      return picture.holds(detail::pixels_of(b, picture.width, picture.height));
    };
    d.boxes.shrink(static_cast<std::size_t>(std::stable_partition(d.boxes.begin(), d.boxes.end(), in_picture) -
                                            d.boxes.begin()));
    const int count = static_cast<int>(d.boxes.size()), side = plan.input_shape().h;
    FACENET_TRY(d.outputs.resize(static_cast<std::size_t>(count) * static_cast<std::size_t>(plan.output_size())));
    // Four turns a thread, so that a slow one does not hold up the rest.
    const int wanted = (count + 4 * d.member_count - 1) / (4 * d.member_count);
    const int group = wanted < detail::head_group ? wanted : detail::head_group;
    if (count == 0) return {};
    return share_out(d, (count + group - 1) / group, [&](Member& m, int chunk) noexcept {
      PlanInput inputs[detail::head_group];
      const int first = chunk * group, n = group < count - first ? group : count - first;
      for (int i = 0; i < n; ++i) {
        const Box b = d.boxes[static_cast<std::size_t>(first + i)];
        const ImageView face = picture.crop(detail::pixels_of(b, picture.width, picture.height));
        float* pixels = m.pixels.data() + std::int64_t{i} * side * side * 3;
        detail::area_pixels(face, side, side, {0, 0, side, side}, m.area, pixels, std::ptrdiff_t{3} * side);
        inputs[i].nhwc = pixels;
      }
      return plan.run(m.*workspace, inputs, n,
                      d.outputs.data() + std::int64_t{first} * plan.output_size());
    });
  }

  /// Lists in d.indices the boxes whose score is above the threshold, and sets d.scores.
  static Status accept(Desk& d, int outputs, float threshold) noexcept {
    FACENET_TRY(d.scores.resize(d.boxes.size()));
    d.indices.clear();
    for (std::size_t i = 0; i < d.boxes.size(); ++i) {
      d.scores[i] = d.outputs[i * static_cast<std::size_t>(outputs) + 1];
      if (d.scores[i] > threshold) FACENET_TRY(d.indices.push(static_cast<int>(i)));
    }
    return {};
  }

  Status refine(Desk& d, ImageView picture) const noexcept {
    const int outputs = model_->rnet.output_size();
    FACENET_TRY(look(d, picture, model_->rnet, &Member::rnet));
    FACENET_TRY(accept(d, outputs, d.options.thresholds[1]));
    FACENET_TRY(suppress(d, 0.7f));
    FACENET_TRY(d.staged.resize(d.indices.size()));
    for (std::size_t i = 0; i < d.indices.size(); ++i) {
      const auto k = static_cast<std::size_t>(d.indices[i]);
      const float* offset = d.outputs.data() + k * static_cast<std::size_t>(outputs) + 2;
      d.staged[i] = detail::square(detail::regress(d.boxes[k], offset, 1));
    }
    std::swap(d.boxes, d.staged);
    return {};
  }

  Status output(Desk& d, ImageView picture, detail::List<Face>& faces) const noexcept {
    const int outputs = model_->onet.output_size();
    FACENET_TRY(look(d, picture, model_->onet, &Member::onet));
    FACENET_TRY(accept(d, outputs, d.options.thresholds[2]));
    // numpy's argsort, read from its end: of equal scores the last comes first.
    std::sort(d.indices.begin(), d.indices.end(), [&](int a, int b) {
      const float x = d.scores[static_cast<std::size_t>(a)], y = d.scores[static_cast<std::size_t>(b)];
      return x != y ? x > y : a > b;
    });
    for (const int i : d.indices) {
      const Box b = d.boxes[static_cast<std::size_t>(i)];
      const float* p = d.outputs.data() + std::int64_t{i} * outputs;
      const float w = b.x1 - b.x0 + 1, h = b.y1 - b.y0 + 1;
      Face f;
      f.box = detail::regress(b, p + 2, 1);
      f.score = p[1];
      for (int k = 0; k < 5; ++k)
        f.landmarks[k] = {detail::rounded_product(w, p[6 + k]) + b.x0 - 1, detail::rounded_product(h, p[11 + k]) + b.y0 - 1};
      FACENET_TRY(faces.push(f));
    }
    faces.shrink(detail::nms_least(faces.data(), faces.size(), 0.7f));
    return {};
  }

  Model* model_ = nullptr;
  Desk* desk_ = nullptr;
};

FACENET_END
