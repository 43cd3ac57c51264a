// The sub-commands: options in, exit status out. Every failure has been said when they return. No engine in here, so that
// the parser of the command line compiles without it.
#pragma once

#include <string>
#include <vector>

namespace command {

/// Options that every sub-command with a network has.
struct ModelOptions {
  std::string weights;  // "": $FACENET_WEIGHTS, else the default file
  std::string sha256;   // "": not checked
  int threads = 0;      // 0: one for each CPU this process may use
  bool half_weights = false, int8_weights = false;
};

/// How faces are looked for.
struct FaceOptions {
  std::string detector;                   // "": in the embedder's weights where they have one, else the default file
  int min_face = 20;                      // pixels
  std::vector<double> thresholds;         // empty: the detector's
  double factor = 0.709;
  int max_faces = 0;                      // 0: all
  std::string select = "largest";         // also the order of the faces
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

struct InfoOptions {
  std::string file;  // "": as ModelOptions::weights
  std::string sha256;
  bool plan = false, json = false;
};
int info(const InfoOptions& options);

struct SelftestOptions {
  std::string file;  // "": as ModelOptions::weights
  bool json = false;
};
int selftest(const SelftestOptions& options);

struct DetectOptions {
  FaceOptions faces;
  CropOptions crop;
  std::vector<std::string> pictures;
  std::string draw, crops;  // "": none
  int threads = 0;
  bool json = false;
};
int detect(const DetectOptions& options);

struct AlignOptions {
  FaceOptions faces;
  CropOptions crop;
  std::string from, to;
  int threads = 0;
  bool json = false;
};
int align(const AlignOptions& options);

struct EmbedOptions {
  ModelOptions model;
  FaceOptions faces;
  std::vector<std::string> pictures;  // and folders
  std::string out;
  std::string cache;  // "": beside the output until that is complete; "none"
  bool aligned = false, json = false;
};
int embed(const EmbedOptions& options);

struct VerifyOptions {
  ModelOptions model;
  FaceOptions faces;
  std::string a, b;
  std::string threshold;  // a distance or a threshold file; "": the model's
  bool aligned = false, json = false;
};
int verify(const VerifyOptions& options);

struct EnrollOptions {
  ModelOptions model;
  FaceOptions faces;
  std::string gallery, name, folder;  // name and pictures, or a folder of persons' folders
  std::vector<std::string> pictures;
  bool chosen = false;  // --select was given: it says whose face it is where there are several
  bool aligned = false, json = false;
};
int enroll(const EnrollOptions& options);

struct IdentifyOptions {
  ModelOptions model;
  FaceOptions faces;
  std::string gallery;
  std::vector<std::string> pictures;
  std::string threshold;  // as VerifyOptions::threshold
  int top = 1;
  bool aligned = false, json = false;
};
int identify(const IdentifyOptions& options);

struct GalleryOptions {
  std::string action;  // list, show, rename, remove, export, import, stats, vacuum
  std::string gallery, file;
  std::vector<std::string> names;
  std::vector<std::string> templates;  // ids
  bool json = false;
};
int gallery(const GalleryOptions& options);

/// What evaluate, calibrate and cluster have in common: a folder of pictures, embedded once.
struct FolderOptions {
  ModelOptions model;
  FaceOptions faces;
  std::string folder;
  std::string cache;  // "": beside the folder; "none"
  bool aligned = false, json = false;
};

struct EvaluateOptions {
  FolderOptions images;
  std::string pairs;
  std::string threshold;  // as VerifyOptions::threshold
  std::string html;       // "": none
};
int evaluate(const EvaluateOptions& options);

struct CalibrateOptions {
  FolderOptions images;
  double far = 1e-3;
  std::string out;  // "": stdout
};
int calibrate(const CalibrateOptions& options);

struct ClusterOptions {
  FolderOptions images;
  std::string algorithm = "chinese_whispers";
  std::string threshold;  // as VerifyOptions::threshold
  int min_samples = 2;
  std::string out, html;  // "": none
  bool copy = false;
};
int cluster(const ClusterOptions& options);

struct BenchOptions {
  ModelOptions model;
  int batch = 1;
  double seconds = 3;
  bool layers = false, json = false;
};
int bench(const BenchOptions& options);

}  // namespace command
