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
    auto reader = WeightsReader::open(path, options.read);
    if (!reader) return reader.status();
    return from(*reader, options, path);
  }
#endif
  /// The same from memory, which may go away afterwards.
  static Result<Embedder> load(Span<const std::uint8_t> file, const EmbedderOptions& options = {}) noexcept {
    auto reader = WeightsReader::from_memory(file, options.read);
    if (!reader) return reader.status();
    return from(*reader, options, nullptr);
  }
  /// The same from a file opened already, which a Detector may be loaded from too; options.read is not looked at.
  static Result<Embedder> load(WeightsReader& reader, const EmbedderOptions& options = {}) noexcept {
    return from(reader, options, nullptr);
  }
  /// Another embedder over the same weights, for another thread. Errors: out_of_memory, invalid_argument.
  Result<Embedder> fork(int threads, int batch) const noexcept {
    Embedder e;
    e.model_ = model_;
    model_->users.fetch_add(1, std::memory_order_relaxed);
    FACENET_TRY(e.prepare(threads, batch));
    return e;
  }

  Embedder() noexcept = default;
  Embedder(Embedder&& other) noexcept
      : model_(std::exchange(other.model_, nullptr)),
        workspace_(std::move(other.workspace_)),
        resized_(std::move(other.resized_)),
        inputs_(std::move(other.inputs_)),
        values_(std::move(other.values_)) {}
  Embedder& operator=(Embedder&& other) noexcept {
    std::swap(model_, other.model_);
    workspace_ = std::move(other.workspace_);
    resized_ = std::move(other.resized_);
    inputs_ = std::move(other.inputs_);
    values_ = std::move(other.values_);
    return *this;
  }
  ~Embedder() {
    if (model_ == nullptr || model_->users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    model_->~Model();
    detail::deallocate(model_);
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

  static Result<Embedder> from(WeightsReader& reader, const EmbedderOptions& options, const char* path) noexcept {
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
    plan_options.threads = options.threads == 0 ? default_threads() : options.threads;
    auto plan = Plan::compile(network, reader, plan_options);
    if (!plan) return plan.status();
    void* memory = detail::allocate(sizeof(Model));
    if (memory == nullptr) return {Errc::out_of_memory, "there is not enough memory"};
    Embedder e;
    e.model_ = ::new (memory) Model;
    e.model_->plan = std::move(*plan);
    e.model_->info = keep(m, reader.digest());
    e.model_->info.threshold = entry->threshold;
    FACENET_TRY(e.prepare(options.threads, options.batch));
    return e;
  }

  static ModelInfo keep(const Metadata& m, const char* digest) noexcept {
    ModelInfo i{};
    const auto copy = [](auto& to, const char* from) { std::snprintf(to, sizeof to, "%s", from); };
    copy(i.architecture, m.architecture);
    copy(i.dataset, m.dataset);
    copy(i.source, m.source);
    copy(i.licence, m.licence);
    copy(i.digest, digest);
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

  Status prepare(int threads, int batch) noexcept {
    if (threads < 0) return {Errc::invalid_argument, "threads must be 1 to 256"};
    auto workspace = plan().workspace(batch, threads == 0 ? default_threads() : threads);
    if (!workspace) return workspace.status();
    const auto count = static_cast<std::size_t>(batch);
    auto resized = Buffer<std::uint8_t>::make(count * static_cast<std::size_t>(plan().input_shape().size()));
    auto inputs = Buffer<PlanInput>::make(count);
    auto values = Buffer<Standardisation>::make(info().scaling == Scaling::fixed ? 0 : count);
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
      auto small = resize_bilinear(face, want.w, want.h);
      if (!small) return small.status();
      std::uint8_t* to = resized_.data() + i * static_cast<std::size_t>(want.size());
      std::memcpy(to, small->data(), small->bytes());
      face = {to, want.w, want.h, small->stride(), face.order};
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

  Model* model_ = nullptr;
  Workspace workspace_;
  Buffer<std::uint8_t> resized_;
  Buffer<PlanInput> inputs_;
  Buffer<Standardisation> values_;
};

FACENET_END
