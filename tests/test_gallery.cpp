// Searches against brute force in double over the stored values, every change against a plain map, every failing
// allocation.
#include "recognition.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>

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
std::vector<Match> brute(const Gallery& g, const std::vector<std::uint64_t>& ids,
                         const std::map<std::uint64_t, std::uint64_t>& person, const float* query, std::size_t k,
                         bool persons, double threshold) {
  std::vector<Match> all;
  std::vector<float> row(z(g.dim()));
  for (std::uint64_t id : ids) {
    REQUIRE(g.get(id, row).ok());
    const double d = distance(g.options().metric, {query, g.dim()}, row);
    if (d <= threshold) all.push_back({id, person.at(id), d, similarity({query, g.dim()}, row)});
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
void compare(const Gallery& g, const std::vector<std::uint64_t>& ids,
             const std::map<std::uint64_t, std::uint64_t>& person, const std::vector<float>& queries, int k,
             double threshold) {
  const int n = static_cast<int>(queries.size()) / g.dim();
  std::vector<Match> out(z(n * k));
  std::vector<int> found(z(n));
  for (bool persons : {false, true}) {
    if (persons)
      REQUIRE(g.identify(queries, k, threshold, out, found).ok());
    else
      REQUIRE(g.search(queries, k, out, found).ok());
    bool same = true;
    for (int q = 0; q < n; ++q) {
      const auto want =
          brute(g, ids, person, queries.data() + q * g.dim(), z(k), persons, persons ? threshold : HUGE_VAL);
      same = same && z(found[z(q)]) == want.size();
      for (std::size_t i = 0; same && i < want.size(); ++i) same = equal(out[z(q * k) + i], want[i]);
      CAPTURE(q);
      CAPTURE(persons);
      CHECK(same);
      if (!same) return;
    }
  }
}

void fill(Gallery& g, const std::vector<float>& e, std::vector<std::uint64_t>& ids,
          std::map<std::uint64_t, std::uint64_t>& person, std::uint64_t persons) {
  const std::size_t n = e.size() / z(g.dim());
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t id = (i * 0x9e3779b97f4a7c15u) >> 7;  // in no order
    REQUIRE(g.add(id, i % persons, {e.data() + i * z(g.dim()), g.dim()}).ok());
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
  REQUIRE(g.search({e.data(), 16}, 10, out, found).ok());
  CHECK(found[0] == 0);
  CHECK(found[1] == 0);
  std::vector<std::uint64_t> ids;
  std::map<std::uint64_t, std::uint64_t> person;
  fill(g, e, ids, person, 3);
  compare(g, ids, person, e, 10, HUGE_VAL);
  compare(g, ids, person, e, 2147483, 0.5);
}

TEST_CASE("lengths from 1e-30 to 1e15 in one gallery, subnormals among them") {
  for (Metric metric : {Metric::euclidean, Metric::cosine}) {
    std::vector<float> e = recognition::faces(400, 16, 20, 0.5, 11);
    for (std::size_t i = 0; i < 400; ++i) {
      const double scale = std::pow(10.0, static_cast<double>(i % 45) - 31);
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
      const Span<const float> values(pool.data() + random() % 500 * 9, 9);
      const auto at = plain.find(id);
      // Grows for 2000 turns, then shrinks until nothing is left.
      const unsigned kind = turn < 2000 ? random() % 4 : 2 + random() % 2;
      CHECK(g.contains(id) == (at != plain.end()));
      if (kind <= 1) {
        const Status s = g.add(id, id % 7, values);
        CHECK(s.code() == (at == plain.end() ? Errc::ok : Errc::invalid_argument));
        if (s.ok()) plain[id] = {id % 7, {values.begin(), values.end()}};
      } else if (kind == 2) {
        const Status s = g.update(id, values);
        CHECK(s.code() == (at != plain.end() ? Errc::ok : Errc::not_found));
        if (s.ok()) at->second.second.assign(values.begin(), values.end());
      } else {
        CHECK(g.remove(id).code() == (at != plain.end() ? Errc::ok : Errc::not_found));
        if (at != plain.end()) plain.erase(at);
      }
      CHECK(g.size() == plain.size());
    }
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    std::vector<float> got(9);
    std::map<std::uint64_t, std::uint64_t> iterated;
    for (const TemplateEntry t : g) CHECK(iterated.emplace(t.id, t.person).second);
    CHECK(iterated.size() == plain.size());
    for (const auto& [id, value] : plain) {
      CHECK(iterated.at(id) == value.first);
      ids.push_back(id);
      person[id] = value.first;
      REQUIRE(g.get(id, got).ok());
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
  for (float bad : {NAN, -NAN, HUGE_VALF, -HUGE_VALF, 1e16f, 65536.0f}) {
    e[2] = bad;
    CHECK(g.add(2, 1, e).code() == Errc::invalid_argument);
    CHECK(g.update(1, e).code() == Errc::invalid_argument);
    // A query is not stored, so half precision does not limit it.
    CHECK(g.search(e, 1, out, found).code() == (bad == 65536.0f ? Errc::ok : Errc::invalid_argument));
  }
  e[2] = 3;
  CHECK(g.size() == 1);
  CHECK(g.reserve((std::size_t{1} << 30) + 1).code() == Errc::limit_exceeded);
  CHECK(g.search({e, 0}, 1, out, found).code() == Errc::invalid_argument);
  CHECK(g.search(e, 0, out, found).code() == Errc::invalid_argument);
  CHECK(g.search({nullptr, 4}, 1, out, found).code() == Errc::invalid_argument);
  CHECK(g.identify(e, 1, NAN, out, found).code() == Errc::invalid_argument);
  CHECK(g.identify(e, 1, -1, out, found).code() == Errc::invalid_argument);
  for (float zero : {0.0f, -0.0f, 1e-42f, 2e-8f}) {  // the last one in half precision alone
    const float none[4] = {zero, 0, -zero, zero};
    CAPTURE(zero);
    CHECK(g.add(2, 1, none).code() == Errc::invalid_argument);
    CHECK(g.update(1, none).code() == Errc::invalid_argument);
    CHECK(g.search(none, 1, out, found).code() == (zero == 2e-8f ? Errc::ok : Errc::invalid_argument));
    CHECK(make(4, Metric::cosine, TemplateStorage::f32, 1).add(2, 1, none).code() ==
          (zero == 2e-8f ? Errc::ok : Errc::invalid_argument));
  }
  CHECK(g.search(e, 1, {}, found).code() == Errc::invalid_argument);
  CHECK(g.identify(e, 1, 1, out, Span<int>()).code() == Errc::invalid_argument);
  CHECK(g.get(1, {}).code() == Errc::invalid_argument);
  CHECK(g.add(3, 1, {nullptr, 4}).code() == Errc::invalid_argument);
  float got[4];
  CHECK(g.get(7, got).code() == Errc::not_found);
  REQUIRE(g.get(1, got).ok());
  CHECK(std::equal(got, got + 4, e));
}

TEST_CASE("arrays carry their size: what has no room, or is no whole embedding, is refused and nothing is written") {
  Gallery g = make(4, Metric::euclidean, TemplateStorage::f32, 2);
  const std::vector<float> e = {1, 2, 3, 4, 5, 6, 7, 9};
  for (const int size : {0, 3, 5, 8}) {
    CAPTURE(size);
    CHECK(g.add(1, 1, {e.data(), size}).code() == Errc::invalid_argument);
  }
  REQUIRE(g.add(1, 1, {e.data(), 4}).ok());
  REQUIRE(g.add(2, 1, {e.data() + 4, 4}).ok());
  CHECK(g.update(1, {e.data(), 3}).code() == Errc::invalid_argument);
  CHECK(g.update(1, e).code() == Errc::invalid_argument);
  std::vector<float> got(4, 7.0f);
  CHECK(g.get(1, {got.data(), 3}).code() == Errc::invalid_argument);
  CHECK(g.get(1, {nullptr, 4}).code() == Errc::invalid_argument);
  CHECK(got == std::vector<float>(4, 7.0f));

  const Match none{77, 77, 77, 77};
  std::vector<Match> out(6, none);
  int found[2] = {-1, -1};
  const auto refused = [&](Span<const float> queries, int k, Span<Match> to, Span<int> count) {
    return g.search(queries, k, to, count).code() == Errc::invalid_argument &&
           g.identify(queries, k, 1e9, to, count).code() == Errc::invalid_argument;
  };
  CHECK(refused(e, 3, {out.data(), 5}, found));
  CHECK(refused(e, 1, {out.data(), 1}, found));
  CHECK(refused(e, 3, out, {found, 1}));
  CHECK(refused(e, 3, out, {}));
  CHECK(refused(e, 3, {}, found));
  CHECK(refused(e, 3, {nullptr, 6}, found));
  CHECK(refused(e, 3, out, {nullptr, 2}));
  CHECK(refused({e.data(), 7}, 3, out, found));  // one query and three quarters
  CHECK(refused(e, 2147483647, out, found));
  int one = -1;
  CHECK(g.search(e, 3, out, one).code() == Errc::invalid_argument);  // two queries, room for one's number
  CHECK(g.identify({e.data(), 3}, 3, 1, out, one).code() == Errc::invalid_argument);
  CHECK(std::all_of(out.begin(), out.end(), [&](const Match& m) { return equal(m, none); }));
  CHECK((found[0] == -1 && found[1] == -1 && one == -1));
  REQUIRE(g.search({e.data(), 4}, 3, out, one).ok());
  CHECK(one == 2);
  REQUIRE(g.identify({e.data(), 4}, 1, 0, out, one).ok());
  CHECK((one == 1 && out[0].id == 1));
  REQUIRE(g.search(e, 3, out, found).ok());
  CHECK((found[0] == 2 && found[1] == 2 && out[3].id == 2));
}

TEST_CASE("any number of threads search one gallery at once, each as if it were alone") {
  constexpr int dim = 24, callers = 6, turns = 12;
  const std::vector<float> e = recognition::faces(3000, dim, 300, 0.6, 21);
  Gallery filled = make(dim, Metric::cosine, TemplateStorage::f32, 3);
  std::vector<std::uint64_t> ids;
  std::map<std::uint64_t, std::uint64_t> person;
  fill(filled, e, ids, person, 500);
  const Gallery& g = filled;
  const auto look = [&](int caller, int turn, std::vector<Match>& out, std::vector<int>& found) {
    const int n = 1 + caller % 3, k = turn % 4 == 3 ? 2900 : 5;  // nearly all: another way through
    out.assign(z(n * k), Match{});
    found.assign(z(n), -1);
    const Span<const float> queries(e.data() + z(caller * dim), n * dim);
    return turn % 2 == 0 ? g.search(queries, k, out, found) : g.identify(queries, k, 0.8, out, found);
  };
  std::vector<std::vector<Match>> want(callers * turns);
  std::vector<std::vector<int>> want_found(callers * turns);
  for (int c = 0; c < callers; ++c)
    for (int t = 0; t < turns; ++t) REQUIRE(look(c, t, want[z(c * turns + t)], want_found[z(c * turns + t)]).ok());

  std::atomic<int> wrong{0}, ready{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < callers; ++c)
    threads.emplace_back([&, c] {
      std::vector<Match> out;
      std::vector<int> found;
      std::vector<float> row(dim);
      for (++ready; ready < callers;) std::this_thread::yield();
      for (int t = 0; t < turns; ++t) {
        const std::size_t at = z(c * turns + t);
        bool right = look(c, t, out, found).ok() && found == want_found[at] &&
                     std::equal(out.begin(), out.end(), want[at].begin(), want[at].end(), equal);
        std::size_t count = 0;
        for (const TemplateEntry entry : g) count += entry.person == 7;
        right = right && count == 6 && g.get(ids[z(t)], row).ok() && g.contains(ids[z(c)]);
        wrong += !right;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a search ends when its caller's flag is set") {
  Gallery g = make(4, Metric::euclidean, TemplateStorage::f32, 2);
  for (std::uint64_t id = 1; id <= 300; ++id) {
    const float e[4] = {static_cast<float>(id), 1, 0, 0};
    REQUIRE(g.add(id, id, e).ok());
  }
  const float query[4] = {300, 1, 0, 0};
  std::vector<Match> out(300);
  int found = 0;
  std::atomic<bool> flag{true};
  g.cancel_when(&flag);
  Gallery moved(std::move(g));  // the flag moves too
  for (int k : {1, 300}) {      // in passes; all ranked
    CHECK(moved.search(query, k, {out.data(), out.size()}, found).code() == Errc::cancelled);
    CHECK(moved.identify(query, k, 1e9, {out.data(), out.size()}, found).code() == Errc::cancelled);
    flag = false;
    CHECK(moved.search(query, k, {out.data(), out.size()}, found).ok());
    CHECK(found == k);
    CHECK(out[0].id == 300);
    flag = true;
  }
  moved.cancel_when(nullptr);
  CHECK(moved.search(query, 1, {out.data(), out.size()}, found).ok());
}

TEST_CASE("a gallery that was never made, or was moved from, says so") {
  const float e[4] = {1, 2, 3, 4};
  const auto says_so = [&](Gallery& g) {
    Match out[1];
    float got[4];
    int found;
    CHECK(g.size() == 0);
    CHECK(g.begin() == g.end());
    CHECK(g.dim() == 0);
    CHECK_FALSE(g.contains(1));
    for (const Status& s : {g.add(1, 1, e), g.update(1, e), g.remove(1), g.get(1, got), g.reserve(10),
                            g.search(e, 1, out, found), g.identify(e, 1, 1, out, found)}) {
      CHECK(s.code() == Errc::invalid_argument);
      CHECK(std::string(s.text()) == "this gallery was never made, or was moved from");
    }
  };
  Gallery none;
  says_so(none);
  Gallery g = make(4, Metric::euclidean, TemplateStorage::f32, 2);
  REQUIRE(g.add(1, 1, e).ok());
  Gallery other = std::move(g);
  says_so(g);
  CHECK(other.size() == 1);
  g = std::move(other);
  says_so(other);
  Gallery third = make(4, Metric::euclidean, TemplateStorage::f32, 1);
  third = std::move(g);  // which had one of its own
  says_so(g);
  CHECK(third.contains(1));
  says_so(none = std::move(g));
}

TEST_CASE(
    "a k of nearly all templates, for any number of threads: the results of brute force, in memory that is bounded") {
  constexpr std::size_t templates = 9000;
  std::vector<float> e = recognition::faces(static_cast<int>(templates), 8, 300, 0.7, 12);
  for (Metric metric : {Metric::euclidean, Metric::cosine}) {
    std::vector<std::uint64_t> ids;
    std::map<std::uint64_t, std::uint64_t> person;
    Gallery g = make(8, metric, TemplateStorage::f32, 16);
    fill(g, e, ids, person, 4001);
    compare(g, ids, person, {e.begin(), e.begin() + 8}, 9000, 0.9);
    compare(g, ids, person, {e.begin(), e.begin() + 16}, 8500, HUGE_VAL);
    // Twice k candidates for each thread would take 9 MB.
    std::vector<Match> out(templates);
    int found = 0;
    const std::size_t before = failing_malloc::bytes_asked;
    REQUIRE(g.search({e.data(), 8}, static_cast<int>(templates), out, found).ok());
    CHECK(failing_malloc::bytes_asked - before < 1 << 20);
    CHECK(found == static_cast<int>(templates));
  }
}

TEST_CASE("a failing allocation is an error, leaks nothing and leaves the gallery as it was") {
  const std::vector<float> e = recognition::faces(200, 40, 5, 1, 6);
  const int failures = recognition::fail_each_allocation([&] {
    auto g = Gallery::make(40);
    if (!g.ok()) return g.status().code();
    for (std::size_t i = 0; i < 200; ++i) {
      const Status s = g->add(i, i % 5, {e.data() + i * 40, 40});
      if (s.ok()) continue;
      CHECK(g->size() == i);
      CHECK_FALSE(g->contains(i));
      return s.code();
    }
    Match out[6];
    int found[2];
    const Status s = g->search({e.data(), 80}, 3, out, found);
    if (!s.ok()) return s.code();
    CHECK(out[0].id == 0);
    return g->remove(3).code();
  });
  CHECK(failures >= 10);  // the team, blocks and their list, the map four times, four for a search, one to remove
}
