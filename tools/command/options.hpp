// Options that several sub-commands have. No engine in here, so that the parser of the command line compiles without
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace command {

/// What every sub-command with a network has.
struct ModelOptions {
  std::string weights;  // "": $FACENET_WEIGHTS, else the default file (io/default_files.hpp)
  std::string sha256;   // "": not checked
  int threads = 0;      // 0: one for each CPU this process may use
  bool half_weights = false, int8_weights = false;
  std::string arithmetic = "float";  // or "int8"
};

/// How faces are looked for.
struct FaceOptions {
  std::string detector;            // "": $FACENET_DETECTOR, else the embedder's or beside it, else the default file
  int min_face = 20;               // pixels
  double min_face_share = 0;       // above 0: of the shorter side, instead
  std::vector<double> thresholds;  // empty: the detector's
  double factor = 0.709;
  int max_faces = 0;               // 0: all
  std::string select = "largest";  // also the order of the faces
  std::string rotations = "off";   // also "retry", "all"
  std::string colour = "ignore";   // or "srgb"
  std::uint64_t memory = 0;        // bytes for all pictures at hand; 0: default_picture_memory()
};

/// What is asked of a face before it counts; 0 asks nothing.
struct FaceLimits {
  double score = 0;    // the detector's
  double area = 0;     // a share of the area of the largest face whose score is enough
  double quality = 0;  // engine/quality.hpp
};

/// How faces are cut out where no embedder is loaded: as its weight file says, unless an option says otherwise.
struct CropOptions {
  std::string weights;  // "": $FACENET_WEIGHTS, else the default file if it is there, else box, 160, 0
  std::string kind;     // "box", "five_point"
  double margin = -1;   // below 0: the file's
  int size = 0;         // 0: the file's
};

/// Whether the text is a distance, as --threshold takes beside a file; then sets it.
bool parse_distance(const std::string& text, double& distance);

/// What evaluate, calibrate and cluster have in common: a folder of pictures, embedded once.
struct FolderOptions {
  ModelOptions model;
  FaceOptions faces;
  std::string folder;
  std::vector<std::string> exclude;
  std::string cache;  // "": beside the folder; "none"
  bool aligned = false, json = false;
};

}  // namespace command
