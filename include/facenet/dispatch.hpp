// The engine compiled into a library for SSE4.2, AVX2 and AVX-512, the latter two with and without VNNI, of which the
// CPU at hand takes the best: for programs that are built once and run anywhere. Link facenet::dispatch.
//
// Embedder and Detector are those of embedder.hpp and detector.hpp, with the same options and errors, in the namespace
// facenet::dispatch; what they need of the CPU is in the library, so this unit is compiled for any. Crops are cut by
// align.hpp. $FACENET_FORCE_ISA (sse4, avx2, avxvnni, avx512, avx512vnni) overrules the CPU's best, for tests.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/align.hpp"
#include "facenet/detector.hpp"
#include "facenet/dispatch/table.hpp"

FACENET_BEGIN

namespace dispatch {

namespace detail {

// Records cross from one inline namespace to another by address.
template <class... T>
constexpr bool plain = ((std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>)&&...);
static_assert(plain<Status, EmbedderOptions, ModelInfo, ImageView, DetectorOptions, Face>);

/// The library's table. Errors: unsupported (the CPU, or FACENET_FORCE_ISA), invalid_argument (a library that was
/// compiled with other switches).
inline Result<const facenet_dispatch::Table*> table() noexcept {
  const char *text = nullptr, *place = "";
  const facenet_dispatch::Table* const found = FACENET_DISPATCH_ENTRY(&text, &place);
  if (found == nullptr) return Status(Errc::unsupported, text).in(place);
  constexpr auto mine =
      facenet_dispatch::record_sizes<Status, EmbedderOptions, ModelInfo, ImageView, DetectorOptions, Face>();
  const auto& theirs = found->sizes;
  if (mine.status != theirs.status || mine.embedder_options != theirs.embedder_options ||
      mine.model_info != theirs.model_info || mine.image_view != theirs.image_view ||
      mine.detector_options != theirs.detector_options || mine.face != theirs.face)
    return {Errc::invalid_argument,
            "facenet::dispatch was compiled with other switches than this program: build both alike"};
  return found;
}

/// An object of the library's: its table and its address. Move-only.
class Object {
 public:
  Object() noexcept = default;
  Object(const facenet_dispatch::Table* table, void* object) noexcept : table_(table), object_(object) {}
  Object(Object&& other) noexcept
      : table_(std::exchange(other.table_, nullptr)), object_(std::exchange(other.object_, nullptr)) {}
  Object& operator=(Object&& other) noexcept {  // the owner of what was here before has freed it
    table_ = std::exchange(other.table_, nullptr);
    object_ = std::exchange(other.object_, nullptr);
    return *this;
  }

  const facenet_dispatch::Table* table() const noexcept { return table_; }
  void* get() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  const facenet_dispatch::Table* table_ = nullptr;
  void* object_ = nullptr;
};

constexpr const char* not_loaded = "this object was never loaded, or was moved from";
constexpr ModelInfo no_model{};
constexpr DetectorOptions no_options{};

}  // namespace detail

/// "sse4", "avx2", "avxvnni", "avx512", "avx512vnni"; on other machines what the library was compiled for. Errors as
/// for load().
inline Result<const char*> isa() noexcept {
  const auto table = detail::table();
  if (!table) return table.status();
  return (*table)->isa;
}

/// As facenet::Embedder.
class Embedder {
 public:
  static Result<Embedder> load(const char* path, const EmbedderOptions& options = {}) noexcept {
    return load(path, {}, options);
  }
  static Result<Embedder> load(Span<const std::uint8_t> file, const EmbedderOptions& options = {}) noexcept {
    return load(nullptr, file, options);
  }
  /// Errors: as facenet::Embedder's.
  Result<Embedder> fork(int threads, int batch) const noexcept {
    if (!object_) return {Errc::invalid_argument, detail::not_loaded};
    Status status;
    return made(object_.table(), object_.table()->fork_embedder(object_.get(), threads, batch, &status), status);
  }

  Embedder() noexcept = default;
  Embedder(Embedder&&) noexcept = default;
  Embedder& operator=(Embedder&& other) noexcept {
    const Embedder old(std::move(object_));
    object_ = std::move(other.object_);
    return *this;
  }
  ~Embedder() {
    if (object_) object_.table()->free_embedder(object_.get());
  }

  int dim() const noexcept { return object_ ? object_.table()->embedder_dim(object_.get()) : 0; }
  /// Empty words and zeros for one that was never loaded.
  const ModelInfo& info() const noexcept {
    return object_ ? *static_cast<const ModelInfo*>(object_.table()->embedder_info(object_.get())) : detail::no_model;
  }
  /// As facenet::Embedder's; an embedder that was never loaded ignores it.
  void cancel_when(const std::atomic<bool>* flag) noexcept {
    if (object_) object_.table()->cancel_embedder_when(object_.get(), flag);
  }
  Status embed(Span<const ImageView> faces, Span<float> out) noexcept {
    if (!object_) return {Errc::invalid_argument, detail::not_loaded};
    Status status;
    object_.table()->embed(object_.get(), faces.data(), faces.size(), out.data(), out.size(), &status);
    return status;
  }
  Status embed(const ImageView& face, Span<float> out) noexcept { return embed(Span<const ImageView>(&face, 1), out); }
  Status embed_nhwc(Span<const float> pixels, Span<float> out) noexcept {
    if (!object_) return {Errc::invalid_argument, detail::not_loaded};
    Status status;
    object_.table()->embed_nhwc(object_.get(), pixels.data(), pixels.size(), out.data(), out.size(), &status);
    return status;
  }

 private:
  static Result<Embedder> load(const char* path, Span<const std::uint8_t> file,
                               const EmbedderOptions& options) noexcept {
    const auto table = detail::table();
    if (!table) return table.status();
    Status status;
    return made(*table, (*table)->load_embedder(path, file.data(), file.size(), &options, &status), status);
  }
  static Result<Embedder> made(const facenet_dispatch::Table* table, void* object, const Status& status) noexcept {
    if (object == nullptr) return status;
    return Embedder(detail::Object(table, object));
  }
  explicit Embedder(detail::Object&& object) noexcept : object_(std::move(object)) {}

  detail::Object object_;
};

/// As facenet::Detector, except that it keeps the faces itself.
class Detector {
 public:
  static Result<Detector> load(const char* path, const DetectorOptions& options = {}) noexcept {
    return load(path, {}, options);
  }
  static Result<Detector> load(Span<const std::uint8_t> file, const DetectorOptions& options = {}) noexcept {
    return load(nullptr, file, options);
  }
  /// Errors: as facenet::Detector's.
  Result<Detector> fork(const DetectorOptions& options) const noexcept {
    if (!object_) return {Errc::invalid_argument, detail::not_loaded};
    Status status;
    return made(object_.table(), object_.table()->fork_detector(object_.get(), &options, &status), status);
  }

  Detector() noexcept = default;
  Detector(Detector&&) noexcept = default;
  Detector& operator=(Detector&& other) noexcept {
    const Detector old(std::move(object_));
    object_ = std::move(other.object_);
    return *this;
  }
  ~Detector() {
    if (object_) object_.table()->free_detector(object_.get());
  }

  /// Those of DetectorOptions{}, and "", for one that was never loaded.
  const DetectorOptions& options() const noexcept {
    return object_ ? *static_cast<const DetectorOptions*>(object_.table()->detector_options(object_.get()))
                   : detail::no_options;
  }
  const char* digest() const noexcept { return object_ ? object_.table()->detector_digest(object_.get()) : ""; }

  /// `faces` holds until the next picture.
  Status detect(ImageView picture, Span<const Face>& faces) noexcept {
    faces = {};
    if (!object_) return {Errc::invalid_argument, detail::not_loaded};
    Status status;
    const void* first = nullptr;
    const int count = object_.table()->detect(object_.get(), &picture, &first, &status);
    if (status.ok()) faces = {static_cast<const Face*>(first), static_cast<std::size_t>(count)};
    return status;
  }

 private:
  static Result<Detector> load(const char* path, Span<const std::uint8_t> file,
                               const DetectorOptions& options) noexcept {
    const auto table = detail::table();
    if (!table) return table.status();
    Status status;
    return made(*table, (*table)->load_detector(path, file.data(), file.size(), &options, &status), status);
  }
  static Result<Detector> made(const facenet_dispatch::Table* table, void* object, const Status& status) noexcept {
    if (object == nullptr) return status;
    return Detector(detail::Object(table, object));
  }
  explicit Detector(detail::Object&& object) noexcept : object_(std::move(object)) {}

  detail::Object object_;
};

}  // namespace dispatch

FACENET_END

#include "facenet/base/macros_pop.inc"
