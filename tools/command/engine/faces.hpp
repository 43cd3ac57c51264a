// Faces in pictures, as the sub-commands want them: found, ordered, cut out.
#pragma once

#include <string>
#include <vector>

#include "command/engine/face_choice.hpp"
#include "command/engine/quality.hpp"
#include "command/options.hpp"
#include "facenet/align.hpp"
#include "facenet/detector.hpp"

namespace command {

/// --detector, $FACENET_DETECTOR, `embedder_file` where it holds one, mtcnn.safetensors beside it, or
/// default_file("mtcnn.safetensors").
std::string detector_file(const FaceOptions& options, const std::string& embedder_file);

/// A loaded detector, or the failure, reported. `embedder_file`: weights that may hold a detector beside an embedder,
/// or
/// "". The observer must outlive it.
facenet::Result<facenet::Detector> load_detector(const FaceOptions& options, int threads,
                                                 const std::string& embedder_file = "",
                                                 const facenet::DetectorObserver* observer = nullptr);

/// Another one over the same weights, on one thread.
facenet::Result<facenet::Detector> fork_detector(const facenet::Detector& detector);

/// Compiled once, in faces.cpp: a unit with the detector's code takes 20 seconds.
facenet::Status find_faces(facenet::Detector& detector, facenet::ImageView picture, facenet::Faces& faces);

/// Sets crop, margin and image_size of `model`. Says why and returns false when a weight file cannot be read or the
/// options do not fit together.
bool choose_crop(const CropOptions& options, facenet::ModelInfo& model);

/// "box, 160 pixels, margin 0"
std::string describe_crop(const facenet::ModelInfo& model);

/// A face and its pixels for the embedder.
struct CutFace {
  facenet::Face face;  // `aligned` below: its box is the picture, its score 0
  facenet::Image crop;
  FaceQuality quality{};  // 0 where it is the picture: nothing was looked for
};

/// What limits are compared with.
FaceMeasures measures_of(const facenet::Face& face, const FaceQuality& quality);
std::vector<FaceMeasures> measures_of(const std::vector<CutFace>& faces);

/// The faces of one picture after the other, for an embedder.
class FaceSource {
 public:
  /// `aligned`: each picture is one face, and no detector is loaded. False when it cannot be, which has been reported.
  bool load(const FaceOptions& options, bool aligned, const ModelOptions& embedder, const facenet::ModelInfo& info);

  /// Decodes `name` and finds its faces, in the order of --select. None is no error.
  facenet::Status read(const std::string& name, std::vector<CutFace>& faces);
  /// The same of a decoded picture, which is taken where it is the face.
  facenet::Status cut(facenet::Image& picture, std::vector<CutFace>& faces);
  /// Where pictures are decoded, one after the other in the same memory.
  facenet::Image& picture() { return picture_; }

  /// Another one over the same weights, on one thread.
  facenet::Result<FaceSource> fork() const;
  /// The detector and all options that decide which faces a picture has and their order, in words; not how many of
  /// them are taken.
  std::string fingerprint() const;
  /// What stands for the detector's weights: 16 hex digits, or "" where pictures are faces already.
  std::string detector() const { return aligned_ ? "" : detector_.digest(); }

 private:
  facenet::Detector detector_;
  facenet::Faces found_;
  facenet::Image picture_;
  facenet::ModelInfo info_{};
  bool aligned_ = false;
};

}  // namespace command
