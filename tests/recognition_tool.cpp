// Recognition for the Python tests, one request after the other: a line of text, then the arrays it names as raw bytes.
// The answer is "ok N" and N bytes, or "error CODE TEXT". Metrics are 0 (Euclidean) and 1 (cosine).
//
//   search N DIM METRIC HALF QUERIES K THREADS PERSONS THRESHOLD   f32 templates, u64 persons, f32 queries; ids are
//                                          0 … N - 1
//                                       -> Match[QUERIES][K], those not found with id 2^64 - 1
//   dbscan N DIM METRIC THRESHOLD MIN_SAMPLES THREADS              f32 faces -> i32 labels
//   average N DIM METRIC THRESHOLD THREADS                         f32 faces -> i32 labels
//   whispers N DIM METRIC THRESHOLD ITERATIONS SEED THREADS        f32 faces -> i32 labels
//   roc N DROP                          f64 distances, u8 same -> RocPoint[], then f64: AUC, EER and its threshold
//   tar N FAR                           f64 distances, u8 same -> f64: TAR, threshold, actual FAR
//   folds N FOLDS                       f64 distances, u8 same -> f64[FOLDS][4]: accuracy, TPR, FPR, threshold; then
//   mean,
//                                       deviation
//   pairs BYTES                         a pairs.txt -> i32[][4]: pictures, fold, same
#include <cinttypes>
#include <cstdio>
#include <string>
#include <vector>

#include "facenet/cluster.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"

namespace {

using facenet::Status;

void answer(const Status& status, const void* data, std::size_t bytes) {
  char text[1024];
  if (status.ok())
    std::printf("ok %zu\n", bytes);
  else
    std::printf("error %s %s\n", facenet::name(status.code()), status.print(text, sizeof text));
  if (status.ok()) std::fwrite(data, 1, bytes, stdout);
}
template <class T>
void answer(const Status& status, const std::vector<T>& data) {
  answer(status, data.data(), data.size() * sizeof(T));
}

template <class T>
bool read(std::vector<T>& to, std::size_t count) {
  to.resize(count);
  return std::fread(to.data(), sizeof(T), count, stdin) == count;
}

struct Numbers {
  double value[10] = {};
  int count = 0;
  int at(int i) const { return static_cast<int>(value[i]); }
  std::size_t size(int i) const { return static_cast<std::size_t>(value[i]); }
};

bool search(const Numbers& a) {
  const std::size_t n = a.size(0), dim = a.size(1), queries = a.size(4), k = a.size(5);
  std::vector<float> e, q;
  std::vector<std::uint64_t> person;
  if (!read(e, n * dim) || !read(person, n) || !read(q, queries * dim)) return false;
  facenet::GalleryOptions options;
  options.metric = static_cast<facenet::Metric>(a.at(2));
  options.storage = static_cast<facenet::TemplateStorage>(a.at(3));
  options.threads = a.at(6);
  auto gallery = facenet::Gallery::make(a.at(1), options);
  Status status = gallery.status();
  for (std::size_t i = 0; i < n && status.ok(); ++i) status = gallery->add(i, person[i], {e.data() + i * dim, dim});
  std::vector<facenet::Match> out(queries * k, facenet::Match{UINT64_MAX, 0, 0, 0});
  std::vector<int> found(queries);
  if (status.ok())
    status =
        a.at(7) != 0 ? gallery->identify(q, a.at(5), a.value[8], out, found) : gallery->search(q, a.at(5), out, found);
  answer(status, out);
  return true;
}

bool cluster(const std::string& request, const Numbers& a) {
  std::vector<float> e;
  if (!read(e, a.size(0) * a.size(1))) return false;
  facenet::ClusterOptions options;
  options.metric = static_cast<facenet::Metric>(a.at(2));
  options.threshold = a.value[3];
  options.threads = a.at(a.count - 1);
  std::vector<int> labels(a.size(0));
  if (request == "dbscan")
    answer(facenet::dbscan(e, a.at(1), options, a.at(4), labels), labels);
  else if (request == "average")
    answer(facenet::average_link(e, a.at(1), options, labels), labels);
  else
    answer(facenet::chinese_whispers(e, a.at(1), options, a.at(4), static_cast<std::uint64_t>(a.value[5]), labels),
           labels);
  return true;
}

bool evaluate(const std::string& request, const Numbers& a) {
  const std::size_t n = a.size(0);
  std::vector<double> d, out;
  std::vector<std::uint8_t> same;
  if (!read(d, n) || !read(same, n)) return false;
  if (request == "folds") {
    std::vector<int> fold(n);
    facenet::contiguous_folds(a.at(1), fold);
    auto got = facenet::fold_accuracies(d, same, fold, a.at(1));
    if (got) {
      for (const auto& f : got->folds) out.insert(out.end(), {f.accuracy, f.tpr, f.fpr, f.threshold});
      out.insert(out.end(), {got->mean, got->deviation});
    }
    answer(got.status(), out);
    return true;
  }
  auto c = facenet::Comparisons::make(d, same);
  Status status = c.status();
  if (c && request == "tar") {
    const auto t = c->tar_at(a.value[1]);
    out = {t.tar, t.threshold, t.actual_far};
  } else if (c) {
    auto roc = c->roc(a.at(1) != 0);
    status = roc.status();
    if (roc)
      for (const auto& p : *roc) out.insert(out.end(), {p.fpr, p.tpr, p.threshold});
    out.insert(out.end(), {c->auc(), c->eer().rate, c->eer().threshold});
  }
  answer(status, out);
  return true;
}

bool pairs(const Numbers& a) {
  std::vector<char> text;
  if (!read(text, a.size(0))) return false;
  auto parsed = facenet::parse_pairs({text.data(), text.size()});
  std::vector<std::int32_t> out;
  if (parsed)
    for (const auto& p : parsed->pairs) out.insert(out.end(), {p.picture_a, p.picture_b, p.fold, p.same ? 1 : 0});
  answer(parsed.status(), out);
  return true;
}

}  // namespace

int main() {
  char text[512], word[16];
  while (std::fgets(text, sizeof text, stdin) != nullptr) {
    int used = 0;
    if (std::sscanf(text, "%15s%n", word, &used) != 1) return 2;
    Numbers numbers;
    for (int more = 0;
         numbers.count < 10 && std::sscanf(text + used, "%lf%n", &numbers.value[numbers.count], &more) == 1;
         used += more)
      ++numbers.count;
    const std::string request = word;
    bool understood = false;
    if (request == "search")
      understood = search(numbers);
    else if (request == "dbscan" || request == "average" || request == "whispers")
      understood = cluster(request, numbers);
    else if (request == "roc" || request == "tar" || request == "folds")
      understood = evaluate(request, numbers);
    else if (request == "pairs")
      understood = pairs(numbers);
    if (!understood) return 2;
    std::fflush(stdout);
  }
  return 0;
}
