// The engine as handlers use it: embedder and detector loaded once, and a pair of them for each worker, which takes one
// picture at a time on its own thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "command/engine/faces.hpp"
#include "command/http/http.hpp"
#include "command/http/metrics.hpp"
#include "command/options.hpp"
#include "facenet/embedder.hpp"

namespace command::service {

struct FaceResult {
  facenet::Face face;
  FaceQuality quality;
  std::vector<float> embedding;  // empty where it was not asked for
};

struct StageTimes {
  double decode = 0, detect = 0, embed = 0;  // seconds
};

struct PictureResult {
  int width = 0, height = 0;
  std::vector<FaceResult> faces;  // largest first, or as --select says
  StageTimes times;
};

struct AnalyseOptions {
  bool embed = true;
  int limit = 0;         // faces that are embedded and returned; 0: all, up to the pool's limit
  double min_score = 0;  // faces with less are left out before they are counted
};

struct PoolLimits {
  int workers = 0;                        // 0: one for each CPU
  std::int64_t most_pixels = 50'000'000;  // of a picture: 413
  int most_faces = 100;                   // that are embedded in a picture: the rest is left out
};

class EnginePool {
 public:
  EnginePool();
  ~EnginePool();
  EnginePool(EnginePool&&) noexcept;

  /// Loads both. False when that failed, which has been reported.
  bool load(const ModelOptions& model, const FaceOptions& faces, const PoolLimits& limits, Metrics* metrics);

  const facenet::ModelInfo& info() const;
  const ModelOptions& model_options() const;
  /// The detector's weights, 16 hex digits.
  std::string detector() const;
  int workers() const;

  /// Decodes, detects, cuts out, embeds. A picture that cannot be read is HttpError 400, a larger one than the limits
  /// allow 413; no face is no error. Waits for a free pair where more threads than workers() call.
  PictureResult analyse(std::string_view bytes, const AnalyseOptions& options = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace command::service
