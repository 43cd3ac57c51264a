// --threshold FILE|NUMBER: the Euclidean distance up to which two faces are taken for one person's.
#pragma once

#include <string>

#include "facenet/embedder.hpp"
#include "facenet/evaluate.hpp"

namespace command {

/// A threshold file is one JSON object: "format" and "version" as here, "model" (16 hex digits), "metric"
/// ("euclidean"), "threshold", and what `facenet calibrate` measured with it.
constexpr const char* threshold_format = "facenet-threshold";
constexpr int threshold_version = 1;

/// What a threshold file says of its threshold. A file of another program may say less.
struct Calibrated {
  struct Rate {
    bool known = false;
    double value = 0;
    facenet::Interval interval{0, 1};
  };
  Rate far;   // of pairs of pictures of two persons
  Rate fpir;  // of strangers' faces, among gallery_size persons
  std::size_t gallery_size = 0;
};

/// "": the model's own; a number; else a threshold file, which must be of this model. Says why and returns false when
/// it cannot be used. `calibrated`: what the file says beside the threshold, nothing where there is none.
bool resolve_threshold(const std::string& option, const facenet::ModelInfo& info, double& threshold,
                       Calibrated* calibrated = nullptr);

/// Of strangers' faces, how many a gallery names. At most what was measured among no fewer persons; of more persons as
/// if each came with that rate independently; without such a measurement as if each template did, with the FAR.
Calibrated::Rate expected_fpir(const Calibrated& calibrated, std::size_t persons, std::size_t templates);

/// What measured the threshold that resolve_threshold() took from the weight file; "" where it is the user's or the
/// architecture's. As the file has it, a stranger's text.
std::string measured_by(const std::string& option, const facenet::ModelInfo& info);
/// ", measured by WHAT" or "", for Output::row, which escapes it.
std::string threshold_note(const std::string& option, const facenet::ModelInfo& info);

}  // namespace command
