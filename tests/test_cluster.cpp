// Clustering against the textbook: DBSCAN by its definition, average link by averaging all pairs, Chinese whispers by
// its rules.
#include "recognition.hpp"

#include <algorithm>
#include <functional>

#include "facenet/cluster.hpp"

using namespace facenet;

namespace {

constexpr std::size_t z(int n) { return static_cast<std::size_t>(n); }

struct Points {
  std::vector<float> e;
  int n, dim;
  double d(Metric metric, int i, int j) const {
    return distance(metric, {e.data() + i * dim, dim}, {e.data() + j * dim, dim});
  }
};

std::vector<int> textbook_dbscan(const Points& f, Metric metric, double eps, int min_samples) {
  std::vector<std::vector<int>> near(z(f.n));
  for (int i = 0; i < f.n; ++i)
    for (int j = 0; j < f.n; ++j)
      if (i == j || f.d(metric, i, j) <= eps) near[z(i)].push_back(j);
  std::vector<int> label(z(f.n), -1);
  int next = 0;
  const auto core = [&](int i) { return static_cast<int>(near[z(i)].size()) >= min_samples; };
  const std::function<void(int)> expand = [&](int i) {
    for (int j : near[z(i)]) {
      if (label[z(j)] >= 0) continue;
      label[z(j)] = next;
      if (core(j)) expand(j);
    }
  };
  for (int i = 0; i < f.n; ++i)
    if (label[z(i)] < 0 && core(i)) {
      label[z(i)] = next;
      expand(i);
      ++next;
    }
  return label;
}

std::vector<int> by_appearance(std::vector<int> label) {
  std::vector<int> seen;
  for (int& l : label) {
    const auto at = std::find(seen.begin(), seen.end(), l);
    const int now = static_cast<int>(at - seen.begin());
    if (at == seen.end()) seen.push_back(l);
    l = now;
  }
  return label;
}

/// Merges the two clusters whose pairs have the least mean distance, all of them averaged anew each time.
std::vector<int> textbook_average(const Points& f, Metric metric, double threshold) {
  std::vector<std::vector<int>> clusters;
  for (int i = 0; i < f.n; ++i) clusters.push_back({i});
  for (;;) {
    double least = threshold;
    std::size_t a = 0, b = 0;
    for (std::size_t i = 0; i < clusters.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        double sum = 0;
        for (int p : clusters[i])
          for (int q : clusters[j]) sum += f.d(metric, p, q);
        const double mean = sum / static_cast<double>(clusters[i].size() * clusters[j].size());
        if (mean < least) least = mean, a = j, b = i;
      }
    if (a == b) break;
    clusters[a].insert(clusters[a].end(), clusters[b].begin(), clusters[b].end());
    clusters.erase(clusters.begin() + static_cast<std::ptrdiff_t>(b));
  }
  std::vector<int> label(z(f.n));
  for (std::size_t c = 0; c < clusters.size(); ++c)
    for (int i : clusters[c]) label[z(i)] = static_cast<int>(c);
  return by_appearance(label);
}

ClusterOptions options(Metric metric, double threshold, int threads) {
  ClusterOptions o;
  o.metric = metric;
  o.threshold = threshold;
  o.threads = threads;
  return o;
}

/// The distance that a given part of all pairs is within: thresholds that split the data, whatever its scale.
double quantile(const Points& f, Metric metric, double part) {
  std::vector<double> all;
  for (int i = 0; i < f.n; ++i)
    for (int j = 0; j < i; ++j) all.push_back(f.d(metric, i, j));
  if (all.empty()) return 1;
  std::sort(all.begin(), all.end());
  return all[static_cast<std::size_t>(part * static_cast<double>(all.size() - 1))];
}

}  // namespace

TEST_CASE("transposing 64 x 64 bits") {
  std::mt19937_64 random(1);
  std::uint64_t before[64], after[64];
  for (std::size_t i = 0; i < 64; ++i) before[i] = after[i] = random();
  detail::transpose(after);
  bool right = true;
  for (std::size_t i = 0; i < 64; ++i)
    for (std::size_t j = 0; j < 64; ++j) right = right && (before[i] >> j & 1) == (after[j] >> i & 1);
  CHECK(right);
}

TEST_CASE("DBSCAN is that of the textbook, a threshold on a pair's very distance included") {
  // Sizes around 64 (a word), 192 (a chunk) and panels; every number of threads.
  for (int n : {1, 2, 31, 33, 63, 64, 65, 191, 193, 300})
    for (Metric metric : {Metric::euclidean, Metric::cosine})
      for (int threads : recognition::thread_counts) {
        if (threads > 1 && n < 191) continue;
        const Points f{recognition::faces(n, 24, 12, 0.35, z(n)), n, 24};
        for (double part : {0.0, 0.02, 0.06, 0.3, 1.0})
          for (int min_samples : {1, 2, 4}) {
            const double eps = quantile(f, metric, part);
            std::vector<int> label(z(n), 99);
            REQUIRE(dbscan(f.e, f.dim, options(metric, eps, threads), min_samples, label).ok());
            CAPTURE(n);
            CAPTURE(part);
            CAPTURE(min_samples);
            CHECK(label == textbook_dbscan(f, metric, eps, min_samples));
          }
      }
}

TEST_CASE("faces that float cannot tell from the threshold are decided in double") {
  // Points on a line, 1 apart to a last bit or two, with an offset that makes their squares large.
  Points f{{}, 90, 3};
  float x = 0;
  for (int i = 0; i < f.n; ++i) {
    x = i % 3 == 0 ? std::nextafter(x + 1, 1e9f) : x + 1;
    f.e.insert(f.e.end(), {x, 3000, -2000});
  }
  for (double eps : {1.0, std::nextafter(1.0, 0.0), 1.0 + 1e-5, 2.0})
    for (int min_samples : {2, 3}) {
      std::vector<int> label(z(f.n));
      REQUIRE(dbscan(f.e, f.dim, options(Metric::euclidean, eps, 2), min_samples, label).ok());
      CHECK(label == textbook_dbscan(f, Metric::euclidean, eps, min_samples));
    }
}

TEST_CASE("average link is that of averaging all pairs, for every number of threads") {
  for (int n : {1, 2, 3, 40, 90})
    for (Metric metric : {Metric::euclidean, Metric::cosine})
      for (double part : {0.0, 0.05, 0.2, 0.6, 1.0}) {
        const Points f{recognition::faces(n, 16, 9, 0.5, z(n) + 7), n, 16};
        const double threshold = quantile(f, metric, part) * 1.000123;
        const std::vector<int> want = textbook_average(f, metric, threshold);
        for (int threads : recognition::thread_counts) {
          std::vector<int> label(z(n), 99);
          REQUIRE(average_link(f.e, f.dim, options(metric, threshold, threads), label).ok());
          CAPTURE(n);
          CAPTURE(part);
          CHECK(label == want);
        }
      }
}

TEST_CASE(
    "Chinese whispers: components stay apart, complete ones are one cluster, the same for all threads and one seed") {
  const int n = 250;
  const Points f{recognition::faces(n, 32, 10, 0.1, 5), n, 32};
  // Persons are far apart beside the noise, so the graph is one complete component a person: the textbook's with
  // min_samples 1.
  const double threshold = quantile(f, Metric::euclidean, 0.09);
  const std::vector<int> want = by_appearance(textbook_dbscan(f, Metric::euclidean, threshold, 1));
  for (int threads : recognition::thread_counts)
    for (std::uint64_t seed : {1u, 2u, 3u}) {
      std::vector<int> label(z(n), 99);
      REQUIRE(chinese_whispers(f.e, f.dim, options(Metric::euclidean, threshold, threads), 100, seed, label).ok());
      CHECK(label == want);
    }

  // A tangle, where the result depends on the order: the same seed gives the same labels, and clusters are connected.
  const Points tangle{recognition::faces(n, 8, 30, 0.6, 6), n, 8};
  const ClusterOptions loose = options(Metric::cosine, quantile(tangle, Metric::cosine, 0.04), 1);
  std::vector<int> first(z(n)), again(z(n));
  REQUIRE(chinese_whispers(tangle.e, 8, loose, 30, 7, first).ok());
  const std::vector<int> component = textbook_dbscan(tangle, Metric::cosine, loose.threshold, 1);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j)
      if (first[z(i)] == first[z(j)]) CHECK(component[z(i)] == component[z(j)]);
  CHECK(first == by_appearance(first));
  CHECK(*std::max_element(first.begin(), first.end()) > 0);
  for (int threads : recognition::thread_counts) {
    ClusterOptions o = loose;
    o.threads = threads;
    REQUIRE(chinese_whispers(tangle.e, 8, o, 30, 7, again).ok());
    CHECK(again == first);
  }
}

TEST_CASE("a face in the middle takes the label that most of its neighbours have") {
  // Two cliques of 5 and 3 on a line, and a face between them that both reach. What is left at the end is a fixed
  // point: each clique of one label, the middle with the larger. (Some orders carry that label on to the smaller one.)
  const std::vector<float> e = {1, 1, 1, 1, 1, 2, 3, 3, 3};
  std::vector<int> label(9);
  int split = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    REQUIRE(chinese_whispers(e, 1, options(Metric::euclidean, 1, 1), 50, seed, label).ok());
    for (std::size_t i = 0; i < 6; ++i) CHECK(label[i] == 0);
    CHECK((label[6] == label[7] && label[7] == label[8]));
    split += label[8] == 1;
  }
  CHECK(split > 0);
}

TEST_CASE("thresholds of 0 and infinity, equal faces") {
  std::vector<float> e = recognition::faces(70, 6, 70, 1, 8);
  std::copy(e.begin(), e.begin() + 6, e.begin() + 6 * 69);
  const Points f{e, 70, 6};
  std::vector<int> label(70);
  for (Metric metric : {Metric::euclidean, Metric::cosine})
    for (double eps : {0.0, 1.0, 1e300, HUGE_VAL}) {
      REQUIRE(dbscan(e, 6, options(metric, eps, 2), 2, label).ok());
      CHECK(label == textbook_dbscan(f, metric, eps, 2));
    }
  REQUIRE(average_link(e, 6, options(Metric::euclidean, 0, 2), label).ok());
  CHECK(*std::max_element(label.begin(), label.end()) ==
        69);  // strictly below the threshold, so equal faces stay apart
  REQUIRE(average_link(e, 6, options(Metric::euclidean, HUGE_VAL, 2), label).ok());
  CHECK(*std::max_element(label.begin(), label.end()) == 0);
}

TEST_CASE("bad input is refused") {
  const float e[4] = {1, 2, 3, 4}, bad[2] = {1, NAN};
  int label[4];
  const ClusterOptions good = options(Metric::euclidean, 1, 1);
  const auto all = [&](Span<const float> data, int dim, const ClusterOptions& o) {
    const Errc code = dbscan(data, dim, o, 1, label).code();
    CHECK(average_link(data, dim, o, label).code() == code);
    CHECK(chinese_whispers(data, dim, o, 1, 1, label).code() == code);
    return code;
  };
  CHECK(all(e, 2, good) == Errc::ok);
  CHECK(all({e, 0}, 2, good) == Errc::invalid_argument);
  CHECK(all(e, 0, good) == Errc::invalid_argument);
  CHECK(all({nullptr, 4}, 2, good) == Errc::invalid_argument);
  CHECK(all(bad, 2, good) == Errc::invalid_argument);
  const float zero[4] = {1, 2, 0, 1e-40f};  // as near to every other such one as a face to itself
  CHECK(all({zero, 2}, 2, good) == Errc::ok);
  CHECK(all(zero, 2, good) == Errc::invalid_argument);
  CHECK(all(e, 2, options(Metric::euclidean, -1, 1)) == Errc::invalid_argument);
  CHECK(all(e, 2, options(Metric::euclidean, NAN, 1)) == Errc::invalid_argument);
  CHECK(all(e, 2, options(Metric::euclidean, 1, -1)) == Errc::invalid_argument);
  CHECK(all({e, 2 * (max_cluster_faces + 1)}, 2, good) == Errc::limit_exceeded);  // before anything is read
  CHECK(average_link({e, 2 * (max_average_link_faces + 1)}, 2, good, label).code() == Errc::limit_exceeded);
  CHECK(all(e, 3, good) == Errc::invalid_argument);  // one face and a third
  int one[2] = {7, 7};
  for (const Span<int> room : {Span<int>(one, 1), Span<int>(), Span<int>(nullptr, 2)}) {
    CHECK(dbscan(e, 2, good, 1, room).code() == Errc::invalid_argument);
    CHECK(average_link(e, 2, good, room).code() == Errc::invalid_argument);
    CHECK(chinese_whispers(e, 2, good, 1, 1, room).code() == Errc::invalid_argument);
  }
  CHECK((one[0] == 7 && one[1] == 7));
  CHECK(dbscan(e, 2, good, 0, label).code() == Errc::invalid_argument);
  CHECK(chinese_whispers(e, 2, good, 0, 1, label).code() == Errc::invalid_argument);
}

TEST_CASE("a flag ends it, and one that is cleared at once does not hide what was left out") {
  const std::vector<float> e = recognition::faces(70, 6, 7, 1, 8);
  std::vector<int> label(70);
  std::atomic<bool> flag{true};
  for (const std::size_t n : {std::size_t{1}, std::size_t{70}}) {
    ClusterOptions o = options(Metric::euclidean, 1, 2);
    o.cancel = &flag;
    flag = true;
    const Span<const float> faces(e.data(), 6 * n);
    CHECK(dbscan(faces, 6, o, 2, label).code() == Errc::cancelled);
    CHECK(chinese_whispers(faces, 6, o, 9, 1, label).code() == Errc::cancelled);
    CHECK(average_link(faces, 6, o, label).code() == Errc::cancelled);
    detail::Stop stop(o.cancel);
    CHECK(stop());
    flag = false;
    CHECK(stop());
    CHECK(dbscan(faces, 6, o, 2, label).ok());
    CHECK(chinese_whispers(faces, 6, o, 9, 1, label).ok());
    CHECK(average_link(faces, 6, o, label).ok());
  }
}

TEST_CASE("a failing allocation is an error and leaks nothing") {
  const std::vector<float> e = recognition::faces(70, 6, 7, 1, 8);
  std::vector<int> label(70);
  const ClusterOptions o = options(Metric::euclidean, 1, 1);
  const auto fails = [&](auto&& call) { return recognition::fail_each_allocation([&] { return call().code(); }); };
  // Team, bits, and the store's list and block; then two more each.
  CHECK(fails([&] { return dbscan(e, 6, o, 2, label); }) == 6);
  CHECK(fails([&] { return chinese_whispers(e, 6, o, 9, 1, label); }) == 6);
  CHECK(fails([&] { return average_link(e, 6, o, label); }) == 6);
}
