// threads: prints what the headers were compiled for, and the sum that as many threads as it has CPUs come to.
#include <facenet/distance.hpp>
#include <facenet/base/parallel.hpp>

#include <atomic>
#include <cstdio>

int main() {
  facenet::Team team;
  if (!team.start(4)) return 2;
  std::atomic<int> sum{0};
  team.run([&](int member, int) { sum += member + 1; });
  const float a[] = {3, 0, 0, 0}, b[] = {0, 4, 0, 0};
  std::printf("%s %s %d %g\n", facenet::isa_name, facenet::parallel_name, sum.load(),
              static_cast<double>(facenet::distance(a, b)));
}
