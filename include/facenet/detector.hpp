// Detector: a picture in, faces out. MTCNN as facenet-pytorch 2.6 runs it.
//
// Threads share out the tiles of all levels of the pyramid, not the layers of the networks, and later the candidates.
// So memory is the tiles' and the candidates' and a tenth of the picture's, and the bits do not depend on the threads.
#pragma once
#include "facenet/base/macros_push.inc"

#include <atomic>

#include "facenet/detector/tiles.hpp"

FACENET_BEGIN

/// What detect() does: first for each tile of each level, in turn, then once.
enum class DetectorPart : std::uint8_t { pyramid, pnet, rnet, onet, none };

/// Told where detect() is, on the thread that is there: 0 is the caller's. For those who measure.
struct DetectorObserver {
  void* context = nullptr;
  void (*begins)(void* context, int thread, DetectorPart part) = nullptr;
};

struct DetectorOptions {
  int min_face = 20;                         // pixels, the smallest face to look for
  double min_face_share = 0;                 // above 0: this share of the shorter side instead, 12 pixels at the least
  float thresholds[3] = {0.6f, 0.7f, 0.7f};  // scores that P-, R- and O-Net's candidates must reach
  double factor = 0.709;                     // from a level of the pyramid to the next
  int max_faces = 0;                         // of those found, in the order of `selection`; 0: all
  Selection selection = Selection::largest;
  int threads = 0;  // 0: default_threads()
  // All memory comes from this arena, and malloc is never called; null: malloc. The arena must outlive the detector,
  // its forks and their Faces. With an arena threads = 0 means one thread, as for an Embedder.
  Arena* arena = nullptr;
  // Memory is made at once for pictures up to this size (0: as pictures need it) in which P-Net finds up to so many
  // candidates (0: every window of 12 pixels in the pyramid, which no picture exceeds; 250 bytes each). With min_face
  // and factor as they are now, detect() then allocates nothing. What needs more takes it from where the rest came
  // from.
  int max_width = 0, max_height = 0, max_candidates = 0;
  const std::atomic<bool>* cancel =
      nullptr;  // detect() looks at it at every tile, and returns Errc::cancelled while it is set
  const DetectorObserver* observer = nullptr;  // must outlive the detector and its forks
  ReadOptions read;
};

/// The faces of one picture. Reuse it for the next picture: it keeps its memory, which comes from its detector's arena
/// or from malloc.
class Faces {
 public:
  int size() const noexcept { return static_cast<int>(list_.size()); }
  bool empty() const noexcept { return list_.empty(); }
  const Face& operator[](int i) const noexcept { return list_[i]; }
  const Face* begin() const noexcept { return list_.begin(); }
  const Face* end() const noexcept { return list_.end(); }

 private:
  friend class Detector;
  detail::List<Face> list_;
};

namespace detail {

constexpr int head_group = 16;  // R-Net's or O-Net's pictures in one run: their dense layers' weights are read once

}  // namespace detail

/// Finds faces.
///
/// Example:
///   auto detector = facenet::Detector::load("mtcnn.safetensors");
///   if (!detector) return detector.status();
///   auto picture = facenet::read_image("group.jpg");  // image_io.hpp
///   if (!picture) return picture.status();
///   facenet::Faces faces;
///   if (auto status = detector->detect(picture->view(), faces); !status) return status;
///   for (const facenet::Face& face : faces) std::printf("%.0f %.0f %.2f\n", face.box.x0, face.box.y0, face.score);
///
/// Threads: one Detector serves one caller at a time. fork() makes another for another thread; the two share the
/// weights.
/// Lifetimes: it keeps no pointer to a picture or to the file's bytes; the arena and the cancel flag must outlive it.
/// Move-only. A Detector that was never loaded, or was moved from, has default options, digest() "" and empty plans;
/// every other call returns invalid_argument.
class Detector {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Loads a weight file (tools/convert_weights.py --mtcnn). Errors: those of WeightsReader, with the file's name;
  /// invalid_argument for the options.
  static Result<Detector> load(const char* path, const DetectorOptions& options = {}) noexcept {
    auto reader = open(path, options);
    if (!reader) return reader.status();
    return from(*reader, options, true);
  }
#endif
  /// Loads from the bytes of a weight file, which may be freed after the call.
  static Result<Detector> load(Span<const std::uint8_t> file, const DetectorOptions& options = {}) noexcept {
    auto reader = open(file, options);
    if (!reader) return reader.status();
    return from(*reader, options, true);
  }
  /// Loads from an open reader, from which an Embedder may be loaded too. Ignores options.read.
  static Result<Detector> load(WeightsReader& reader, const DetectorOptions& options = {}) noexcept {
    return from(reader, options, false);
  }
  /// Bytes of an arena that load() with these options fills exactly, one Faces for its pictures included; as
  /// Embedder::required_bytes().
  template <class File>
  static Result<std::size_t> required_bytes(const File& file, const DetectorOptions& options = {}) noexcept {
    Arena measure{Arena::Measure{options.arena}};
    DetectorOptions measured = options;
    measured.arena = &measure;
    auto reader = open(file, measured);
    if (!reader) return reader.status();
    const auto detector = from(*reader, measured, true);
    if (!detector) return detector.status();
    return measure.peak();
  }
  /// Another detector over the same weights, for another thread, in the memory that its options name. In an arena with
  /// just the room for them, make and destroy forks one after the other: a fork has many blocks, and those of two that
  /// are made at once may lie in each other's places. Errors: invalid_argument, out_of_memory.
  Result<Detector> fork(const DetectorOptions& options) const noexcept {
    if (!model_) return not_loaded();
    Detector d;
    d.model_ = model_;
    FACENET_TRY(d.prepare(options));
    return d;
  }
  /// Bytes of an arena that such a fork fills exactly. Error: invalid_argument.
  Result<std::size_t> fork_bytes(const DetectorOptions& options) const noexcept {
    Arena measure{Arena::Measure{options.arena}};
    DetectorOptions measured = options;
    measured.arena = &measure;
    const auto made = fork(measured);
    if (!made) return made.status();
    return measure.peak();
  }

  FACENET_HIDDEN const DetectorOptions& options() const noexcept {
    static constexpr DetectorOptions none{};
    return workspace_ ? workspace_->options : none;
  }
  /// What the next picture is searched for; threads and memory stay what they were. Error: invalid_argument.
  Status set_options(DetectorOptions options) noexcept {
    if (!workspace_) return not_loaded();
    const DetectorOptions& now = workspace_->options;
    options.threads = now.threads;
    options.arena = now.arena;
    options.max_width = now.max_width;
    options.max_height = now.max_height;
    options.max_candidates = now.max_candidates;
    FACENET_TRY(check(options));
    workspace_->options = options;
    return {};
  }
  /// 16 hex digits that stand for the weights.
  const char* digest() const noexcept { return model_ ? model_->digest : ""; }
  const Plan& rnet() const noexcept { return model_ ? model_->rnet : none_; }
  const Plan& onet() const noexcept { return model_ ? model_->onet : none_; }

  /// Finds the faces of `picture`, in the order of options().selection. No face is an empty result, not an error.
  /// Errors: invalid_argument, limit_exceeded, out_of_memory, cancelled.
  Status detect(ImageView picture, Faces& faces) noexcept {
    faces.list_.clear();
    if (!workspace_) return not_loaded();
    // A Faces that comes again brings the list that it was given for the picture before; another detector's is given
    // back.
    if (faces.list_.memory().arena != workspace_->memory.arena) faces.list_ = {};
    if (faces.list_.capacity() > workspace_->faces.capacity()) faces.list_.swap(workspace_->faces);
    const Status status = find(picture);
    faces.list_.swap(workspace_->faces);
    if (!status.ok()) faces.list_.clear();
    return status;
  }
  /// Writes the first faces.size() faces to the caller's array. `found` is the number of all faces.
  Status detect(ImageView picture, Span<Face> faces, int& found) noexcept {
    found = 0;
    if (!workspace_) return not_loaded();
    if (faces.data() == nullptr && !faces.empty()) return {Errc::invalid_argument, "the output is null"};
    FACENET_TRY(find(picture));
    const detail::List<Face>& all = workspace_->faces;
    for (std::size_t i = 0; i < all.size() && i < faces.size(); ++i) faces[i] = all[i];
    found = static_cast<int>(all.size());
    return {};
  }

 private:
  struct Model {
    Plan pnet[detail::tile_kinds], rnet, onet;
    detail::PnetLayers layers;
    char digest[17] = "";
  };

  /// What one thread needs for itself.
  struct ThreadWorkspace {
    Workspace pnet[detail::tile_kinds], rnet, onet;
    detail::TileScratch scratch;
    detail::SmallScratch small_levels;
    Buffer<float> pixels;
    detail::List<detail::FaceCandidate> found;
    Status status;
  };

  /// What one caller needs: threads, and lists that grow with the candidates.
  struct DetectionWorkspace {
    DetectorOptions options;
    Memory memory;
    Team team;
    ChunkQueue queue;
    detail::Owned<ThreadWorkspace> members;
    detail::List<detail::Level> pyramid;
    detail::List<detail::PyramidTile> tiles;
    Buffer<float> kept;  // the small levels
    detail::List<detail::FaceCandidate> candidates;
    detail::List<Box> boxes, staged;
    detail::List<float> scores, outputs;
    detail::List<int> order, keep;
    detail::List<int> indices;
    detail::NmsScratch nms;
    detail::List<Face> faces;
    std::size_t reserved_faces = 0;

    /// Calls f(list, items a candidate) for the lists that grow with the candidates.
    template <class F>
    Status each_list(F&& f) noexcept {
      FACENET_TRY(f(candidates, 1));
      FACENET_TRY(f(boxes, 1));
      FACENET_TRY(f(staged, 1));
      FACENET_TRY(f(scores, 1));
      FACENET_TRY(f(outputs, 16));  // O-Net's
      FACENET_TRY(f(order, 1));
      FACENET_TRY(f(keep, 1));
      FACENET_TRY(f(indices, 1));
      FACENET_TRY(f(nms.by_left, 1));
      FACENET_TRY(f(nms.dead, 1));
      return f(faces, 1);
    }
  };

  static Status not_loaded() noexcept {
    return {Errc::invalid_argument, "this detector was never loaded, or was moved from"};
  }

  // -- loading --------------------------------------------------------------------------------------------------------

  template <class File>
  static Result<WeightsReader> open(const File& file, const DetectorOptions& options) noexcept {
    ReadOptions read = options.read;
    if (options.arena != nullptr) read.arena = options.arena;
#if !defined(FACENET_NO_STDIO)
    if constexpr (std::is_convertible_v<const File&, const char*>)
      return WeightsReader::open(file, read);
    else
#endif
      return WeightsReader::from_memory(file, read);
  }

  /// `release`: the reader is not needed any more, and its memory may be the lists'.
  static Result<Detector> from(WeightsReader& reader, const DetectorOptions& options, bool release) noexcept {
    const simd::FlushDenormals mode;
    FACENET_TRY(check(options));
    const Memory memory{options.arena, Arena::front};
    Detector d;
    FACENET_TRY(detail::Shared<Model>::make(d.model_, memory));
    Model& m = *d.model_;
    const auto compile = [&](const Network& network, Plan& plan) -> Status {
      PlanOptions plan_options;
      plan_options.arena = options.arena;
      auto made = Plan::compile(network, reader, plan_options);
      if (!made) return made.status();
      plan = std::move(*made);
      return {};
    };
    for (int i = 0; i < detail::tile_kinds; ++i) FACENET_TRY(compile(detail::tile_network(i), m.pnet[i]));
    if (memory.measuring())
      FACENET_TRY(reader.measure_layers(detail::tile_network(0), false));
    else
      FACENET_TRY(reader.for_each_layer(detail::tile_network(0),
                                        [&](int op, Span<const float> w, Span<const float> b) -> Status {
                                          m.layers.set(op, w.data(), b.data());
                                          return {};
                                        }));
    FACENET_TRY(compile(models::mtcnn_rnet(), m.rnet));
    FACENET_TRY(compile(models::mtcnn_onet(), m.onet));
    detail::copy_text(m.digest, reader.digest());
    if (release) const WeightsReader done = std::move(reader);
    FACENET_TRY(d.prepare(options));
    return d;
  }

  static Status check(const DetectorOptions& o) noexcept {
    if (!(o.min_face_share >= 0 && o.min_face_share <= 1))
      return {Errc::invalid_argument, "min_face_share must be 0 to 1, a part of the picture's shorter side"};
    if (o.min_face < 1) return {Errc::invalid_argument, "min_face must be at least 1 pixel"};
    // 0.99: 700 levels for the largest picture. Nearer to 1 the pyramid does not end.
    if (!(o.factor > 0 && o.factor <= 0.99)) return {Errc::invalid_argument, "factor must be above 0 and at most 0.99"};
    for (const float t : o.thresholds)
      if (t != t) return {Errc::invalid_argument, "a threshold is not a number"};
    if (o.max_faces < 0) return {Errc::invalid_argument, "max_faces must be 0 or above"};
    if (o.threads < 0 || o.threads > max_threads) return {Errc::invalid_argument, "threads must be 1 to 256"};
    if (o.max_width < 0 || o.max_height < 0 || o.max_candidates < 0)
      return {Errc::invalid_argument, "max_width, max_height and max_candidates must be 0 or above"};
    if (o.max_width > max_image_side || o.max_height > max_image_side)
      return {Errc::limit_exceeded, "a picture may be at most 16384 pixels wide and high"};
    return {};
  }

  Status prepare(const DetectorOptions& options) noexcept {
    const simd::FlushDenormals mode;
    FACENET_TRY(check(options));
    const Memory memory{options.arena, Arena::front};
    FACENET_TRY(detail::Owned<DetectionWorkspace>::make(workspace_, 1, memory));
    DetectionWorkspace& d = *workspace_;
    d.options = options;
    d.memory = memory;
    const int threads = options.threads != 0 ? options.threads : options.arena != nullptr ? 1 : default_threads();
    FACENET_TRY(d.team.start(threads));
    FACENET_TRY(detail::Owned<ThreadWorkspace>::make(d.members, static_cast<std::size_t>(d.team.size()), memory));
    for (ThreadWorkspace& m : d.members) FACENET_TRY(prepare_thread(m));
    return reserve(d);
  }
  Status prepare_thread(ThreadWorkspace& m) const noexcept {
    const Memory memory = workspace_->memory;
    const auto workspace = [&](const Plan& plan, int batch, Workspace& to) -> Status {
      auto made = plan.workspace(batch, 1, memory);
      if (!made) return made.status();
      to = std::move(*made);
      return {};
    };
    for (int i = 0; i < detail::tile_kinds; ++i) FACENET_TRY(workspace(model_->pnet[i], 1, m.pnet[i]));
    FACENET_TRY(workspace(model_->rnet, detail::head_group, m.rnet));
    FACENET_TRY(workspace(model_->onet, detail::head_group, m.onet));
    m.found.grow_in(memory);
    const std::int64_t pixels = model_->onet.input_shape().size() * detail::head_group;
    return detail::allocate_bulk(m.pixels, static_cast<std::size_t>(pixels), true, memory);
  }
  /// Makes the lists as long as the largest picture needs them.
  static Status reserve(DetectionWorkspace& d) noexcept {
    const DetectorOptions& o = d.options;
    d.pyramid.grow_in(d.memory);
    d.tiles.grow_in(d.memory);
    FACENET_TRY(d.each_list([&](auto& list, int) -> Status { return list.grow_in(d.memory), Status(); }));
    if (o.max_width == 0 || o.max_height == 0) return {};
    const int min_face = least_face(o, o.max_width, o.max_height);
    FACENET_TRY(d.pyramid.reserve(detail::pyramid_levels(o.max_width, o.max_height, min_face, o.factor)));
    FACENET_TRY(detail::make_pyramid(o.max_width, o.max_height, min_face, o.factor, d.pyramid));
    FACENET_TRY(reserve_small_levels(d, o.max_width));
    std::int64_t tiles = 0, windows = 0;
    for (const detail::Level& level : d.pyramid) {
      tiles += detail::most_tiles(level);
      windows += std::int64_t{level.rows} * level.columns;
    }
    if (o.max_candidates != 0 && windows > o.max_candidates) windows = o.max_candidates;
    const std::int64_t most = std::int64_t{1} << 34;  // above, P-Net would run for a day; each has 64 bytes at most
    if (tiles > most || windows > most || static_cast<std::uint64_t>(windows) > SIZE_MAX / 64)
      return {Errc::limit_exceeded, "min_face is too small for so large a picture"};
    const auto count = static_cast<std::size_t>(windows);
    FACENET_TRY(d.tiles.reserve_bulk(static_cast<std::size_t>(tiles)));
    FACENET_TRY(
        d.each_list([&](auto& list, int each) { return list.reserve_bulk(count * static_cast<std::size_t>(each)); }));
    for (ThreadWorkspace& m : d.members) {
      FACENET_TRY(m.scratch.reserve(o.max_width, d.memory));
      FACENET_TRY(m.found.reserve_bulk(count));
    }
    d.reserved_faces = count;
    return {};
  }

  static Status reserve_small_levels(DetectionWorkspace& d, int width) noexcept {
    if constexpr (!detail::shrinks_small_levels) return {};
    const std::size_t floats = detail::place_small_levels(d.pyramid, kernels::stem_overrun());
    if (d.kept.size() < floats) FACENET_TRY(detail::allocate_bulk(d.kept, floats, true, d.memory));
    for (ThreadWorkspace& m : d.members) FACENET_TRY(m.small_levels.reserve(width, d.pyramid, d.memory));
    return {};
  }

  /// Finds the faces into d.faces.
  Status find(ImageView picture) noexcept {
    const simd::FlushDenormals mode;  // for the boxes too, which are computed outside of the team
    FACENET_TRY(detail::check(picture));
    DetectionWorkspace& d = *workspace_;
    d.faces.grow_in(d.memory);
    d.faces.clear();
    FACENET_TRY(d.faces.reserve(d.reserved_faces));
    struct End {
      const DetectionWorkspace& d;
      ~End() { observe(d, 0, DetectorPart::none); }
    } const end{d};
    FACENET_TRY(run_pnet(d, picture));
    FACENET_TRY(run_rnet(d, picture));
    FACENET_TRY(run_onet(d, picture, d.faces));
    std::size_t count =
        select_faces(d.faces.data(), d.faces.size(), d.options.selection, picture.width, picture.height);
    const auto most = static_cast<std::size_t>(d.options.max_faces);
    if (most != 0 && count > most) count = most;
    d.faces.shrink(count);
    return {};
  }
  static int least_face(const DetectorOptions& o, int width, int height) noexcept {
    return o.min_face_share > 0 ? detail::share_of(o.min_face_share, width, height) : o.min_face;
  }
  static void observe(const DetectionWorkspace& d, std::ptrdiff_t thread, DetectorPart part) noexcept {
    const DetectorObserver* o = d.options.observer;
    if (o != nullptr && o->begins != nullptr) o->begins(o->context, static_cast<int>(thread), part);
  }
  static Status stopped(const DetectionWorkspace& d) noexcept {
    if (d.options.cancel == nullptr || !d.options.cancel->load(std::memory_order_relaxed)) return {};
    return {Errc::cancelled, "the caller has cancelled it"};
  }

  /// Calls f(member, chunk) for all chunks, on all threads. Returns the first member's error.
  template <class F>
  static Status parallel_for(DetectionWorkspace& d, int chunks, F&& f) noexcept {
    for (ThreadWorkspace& m : d.members) m.status = stopped(d);
    d.queue.reset(d.team.size());
    d.team.run([&](int index, int) {
      ThreadWorkspace& m = d.members[index];
      d.queue.work(index, 0, chunks, [&](int chunk) {
        if (m.status.ok()) m.status = f(m, chunk);
        if (m.status.ok()) m.status = stopped(d);
      });
      if (index != 0) observe(d, index, DetectorPart::none);
    });
    for (const ThreadWorkspace& m : d.members) FACENET_TRY(m.status);
    return {};
  }

  // -- P-Net: windows of the pyramid ----------------------------------------------------------------------------------

  /// Fills d.boxes with squares that may hold a face, best first.
  Status run_pnet(DetectionWorkspace& d, ImageView picture) const noexcept {
    observe(d, 0, DetectorPart::pyramid);
    const int min_face = least_face(d.options, picture.width, picture.height);
    FACENET_TRY(detail::make_pyramid(picture.width, picture.height, min_face, d.options.factor, d.pyramid));
    FACENET_TRY(detail::cut_into_tiles(d.pyramid, d.tiles));
    for (ThreadWorkspace& m : d.members) {
      m.found.clear();
      FACENET_TRY(m.scratch.reserve(picture.width, d.memory));
    }
    FACENET_TRY(reserve_small_levels(d, picture.width));
    if constexpr (detail::shrinks_small_levels) FACENET_TRY(make_small_levels(d, picture));
    FACENET_TRY(parallel_for(d, static_cast<int>(d.tiles.size()),
                             [&](ThreadWorkspace& m, int tile) noexcept { return search_tile(d, m, picture, tile); }));
    return merge_candidates(d);
  }
  Status make_small_levels(DetectionWorkspace& d, ImageView picture) const noexcept {
    if (!d.pyramid.empty() && d.pyramid[d.pyramid.size() - 1].kept >= 0) {
      const int bands = d.team.size();
      const auto row = [&](int band) { return static_cast<int>(std::int64_t{picture.height} * band / bands); };
      FACENET_TRY(parallel_for(d, bands, [&](ThreadWorkspace& m, int band) noexcept -> Status {
        observe(d, &m - d.members.begin(), DetectorPart::pyramid);
        detail::shrink_rows(picture, d.pyramid, row(band), row(band + 1), m.small_levels, d.kept.data());
        return {};
      }));
    }
    return {};
  }

  Status search_tile(const DetectionWorkspace& d, ThreadWorkspace& m, ImageView picture, int number) const noexcept {
    const detail::PyramidTile& t = d.tiles[number];
    const detail::Level& level = d.pyramid[t.level];
    const Plan& plan = model_->pnet[t.kind];
    Workspace& w = m.pnet[t.kind];
    observe(d, &m - d.members.begin(), DetectorPart::pyramid);
    const std::size_t after = static_cast<std::size_t>(number) + 1;
    detail::TileSource next;
    if (after < d.tiles.size()) next = detail::source_of(picture, d.pyramid[d.tiles[after].level], d.tiles[after]);
    detail::run_tile(plan, w, model_->layers, picture, level, t, m.scratch, d.kept.data(), next,
                     [&] { observe(d, &m - d.members.begin(), DetectorPart::pnet); });

    const auto least = [](int a, int b) { return a < b ? a : b; };
    const int rows = least(detail::pyramid_tile_rows(t.kind), level.rows - t.y);
    const int columns = least(detail::pyramid_tile_columns(t.kind), level.columns - t.x);
    return detail::for_each_face(plan.view(w, detail::pnet_conv3), rows, columns, model_->layers,
                                 d.options.thresholds[0], [&](int y, int x, const float* p) {
                                   return m.found.push({p[1], {p[2], p[3], p[4], p[5]}, t.level, t.x + x, t.y + y});
                                 });
  }

  /// Suppression within each level (0.5) and over all of them (0.7), then P-Net's regression.
  static Status merge_candidates(DetectionWorkspace& d) noexcept {
    d.candidates.clear();
    for (const ThreadWorkspace& m : d.members)
      for (const detail::FaceCandidate& w : m.found) FACENET_TRY(d.candidates.push(w));
    // Which thread found a window leaves no trace: row by row among equal scores, as the reference lists them.
    detail::sort(d.candidates.begin(), d.candidates.end(),
                 [](const detail::FaceCandidate& a, const detail::FaceCandidate& b) {
                   if (a.level != b.level) return a.level < b.level;
                   if (a.score != b.score) return a.score > b.score;
                   return a.y != b.y ? a.y < b.y : a.x < b.x;
                 });
    const std::size_t count = d.candidates.size();
    FACENET_TRY(d.boxes.resize(count));
    for (std::size_t i = 0; i < count; ++i) {
      const detail::FaceCandidate& w = d.candidates[i];
      d.boxes[i] = detail::window_box(w.x, w.y, d.pyramid[w.level].scale);
    }
    d.indices.clear();
    for (std::size_t first = 0, end; first < count; first = end) {
      for (end = first + 1; end < count && d.candidates[end].level == d.candidates[first].level;) ++end;
      FACENET_TRY(detail::nms(d.boxes.data() + first, end - first, 0.5f, d.nms, d.keep));
      for (const int k : d.keep) FACENET_TRY(d.indices.push(static_cast<int>(first) + k));
    }
    FACENET_TRY(d.scores.resize(count));
    for (std::size_t i = 0; i < count; ++i) d.scores[i] = d.candidates[i].score;
    FACENET_TRY(suppress(d, 0.7f));
    FACENET_TRY(d.staged.resize(d.indices.size()));
    for (std::size_t i = 0; i < d.indices.size(); ++i) {
      const auto k = static_cast<std::size_t>(d.indices[i]);
      d.staged[i] = detail::square(detail::regress(d.boxes[k], d.candidates[k].offset, 0));
    }
    d.boxes.swap(d.staged);
    return {};
  }

  /// Orders d.indices (into d.boxes and d.scores) by descending score and drops what overlaps a better one.
  static Status suppress(DetectionWorkspace& d, float threshold) noexcept {
    const std::size_t count = d.indices.size();
    FACENET_TRY(d.order.resize(count));
    for (std::size_t i = 0; i < count; ++i) d.order[i] = static_cast<int>(i);
    const auto score = [&](int i) { return d.scores[static_cast<std::size_t>(d.indices[i])]; };
    detail::sort(d.order.begin(), d.order.end(),
                 [&](int a, int b) { return score(a) != score(b) ? score(a) > score(b) : a < b; });
    FACENET_TRY(d.staged.resize(count));
    for (std::size_t i = 0; i < count; ++i) {
      int& k = d.order[i];
      k = d.indices[k];
      d.staged[i] = d.boxes[k];
    }
    FACENET_TRY(detail::nms(d.staged.data(), count, threshold, d.nms, d.keep));
    d.indices.clear();
    for (const int k : d.keep) FACENET_TRY(d.indices.push(d.order[k]));
    return {};
  }

  // -- R-Net and O-Net: one box after the other -----------------------------------------------------------------------

  /// Runs a network on the pixels of each of d.boxes: d.outputs[box][output_size()]. Boxes without pixels are dropped.
  static Status run_on_boxes(DetectionWorkspace& d, ImageView picture, const Plan& plan,
                             Workspace ThreadWorkspace::*workspace, DetectorPart part) noexcept {
    observe(d, 0, part);
    std::size_t kept = 0;  // std::stable_partition would call operator new
    for (const Box& b : d.boxes)
      if (picture.holds(detail::pixels_of(b, picture.width, picture.height))) d.boxes[kept++] = b;
    d.boxes.shrink(kept);
    const int count = static_cast<int>(d.boxes.size()), side = plan.input_shape().h;
    FACENET_TRY(d.outputs.resize(static_cast<std::size_t>(count) * static_cast<std::size_t>(plan.output_size())));
    // Four turns a thread, so that a slow one does not hold up the rest.
    const int turns = 4 * d.team.size(), wanted = (count + turns - 1) / turns;
    const int group = wanted < detail::head_group ? wanted : detail::head_group;
    if (count == 0) return {};
    return parallel_for(d, (count + group - 1) / group, [&](ThreadWorkspace& m, int chunk) noexcept {
      observe(d, &m - d.members.begin(), part);
      PlanInput inputs[detail::head_group];
      const int first = chunk * group, n = group < count - first ? group : count - first;
      for (int i = 0; i < n; ++i) {
        const Box b = d.boxes[first + i];
        const ImageView face = picture.crop(detail::pixels_of(b, picture.width, picture.height));
        float* pixels = m.pixels.data() + std::int64_t{i} * side * side * 3;
        detail::area_pixels(face, side, side, {0, 0, side, side}, m.scratch.area,
                            {pixels, std::ptrdiff_t{3} * side, 3, 1});
        inputs[i].nhwc = pixels;
      }
      const std::int64_t size = plan.output_size();
      return plan.run(m.*workspace, inputs, n, {d.outputs.data() + first * size, n * size});
    });
  }

  /// Lists in d.indices the boxes whose score is above the threshold, and sets d.scores.
  static Status accept(DetectionWorkspace& d, int outputs, float threshold) noexcept {
    FACENET_TRY(d.scores.resize(d.boxes.size()));
    d.indices.clear();
    for (std::size_t i = 0; i < d.boxes.size(); ++i) {
      d.scores[i] = d.outputs[i * static_cast<std::size_t>(outputs) + 1];
      if (d.scores[i] > threshold) FACENET_TRY(d.indices.push(static_cast<int>(i)));
    }
    return {};
  }

  Status run_rnet(DetectionWorkspace& d, ImageView picture) const noexcept {
    const int outputs = model_->rnet.output_size();
    FACENET_TRY(run_on_boxes(d, picture, model_->rnet, &ThreadWorkspace::rnet, DetectorPart::rnet));
    FACENET_TRY(accept(d, outputs, d.options.thresholds[1]));
    FACENET_TRY(suppress(d, 0.7f));
    FACENET_TRY(d.staged.resize(d.indices.size()));
    for (std::size_t i = 0; i < d.indices.size(); ++i) {
      const auto k = static_cast<std::size_t>(d.indices[i]);
      const float* offset = d.outputs.data() + k * static_cast<std::size_t>(outputs) + 2;
      d.staged[i] = detail::square(detail::regress(d.boxes[k], offset, 1));
    }
    d.boxes.swap(d.staged);
    return {};
  }

  Status run_onet(DetectionWorkspace& d, ImageView picture, detail::List<Face>& faces) const noexcept {
    const int outputs = model_->onet.output_size();
    FACENET_TRY(run_on_boxes(d, picture, model_->onet, &ThreadWorkspace::onet, DetectorPart::onet));
    FACENET_TRY(accept(d, outputs, d.options.thresholds[2]));
    // numpy's argsort, read from its end: of equal scores the last comes first.
    detail::sort(d.indices.begin(), d.indices.end(), [&](int a, int b) {
      const float x = d.scores[a], y = d.scores[b];
      return x != y ? x > y : a > b;
    });
    for (const int i : d.indices) {
      const Box b = d.boxes[i];
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

  detail::Shared<Model> model_;
  Plan none_;  // of a detector without a model
  detail::Owned<DetectionWorkspace> workspace_;
};

FACENET_END

#include "facenet/base/macros_pop.inc"
