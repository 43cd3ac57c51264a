// Searches against brute force in double over the stored values, every change against a plain map, every failing allocation.
#include "recognition.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "facenet/gallery.hpp"

using namespace facenet;

namespace {

constexpr std::size_t z(int n) { return static_cast<std::size_t>(n); }

Gallery make(int dim, Metric metric, TemplateStorage storage, int threads) {
  GalleryOptions options;
  options.metric = metric;
  options.storage = storage;
  options.threads = threads;
  auto g = Gallery::make(dim, options);
  REQUIRE(g.ok());
  return std::move(*g);
}

/// Every template by its distance in double, then by id; the first of each person alone if asked for.
std::vector<Match> brute(const Gallery& g, const std::vector<std::uint64_t>& ids, const std::map<std::uint64_t, std::uint64_t>& person,
                         const float* query, std::size_t k, bool persons, double threshold) {
  std::vector<Match> all;
  std::vector<float> row(z(g.dim()));
  for (std::uint64_t id : ids) {
    REQUIRE(g.get(id, row.data()).ok());
    const double d = distance(g.options().metric, query, row.data(), g.dim());
    if (d <= threshold) all.push_back({id, person.at(id), d, similarity(query, row.data(), g.dim())});
  }
  std::sort(all.begin(), all.end(), [](const Match& a, const Match& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
  });
  std::set<std::uint64_t> seen;
  std::vector<Match> out;
  for (const Match& m : all)
    if (out.size() < k && (!persons || seen.insert(m.person).second)) out.push_back(m);
  return out;
}

bool equal(const Match& a, const Match& b) {
  return a.id == b.id && a.person == b.person && a.distance == b.distance && a.similarity == b.similarity;
}

/// Both kinds of search, with every query.
void compare(Gallery& g, const std::vector<std::uint64_t>& ids, const std::map<std::uint64_t, std::uint64_t>& person,
             const std::vector<float>& queries, int k, double threshold) {
  const int n = static_cast<int>(queries.size()) / g.dim();
  std::vector<Match> out(z(n * k));
  std::vector<int> found(z(n));
  for (bool persons : {false, true}) {
    if (persons) REQUIRE(g.identify(queries.data(), n, k, threshold, out.data(), found.data()).ok());
    else REQUIRE(g.search(queries.data(), n, k, out.data(), found.data()).ok());
    bool same = true;
    for (int q = 0; q < n; ++q) {
      const auto want = brute(g, ids, person, queries.data() + q * g.dim(), z(k), persons, persons ? threshold : HUGE_VAL);
      same = same && z(found[z(q)]) == want.size();
      for (std::size_t i = 0; same && i < want.size(); ++i) same = equal(out[z(q * k) + i], want[i]);
      CAPTURE(q);
      CAPTURE(persons);
      CHECK(same);
      if (!same) return;
    }
  }
}

void fill(Gallery& g, const std::vector<float>& e, std::vector<std::uint64_t>& ids, std::map<std::uint64_t, std::uint64_t>& person,
          std::uint64_t persons) {
  const std::size_t n = e.size() / z(g.dim());
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t id = (i * 0x9e3779b97f4a7c15u) >> 7;  // in no order
    REQUIRE(g.add(id, i % persons, e.data() + i * z(g.dim())).ok());
    ids.push_back(id);
    person[id] = i % persons;
  }
}

/// Templates in groups that float cannot tell apart: each a few last bits from the one before.
std::vector<float> near_ties(int n, int dim, unsigned seed, bool unit) {
  std::vector<float> e = recognition::faces(n, dim, 4, 0.5, seed, unit);
  std::mt19937 random(seed + 1);
  for (int i = 1; i < n; ++i) {
    if (i % 5 == 0) continue;
    for (int k = 0; k < dim; ++k) e[z(i * dim + k)] = e[z((i - 1) * dim + k)];
    if (i % 3 != 0) {
      float& x = e[z(i * dim) + random() % z(dim)];
      x = std::nextafter(x, random() % 2 != 0 ? 10.0f : -10.0f);
    }
  }
  return e;
}

}  // namespace

TEST_CASE("results are those of brute force in double, for every metric, storage, size and number of threads") {
  for (Metric metric : {Metric::euclidean, Metric::cosine})
    for (TemplateStorage storage : {TemplateStorage::f32, TemplateStorage::f16})
      for (int threads : recognition::thread_counts)
        for (int dim : {1, 17, 128}) {
          CAPTURE(threads);
          CAPTURE(dim);
          Gallery g = make(dim, metric, storage, threads);
          std::vector<std::uint64_t> ids;
          std::map<std::uint64_t, std::uint64_t> person;
          fill(g, recognition::faces(dim == 128 ? 700 : 333, dim, 40, 0.4, z(dim) + 1), ids, person, 50);
          compare(g, ids, person, recognition::faces(dim == 17 ? 101 : 7, dim, 40, 0.4, z(dim) + 2), 10, 0.8);
          compare(g, ids, person, recognition::faces(1, dim, 40, 0.4, z(dim) + 3), 1, HUGE_VAL);
        }
}

TEST_CASE("templates that float cannot tell apart come in the order of double, equal ones in that of their ids") {
  for (bool unit : {true, false})
    for (Metric metric : {Metric::euclidean, Metric::cosine})
      for (int threads : {1, 3}) {
        Gallery g = make(64, metric, TemplateStorage::f32, threads);
        std::vector<std::uint64_t> ids;
        std::map<std::uint64_t, std::uint64_t> person;
        const std::vector<float> e = near_ties(1000, 64, 5, unit);
        fill(g, e, ids, person, 90);
        compare(g, ids, person, {e.begin(), e.begin() + 64 * 20}, 13, 2);
      }
}

TEST_CASE("thousands of equal templates, and of one person's, are no trap") {
  const std::vector<float> one = recognition::faces(1, 32, 1, 0, 9);
  std::vector<float> e;
  for (int i = 0; i < 3000; ++i) e.insert(e.end(), one.begin(), one.end());
  for (int threads : {1, 2}) {
    Gallery g = make(32, Metric::euclidean, TemplateStorage::f32, threads);
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    fill(g, e, ids, person, 2);
    compare(g, ids, person, one, 5, 1);
    CHECK(ids.size() == g.size());
  }
}

TEST_CASE("subnormal halves count, though denormal floats do not") {
  std::vector<float> e = recognition::faces(300, 20, 30, 0.5, 12);
  for (float& x : e) x *= 2e-5f;  // below 6.1e-5, where halves become subnormal
  for (Metric metric : {Metric::euclidean, Metric::cosine}) {
    Gallery g = make(20, metric, TemplateStorage::f16, 2);
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    fill(g, e, ids, person, 40);
    compare(g, ids, person, {e.begin(), e.begin() + 400}, 7, HUGE_VAL);
  }
}

TEST_CASE("k may be more than there are, and a gallery empty") {
  Gallery g = make(8, Metric::euclidean, TemplateStorage::f32, 2);
  const std::vector<float> e = recognition::faces(5, 8, 2, 1, 3);
  Match out[20];
  int found[2] = {-1, -1};
  REQUIRE(g.search(e.data(), 2, 10, out, found).ok());
  CHECK(found[0] == 0);
  CHECK(found[1] == 0);
  std::vector<std::uint64_t> ids;
  std::map<std::uint64_t, std::uint64_t> person;
  fill(g, e, ids, person, 3);
  compare(g, ids, person, e, 10, HUGE_VAL);
  compare(g, ids, person, e, 2147483, 0.5);
}

TEST_CASE("lengths from 1e-30 to 1e15 in one gallery, zero vectors and subnormals among them") {
  for (Metric metric : {Metric::euclidean, Metric::cosine}) {
    std::vector<float> e = recognition::faces(400, 16, 20, 0.5, 11);
    for (std::size_t i = 0; i < 400; ++i) {
      const double scale = i % 7 == 0 ? 0 : std::pow(10.0, static_cast<double>(i % 45) - 31);
      for (std::size_t k = 0; k < 16; ++k) e[i * 16 + k] = static_cast<float>(e[i * 16 + k] * scale);
    }
    e[16 * 3] = 1e-42f;  // counts as zero
    Gallery g = make(16, metric, TemplateStorage::f32, 2);
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    fill(g, e, ids, person, 30);
    std::vector<float> queries(e.begin() + 16 * 40, e.begin() + 16 * 90);
    for (float& x : queries)
      if (std::fabs(x) < 0x1p-126f) x = 0;
    compare(g, ids, person, queries, 8, HUGE_VAL);
  }
}

TEST_CASE("any order of add, update and remove leaves what a plain map has") {
  for (TemplateStorage storage : {TemplateStorage::f32, TemplateStorage::f16}) {
    Gallery g = make(9, Metric::euclidean, storage, 2);
    std::map<std::uint64_t, std::pair<std::uint64_t, std::vector<float>>> plain;
    std::mt19937_64 random(17);
    const std::vector<float> pool = recognition::faces(500, 9, 500, 1, 4);
    for (int turn = 0; turn < 6000; ++turn) {
      // Ids that collide: few, and some far apart.
      const std::uint64_t id = random() % 300 * (random() % 2 != 0 ? 1 : std::uint64_t{1} << 40);
      const float* values = pool.data() + random() % 500 * 9;
      const auto at = plain.find(id);
      // Grows for 2000 turns, then shrinks until nothing is left.
      const unsigned kind = turn < 2000 ? random() % 4 : 2 + random() % 2;
      CHECK(g.contains(id) == (at != plain.end()));
      if (kind <= 1) {
        const Status s = g.add(id, id % 7, values);
        CHECK(s.code() == (at == plain.end() ? Errc::ok : Errc::invalid_argument));
        if (s.ok()) plain[id] = {id % 7, {values, values + 9}};
      } else if (kind == 2) {
        const Status s = g.update(id, values);
        CHECK(s.code() == (at != plain.end() ? Errc::ok : Errc::not_found));
        if (s.ok()) at->second.second.assign(values, values + 9);
      } else {
        CHECK(g.remove(id).code() == (at != plain.end() ? Errc::ok : Errc::not_found));
        if (at != plain.end()) plain.erase(at);
      }
      CHECK(g.size() == plain.size());
    }
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    std::vector<float> got(9);
    for (const auto& [id, value] : plain) {
      ids.push_back(id);
      person[id] = value.first;
      REQUIRE(g.get(id, got.data()).ok());
      for (std::size_t k = 0; k < 9; ++k) {
        const float want = value.second[k];
        CHECK(got[k] == (storage == TemplateStorage::f32 ? want : simd::half_to_float(simd::float_to_half(want))));
      }
    }
    if (!ids.empty()) compare(g, ids, person, {pool.begin(), pool.begin() + 90}, 6, 4);
  }
}

TEST_CASE("bad input is refused, and changes nothing") {
  CHECK(Gallery::make(0).status().code() == Errc::invalid_argument);
  CHECK(Gallery::make(max_embedding_dim + 1).status().code() == Errc::invalid_argument);
  GalleryOptions options;
  options.threads = -1;
  CHECK(Gallery::make(4, options).status().code() == Errc::invalid_argument);
  options.threads = max_threads + 1;
  CHECK(Gallery::make(4, options).status().code() == Errc::invalid_argument);

  Gallery g = make(4, Metric::euclidean, TemplateStorage::f16, 1);
  float e[4] = {1, 2, 3, 4};
  REQUIRE(g.add(1, 1, e).ok());
  Match out[4];
  int found;
  for (float bad : {NAN, HUGE_VALF, 1e16f, 65536.0f}) {
    e[2] = bad;
    CHECK(g.add(2, 1, e).code() == Errc::invalid_argument);
    CHECK(g.update(1, e).code() == Errc::invalid_argument);
    // A query is not stored, so half precision does not limit it.
    CHECK(g.search(e, 1, 1, out, &found).code() == (bad == 65536.0f ? Errc::ok : Errc::invalid_argument));
  }
  e[2] = 3;
  CHECK(g.size() == 1);
  CHECK(g.reserve((std::size_t{1} << 30) + 1).code() == Errc::limit_exceeded);
  CHECK(g.search(e, 0, 1, out, &found).code() == Errc::invalid_argument);
  CHECK(g.search(e, 1, 0, out, &found).code() == Errc::invalid_argument);
  CHECK(g.search(nullptr, 1, 1, out, &found).code() == Errc::invalid_argument);
  CHECK(g.identify(e, 1, 1, NAN, out, &found).code() == Errc::invalid_argument);
  CHECK(g.identify(e, 1, 1, -1, out, &found).code() == Errc::invalid_argument);
  float got[4];
  CHECK(g.get(7, got).code() == Errc::not_found);
  REQUIRE(g.get(1, got).ok());
  CHECK(std::equal(got, got + 4, e));
}

TEST_CASE("a failing allocation is an error, leaks nothing and leaves the gallery as it was") {
  const std::vector<float> e = recognition::faces(200, 40, 5, 1, 6);
  const int failures = recognition::fail_each_allocation([&] {
    auto g = Gallery::make(40);
    if (!g.ok()) return g.status().code();
    for (std::size_t i = 0; i < 200; ++i) {
      const Status s = g->add(i, i % 5, e.data() + i * 40);
      if (s.ok()) continue;
      CHECK(g->size() == i);
      CHECK_FALSE(g->contains(i));
      return s.code();
    }
    Match out[6];
    int found[2];
    const Status s = g->search(e.data(), 2, 3, out, found);
    if (!s.ok()) return s.code();
    CHECK(out[0].id == 0);
    return g->remove(3).code();
  });
  CHECK(failures >= 10);  // the team, blocks and their list, the map four times, four for a search, one to remove
}
