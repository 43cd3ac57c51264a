// What the handlers of `facenet serve` have in common.
#pragma once

#include <string>
#include <vector>

#include "command/http/metrics.hpp"
#include "command/service/engine_pool.hpp"

namespace command::service {

struct ServiceOptions {
  std::vector<std::string> galleries;  // files, made where they are not there; /api/v1 speaks to the first
  std::string threshold;               // --threshold: a distance or a threshold file; "": the model's
  bool keep_pictures = false;          // --keep-pictures
  bool half_gallery = false;           // --half-gallery: embeddings in memory as halves
};

struct Service {
  EnginePool& engine;
  Metrics& metrics;
  ServiceOptions options;
};

}  // namespace command::service
