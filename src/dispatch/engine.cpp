// The engine for one ISA, as a table of functions. CMake compiles this unit once for each, with FACENET_DISPATCH_TABLE
// naming the table, and hides every other symbol of it: inline functions of the standard library too exist once an ISA.
#include "facenet/dispatch.hpp"

namespace {

using namespace facenet;

// The caller's records are those of another inline namespace, with the same members in the same order; dispatch.hpp
// compares their sizes. No optimiser sees both sides: tables are called through pointers, from other objects.
template <class T>
const T& in(const void* record) noexcept {
  return *static_cast<const T*>(record);
}
void put(void* status, const Status& s) noexcept { *static_cast<Status*>(status) = s; }

template <class T>
T& self(void* object) noexcept {
  return *static_cast<T*>(object);
}

template <class T>
void* keep(Result<T> made, void* status) noexcept {
  if (!made) return put(status, made.status()), nullptr;
  void* memory = facenet::detail::allocate(sizeof(T));
  if (memory == nullptr) return put(status, {Errc::out_of_memory, "there is not enough memory"}), nullptr;
  return ::new (memory) T(std::move(*made));
}
template <class T>
void drop(void* object) noexcept {
  self<T>(object).~T();
  facenet::detail::deallocate(object);
}

template <class T, class Options>
void* load(const char* path, const unsigned char* bytes, std::size_t size, const void* options, void* status) noexcept {
  if (path != nullptr) return keep(T::load(path, in<Options>(options)), status);
  return keep(T::load(Span<const std::uint8_t>(bytes, size), in<Options>(options)), status);
}

/// A detector and the faces of its last picture.
struct Finder {
  Detector detector;
  Faces faces;

  static Result<Finder> made(Result<Detector> detector) noexcept {
    if (!detector) return detector.status();
    Finder f;
    f.detector = std::move(*detector);
    return f;
  }
  template <class Source>
  static Result<Finder> load(Source source, const DetectorOptions& options) noexcept {
    return made(Detector::load(source, options));
  }
};

}  // namespace

extern "C" const facenet_dispatch::Table FACENET_DISPATCH_TABLE;
constexpr facenet_dispatch::Table FACENET_DISPATCH_TABLE = {
    // constexpr: no initialiser runs on a lesser CPU
    isa_name,
    parallel_name,
    facenet_dispatch::record_sizes<Status, EmbedderOptions, ModelInfo, ImageView, DetectorOptions, Face>(),
    load<Embedder, EmbedderOptions>,
    [](void* e, int threads, int batch, void* status) noexcept {
      return keep(self<Embedder>(e).fork(threads, batch), status);
    },
    drop<Embedder>,
    [](void* e, const std::atomic<bool>* flag) noexcept { self<Embedder>(e).cancel_when(flag); },
    [](void* e) noexcept -> const void* { return &self<Embedder>(e).info(); },
    [](void* e) noexcept { return self<Embedder>(e).dim(); },
    [](void* e, const void* faces, std::size_t count, float* out, std::size_t room, void* status) noexcept {
      const Span<const ImageView> all(static_cast<const ImageView*>(faces), count);
      put(status, self<Embedder>(e).embed(all, {out, room}));
    },
    [](void* e, const float* pixels, std::size_t count, float* out, std::size_t room, void* status) noexcept {
      put(status, self<Embedder>(e).embed_nhwc({pixels, count}, {out, room}));
    },
    load<Finder, DetectorOptions>,
    [](void* d, const void* options, void* status) noexcept {
      return keep(Finder::made(self<Finder>(d).detector.fork(in<DetectorOptions>(options))), status);
    },
    drop<Finder>,
    [](void* d) noexcept -> const void* { return &self<Finder>(d).detector.options(); },
    [](void* d) noexcept { return self<Finder>(d).detector.digest(); },
    [](void* d, const void* picture, const void** faces, void* status) noexcept {
      Finder& f = self<Finder>(d);
      put(status, f.detector.detect(in<ImageView>(picture), f.faces));
      *faces = f.faces.begin();
      return f.faces.size();
    },
};
