// Generated identities: embeddings of people who do not exist, as an archive has them, and how well labels fit them.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "facenet/base/random.hpp"

namespace identities {

struct People {
  std::vector<float> embeddings;      // [n][dim], of length 1
  std::vector<std::int64_t> persons;  // from 1
  int dim = 0;
  std::size_t size() const { return persons.size(); }
  facenet::Span<const float> embedding(std::size_t i) const {
    return {embeddings.data() + i * static_cast<std::size_t>(dim), static_cast<std::size_t>(dim)};
  }
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : random_(seed) {}
  double uniform() { return (static_cast<double>(random_.next() >> 11) + 0.5) * 0x1p-53; }
  std::size_t below(std::size_t n) { return random_.below(static_cast<std::uint32_t>(n)); }
  /// Box and Muller.
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }

 private:
  facenet::SplitMix64 random_;
};

inline void normalise(std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  for (double& x : v) x /= std::sqrt(sum);
}

/// Two faces of a person are 0.5 to 1.1 apart, two persons' 1.4 and siblings' 1.2, as with the public weights. A third
/// are siblings of somebody. Most persons are seen a few times, some hundreds of times; one face in twenty is so bad
/// that it is nobody's neighbour. The order is random.
inline People make(std::size_t faces, int dim, std::uint64_t seed) {
  Random random(seed);
  People people;
  people.dim = dim;
  const auto row = static_cast<std::size_t>(dim);
  std::vector<std::vector<double>> centres;
  std::vector<std::pair<std::int64_t, std::vector<float>>> all;
  while (all.size() < faces) {
    std::vector<double> centre(row);
    for (double& x : centre) x = random.normal();
    normalise(centre);
    if (!centres.empty() && random.uniform() < 0.33) {
      const std::vector<double>& sibling = centres[random.below(centres.size())];
      for (std::size_t i = 0; i < row; ++i) centre[i] = 0.92 * centre[i] + 0.4 * sibling[i];
      normalise(centre);
    }
    centres.push_back(centre);
    const auto person = static_cast<std::int64_t>(centres.size());
    // A share of 1 / k of the persons is seen more than k times.
    const double often = 1 / random.uniform();
    const auto times = static_cast<std::size_t>(often < 400 ? often : 400);
    for (std::size_t k = 0; k < times && all.size() < faces; ++k) {
      const double noise = random.uniform() < 0.05 ? 1.4 + 0.6 * random.uniform() : 0.4 + 0.8 * random.uniform();
      std::vector<double> face(row);
      for (std::size_t i = 0; i < row; ++i) face[i] = centre[i] + noise * random.normal() / std::sqrt(dim);
      normalise(face);
      all.emplace_back(person, std::vector<float>(face.begin(), face.end()));
    }
  }
  for (std::size_t i = all.size() - 1; i > 0; --i) std::swap(all[i], all[random.below(i + 1)]);
  for (const auto& [person, face] : all) {
    people.persons.push_back(person);
    people.embeddings.insert(people.embeddings.end(), face.begin(), face.end());
  }
  return people;
}

/// Of pairs of faces: how many both put together, against those that either does (F1).
template <class A, class B>
double pairwise_f1(const std::vector<A>& found, const std::vector<B>& truth) {
  std::map<std::pair<A, B>, double> both;
  std::map<A, double> a;
  std::map<B, double> b;
  for (std::size_t i = 0; i < found.size(); ++i) ++both[{found[i], truth[i]}], ++a[found[i]], ++b[truth[i]];
  const auto pairs = [](const auto& counts) {
    double sum = 0;
    for (const auto& [key, n] : counts) sum += n * (n - 1) / 2;
    return sum;
  };
  const double together = pairs(a) + pairs(b);
  return together == 0 ? 1 : 2 * pairs(both) / together;
}

}  // namespace identities
