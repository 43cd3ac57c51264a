// What `facenet evaluate` measured, and the report on it.
#pragma once

#include <string>
#include <vector>

#include "facenet/evaluate.hpp"
#include "command/report/page.hpp"

namespace command {

struct EvaluatedPicture {
  std::string file;
  std::vector<float> embedding;  // empty: the file is missing, failed, or has no face
  facenet::Face face;
};
struct EvaluatedPair {
  int a, b;  // pictures
  int fold;
  bool same;
  double distance;  // Euclidean; 0 where a face is missing
  bool equal =
      false;  // its pictures are one and the same, or one of them stands under two persons: it is no pair of two
};

struct EvaluationData {
  std::vector<EvaluatedPicture> pictures;
  std::vector<EvaluatedPair> pairs;
  std::size_t absent = 0, broken = 0, faceless = 0;               // pictures
  facenet::FoldAccuracy accuracy{}, accuracy_missing_rejected{};  // without folds where a fold is empty
  facenet::Buffer<facenet::RocPoint> roc;
  double auc = 0, threshold = 0;
  facenet::EqualErrorRate eer{};
  facenet::Interval auc_interval{}, eer_interval{};
  std::vector<facenet::TarAtFar> tar;
  std::vector<facenet::Interval> tar_interval;
  facenet::ErrorRates at_threshold{};

  const EvaluatedPicture& picture(int i) const { return pictures[static_cast<std::size_t>(i)]; }
  bool both(const EvaluatedPair& p) const { return !picture(p.a).embedding.empty() && !picture(p.b).embedding.empty(); }
  bool counts(const EvaluatedPair& p) const { return both(p) && !p.equal; }
  std::size_t evaluated() const {
    std::size_t n = 0;
    for (const EvaluatedPair& p : pairs) n += counts(p);
    return n;
  }
  std::size_t equal(bool same) const {
    std::size_t n = 0;
    for (const EvaluatedPair& p : pairs) n += p.same == same && p.equal;
    return n;
  }
  std::size_t missing(bool same) const {
    std::size_t n = 0;
    for (const EvaluatedPair& p : pairs) n += p.same == same && !both(p);
    return n;
  }
};

std::string evaluation_page(const EvaluationData& data, const facenet::ModelInfo& model, bool aligned);

}  // namespace command
