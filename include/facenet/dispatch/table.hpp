// What facenet::dispatch's library and dispatch.hpp call each other by: plain C, the same whatever a unit is compiled
// for, so outside of the inline namespace.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "facenet/base/config.hpp"

// The version is part of the name: a library and headers that do not belong together do not link.
#define FACENET_DISPATCH_JOIN2_(a, b, c) facenet_dispatch_##a##_##b##_##c
#define FACENET_DISPATCH_JOIN_(a, b, c) FACENET_DISPATCH_JOIN2_(a, b, c)
#define FACENET_DISPATCH_ENTRY \
  FACENET_DISPATCH_JOIN_(FACENET_VERSION_MAJOR, FACENET_VERSION_MINOR, FACENET_VERSION_PATCH)

namespace facenet_dispatch {

struct RecordSizes {
  std::uint32_t status, embedder_options, model_info, image_view, detector_options, face;
};

template <class Status, class EmbedderOptions, class ModelInfo, class ImageView, class DetectorOptions, class Face>
constexpr RecordSizes record_sizes() noexcept {
  return {sizeof(Status),    sizeof(EmbedderOptions), sizeof(ModelInfo),
          sizeof(ImageView), sizeof(DetectorOptions), sizeof(Face)};
}

/// The objects of one ISA. void*: an object of it, or a record of the caller's. A null object: `status` says why.
struct Table {
  const char* isa;
  const char* parallel;
  RecordSizes sizes;

  void* (*load_embedder)(const char* path, const unsigned char* bytes, std::size_t size, const void* options,
                         void* status);
  void* (*fork_embedder)(void* embedder, int threads, int batch, void* status);
  void (*free_embedder)(void* embedder);
  void (*cancel_embedder_when)(void* embedder, const std::atomic<bool>* flag);
  const void* (*embedder_info)(void* embedder);
  int (*embedder_dim)(void* embedder);
  // Arrays as pointers and counts of elements.
  void (*embed)(void* embedder, const void* faces, std::size_t count, float* out, std::size_t room, void* status);
  void (*embed_nhwc)(void* embedder, const float* pixels, std::size_t count, float* out, std::size_t room,
                     void* status);

  void* (*load_detector)(const char* path, const unsigned char* bytes, std::size_t size, const void* options,
                         void* status);
  void* (*fork_detector)(void* detector, const void* options, void* status);
  void (*free_detector)(void* detector);
  const void* (*detector_options)(void* detector);
  const char* (*detector_digest)(void* detector);
  int (*detect)(void* detector, const void* picture, const void** faces, void* status);
};

}  // namespace facenet_dispatch

/// The table of $FACENET_FORCE_ISA, else of the best ISA that this CPU has. Null: `text` and `place` say why.
extern "C" const facenet_dispatch::Table* FACENET_DISPATCH_ENTRY(const char** text, const char** place) noexcept;
