// Persons of an archive that grows: what people said is kept, numbers stay, and the order of arrival hardly matters.
#include "command/engine/growing_clusters.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "command/identities.hpp"

using command::GrowingClusters;
using Slot = GrowingClusters::Slot;

namespace {

constexpr int dim = 4;

GrowingClusters make(double margin = 0, bool collages = false, int of_dim = dim, int threads = 1) {
  command::GrowingOptions options;
  options.threshold = 0.5;
  options.margin = margin;
  options.collages = collages;
  options.threads = threads;
  auto made = GrowingClusters::make(of_dim, options);
  REQUIRE(made.ok());
  return std::move(*made);
}

/// A point of a line: faces are as far apart as their numbers.
struct Point {
  float values[dim];
  explicit Point(double at) : values{static_cast<float>(at), 1, 0, 0} {}
  facenet::Span<const float> span() const { return {values, dim}; }
};

Slot add(GrowingClusters& clusters, double at, GrowingClusters::Person person = 0, std::uint64_t picture = 0,
         bool settled = false) {
  static std::uint64_t other = 1000;
  Slot slot = 0;
  REQUIRE(clusters.add(person, picture != 0 ? picture : ++other, settled, Point(at).span(), slot).ok());
  return slot;
}

std::vector<Slot> settle(GrowingClusters& clusters, const std::vector<Slot>& faces) {
  std::vector<Slot> moved;
  REQUIRE(clusters.settle(faces, moved).ok());
  return moved;
}

}  // namespace

TEST_CASE("a face joins the person that most of its neighbours have, and else is alone") {
  GrowingClusters c = make();
  add(c, 0, 1), add(c, 0.1, 1), add(c, 0.2, 2);
  const Slot near = add(c, 0.15), far = add(c, 9);
  settle(c, {near, far});
  CHECK(c.person(near) == 1);
  CHECK(c.person(far) < 0);
}

TEST_CASE("new faces find each other, whatever their order") {
  for (const bool turned : {false, true}) {
    GrowingClusters c = make();
    std::vector<Slot> faces;
    for (int i = 0; i < 6; ++i) faces.push_back(add(c, turned ? 2.0 - 0.4 * i : 0.4 * i));
    settle(c, faces);
    for (const Slot f : faces) CHECK(c.person(f) == c.person(faces[0]));
  }
}

TEST_CASE("numbers stay: two persons without names become the older one where a face joins them") {
  GrowingClusters c = make();
  const Slot a = add(c, 0, 7), b = add(c, 0.8, 3);
  const Slot between = add(c, 0.4);
  const std::vector<Slot> moved = settle(c, {between});
  CHECK(c.person(between) == 3);
  CHECK(c.person(a) == 3);
  CHECK(c.person(b) == 3);
  CHECK(std::count(moved.begin(), moved.end(), a) == 1);
  CHECK(std::count(moved.begin(), moved.end(), b) == 0);
}

TEST_CASE("a face of a named person, and one that somebody decided, are never moved") {
  GrowingClusters c = make();
  c.set_named(1);
  const Slot named = add(c, 0, 1), decided = add(c, 0.1, 2, 0, true);
  std::vector<Slot> crowd;
  for (int i = 0; i < 5; ++i) crowd.push_back(add(c, 0.2 + 0.01 * i, 3));
  const Slot fresh = add(c, 0.21);
  settle(c, {fresh});
  CHECK(c.person(named) == 1);
  CHECK(c.person(decided) == 2);
  CHECK(c.person(fresh) == 3);
}

TEST_CASE("a face never takes a person it was said not to be") {
  GrowingClusters c = make();
  add(c, 0, 1), add(c, 0.1, 1), add(c, 0.3, 2);
  const Slot face = add(c, 0.05);
  c.refuse(face, 1);
  settle(c, {face});
  CHECK(c.person(face) == 2);
  c.refuse(face, 2);
  settle(c, {face});
  CHECK(c.person(face) < 0);
}

TEST_CASE("faces of one picture are two persons, and the nearer one has the name") {
  for (const bool turned : {false, true}) {
    GrowingClusters c = make();
    c.set_named(1);
    add(c, 0, 1);
    const Slot first = add(c, turned ? 0.1 : 0.2, 0, 5), second = add(c, turned ? 0.2 : 0.1, 0, 5);
    settle(c, {first, second});
    CHECK(c.person(turned ? first : second) == 1);
    CHECK(c.person(turned ? second : first) < 0);
  }
  GrowingClusters c = make(0, true);
  add(c, 0, 1);
  const Slot first = add(c, 0.2, 0, 5), second = add(c, 0.1, 0, 5);
  settle(c, {first, second});
  CHECK(c.person(first) == 1);
  CHECK(c.person(second) == 1);
}

TEST_CASE("between two named persons within the margin there is no name, beyond it there is") {
  for (const bool many : {false, true}) {  // more of one than a list of neighbours holds
    GrowingClusters c = make(0.1);
    c.set_named(1), c.set_named(2);
    for (int i = 0; i < (many ? 3 * GrowingClusters::most_neighbours : 1); ++i) add(c, 1e-5 * i, 1);
    add(c, 0.5, 2);
    const Slot between = add(c, 0.24);
    settle(c, {between});
    CHECK(c.person(between) < 0);
    const Slot nearer = add(c, 0.15);
    settle(c, {nearer});
    CHECK(c.person(nearer) == 1);
  }
  GrowingClusters c = make(0.1);  // one who has no name is no reason
  c.set_named(1);
  add(c, 0, 1), add(c, 0.5, 2);
  const Slot between = add(c, 0.24);
  settle(c, {between});
  CHECK(c.person(between) == 1);
}

TEST_CASE("a face that was removed is nobody's neighbour, a renewed one is where it is now") {
  GrowingClusters c = make();
  const Slot gone = add(c, 0, 1), kept = add(c, 5, 2);
  c.remove(gone);
  REQUIRE(c.renew(kept, 77, Point(0.3).span()).ok());
  const Slot face = add(c, 0.1);
  settle(c, {face});
  CHECK(c.person(face) == 2);
  const Slot same_picture = add(c, 0.31, 0, 77);
  settle(c, {same_picture});
  CHECK(c.person(same_picture) != 2);
}

TEST_CASE("generated identities: ten increments find what all at once find") {
  constexpr int wide = 128, parts = 10;
  for (const std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{2}}) {
    const identities::People people = identities::make(1200, wide, seed);
    const auto sort = [&](std::size_t increments, int threads, std::size_t& least_kept) {
      command::GrowingOptions options;
      options.threads = threads;
      auto made = GrowingClusters::make(wide, options);
      REQUIRE(made.ok());
      GrowingClusters clusters = std::move(*made);
      std::int64_t next = 1;
      for (std::size_t part = 0; part < increments; ++part) {
        std::vector<std::int64_t> before;
        for (Slot s = 0; s < clusters.size(); ++s) before.push_back(clusters.person(s));
        std::vector<Slot> fresh, moved;
        for (std::size_t i = people.size() * part / increments; i < people.size() * (part + 1) / increments; ++i) {
          Slot slot = 0;
          REQUIRE(clusters.add(0, i, false, people.embedding(i), slot).ok());
          fresh.push_back(slot);
        }
        REQUIRE(clusters.settle(fresh, moved).ok());
        std::map<std::int64_t, std::int64_t> numbers;
        fresh.insert(fresh.end(), moved.begin(), moved.end());
        for (const Slot s : fresh)
          if (clusters.person(s) < 0 && numbers.emplace(clusters.person(s), next).second) ++next;
        clusters.renumber(numbers);
        std::size_t kept = 0;
        for (std::size_t s = 0; s < before.size(); ++s) kept += clusters.person(static_cast<Slot>(s)) == before[s];
        if (!before.empty()) least_kept = std::min(least_kept, 1000 * kept / before.size());
      }
      std::vector<std::int64_t> labels;
      for (Slot s = 0; s < people.size(); ++s) labels.push_back(clusters.person(s));
      return labels;
    };
    std::size_t kept = 1000, unused = 1000;
    const auto grown = sort(parts, 1, kept), at_once = sort(1, 1, unused);
    CHECK(grown == sort(parts, 2, unused));
    CHECK(identities::pairwise_f1(grown, at_once) >= 0.99);
    CHECK(identities::pairwise_f1(grown, people.persons) >= identities::pairwise_f1(at_once, people.persons) - 0.01);
    CHECK(identities::pairwise_f1(grown, people.persons) >= 0.95);
    CHECK(kept >= 900);  // of faces that were there, in thousandths
  }
}
