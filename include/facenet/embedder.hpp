// Embedder: face crops in, embeddings out.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/image.hpp"
#include "facenet/models/all.hpp"
#include "facenet/plan.hpp"

FACENET_BEGIN

/// What an embedder knows of its weights: the file's metadata, kept after the file is closed.
struct ModelInfo {
  char architecture[48], dataset[64], source[128], licence[128], digest[17];
  int embedding_dim, image_size;
  bool trained;  // false: distances between embeddings mean nothing
  bool assumed;  // a plain state_dict: preprocessing is assumed to be the model's usual one
  Normalise normalise;
  ChannelOrder channel_order;
  Scaling scaling;
  Crop crop;
  double margin;
  double threshold;            // the file's, which was measured; else models::Entry's
  char threshold_source[128];  // what measured it; "": it was not measured
};

namespace detail {

/// Whether one of n floats is NaN, infinite, or beyond ±most. By their bits: -ffast-math takes no NaN for one.
inline bool beyond(const float* x, std::int64_t n, float most) noexcept {
  std::uint32_t limit, worst = 0;
  std::memcpy(&limit, &most, sizeof limit);
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffffu;
    worst = bits > worst ? bits : worst;
  }
  return worst > limit;
}

/// Whether n components are an embedding that a network gave, and no zero, which is as near to any other zero as a face
/// to itself, nor what is not finite, which compares as nothing.
inline Status check_embedding(const float* x, int n, Normalise normalise) noexcept {
  constexpr float most_component = 1e15f;  // a square of more overflows in a sum of 16,384
  if (beyond(x, n, most_component))
    return {Errc::corrupt, "the embedding is not finite or beyond 1e15: the weights do not fit, convert them again"};
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  // A vector shorter than l2_normalise's 1e-12 comes out shorter than 1; others leave it within 1e-6 of 1. What is not
  // normalised has lengths around 1 too.
  if (normalise == Normalise::l2 ? sum > 0.999 && sum < 1.001 : sum >= 1e-20) return {};
  return {Errc::corrupt,
          "the embedding is zero or too short to compare: the weights' last layer is dead, convert them again"};
}

}  // namespace detail

struct EmbedderOptions {
  int threads = 0;            // 0: default_threads()
  int batch = 1;              // pictures in one run; more are done in turns. Memory grows by Plan::arena_bytes
  bool half_weights = false;  // see PlanOptions
  bool int8_weights = false;  // see PlanOptions; bytes passed to load() must then outlive the embedder
  // int8: multiplies bytes, for files that tools/convert_weights.py --calibrate wrote. The bits are the same on every
  // CPU unless the file keeps layers in float.
  Arithmetic arithmetic = Arithmetic::floats;
  // All memory comes from this arena, and malloc is never called; null: malloc. The arena must outlive the embedder and
  // its forks. With an arena threads = 0 means one thread, since starting threads and counting CPUs allocate.
  Arena* arena = nullptr;
  const std::atomic<bool>* cancel = nullptr;  // see Embedder::cancel_when()
  ReadOptions read;
};

/// Turns face crops into embeddings.
///
/// Example:
///   auto embedder = facenet::Embedder::load("facenet.safetensors");
///   if (!embedder) return embedder.status();
///   auto face = facenet::read_image("face.png");  // image_io.hpp
///   if (!face) return face.status();
///   std::vector<float> embedding(embedder->dim());
///   return embedder->embed(face->view(), embedding);
///
/// Threads: one Embedder serves one caller at a time. fork() makes another for another thread; the two share the
/// weights.
/// Lifetimes: it keeps no pointer to a picture, an output or (unless weights stay int8) the file's bytes; the arena and
/// the cancel flag must outlive it. Move-only. An Embedder that was never loaded, or was moved from, has dim() 0, an
/// empty info() and an empty plan(); every other call returns invalid_argument.
class Embedder {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Loads a weight file. Errors: those of WeightsReader, with the file's name; unsupported for an unknown
  /// architecture; invalid_argument for the options.
  static Result<Embedder> load(const char* path, const EmbedderOptions& options = {}) noexcept {
    const simd::FlushDenormals mode;
    auto reader = open(path, options);
    if (!reader) return reader.status();
    return from(*reader, options, path, true);
  }
#endif
  /// Loads from the bytes of a weight file. They may be freed after the call, unless weights stay int8.
  static Result<Embedder> load(Span<const std::uint8_t> file, const EmbedderOptions& options = {}) noexcept {
    const simd::FlushDenormals mode;
    auto reader = open(file, options);
    if (!reader) return reader.status();
    return from(*reader, options, nullptr, true);
  }
  /// Loads from an open reader, from which a Detector may be loaded too. Ignores options.read.
  static Result<Embedder> load(WeightsReader& reader, const EmbedderOptions& options = {}) noexcept {
    return from(reader, options, nullptr, false);
  }
  /// Bytes of an arena that load() with these options fills exactly; one that is not 64-byte aligned needs 63 more.
  /// Embedding takes none. Reads the header only; tables of about 200 KB are made in options.arena, and given back, or
  /// by malloc.
  template <class File>
  static Result<std::size_t> required_bytes(const File& file, const EmbedderOptions& options = {}) noexcept {
    const simd::FlushDenormals mode;
    Arena measure{Arena::Measure{options.arena}};
    EmbedderOptions measured = options;
    measured.arena = &measure;
    auto reader = open(file, measured);
    if (!reader) return reader.status();
    const auto embedder = from(*reader, measured, nullptr, true);
    if (!embedder) return embedder.status();
    return measure.peak();
  }
  /// Another embedder over the same weights, for another thread, in the memory that the first was loaded into. Errors:
  /// out_of_memory, invalid_argument.
  Result<Embedder> fork(int threads, int batch) const noexcept { return fork(threads, batch, model_.memory().arena); }
  /// Forks into `arena`, which must outlive the fork, as one block of it; null: malloc.
  Result<Embedder> fork(int threads, int batch, Arena* arena) const noexcept {
    if (!model_) return not_loaded();
    return detail::make_in_one_block(arena, [&](Memory memory) -> Result<Embedder> {
      Embedder e;
      e.model_ = model_;
      FACENET_TRY(e.prepare(threads, batch, memory));
      return e;
    });
  }
  /// Bytes of an arena that such a fork fills exactly. Error: invalid_argument.
  Result<std::size_t> fork_bytes(int threads, int batch) const noexcept {
    Arena measure{Arena::Measure{model_.memory().arena}};
    const auto made = fork(threads, batch, &measure);
    if (!made) return made.status();
    return Arena::split_bytes(measure.peak());
  }

  /// Floats of one embedding; 0 for an Embedder that was never loaded.
  int dim() const noexcept { return plan().output_size(); }
  FACENET_HIDDEN const ModelInfo& info() const noexcept {
    static constexpr ModelInfo none{};
    return model_ ? model_->info : none;
  }
  const Plan& plan() const noexcept { return model_ ? model_->plan : none_; }
  Workspace& workspace() noexcept { return workspace_; }
  /// Embedding looks at `flag` once a step (some microseconds to a millisecond), and returns Errc::cancelled while it
  /// is set; null: it does not. The flag must outlive the calls. A fork has none.
  void cancel_when(const std::atomic<bool>* flag) noexcept { workspace_.cancel_when(flag); }

  /// Embeds face crops into out[faces][dim()]. A crop of another size than the model's is resized whole (bilinear, as
  /// Pillow). Allocates nothing. Errors: invalid_argument (also where `out` is too small), limit_exceeded, cancelled,
  /// and corrupt for an embedding that means nothing: zero, not finite, or of a length that could not be normalised.
  /// The status says which picture, and none of `out` means anything then.
  Status embed(Span<const ImageView> faces, Span<float> out) noexcept {
    const simd::FlushDenormals mode;
    return run(faces.data() == nullptr ? 0 : faces.size(), out,
               [&](int k, std::int64_t i) { return set_input(k, faces[i]); });
  }
  Status embed(const ImageView& face, Span<float> out) noexcept { return embed(Span<const ImageView>(&face, 1), out); }

  /// Embeds pixels that are standardised already: NHWC floats of the model's size and channel order, of whole pictures.
  /// Errors: as embed(), invalid_argument for a pixel that is not finite or that no standardisation gives (beyond
  /// 2^20), and unsupported in integer arithmetic.
  Status embed_nhwc(Span<const float> pixels, Span<float> out) noexcept {
    const simd::FlushDenormals mode;
    if (!model_) return not_loaded();
    if (plan().takes_bytes())
      return {Errc::unsupported, "integer arithmetic multiplies a picture's bytes: call embed(), or load in float"};
    const std::int64_t size = plan().input_shape().size();
    const auto each = static_cast<std::size_t>(size);
    if (pixels.size() % each != 0)
      return {Errc::invalid_argument,
              "the pixels are not those of whole pictures: each takes height x width x 3 floats of the model's size"};
    return run(pixels.data() == nullptr ? 0 : pixels.size() / each, out, [&](int k, std::int64_t i) -> Status {
      const float* const at = pixels.data() + i * size;
      if (detail::beyond(at, size, most_pixel))
        return {Errc::invalid_argument, "a pixel is not finite or beyond 2^20: standardise the pixels first"};
      inputs_[k] = {};
      inputs_[k].nhwc = at;
      return {};
    });
  }

 private:
  struct Model {
    Plan plan;
    ModelInfo info;
  };
  static constexpr float most_pixel = 1 << 20;  // prewhitening reaches sqrt(3 h w): 500 of the largest model's pixels

  static Status not_loaded() noexcept {
    return {Errc::invalid_argument, "this embedder was never loaded, or was moved from"};
  }

#if !defined(FACENET_NO_STDIO)
  static Result<WeightsReader> open(const char* path, const EmbedderOptions& options) noexcept {
    return WeightsReader::open(path, read_options(options));
  }
#endif
  static Result<WeightsReader> open(Span<const std::uint8_t> file, const EmbedderOptions& options) noexcept {
    return WeightsReader::from_memory(file, read_options(options));
  }
  static ReadOptions read_options(const EmbedderOptions& options) noexcept {
    ReadOptions read = options.read;
    if (options.arena != nullptr) read.arena = options.arena;
    return read;
  }

  /// `release`: the reader is not needed any more, and its memory may be the workspace's.
  static Result<Embedder> from(WeightsReader& reader, const EmbedderOptions& options, const char* path,
                               bool release) noexcept {
    const simd::FlushDenormals mode;
    const auto in_file = [&](Status s) { return path != nullptr ? s.in(path) : s; };
    const Status recognised = reader.recognise(models::all());
    if (!recognised.ok()) return recognised;
    const Metadata& m = reader.metadata();
    const models::Entry* entry = models::find(m.architecture);
    if (std::strcmp(m.architecture, "mtcnn") == 0)
      return in_file({Errc::unsupported,
                      "this is a face detector: give an embedder's weights here, and this file as the detector"});
    if (entry == nullptr)
      return in_file(Status(Errc::unsupported, "this architecture is not known here: use a newer version of facenet")
                         .in(m.architecture));
    const Network network = entry->build(m.embedding_dim, m.normalise == Normalise::l2, m.width);
    if (!network.ok())
      return in_file(
          {Errc::unsupported, "the network cannot be built at this width: some layer would not have whole channels"});
    if (m.image_size != network[0].out.h)
      return in_file({Errc::unsupported, "the file's image_size is not the network's"});

    PlanOptions plan_options;
    plan_options.half_weights = options.half_weights;
    plan_options.int8_weights = options.int8_weights;
    plan_options.arithmetic = options.arithmetic;
    if (options.arithmetic == Arithmetic::int8 && !m.integer)
      return in_file({Errc::unsupported,
                      "the file has no scales for integer arithmetic: convert it with --dtype i8 --calibrate default"});
    plan_options.arena = options.arena;
    plan_options.threads = threads_or_default(options.threads, options.arena);
    auto plan = Plan::compile(network, reader, plan_options);
    if (!plan) return plan.status();
    Embedder e;
    const Memory memory{options.arena, Arena::front};
    FACENET_TRY(detail::Shared<Model>::make(e.model_, memory));
    e.model_->plan = std::move(*plan);
    e.model_->info = keep(m, reader.digest());
    if (m.threshold <= 0) e.model_->info.threshold = entry->threshold;
    if (release) const WeightsReader done = std::move(reader);
    FACENET_TRY(e.prepare(options.threads, options.batch, memory));
    e.cancel_when(options.cancel);
    return e;
  }

  static ModelInfo keep(const Metadata& m, const char* digest) noexcept {
    ModelInfo i{};
    detail::copy_text(i.architecture, m.architecture);
    detail::copy_text(i.dataset, m.dataset);
    detail::copy_text(i.source, m.source);
    detail::copy_text(i.licence, m.licence);
    detail::copy_text(i.digest, digest);
    detail::copy_text(i.threshold_source, m.threshold_source);
    i.embedding_dim = m.embedding_dim;
    i.image_size = m.image_size;
    i.trained = m.trained;
    i.assumed = m.assumed;
    i.normalise = m.normalise;
    i.channel_order = m.channel_order;
    i.scaling = m.scaling;
    i.crop = m.crop;
    i.margin = m.margin;
    i.threshold = m.threshold;
    return i;
  }

  /// Starting threads and counting CPUs allocates, which an arena's user does not want unless he says so.
  static int threads_or_default(int threads, const Arena* arena) noexcept {
    return threads != 0 ? threads : arena != nullptr ? 1 : default_threads();
  }
  Status prepare(int threads, int batch, Memory memory) noexcept {
    if (threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
    auto workspace = plan().workspace(batch, threads_or_default(threads, memory.arena), memory);
    if (!workspace) return workspace.status();
    workspace_ = std::move(*workspace);
    const auto count = static_cast<std::size_t>(batch);
    const Shape in = plan().input_shape();
    FACENET_TRY(detail::allocate_bulk(resized_, count * static_cast<std::size_t>(in.size()), true, memory));
    FACENET_TRY(scratch_.reserve(max_image_side, max_image_side, in.w, in.h, memory));
    FACENET_TRY(detail::allocate_bulk(inputs_, count, true, memory));
    return detail::allocate_bulk(values_, info().scaling == Scaling::fixed ? 0 : count, true, memory);
  }

  /// Embeds what set(place, picture) puts into inputs_, as many at a time as the workspace has places.
  template <class F>
  Status run(std::size_t pictures, Span<float> out, F&& set) noexcept {
    if (!model_) return not_loaded();
    if (pictures < 1) return {Errc::invalid_argument, "there must be at least one picture"};
    const auto n = static_cast<std::int64_t>(pictures);
    const int size = dim(), batch = workspace_.batch();
    FACENET_TRY(detail::check_room(out, n > INT64_MAX / size ? -1 : n * size));
    const auto of_picture = [n](Status s, std::int64_t i) {
      if (s.ok() || n == 1) return s;
      detail::Line line;
      return s.in(line.add("picture ").add(i).add(" of ").add(n).text());
    };
    for (std::int64_t i = 0; i < n; i += batch) {
      const int count = n - i < batch ? static_cast<int>(n - i) : batch;
      for (int k = 0; k < count; ++k) FACENET_TRY(of_picture(set(k, i + k), i + k + 1));
      float* const to = out.data() + i * size;
      FACENET_TRY(plan().run(workspace_, inputs_.data(), count, {to, std::int64_t{count} * size}));
      for (int k = 0; k < count; ++k) {
        const float* const x = to + std::int64_t{k} * size;
        FACENET_TRY(of_picture(detail::check_embedding(x, dim(), info().normalise), i + k + 1));
      }
    }
    return {};
  }

  Status set_input(int i, ImageView face) noexcept {
    const Shape want = plan().input_shape();
    FACENET_TRY(detail::check(face));
    if (face.width != want.w || face.height != want.h) {
      const Box whole{0, 0, static_cast<float>(face.width), static_cast<float>(face.height)};
      std::uint8_t* const to = resized_.data() + i * want.size();
      detail::resize_bilinear_into(face, whole, want.w, want.h, scratch_, to);
      face = {to, want.w, want.h, std::ptrdiff_t{3} * want.w, face.order};
    }
    PlanInput& in = inputs_[i];
    in = {};
    in.rgb = face.data;
    in.stride = face.stride;
    in.swap = face.order != info().channel_order;
    if (info().scaling != Scaling::fixed) {
      values_[i] = standardisation(face, info().scaling);
      if (info().channel_order == ChannelOrder::bgr) std::swap(values_[i].value[0], values_[i].value[2]);
      in.value = values_[i].value;
    }
    return {};
  }

  detail::Shared<Model> model_;
  Plan none_;  // of an embedder without a model
  Workspace workspace_;
  Buffer<std::uint8_t> resized_;
  detail::BilinearScratch scratch_;
  Buffer<PlanInput> inputs_;
  Buffer<Standardisation> values_;
};

FACENET_END

#include "facenet/base/macros_pop.inc"
