// The table of models: the only list of them. A new model is a page and a row.
#pragma once

#include "facenet/base/memory.hpp"
#include "facenet/models/dlib_resnet.hpp"
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/models/inception_resnet_v2.hpp"

FACENET_SETUP_BEGIN

namespace models {

/// A plain state_dict is the first row's whose FileTraits::mark it has: v1's mark is its last layer, which v2 has too.
FACENET_HIDDEN inline Span<const Entry> all() noexcept {
  static constexpr Entry table[] = {
      // 1.1 between unit vectors: the example of Schroff et al., "FaceNet", 2015, figure 1.
      {"inception_resnet_v2", inception_resnet_v2, 1.1, &inception_resnet_v2_traits},
      {"inception_resnet_v1", inception_resnet_v1, 1.1, &inception_resnet_v1_traits},
      // What it was trained for: dlib's dnn_face_recognition_ex.cpp.
      {"dlib_resnet", dlib_resnet, 0.6, &dlib_resnet_traits},
  };
  return table;
}
/// The row of that architecture, or null.
inline const Entry* find(const char* architecture) noexcept {
  for (const Entry& e : all())
    if (std::strcmp(e.architecture, architecture) == 0) return &e;
  return nullptr;
}

}  // namespace models

FACENET_SETUP_END
