// What /metrics says, in Prometheus' text format: counters and histograms that any thread adds to, and gauges that are
// read when they are asked for.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace command::service {

enum class Stage { decode, detect, embed, search, total };
constexpr std::array<const char*, 5> stage_names{"decode", "detect", "embed", "search", "total"};

class Metrics {
 public:
  /// A request that was answered. `route`: its pattern.
  void count_request(const std::string& route, const std::string& method, int status);
  void add_time(Stage stage, double seconds);
  /// Adds to a counter without labels.
  void count(const std::string& name, double by = 1);
  /// Read at each call of text(), on its thread. `labels`: "" or `digest="0123"`.
  void add_gauge(const std::string& name, const std::string& help, std::function<double()> value,
                 const std::string& labels = "");
  std::string text() const;

 private:
  // 1 ms to 60 s, three a decade: a face takes 20 ms to 200 ms.
  static constexpr std::array<double, 15> bounds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                                 0.5,   1,     2,     5,    10,   30,   60};
  struct Histogram {
    std::array<std::uint64_t, bounds.size() + 1> counts{};
    double sum = 0;
  };
  struct Gauge {
    std::string name, help, labels;
    std::function<double()> value;
  };

  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> requests_;  // by labels
  std::array<Histogram, stage_names.size()> stages_;
  std::map<std::string, double> counters_;
  std::vector<Gauge> gauges_;
};

}  // namespace command::service
