#include "command/http/metrics.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace command::service {

namespace {

/// The shortest of %g's that brings the value back.
std::string number(double value) {
  char text[40];
  for (const int digits : {6, 15, 17}) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

void describe(std::string& text, const std::string& name, const std::string& help, const char* type) {
  text += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

}  // namespace

void Metrics::count_request(const std::string& route, const std::string& method, int status) {
  const std::string labels =
      "route=\"" + route + "\",method=\"" + method + "\",status=\"" + std::to_string(status) + "\"";
  const std::lock_guard<std::mutex> lock(mutex_);
  ++requests_[labels];
}

void Metrics::add_time(Stage stage, double seconds) {
  const std::size_t slot =
      static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), seconds) - bounds.begin());
  const std::lock_guard<std::mutex> lock(mutex_);
  Histogram& histogram = stages_[static_cast<std::size_t>(stage)];
  ++histogram.counts[slot];
  histogram.sum += seconds;
}

void Metrics::count(const std::string& name, double by) {
  const std::lock_guard<std::mutex> lock(mutex_);
  counters_[name] += by;
}

void Metrics::add_gauge(const std::string& name, const std::string& help, std::function<double()> value,
                        const std::string& labels) {
  const std::lock_guard<std::mutex> lock(mutex_);
  gauges_.push_back({name, help, labels, std::move(value)});
}

std::string Metrics::text() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  describe(text, "facenet_requests_total", "Requests that were answered.", "counter");
  for (const auto& [labels, count] : requests_)
    text += "facenet_requests_total{" + labels + "} " + std::to_string(count) + "\n";
  const std::string stage = "facenet_stage_seconds";
  describe(text, stage, "What a picture or a search took, by stage; total: a request, from its last byte on.",
           "histogram");
  for (std::size_t s = 0; s < stage_names.size(); ++s) {
    const std::string label = std::string("{stage=\"") + stage_names[s] + "\"";
    std::uint64_t below = 0;
    for (std::size_t i = 0; i <= bounds.size(); ++i) {
      below += stages_[s].counts[i];
      text += stage + "_bucket" + label + ",le=\"" + (i < bounds.size() ? number(bounds[i]) : "+Inf") + "\"} " +
              std::to_string(below) + "\n";
    }
    text += stage + "_sum" + label + "} " + number(stages_[s].sum) + "\n" + stage + "_count" + label + "} " +
            std::to_string(below) + "\n";
  }
  for (const auto& [name, value] : counters_)
    text += "# TYPE " + name + " counter\n" + name + " " + number(value) + "\n";
  std::string described;  // one name's gauges follow one another
  for (const Gauge& gauge : gauges_) {
    if (gauge.name != described) describe(text, gauge.name, gauge.help, "gauge");
    described = gauge.name;
    text += gauge.name + (gauge.labels.empty() ? "" : "{" + gauge.labels + "}") + " " + number(gauge.value()) + "\n";
  }
  return text;
}

}  // namespace command::service
