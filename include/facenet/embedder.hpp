// The object users hold: faces in, embeddings out. Layer 5.
#pragma once

#include "facenet/image.hpp"
#include "facenet/models/dlib_resnet.hpp"
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/models/inception_resnet_v2.hpp"
#include "facenet/plan.hpp"

FACENET_BEGIN

namespace models {

/// One line a model: the name in a weight file's metadata, how to build the network, and the Euclidean distance up to
/// which two faces are taken for one person's where nobody has calibrated.
struct Entry {
  const char* architecture;
  Network (*build)(int embedding_dim, bool normalise, double width);
  double threshold;
};
inline Span<const Entry> all() noexcept {
  static constexpr Entry table[] = {
      // 1.1 between unit vectors: the example of Schroff et al., "FaceNet", 2015, figure 1.
      {"inception_resnet_v1", inception_resnet_v1, 1.1},
      {"inception_resnet_v2", inception_resnet_v2, 1.1},
      {"dlib_resnet", dlib_resnet, 0.6},  // what it was trained for: dlib's dnn_face_recognition_ex.cpp
  };
  return table;
}
/// The line of that architecture, or null.
inline const Entry* find(const char* architecture) noexcept {
  for (const Entry& e : all())
    if (std::strcmp(e.architecture, architecture) == 0) return &e;
  return nullptr;
}

}  // namespace models

/// What an embedder knows of its weights: the file's metadata, kept after the file is closed.
struct ModelInfo {
  char architecture[48], dataset[64], source[128], licence[128], digest[17];
  int embedding_dim, image_size;
  bool trained;  // false: distances between embeddings mean nothing
  bool assumed;  // a plain state_dict: preprocessing is facenet-pytorch's by assumption
  Normalise normalise;
  ChannelOrder channel_order;
  Scaling scaling;
  Crop crop;
  double margin;
  double threshold;  // models::Entry's
};

struct EmbedderOptions {
  int threads = 0;            // 0: default_threads()
  int batch = 1;              // pictures in one run; more are done in turns. Memory grows by Plan::arena_bytes
  bool half_weights = false;  // see PlanOptions
  bool int8_weights = false;  // likewise: the file's bytes, where they are the caller's, must then outlive the embedder
  // Where everything is made that the embedder keeps or needs for a while, and malloc is never called; null: malloc. It
  // must outlive the embedder. threads = 0 means one here, since starting threads and counting CPUs allocate.
  Arena* arena = nullptr;
  ReadOptions read;
};

/// Turns face crops into embeddings. One Embedder serves one caller at a time; fork() makes another that shares the
/// weights. Move-only.
class Embedder {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Loads a weight file. Errors: those of WeightsReader, with the file's name; unsupported for an unknown
  /// architecture; invalid_argument for the options.
  static Result<Embedder> load(const char* path, const EmbedderOptions& options = {}) noexcept {
    auto reader = open(path, options);
    if (!reader) return reader.status();
    return from(*reader, options, path, true);
  }
#endif
  /// The same from memory, which may go away afterwards (unless weights stay int8).
  static Result<Embedder> load(Span<const std::uint8_t> file, const EmbedderOptions& options = {}) noexcept {
    auto reader = open(file, options);
    if (!reader) return reader.status();
    return from(*reader, options, nullptr, true);
  }
  /// The same from a file opened already, which a Detector may be loaded from too; options.read is not looked at.
  static Result<Embedder> load(WeightsReader& reader, const EmbedderOptions& options = {}) noexcept {
    return from(reader, options, nullptr, false);
  }
  /// Bytes of an arena that load() with these options fills exactly; one that is not 64-byte aligned needs 63 more, and
  /// pictures of another size than the model's take what is left beyond. Reads the header only; tables of about 200 KB are
  /// made in options.arena, and given back, or by malloc.
  template <class File>
  static Result<std::size_t> required_bytes(const File& file, const EmbedderOptions& options = {}) noexcept {
    Arena measure{Arena::Measure{options.arena}};
    EmbedderOptions measured = options;
    measured.arena = &measure;
    auto reader = open(file, measured);
    if (!reader) return reader.status();
    const auto embedder = from(*reader, measured, nullptr, true);
    if (!embedder) return embedder.status();
    return measure.peak();
  }
  /// Another embedder over the same weights, for another thread. Errors: out_of_memory, invalid_argument.
  Result<Embedder> fork(int threads, int batch) const noexcept {
    Embedder e;
    e.memory_ = memory_;
    e.model_ = model_;
    model_->users.fetch_add(1, std::memory_order_relaxed);
    FACENET_TRY(e.prepare(threads, batch));
    return e;
  }

  Embedder() noexcept = default;
  Embedder(Embedder&& other) noexcept
      : memory_(other.memory_),
        model_(std::exchange(other.model_, nullptr)),
        workspace_(std::move(other.workspace_)),
        resized_(std::move(other.resized_)),
        inputs_(std::move(other.inputs_)),
        values_(std::move(other.values_)) {}
  Embedder& operator=(Embedder&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(model_, other.model_);
    workspace_ = std::move(other.workspace_);
    resized_ = std::move(other.resized_);
    inputs_ = std::move(other.inputs_);
    values_ = std::move(other.values_);
    return *this;
  }
  ~Embedder() {
    if (model_ == nullptr || model_->users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const Memory memory = memory_;
    model_->~Model();
    memory.give(model_);
  }

  /// Floats of one embedding; 0 for an Embedder that was never loaded.
  int dim() const noexcept { return model_ != nullptr ? model_->plan.output_size() : 0; }
  const ModelInfo& info() const noexcept { return model_->info; }
  const Plan& plan() const noexcept { return model_->plan; }
  Workspace& workspace() noexcept { return workspace_; }

  /// Embeds n face crops into out[n][dim()]. A crop of another size than the model's is resized whole (bilinear, as
  /// Pillow). Errors: invalid_argument, limit_exceeded, out_of_memory (only resizing allocates).
  Status embed(const ImageView* faces, int n, float* out) noexcept {
    if (faces == nullptr || n < 1) return {Errc::invalid_argument, "there must be at least one picture"};
    const int batch = workspace_.batch();
    for (int i = 0; i < n; i += batch) {
      const int count = n - i < batch ? n - i : batch;
      for (int k = 0; k < count; ++k) FACENET_TRY(set_input(k, faces[i + k]));
      FACENET_TRY(plan().run(workspace_, inputs_.data(), count, out + std::int64_t{i} * dim()));
    }
    return {};
  }
  Status embed(const ImageView& face, float* out) noexcept { return embed(&face, 1, out); }

  /// The same from pixels that are standardised already: NHWC floats of the model's size and channel order.
  Status embed_nhwc(const float* pixels, int n, float* out) noexcept {
    if (pixels == nullptr || n < 1) return {Errc::invalid_argument, "there must be at least one picture"};
    const int batch = workspace_.batch();
    for (int i = 0; i < n; i += batch) {
      const int count = n - i < batch ? n - i : batch;
      for (int k = 0; k < count; ++k) {
        inputs_[static_cast<std::size_t>(k)] = {};
        inputs_[static_cast<std::size_t>(k)].nhwc = pixels + std::int64_t{i + k} * plan().input_shape().size();
      }
      FACENET_TRY(plan().run(workspace_, inputs_.data(), count, out + std::int64_t{i} * dim()));
    }
    return {};
  }

 private:
  struct Model {
    std::atomic<int> users{1};
    Plan plan;
    ModelInfo info;
  };

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
    const auto in_file = [&](Status s) { return path != nullptr ? s.in(path) : s; };
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
      return in_file({Errc::unsupported, "the network cannot be built at this width: some layer would not have whole channels"});
    if (m.image_size != network[0].out.h)
      return in_file({Errc::unsupported, "the file's image_size is not the network's"});

    PlanOptions plan_options;
    plan_options.half_weights = options.half_weights;
    plan_options.int8_weights = options.int8_weights;
    plan_options.arena = options.arena;
    plan_options.threads = threads_or_default(options.threads, options.arena);
    auto plan = Plan::compile(network, reader, plan_options);
    if (!plan) return plan.status();
    Embedder e;
    e.memory_ = {options.arena, Arena::front};
    void* memory = e.memory_.take(sizeof(Model));
    if (memory == nullptr) return {Errc::out_of_memory, "there is not enough memory for the model"};
    e.model_ = ::new (memory) Model;
    e.model_->plan = std::move(*plan);
    e.model_->info = keep(m, reader.digest());
    e.model_->info.threshold = entry->threshold;
    if (release) const WeightsReader done = std::move(reader);
    FACENET_TRY(e.prepare(options.threads, options.batch));
    return e;
  }

  static ModelInfo keep(const Metadata& m, const char* digest) noexcept {
    ModelInfo i{};
    detail::copy_text(i.architecture, m.architecture);
    detail::copy_text(i.dataset, m.dataset);
    detail::copy_text(i.source, m.source);
    detail::copy_text(i.licence, m.licence);
    detail::copy_text(i.digest, digest);
    i.embedding_dim = m.embedding_dim;
    i.image_size = m.image_size;
    i.trained = m.trained;
    i.assumed = m.assumed;
    i.normalise = m.normalise;
    i.channel_order = m.channel_order;
    i.scaling = m.scaling;
    i.crop = m.crop;
    i.margin = m.margin;
    return i;
  }

  /// Starting threads and counting CPUs allocates, which an arena's user does not want unless he says so.
  static int threads_or_default(int threads, const Arena* arena) noexcept {
    return threads != 0 ? threads : arena != nullptr ? 1 : default_threads();
  }
  Status prepare(int threads, int batch) noexcept {
    if (threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
    threads = threads_or_default(threads, memory_.arena);
    auto workspace = plan().workspace(batch, threads);
    if (!workspace) return workspace.status();
    const auto count = static_cast<std::size_t>(batch);
    const std::size_t resized_bytes = count * static_cast<std::size_t>(plan().input_shape().size());
    auto resized = Buffer<std::uint8_t>::make_bulk(resized_bytes, true, memory_);
    auto inputs = Buffer<PlanInput>::make_bulk(count, true, memory_);
    auto values = Buffer<Standardisation>::make_bulk(info().scaling == Scaling::fixed ? 0 : count, true, memory_);
    if (!resized) return resized.status();
    if (!inputs) return inputs.status();
    if (!values) return values.status();
    workspace_ = std::move(*workspace);
    resized_ = std::move(*resized);
    inputs_ = std::move(*inputs);
    values_ = std::move(*values);
    return {};
  }

  Status set_input(int index, ImageView face) noexcept {
    const auto i = static_cast<std::size_t>(index);
    const Shape want = plan().input_shape();
    FACENET_TRY(detail::check(face));
    if (face.width != want.w || face.height != want.h) {
      auto resized = resize_bilinear(face, want.w, want.h, memory_.at_back());
      if (!resized) return resized.status();
      std::uint8_t* to = resized_.data() + i * static_cast<std::size_t>(want.size());
      std::memcpy(to, resized->data(), resized->bytes());
      face = {to, want.w, want.h, resized->stride(), face.order};
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

  Memory memory_;
  Model* model_ = nullptr;
  Workspace workspace_;
  Buffer<std::uint8_t> resized_;
  Buffer<PlanInput> inputs_;
  Buffer<Standardisation> values_;
};

FACENET_END
