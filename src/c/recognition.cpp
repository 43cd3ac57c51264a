// Distances, clustering and evaluation: arithmetic without handles.
#include <string>
#include <vector>

#include "facenet/base/finite.hpp"
#include "facenet/cluster.hpp"
#include "facenet/distance.hpp"
#include "facenet/evaluate.hpp"
#include "support.hpp"

namespace facenet_c {

namespace {

constexpr int lfw_folds = 10;
constexpr double usual_far = 0.001;
constexpr int whisper_iterations = 100;  // as dlib

Status metric_of(std::int32_t metric, facenet::Metric& out) noexcept {
  if (metric != FACENET_EUCLIDEAN && metric != FACENET_COSINE)
    return Status(Errc::invalid_argument, "the metric is none of FACENET_EUCLIDEAN and COSINE").in("metric");
  out = metric == FACENET_COSINE ? facenet::Metric::cosine : facenet::Metric::euclidean;
  return {};
}

Status check_two(const float* a, const float* b, std::size_t dim) noexcept {
  if (a == nullptr) return null_argument("a");
  if (b == nullptr) return null_argument("b");
  if (dim < 1 || dim > facenet::max_embedding_dim)
    return Status(Errc::invalid_argument, "an embedding must have 1 to 16384 components").in("dim");
  for (const float* e : {a, b})
    if (Status s = facenet::detail::check_embeddings({e, dim}, static_cast<int>(dim)); !s.ok())
      return s.in(e == a ? "a" : "b");
  return {};
}

/// Each is 0 or more and finite. Throws a sentence that names the first that is not.
void check_distances(const double* distances, std::size_t count, const char* argument) {
  for (std::size_t i = 0; i < count; ++i) {
    if (facenet::detail::is_finite(distances[i]) && distances[i] >= 0) continue;
    const char* const what = facenet::detail::is_nan(distances[i])      ? " is not a number"
                             : facenet::detail::is_finite(distances[i]) ? " is below 0"
                                                                        : " is infinite";
    throw Failure{FACENET_INVALID_ARGUMENT, "distance " + std::to_string(i) + what + ", counted from 0", argument};
  }
}

}  // namespace

}  // namespace facenet_c

using namespace facenet_c;

extern "C" {

facenet_code facenet_distance(int32_t metric, const float* a, const float* b, size_t dim, double* distance,
                              facenet_error* error) {
  return guarded(error, [&]() -> Status {
    facenet::Metric kind = facenet::Metric::euclidean;
    FACENET_TRY(metric_of(metric, kind));
    FACENET_TRY(check_two(a, b, dim));
    if (distance == nullptr) return null_argument("distance");
    *distance = facenet::distance(kind, {a, dim}, {b, dim});
    return {};
  });
}

facenet_code facenet_similarity(const float* a, const float* b, size_t dim, double* similarity, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    FACENET_TRY(check_two(a, b, dim));
    if (similarity == nullptr) return null_argument("similarity");
    *similarity = facenet::similarity({a, dim}, {b, dim});
    return {};
  });
}

facenet_code facenet_cluster(const float* embeddings, size_t embeddings_size, size_t dim,
                             const facenet_cluster_options* options, int32_t* labels, size_t labels_size,
                             size_t* clusters, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    static_assert(sizeof(int) == sizeof(std::int32_t));
    facenet_cluster_options o;
    FACENET_TRY(read_options(options, "facenet_cluster_options", o));
    if (embeddings == nullptr) return null_argument("embeddings");
    if (labels == nullptr) return null_argument("labels");
    if (dim < 1 || dim > facenet::max_embedding_dim)
      return Status(Errc::invalid_argument, "an embedding must have 1 to 16384 components").in("dim");
    std::shared_ptr<Cancel> cancel;
    FACENET_TRY(find_cancel(o.cancel, cancel));
    facenet::ClusterOptions how;
    how.cancel = cancel != nullptr ? &cancel->flag : nullptr;
    if (o.metric != 0) FACENET_TRY(metric_of(o.metric, how.metric));
    if (o.threshold != 0) how.threshold = o.threshold;
    how.threads = o.threads;
    const facenet::Span<const float> faces(embeddings, embeddings_size);
    const facenet::Span<int> out(labels, labels_size);
    const int d = static_cast<int>(dim);
    switch (o.algorithm) {
      case 0:
      case FACENET_CHINESE_WHISPERS:
        FACENET_TRY(facenet::chinese_whispers(faces, d, how, o.iterations != 0 ? o.iterations : whisper_iterations,
                                              o.seed != 0 ? o.seed : 1, out));
        break;
      case FACENET_DBSCAN:
        FACENET_TRY(facenet::dbscan(faces, d, how, o.min_samples != 0 ? o.min_samples : 2, out));
        break;
      case FACENET_AVERAGE_LINK:
        FACENET_TRY(facenet::average_link(faces, d, how, out));
        break;
      default:
        return Status(Errc::invalid_argument,
                      "`algorithm` is none of FACENET_CHINESE_WHISPERS, DBSCAN and AVERAGE_LINK")
            .in("facenet_cluster_options");
    }
    if (clusters != nullptr) {
      int most = -1;
      for (std::size_t i = 0; i < embeddings_size / dim; ++i) most = std::max(most, labels[i]);
      *clusters = static_cast<std::size_t>(most + 1);
    }
    return {};
  });
}

facenet_code facenet_evaluate(const double* distances, const uint8_t* same, size_t count,
                              const facenet_evaluate_options* options, facenet_evaluation* evaluation,
                              facenet_error* error) {
  return guarded(error, [&]() -> Status {
    facenet_evaluate_options o;
    FACENET_TRY(read_options(options, "facenet_evaluate_options", o));
    FACENET_TRY(check_result(evaluation, "evaluation"));
    if (distances == nullptr) return null_argument("distances");
    if (same == nullptr) return null_argument("same");
    const auto wrong = [](const char* text) {
      return Status(Errc::invalid_argument, text).in("facenet_evaluate_options");
    };
    const int folds = o.folds != 0 ? o.folds : lfw_folds;
    if (o.reserved != 0) return wrong("`reserved` must be 0");
    if (folds < 2 || folds > 1000) return wrong("`folds` must be 2 to 1000");
    if (count < static_cast<std::size_t>(folds)) return wrong("there are fewer pairs than `folds`");
    if (o.replicates < 0) return wrong("`replicates` must be 1 to 1,000,000");
    const double far = o.far != 0 ? o.far : usual_far;
    if (!(far > 0 && far < 1)) return wrong("`far` must lie between 0 and 1");
    check_distances(distances, count, "distances");
    for (std::size_t i = 0; i < count; ++i)
      if (same[i] > 1)
        throw Failure{FACENET_INVALID_ARGUMENT, "flag " + std::to_string(i) + " is neither 0 nor 1, counted from 0",
                      "same"};
    const facenet::Span<const double> all(distances, count);
    const facenet::Span<const std::uint8_t> flags(same, count);
    auto comparisons = facenet::Comparisons::make(all, flags);
    if (!comparisons) return comparisons.status();
    std::vector<double> squared(count);
    for (std::size_t i = 0; i < count; ++i) squared[i] = distances[i] * distances[i];
    std::vector<int> fold(count);
    facenet::contiguous_folds(folds, {fold.data(), count});
    auto accuracy = facenet::fold_accuracies({squared.data(), count}, flags, {fold.data(), count}, folds);
    if (!accuracy) return accuracy.status();
    const facenet::EqualErrorRate eer = comparisons->eer();
    const facenet::TarAtFar tar = comparisons->tar_at(far);
    facenet_evaluation made;
    std::memset(&made, 0, sizeof made);
    made.measurable = tar.measurable;
    made.genuine = comparisons->genuine();
    made.impostors = comparisons->impostors();
    made.accuracy = accuracy->mean;
    made.accuracy_deviation = accuracy->deviation;
    made.auc = comparisons->auc();
    made.eer = eer.rate;
    made.eer_threshold = eer.threshold;
    made.far = far;
    made.tar = tar.tar;
    made.tar_threshold = tar.threshold;
    if (o.replicates > 0) {
      auto intervals = comparisons->bootstrap(far, o.replicates, o.seed);
      if (!intervals) return intervals.status();
      const auto put = [](const facenet::Interval& from, double(&to)[2]) { to[0] = from.low, to[1] = from.high; };
      put(intervals->auc, made.auc_interval);
      put(intervals->eer, made.eer_interval);
      put(intervals->tar, made.tar_interval);
    }
    write_result(made, evaluation);
    return {};
  });
}

facenet_code facenet_choose_threshold(const double* impostors, size_t count, double far, double* threshold,
                                      facenet_error* error) {
  return guarded(error, [&]() -> Status {
    if (impostors == nullptr) return null_argument("impostors");
    if (threshold == nullptr) return null_argument("threshold");
    check_distances(impostors, count, "impostors");
    const auto choice = facenet::choose_threshold({impostors, count}, far);
    if (!choice) return choice.status();
    *threshold = choice->threshold;
    return {};
  });
}

}  // extern "C"
