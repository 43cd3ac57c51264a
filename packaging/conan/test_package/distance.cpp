// Compiles xsimd's part of the headers, and computes a distance that one can check: 5.
#include <facenet/distance.hpp>
#include <facenet/base/simd.hpp>

#include <cstdio>

int main() {
  const float a[] = {3, 0, 0, 0}, b[] = {0, 4, 0, 0};
  const float distance = facenet::distance(a, b);
  std::printf("facenet %s, %s: %g\n", facenet::version, facenet::isa_name, static_cast<double>(distance));
  return distance == 5 ? 0 : 1;
}
