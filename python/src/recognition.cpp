// Clusters, error rates and thresholds of embeddings and distances.
#include "facenet/cluster.hpp"
#include "facenet/evaluate.hpp"
#include "interrupt.hpp"
#include "parts.hpp"

namespace python {

namespace {

facenet::Metric metric_of(const std::string& word) {
  if (word == "euclidean") return facenet::Metric::euclidean;
  if (word == "cosine") return facenet::Metric::cosine;
  raise("invalid_argument", "metric: \"" + word + "\" is not known: give \"euclidean\" or \"cosine\".");
}

/// One-dimensional doubles or bytes of a buffer.
template <class T>
Span<const T> values_of(const View& view, char letter, const char* name) {
  const Py_buffer& b = *view;
  if (b.ndim != 1 || b.itemsize != sizeof(T) || b.format == nullptr || b.format[0] != letter || b.format[1] != 0 ||
      PyBuffer_IsContiguous(&b, 'C') == 0)
    raise("invalid_argument", std::string(name) + ": the array is " + description(b) + ", which is not fit.");
  return {static_cast<const T*>(b.buf), static_cast<std::size_t>(b.shape[0])};
}

Array<std::int32_t> cluster(nb::handle embeddings, double threshold, const std::string& method,
                            const std::string& metric, int threads, int min_samples, int iterations,
                            std::uint64_t seed) {
  const Rows rows = rows_of(embeddings, "embeddings");
  facenet::ClusterOptions options;
  options.metric = metric_of(metric);
  options.threshold = threshold;
  options.threads = threads;
  static_assert(sizeof(int) == sizeof(std::int32_t));
  std::unique_ptr<std::int32_t[]> labels(new std::int32_t[rows.rows + 1]);
  const Span<int> out(labels.get(), rows.rows);
  const int dim = static_cast<int>(rows.dim);
  if (method != "whispers" && method != "dbscan" && method != "average")
    raise("invalid_argument", "method: \"" + method + "\" is not known: give \"whispers\", \"dbscan\" or \"average\".");
  std::atomic<bool> cancel{false};
  options.cancel = &cancel;
  if (rows.rows != 0)
    interruptible(cancel, [&]() -> Status {
      if (method == "whispers") return facenet::chinese_whispers(rows.floats(), dim, options, iterations, seed, out);
      if (method == "dbscan") return facenet::dbscan(rows.floats(), dim, options, min_samples, out);
      return facenet::average_link(rows.floats(), dim, options, out);
    });
  return owned<std::int32_t>(std::move(labels), {rows.rows});
}

nb::tuple pair_of(const facenet::Interval& i) { return nb::make_tuple(i.low, i.high); }

nb::dict evaluate(nb::handle distances, nb::handle same, double far, std::optional<double> threshold, int replicates,
                  std::uint64_t seed) {
  const View d(distances), s(same);
  const auto values = values_of<double>(d, 'd', "distances");
  const auto flags = values_of<std::uint8_t>(s, 'B', "same");
  if (!(far >= 0 && far <= 1)) raise("invalid_argument", "far: a false accept rate lies between 0 and 1.");
  facenet::Comparisons all;
  facenet::RocIntervals intervals{};
  facenet::Buffer<facenet::RocPoint> roc;
  facenet::EqualErrorRate eer{};
  facenet::TarAtFar tar{};
  facenet::ErrorRates at{};
  double auc = 0;
  std::unique_ptr<double[]> points;
  unlocked([&]() -> Status {
    auto made = facenet::Comparisons::make(values, flags);
    if (!made) return made.status();
    all = std::move(*made);
    auto found = all.roc();
    if (!found) return found.status();
    roc = std::move(*found);
    if (replicates > 0) {
      auto resampled = all.bootstrap(far, replicates, seed);
      if (!resampled) return resampled.status();
      intervals = *resampled;
    }
    auc = all.auc();
    eer = all.eer();
    tar = all.tar_at(far);
    if (threshold) at = all.at(*threshold);
    points.reset(new double[3 * roc.size() + 1]);
    for (std::size_t i = 0; i < roc.size(); ++i) {
      points[3 * i] = roc[i].fpr;
      points[3 * i + 1] = roc[i].tpr;
      points[3 * i + 2] = roc[i].threshold;
    }
    return {};
  });
  nb::dict out;
  out["genuine"] = all.genuine();
  out["impostors"] = all.impostors();
  out["auc"] = auc;
  out["eer"] = eer.rate;
  out["eer_threshold"] = eer.threshold;
  out["far"] = tar.far;
  out["tar"] = tar.tar;
  out["tar_threshold"] = tar.threshold;
  out["actual_far"] = tar.actual_far;
  out["measurable"] = tar.measurable;
  if (replicates > 0) {
    out["auc_interval"] = pair_of(intervals.auc);
    out["eer_interval"] = pair_of(intervals.eer);
    out["tar_interval"] = pair_of(intervals.tar);
  }
  if (threshold) {
    nb::dict rates;
    rates["threshold"] = *threshold;
    rates["far"] = at.far;
    rates["frr"] = at.frr;
    rates["far_interval"] = pair_of(at.far_interval);
    rates["frr_interval"] = pair_of(at.frr_interval);
    rates["false_accepts"] = at.false_accepts;
    rates["false_rejects"] = at.false_rejects;
    out["at_threshold"] = rates;
  }
  const std::size_t count = roc.size();
  out["roc"] = owned<double>(std::move(points), {count, 3});
  return out;
}

nb::dict accuracy(nb::handle distances, nb::handle same, int folds) {
  const View d(distances), s(same);
  const auto values = values_of<double>(d, 'd', "distances");
  const auto flags = values_of<std::uint8_t>(s, 'B', "same");
  const auto found = unlocked([&] {
    std::vector<int> fold(values.size());
    facenet::contiguous_folds(folds, {fold.data(), fold.size()});
    return facenet::fold_accuracies(values, flags, {fold.data(), fold.size()}, folds);
  });
  nb::list all;
  for (const facenet::Fold& f : found.folds) all.append(f.accuracy);
  nb::dict out;
  out["mean"] = found.mean;
  out["deviation"] = found.deviation;
  out["folds"] = all;
  return out;
}

nb::dict calibrate(nb::handle distances, double far) {
  const View d(distances);
  const auto values = values_of<double>(d, 'd', "impostor_distances");
  const auto choice = unlocked([&] { return facenet::choose_threshold(values, far); });
  nb::dict out;
  out["threshold"] = choice.threshold;
  out["far"] = far;
  out["accepted"] = choice.accepted;
  out["impostors"] = choice.impostors;
  return out;
}

}  // namespace

void define_recognition(nb::module_& m) {
  m.def("cluster", &cluster, nb::arg("embeddings").none(), nb::arg("threshold"), nb::arg("method"), nb::arg("metric"),
        nb::arg("threads"), nb::arg("min_samples"), nb::arg("iterations"), nb::arg("seed"));
  m.def("evaluate", &evaluate, nb::arg("distances"), nb::arg("same"), nb::arg("far"), nb::arg("threshold").none(),
        nb::arg("replicates"), nb::arg("seed"));
  m.def("accuracy", &accuracy);
  m.def("calibrate", &calibrate);
}

}  // namespace python
