// What the tests of recognition share: made-up faces, an allocator that fails when told, every number of threads.
#pragma once

#include "failing_malloc.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "facenet/base/status.hpp"

namespace recognition {

constexpr int thread_counts[] = {1, 2, 3, 8};

/// n faces of `persons` persons: a random centre each, and noise of `spread` times its length. Not unit vectors unless
/// told.
inline std::vector<float> faces(int n, int dim, int persons, double spread, std::size_t seed, bool unit = false) {
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  std::normal_distribution<double> normal;
  std::vector<double> centre(static_cast<std::size_t>(persons * dim));
  for (double& x : centre) x = normal(random);
  std::vector<float> out;
  for (int i = 0; i < n; ++i) {
    const int person = static_cast<int>(random() % static_cast<unsigned>(persons));
    std::vector<double> face;
    double square = 0;
    for (int k = 0; k < dim; ++k) {
      face.push_back(centre[static_cast<std::size_t>(person * dim + k)] + spread * normal(random));
      square += face.back() * face.back();
    }
    for (double x : face) out.push_back(static_cast<float>(unit ? x / std::sqrt(square) : x));
  }
  return out;
}

/// Lets the first, second, … allocation of `call` (which returns its code) fail until it needs no more. Each failure
/// must be out_of_memory and leak nothing. Returns how many there were.
template <class F>
int fail_each_allocation(F&& call) {
  for (long k = 0;; ++k) {
    using namespace failing_malloc;
    const long before = blocks_alive;
    allocations_left = k;
    const facenet::Errc code = call();
    allocations_left = -1;
    CHECK(blocks_alive == before);
    if (code == facenet::Errc::ok) return static_cast<int>(k);
    CHECK(code == facenet::Errc::out_of_memory);
  }
}

}  // namespace recognition
