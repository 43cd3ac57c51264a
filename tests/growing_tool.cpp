// facenet_growing_tool FACES INCREMENTS DIM SEED: sorts generated identities as they come and all at once, and prints
// how well the two agree with each other and with the truth, as one JSON object.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "command/engine/growing_clusters.hpp"
#include "command/identities.hpp"
#include "facenet/cluster.hpp"

using command::GrowingClusters;

namespace {

constexpr double threshold = 1.1;

/// Persons after each of `increments` equal parts came; the last part's time in seconds.
bool sort(const identities::People& people, std::size_t increments, std::vector<std::int64_t>& labels, double& last_s) {
  command::GrowingOptions options;
  options.threshold = threshold;
  options.threads = 2;
  auto made = GrowingClusters::make(people.dim, options);
  if (!made) return false;
  GrowingClusters clusters = std::move(*made);
  std::int64_t next = 1;
  for (std::size_t part = 0; part < increments; ++part) {
    const auto began = std::chrono::steady_clock::now();
    std::vector<GrowingClusters::Slot> fresh, moved;
    for (std::size_t i = people.size() * part / increments; i < people.size() * (part + 1) / increments; ++i) {
      GrowingClusters::Slot slot = 0;
      if (!clusters.add(0, i, false, people.embedding(i), slot).ok()) return false;
      fresh.push_back(slot);
    }
    if (!clusters.settle(fresh, moved).ok()) return false;
    std::map<std::int64_t, std::int64_t> numbers;  // as the gallery gives them
    for (const GrowingClusters::Slot slot : fresh)
      if (clusters.person(slot) < 0 && numbers.emplace(clusters.person(slot), next).second) ++next;
    for (const GrowingClusters::Slot slot : moved)
      if (clusters.person(slot) < 0 && numbers.emplace(clusters.person(slot), next).second) ++next;
    clusters.renumber(numbers);
    last_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  labels.clear();
  for (std::size_t i = 0; i < people.size(); ++i) labels.push_back(clusters.person(static_cast<std::uint32_t>(i)));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const auto faces = static_cast<std::size_t>(std::strtoul(argv[1], nullptr, 10)),
             increments = static_cast<std::size_t>(std::strtoul(argv[2], nullptr, 10));
  const identities::People people = identities::make(faces, std::atoi(argv[3]), std::strtoul(argv[4], nullptr, 10));
  std::vector<std::int64_t> grown, at_once;
  double last_s = 0, at_once_s = 0;
  if (!sort(people, increments, grown, last_s) || !sort(people, 1, at_once, at_once_s)) return 1;
  std::vector<int> whispers(people.size());
  facenet::ClusterOptions options;
  options.threshold = threshold;
  options.threads = 2;
  const auto began = std::chrono::steady_clock::now();
  if (!facenet::chinese_whispers(people.embeddings, people.dim, options, 100, 1, whispers).ok()) return 1;
  const double whispers_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  using identities::pairwise_f1;
  std::printf(
      "{\"faces\":%zu, \"increments\":%zu, \"persons\":%lld, \"f1_of_at_once\":%.5f, \"f1_of_whispers\":%.5f, "
      "\"truth_grown\":%.5f, \"truth_at_once\":%.5f, \"truth_whispers\":%.5f, \"last_s\":%.2f, \"at_once_s\":%.2f, "
      "\"whispers_s\":%.2f}\n",
      people.size(), increments,
      static_cast<long long>(people.persons.empty() ? 0
                                                    : *std::max_element(people.persons.begin(), people.persons.end())),
      pairwise_f1(grown, at_once), pairwise_f1(grown, whispers), pairwise_f1(grown, people.persons),
      pairwise_f1(at_once, people.persons), pairwise_f1(whispers, people.persons), last_s, at_once_s, whispers_s);
  return 0;
}
