#include "command/engine/threshold.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "command/engine/decision.hpp"
#include "command/options.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

constexpr const char* remedy = "; give a distance of 0 or more, or a file that 'facenet calibrate' wrote.";

bool refuse(const std::string& file, const std::string& why) {
  say(file + ": " + why);
  return false;
}

/// What is wrong with the file for this model, "" for nothing. Throws Json::exception for a key that is missing or of
/// another type.
std::string check(const Json& j, const facenet::ModelInfo& info) {
  if (j.at("format").get<std::string>() != threshold_format) return std::string("this is no threshold file") + remedy;
  const int version = j.at("version").get<int>();
  if (version != threshold_version)
    return "this threshold file has version " + std::to_string(version) + ", and this program reads " +
           std::to_string(threshold_version) + "; calibrate again with this program.";
  const auto model = j.at("model").get<std::string>();
  if (model != info.digest)
    return "this threshold was measured with another model (" + model + "), and distances of " + info.digest +
           " are not comparable with its; calibrate with these weights.";
  const auto metric = j.at("metric").get<std::string>();
  if (metric != "euclidean")
    return "this threshold is for the metric '" + metric + "', not Euclidean distances; calibrate again.";
  const auto value = j.at("threshold").get<double>();
  if (!(value >= 0 && value <= 1e6)) return "its threshold is no distance; calibrate again.";
  return {};
}

/// j[key] and j[key + "_interval"], where both are there.
Calibrated::Rate rate_of(const Json& j, const std::string& key) {
  const auto value = j.find(key), interval = j.find(key + "_interval");
  Calibrated::Rate rate;
  if (value == j.end() || interval == j.end()) return rate;
  rate.value = value->get<double>();
  rate.interval = {interval->at(0).get<double>(), interval->at(1).get<double>()};
  rate.known = true;
  return rate;
}

bool is_share(const Calibrated::Rate& rate) {
  return rate.value >= 0 && rate.value <= 1 && rate.interval.low >= 0 && rate.interval.low <= rate.interval.high &&
         rate.interval.high <= 1;
}

}  // namespace

Calibrated::Rate expected_fpir(const Calibrated& calibrated, std::size_t persons, std::size_t templates) {
  const bool measured = calibrated.fpir.known;
  Calibrated::Rate rate = measured ? calibrated.fpir : calibrated.far;
  if (!rate.known || (measured && persons <= calibrated.gallery_size)) return rate;
  const double times = measured ? static_cast<double>(persons) / static_cast<double>(calibrated.gallery_size)
                                : static_cast<double>(templates);
  rate.value = chance_of_any(rate.value, times);
  rate.interval = {chance_of_any(rate.interval.low, times), chance_of_any(rate.interval.high, times)};
  return rate;
}

bool parse_distance(const std::string& text, double& value) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != 0 || !(number >= 0 && number <= 1e6)) return false;
  value = number;
  return true;
}

std::string measured_by(const std::string& option, const facenet::ModelInfo& info) {
  return option.empty() ? info.threshold_source : "";
}

std::string threshold_note(const std::string& option, const facenet::ModelInfo& info) {
  const std::string by = measured_by(option, info);
  return by.empty() ? "" : ", measured by " + by;
}

bool resolve_threshold(const std::string& option, const facenet::ModelInfo& info, double& threshold,
                       Calibrated* calibrated) {
  if (calibrated != nullptr) *calibrated = {};
  threshold = info.threshold;
  if (option.empty() || parse_distance(option, threshold)) return true;
  std::ifstream file(option, std::ios::binary);
  if (!file)
    return refuse(option, std::string("this threshold is neither a number nor a file that can be read") + remedy);
  constexpr std::size_t most = 1 << 16;  // a thousand bytes are usual; a device may never end
  std::string text(most, '\0');
  file.read(text.data(), static_cast<std::streamsize>(most));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (const std::size_t bad = line_not_utf8(text))
    return refuse(option, "this is no threshold file: " + not_utf8(bad, text) + remedy);
  const Json j = Json::parse(text, nullptr, false);
  if (!j.is_object()) return refuse(option, std::string("this is no threshold file") + remedy);
  try {
    const std::string wrong = check(j, info);
    if (!wrong.empty()) return refuse(option, wrong);
    threshold = j["threshold"].get<double>();
    if (calibrated == nullptr) return true;
    calibrated->far = rate_of(j, "far");
    calibrated->fpir = rate_of(j, "fpir");
    if (calibrated->fpir.known)
      calibrated->gallery_size =
          static_cast<std::size_t>(std::max<std::int64_t>(0, j.at("gallery_size").get<std::int64_t>()));
    if (is_share(calibrated->far) && is_share(calibrated->fpir) &&
        (!calibrated->fpir.known || calibrated->gallery_size > 0))
      return true;
    return refuse(option,
                  "this threshold file is damaged: a rate is not between 0 and 1, or nobody is in its gallery; "
                  "calibrate again.");
  } catch (const Json::exception&) {
    return refuse(option,
                  "this threshold file is damaged: a key is missing or not what it should be; calibrate again.");
  }
}

}  // namespace command
