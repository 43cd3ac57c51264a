#include "command/engine/threshold.hpp"

#include <cstdlib>
#include <fstream>

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

}  // namespace

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

bool resolve_threshold(const std::string& option, const facenet::ModelInfo& info, double& threshold) {
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
    return true;
  } catch (const Json::exception&) {
    return refuse(option,
                  "this threshold file is damaged: a key is missing or not what it should be; calibrate again.");
  }
}

}  // namespace command
