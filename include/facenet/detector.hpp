// The object users hold: a picture in, faces out. MTCNN as facenet-pytorch 2.6 runs it. Layer 5.
//
// Threads share out the tiles of all levels of the pyramid, not the layers of the networks, and later the candidates.
// So memory is the tiles' and the candidates', whatever the picture's size, and the bits do not depend on the threads.
#pragma once

#include <atomic>

#include "facenet/detector_tiles.hpp"

FACENET_BEGIN

struct DetectorOptions {
  int min_face = 20;                         // pixels, the smallest face to look for
  float thresholds[3] = {0.6f, 0.7f, 0.7f};  // scores that P-, R- and O-Net's candidates must reach
  double factor = 0.709;                     // from a level of the pyramid to the next
  int max_faces = 0;                         // of those found, in the order of `selection`; 0: all
  Selection selection = Selection::largest;
  int threads = 0;                           // 0: default_threads()
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

constexpr int head_group = 16;  // R-Net's or O-Net's pictures in one run: their dense layers' weights are read once

}  // namespace detail

/// Finds faces. One Detector serves one caller at a time; fork() makes another that shares the weights. Move-only.
class Detector {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Loads a weight file (tools/convert_weights.py --mtcnn). Errors: those of WeightsReader, with the file's name;
  /// invalid_argument for the options.
  static Result<Detector> load(const char* path, const DetectorOptions& options = {}) noexcept {
    auto reader = WeightsReader::open(path, options.read);
    if (!reader) return reader.status();
    return from(*reader, options);
  }
#endif
  /// The same from memory, which may go away afterwards.
  static Result<Detector> load(Span<const std::uint8_t> file, const DetectorOptions& options = {}) noexcept {
    auto reader = WeightsReader::from_memory(file, options.read);
    if (!reader) return reader.status();
    return from(*reader, options);
  }
  /// The same from a file opened already, which an Embedder may be loaded from too; options.read is not looked at.
  static Result<Detector> load(WeightsReader& reader, const DetectorOptions& options = {}) noexcept {
    return from(reader, options);
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
  /// What the next picture is searched for; the number of threads stays what it was. Error: invalid_argument.
  Status set_options(DetectorOptions options) noexcept {
    options.threads = desk_->options.threads;
    FACENET_TRY(check(options));
    desk_->options = options;
    return {};
  }
  /// 16 hex digits that stand for the weights.
  const char* digest() const noexcept { return model_->digest; }
  const Plan& rnet() const noexcept { return model_->rnet; }
  const Plan& onet() const noexcept { return model_->onet; }

  /// Finds the faces of `picture`, in the order of options().selection. No face is an empty result, not an error.
  /// Errors: invalid_argument, limit_exceeded, out_of_memory.
  Status detect(ImageView picture, Faces& faces) noexcept {
    const simd::FlushDenormals mode;  // for the boxes too, which are computed outside of the team
    faces.list_.clear();
    FACENET_TRY(detail::check(picture));
    Desk& d = *desk_;
    FACENET_TRY(propose(d, picture));
    FACENET_TRY(refine(d, picture));
    FACENET_TRY(output(d, picture, faces.list_));
    std::size_t count =
        select_faces(faces.list_.data(), faces.list_.size(), d.options.selection, picture.width, picture.height);
    const auto most = static_cast<std::size_t>(d.options.max_faces);
    if (most != 0 && count > most) count = most;
    faces.list_.shrink(count);
    return {};
  }

 private:
  struct Model {
    std::atomic<int> users{1};
    Plan pnet[detail::tile_kinds], rnet, onet;
    detail::PnetStem stem;
    char digest[17] = "";
  };

  /// What one thread needs for itself.
  struct Member {
    Workspace pnet[detail::tile_kinds], rnet, onet;
    detail::TileScratch scratch;
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
    detail::List<detail::Tile> tiles;
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

  // -- loading --------------------------------------------------------------------------------------------------------

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
    for (int i = 0; i < detail::tile_kinds; ++i) FACENET_TRY(compile(detail::tile_network(i), m.pnet[i]));
    FACENET_TRY(
        reader.for_each_layer(detail::tile_network(0), [&](int op, Span<const float> w, Span<const float> b) -> Status {
          if (op == detail::pnet_conv1) m.stem.set(w.data(), b.data());
          return {};
        }));
    FACENET_TRY(compile(models::mtcnn_rnet(), m.rnet));
    FACENET_TRY(compile(models::mtcnn_onet(), m.onet));
    detail::copy_text(m.digest, reader.digest());
    FACENET_TRY(d.prepare(options));
    return d;
  }

  static Status check(const DetectorOptions& o) noexcept {
    if (o.min_face < 1) return {Errc::invalid_argument, "min_face must be at least 1 pixel"};
    // 0.99: 700 levels for the largest picture. Nearer to 1 the pyramid does not end.
    if (!(o.factor > 0 && o.factor <= 0.99)) return {Errc::invalid_argument, "factor must be above 0 and at most 0.99"};
    for (const float t : o.thresholds)
      if (t != t) return {Errc::invalid_argument, "a threshold is not a number"};
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
    FACENET_TRY(detail::cut_into_tiles(d.pyramid, d.tiles));
    for (int i = 0; i < d.member_count; ++i) {
      d.members[i].found.clear();
      FACENET_TRY(d.members[i].scratch.reserve(picture.width));
    }
    FACENET_TRY(share_out(d, static_cast<int>(d.tiles.size()),
                          [&](Member& m, int tile) noexcept { return search_tile(d, m, picture, tile); }));
    return merge_windows(d);
  }

  Status search_tile(const Desk& d, Member& m, ImageView picture, int number) const noexcept {
    const detail::Tile& t = d.tiles[static_cast<std::size_t>(number)];
    const detail::Level& level = d.pyramid[static_cast<std::size_t>(t.level)];
    const Plan& plan = model_->pnet[t.kind];
    Workspace& w = m.pnet[t.kind];
    detail::run_tile(plan, w, model_->stem, picture, level, t.y, t.x, m.scratch);

    const auto least = [](int a, int b) { return a < b ? a : b; };
    const int rows = least(detail::tile_rows(t.kind), level.rows - t.y);
    const int columns = least(detail::tile_columns(t.kind), level.columns - t.x);
    const float threshold = d.options.thresholds[0];
    if (!detail::any_above(plan.view(w, detail::pnet_logits), rows, columns, detail::least_logit(threshold))) return {};
    detail::finish_tile(plan, w);
    const TensorView out = plan.view(w, detail::pnet_out);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        const float* p = out.pixel(0, y, x);
        if (p[1] >= threshold) FACENET_TRY(m.found.push({p[1], {p[2], p[3], p[4], p[5]}, t.level, t.x + x, t.y + y}));
      }
    return {};
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

  // -- R-Net and O-Net: one box after the other -----------------------------------------------------------------------

  /// Runs a network on the pixels of each of d.boxes: d.outputs[box][output_size()]. Boxes without pixels are dropped.
  static Status look(Desk& d, ImageView picture, const Plan& plan, Workspace Member::*workspace) noexcept {
    const auto in_picture = [&](Box b) { return picture.holds(detail::pixels_of(b, picture.width, picture.height)); };
    d.boxes.shrink(
        static_cast<std::size_t>(std::stable_partition(d.boxes.begin(), d.boxes.end(), in_picture) - d.boxes.begin()));
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
        detail::area_pixels(face, side, side, {0, 0, side, side}, m.scratch.area,
                            {pixels, std::ptrdiff_t{3} * side, 3, 1});
        inputs[i].nhwc = pixels;
      }
      return plan.run(m.*workspace, inputs, n, d.outputs.data() + std::int64_t{first} * plan.output_size());
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
        f.landmarks[k] = {detail::rounded_product(w, p[6 + k]) + b.x0 - 1,
                          detail::rounded_product(h, p[11 + k]) + b.y0 - 1};
      FACENET_TRY(faces.push(f));
    }
    faces.shrink(detail::nms_least(faces.data(), faces.size(), 0.7f));
    return {};
  }

  Model* model_ = nullptr;
  Desk* desk_ = nullptr;
};

FACENET_END
