// Faces in pictures, as the sub-commands want them: found, ordered, cut out.
#pragma once

#include <string>
#include <vector>

#include "command/engine/face_choice.hpp"
#include "command/engine/pictures.hpp"
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

/// A detector over pictures that may be shrunk (Picture) and lie on their side (--rotations).
class FaceFinder {
 public:
  /// False where the weights cannot be loaded, which has been reported.
  bool load(const FaceOptions& options, int threads, const std::string& embedder_file = "");
  /// Another one over the same weights, on one thread.
  facenet::Result<FaceFinder> fork() const;
  const facenet::Detector& detector() const { return detector_; }

  /// Finds the faces of a picture, which the functions below then want again.
  facenet::Status find(const Picture& picture);
  /// In the coordinates of the picture as it was given, upright; in the order of --select.
  const std::vector<facenet::Face>& faces() const { return faces_; }
  /// Upright where the picture was turned for the face.
  facenet::Result<facenet::Image> crop(const Picture& picture, std::size_t face, const facenet::ModelInfo& model);
  facenet::Result<FaceQuality> quality(const Picture& picture, std::size_t face);
  /// "off", "retry" or "all"
  const std::string& rotations() const { return rotations_; }

 private:
  struct Found {
    facenet::Face seen;  // in the pixels that were looked at
    int turn = 0;        // quarters, clockwise, that the picture was turned before
  };
  facenet::Status look(const Picture& picture, int turn, std::vector<Found>& found);
  facenet::Status turned(const Picture& picture, int turn, facenet::ImageView& view);
  facenet::Status detect(const Picture& picture, facenet::ImageView view);
  void order(const Picture& picture, std::vector<Found> found);

  facenet::Detector detector_;
  std::string rotations_ = "off";
  facenet::Faces raw_;
  std::vector<Found> found_;
  std::vector<facenet::Face> faces_;
  facenet::Image turned_;
  int turn_ = 0;  // of turned_; 0: it holds nothing
};

/// A face as it lies in a picture that was turned by `turn` quarters, clockwise, from one of `width` x `height` pixels;
/// in the coordinates of the latter.
facenet::Face turned_back(const facenet::Face& face, int turn, int width, int height);
/// The quarters, clockwise, by which a picture must be turned for the eyes of this face to be above its mouth.
int turn_of(const facenet::Face& face);
/// `view` turned by `turn` quarters, clockwise.
facenet::Status turn_picture(facenet::ImageView view, int turn, facenet::Image& out);
/// The crop of a face that was told in the coordinates of the given picture, and may lie on its side.
facenet::Result<facenet::Image> crop_given(const Picture& picture, const facenet::Face& face,
                                           const facenet::ModelInfo& model);

/// What may help where no face was found: "; --min-face, --rotations and --thresholds look for others".
std::string no_face_advice(const FaceOptions& options);

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
  facenet::Status cut(Picture& picture, std::vector<CutFace>& faces);
  /// Where pictures are decoded, one after the other in the same memory.
  Picture& picture() { return picture_; }

  /// Another one over the same weights, on one thread.
  facenet::Result<FaceSource> fork() const;
  /// The detector and all options that decide which faces a picture has and their order, in words; not how many of
  /// them are taken.
  std::string fingerprint() const;
  /// What stands for the detector's weights: 16 hex digits, or "" where pictures are faces already.
  std::string detector() const { return aligned_ ? "" : finder_.detector().digest(); }

 private:
  FaceFinder finder_;
  Picture picture_;
  std::string reading_;  // of pictures, in words; "": as ever
  facenet::ModelInfo info_{};
  bool aligned_ = false;
};

}  // namespace command
