// The engine's objects behind their handles.
#pragma once

#include <vector>

#include "facenet/dispatch.hpp"
#include "support.hpp"

namespace facenet_c {

class EmbedderObject : public ObjectOf<Kind::embedder> {
 public:
  Status load(const char* path, const void* bytes, std::size_t size, const facenet_embedder_options* given);
  Status fork(const EmbedderObject& from, const facenet_embedder_options* given);
  Status recover() override;

  facenet::dispatch::Embedder embedder;
  facenet_progress progress = nullptr;
  void* progress_user = nullptr;
  std::shared_ptr<Cancel> cancel;
  int batch = 1;

 private:
  int threads_ = 0;
  std::int32_t arithmetic_ = FACENET_ARITHMETIC_FLOAT, weights_ = FACENET_WEIGHTS_FLOAT;
  std::shared_ptr<const std::vector<std::uint8_t>> bytes_;  // of the file, where int8 weights stay in it
  Status take(const facenet_embedder_options& options);
};

class DetectorObject : public ObjectOf<Kind::detector> {
 public:
  Status load(const char* path, const void* bytes, std::size_t size, const facenet_detector_options* given);
  Status fork(const DetectorObject& from, const facenet_detector_options* given);
  Status recover() override;

  facenet::dispatch::Detector detector;
  std::vector<facenet_face> faces;  // of the last picture

 private:
  std::shared_ptr<Cancel> cancel_;
};

}  // namespace facenet_c
