// The options of sub-commands, in CLI11's words.
#include "command/cli/sub_command.hpp"

#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>

#include "command/cli/common.hpp"
#include "command/io/background.hpp"
#include "facenet/base/parallel.hpp"

namespace command {

namespace {

/// Three numbers from 0 to 1 with commas between.
bool parse_thresholds(const std::string& text, std::vector<double>& out) {
  out.clear();
  for (const char* at = text.c_str();;) {
    char* end = nullptr;
    const double value = std::strtod(at, &end);
    if (end == at || !(value >= 0 && value <= 1)) return false;
    out.push_back(value);
    if (*end == 0) return out.size() == 3;
    if (*end != ',') return false;
    at = end + 1;
  }
}

/// "20": pixels; "5%": a share.
bool parse_min_face(const std::string& text, int& pixels, double& share) {
  if (text.empty() || text.find_first_not_of("0123456789.%") != std::string::npos) return false;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end == '%') {
    share = value / 100;
    return end[1] == 0 && value >= 0.1 && value <= 100;
  }
  pixels = static_cast<int>(value >= 1 && value <= 16384 ? value : 0);
  share = 0;
  return *end == 0 && pixels != 0 && static_cast<double>(pixels) == value;
}

/// "900M", "4G": bytes, of which there must be enough for a small photograph.
bool parse_memory(const std::string& text, std::uint64_t& bytes) {
  char* end = nullptr;
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  errno = 0;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const int shift = unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (shift < 0 || errno != 0) return false;
  const double all = value * static_cast<double>(std::uint64_t{1} << shift);
  if (!(all >= static_cast<double>(64u << 20) && all <= 0x1p50)) return false;
  bytes = static_cast<std::uint64_t>(all);
  return true;
}

/// A whole number in low ... high, as a CLI11 validator.
CLI::Validator whole_number(int low, int high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (!text.empty() && *end == 0 && errno == 0 && value >= low && value <= high) return {};
    return "'" + text + "' is not a whole number from " + std::to_string(low) + " to " + std::to_string(high);
  };
  return CLI::Validator(check, "", "");
}

CLI::Validator number_from_to(double low, double high, const char* range) {
  const auto check = [=](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == 0 && value >= low && value <= high) return {};
    return "'" + text + "' is not a number from " + range;
  };
  return CLI::Validator(check, "", "");
}

CLI::Validator distance_or_file() {
  const auto check = [](const std::string& text) -> std::string {
    double distance;
    if (parse_distance(text, distance) || ::access(text.c_str(), F_OK) == 0) return {};
    return "'" + text + "' is neither a distance of 0 or more nor a file";
  };
  return CLI::Validator(check, "", "");
}

/// 64 hex digits, made lower case.
CLI::Validator sha256_digits() {
  const auto change = [](std::string& text) -> std::string {
    bool hex = text.size() == 64;
    for (char& c : text) {
      hex = hex && std::isxdigit(static_cast<unsigned char>(c)) != 0;
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return hex ? std::string() : "'" + text + "' is not the 64 hex digits of a SHA-256";
  };
  return CLI::Validator(change, "", "");
}

}  // namespace

void add_common(CLI::App& a, CommonFlags& flags) {
  a.set_help_flag("-h,--help", "Print this text and exit");
  a.add_flag("--json", flags.json, "Print one JSON object a line");
  a.add_flag("-q,--quiet", flags.quiet, "Print no messages but errors, and no progress bar");
}

bool is_common(const std::string& word) { return word == "--json" || word == "-q" || word == "--quiet"; }

CLI::Validator one_of(std::vector<std::string> words) {
  std::string names;
  for (const std::string& word : words) names += (names.empty() ? "" : " ") + word;
  const auto check = [words](const std::string& text) -> std::string {
    std::string all;
    for (const std::string& word : words) {
      if (word == text) return {};
      all += (all.empty() ? "" : ", ") + word;
    }
    return "'" + text + "' is none of " + all;
  };
  return CLI::Validator(check, "", names);
}

// ---- One option -----------------------------------------------------------------------------------------------------

Option Option::required() { return Option(option_->required()); }
Option Option::expected(int words) { return Option(option_->expected(words)); }
Option Option::whole_number(int low, int high) { return Option(option_->check(command::whole_number(low, high))); }
Option Option::number(double low, double high, const char* range) {
  return Option(option_->check(number_from_to(low, high, range)));
}
Option Option::one_of(const std::vector<std::string>& words) { return Option(option_->check(command::one_of(words))); }
bool Option::given() const { return option_->count() > 0; }

Option OptionSet::positional(const char* name, std::string& value, const char* help) {
  return Option(app_->add_option(name, value, help)->type_name(""));
}
Option OptionSet::positional(const char* name, std::vector<std::string>& values, const char* help) {
  return Option(
      app_->add_option(name, values, help)->type_name("")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
}
Option OptionSet::flag(const char* names, bool& value, const char* help) {
  return Option(app_->add_flag(names, value, help));
}
Option OptionSet::option(const char* names, const char* value_name, std::string& value, const std::string& help) {
  return Option(app_->add_option(names, value, help)->type_name(value_name));
}
Option OptionSet::option(const char* names, const char* value_name, int& value, const char* help) {
  return Option(app_->add_option(names, value, help)->type_name(value_name));
}
Option OptionSet::option(const char* names, const char* value_name, double& value, const char* help) {
  return Option(app_->add_option(names, value, help)->type_name(value_name));
}
Option OptionSet::option(const char* names, const char* value_name, std::vector<std::string>& values,
                         const char* help) {
  return Option(app_->add_option(names, values, help)
                    ->type_name(value_name)
                    ->expected(1)
                    ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
}

// ---- Options that several have --------------------------------------------------------------------------------------

void OptionSet::pictures(std::vector<std::string>& pictures) {
  positional("IMAGE", pictures, "JPEG or PNG files, and folders with such; - is standard input");
}
void OptionSet::exclude(std::vector<std::string>& patterns) {
  option("--exclude", "PATTERN", patterns,
         "Leave out files and folders of this name, such as '*_small.*'; with a slash: below DIR; again for more");
}
void OptionSet::threads(int& threads) {
  option("-t,--threads,-j,--jobs", "N", threads, "Threads, 1 to 256 (default: as many as this process has CPUs)")
      .whole_number(1, facenet::max_threads);
  // While the line is read: what is started later inherits it.
  app_->add_flag_function(
      "--background", [](std::int64_t) { go_to_background(); },
      "Take the CPU and the disk only while nobody else wants them");
}
void OptionSet::files_from(std::string& list, bool& zero) {
  option("--files-from", "FILE", list, "Take the pictures named in FILE too, one a line; - is standard input");
  app_->add_flag("-0,--null", zero, "Names in that file end in NUL, as find -print0 writes them")
      ->needs(app_->get_option("--files-from"));
}
void OptionSet::expected_sha256(std::string& sha256) {
  app_->add_option("--expected-sha256", sha256, "Refuse a weight file with another SHA-256 (64 hex digits)")
      ->transform(sha256_digits())
      ->type_name("HEX");
}
void OptionSet::model(ModelOptions& model) {
  option("-w,--weights", "FILE", model.weights, "The weight file");
  expected_sha256(model.sha256);
  threads(model.threads);
  flag("--half-weights", model.half_weights,
       "Keep weights as 16-bit floats in memory: half of the memory, embeddings differ by about 1e-3");
  app_->add_flag(
          "--int8-weights", model.int8_weights,
          "Keep the weights of an int8 file as they are: 32 MB in all instead of 110, the same bits, twice the time")
      ->excludes("--half-weights");
  app_->add_option("--arithmetic", model.arithmetic,
                   "int8: multiply bytes, for a weight file with scales for it (convert_weights.py --calibrate); "
                   "embeddings differ from float's by about 0.003 (default: float)")
      ->check(CLI::IsMember({"float", "int8"}))
      ->type_name("float|int8")
      ->excludes("--half-weights")
      ->excludes("--int8-weights");
}
void OptionSet::cache(std::string& cache, const char* otherwise) {
  option(
      "--cache", "FILE", cache,
      std::string("Keep embeddings in FILE and take those that are there; none: nowhere (default: ") + otherwise + ")");
}
void OptionSet::threshold(std::string& threshold) {
  app_->add_option(
          "--threshold", threshold,
          "Largest distance of one person's faces: a number, or a file of facenet calibrate (default: the model's)")
      ->check(distance_or_file())
      ->type_name("FILE|X");
}
void OptionSet::aligned(bool& aligned) {
  flag("--aligned", aligned, "Each picture is a face crop already: no face is looked for, all of it is taken");
}
Option OptionSet::min_score(FaceLimits& limits, const char* help) {
  return option("--min-score", "X", limits.score, help).number(0, 1, "0 to 1");
}
Option OptionSet::min_quality(FaceLimits& limits) {
  return option("--min-quality", "X", limits.quality,
                "Leave out faces whose quality (size, sharpness, pose, score: 0 to 1) is below X (default 0: none)")
      .number(0, 1, "0 to 1");
}
Option OptionSet::one_face(FaceOptions& faces) {
  option("-d,--detector", "FILE", faces.detector, "The detector's weight file");
  app_->add_option_function<std::string>(
          "--min-face",
          [&faces](const std::string& text) { parse_min_face(text, faces.min_face, faces.min_face_share); },
          "Smallest face to look for: pixels (default 20), or 5% of the picture's shorter side; half of it takes "
          "four times as long")
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            int pixels;
            double share;
            if (parse_min_face(text, pixels, share)) return {};
            return "'" + text + "' is neither a whole number from 1 to 16384 nor a share from 0.1% to 100%, such as 5%";
          },
          "", ""))
      ->type_name("N|S%");
  app_->add_option_function<std::string>(
          "--thresholds", [&faces](const std::string& text) { parse_thresholds(text, faces.thresholds); },
          "Scores that the detector's three networks ask for (default 0.6,0.7,0.7)")
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            std::vector<double> values;
            if (parse_thresholds(text, values)) return {};
            return "'" + text + "' is not three numbers from 0 to 1, such as 0.6,0.7,0.7";
          },
          "", ""))
      ->type_name("P,R,O");
  option("--rotations", "WORD", faces.rotations,
         "Turn pictures for faces that lie on their side or upside down: off (default), retry (where none was found; "
         "up to four times as long) or all (four times as long)")
      .one_of({"off", "retry", "all"});
  faces.colour = "auto";
  option("--colour", "WORD", faces.colour,
         "Colour profiles: auto (default: JPEG and PNG as they are, other formats in sRGB), srgb (all in sRGB) or "
         "ignore")
      .one_of({"auto", "ignore", "srgb"});
  app_->add_option_function<std::string>(
          "--memory", [&faces](const std::string& text) { parse_memory(text, faces.memory); },
          "Memory for the pictures of all threads together, such as 900M or 4G (default: half of the machine's)")
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            std::uint64_t bytes;
            if (parse_memory(text, bytes)) return {};
            return "'" + text + "' is not a size of at least 64M, such as 900M or 4G";
          },
          "", ""))
      ->type_name("SIZE");
  option("--factor", "X", faces.factor, "From one size at which faces are looked for to the next (default 0.709)")
      .number(0.01, 0.99, "0.01 to 0.99");
  return option("--select", "WORD", faces.select,
                "Which face comes first: largest (default), probability, largest_over_threshold (scores above 0.9 "
                "only) or centre_weighted")
      .one_of({"largest", "probability", "largest_over_threshold", "centre_weighted"});
}
Option OptionSet::faces(FaceOptions& faces) {
  const Option select = one_face(faces);
  option("--max-faces", "N", faces.max_faces, "Take the first N faces of a picture only").whole_number(1, 1000000);
  return select;
}
void OptionSet::crop(CropOptions& crop) {
  option("-w,--weights", "FILE", crop.weights,
         "Cut faces out as this embedder's weight file wants them; without any: box, 160, 0");
  option("--crop", "KIND", crop.kind, "box: the detector's box; five_point: eyes, nose and mouth at fixed places")
      .one_of({"box", "five_point"});
  option("--margin", "X", crop.margin,
         "Around the box: pixels of the crop; around five points: a part of the face, such as 0.25")
      .number(0, 4096, "0 to 4096");
  option("--size", "N", crop.size, "Pixels of the square crop").whole_number(16, 4096);
}
void OptionSet::folder(FolderOptions& images) {
  aligned(images.aligned);
  one_face(images.faces);
  cache(images.cache, "DIR.embeddings beside DIR");
  model(images.model);
}
void OptionSet::folder_of_groups(FolderOptions& images) {
  aligned(images.aligned);
  faces(images.faces);
  cache(images.cache, "DIR.embeddings beside DIR");
  model(images.model);
}

OptionSet::OptionSet(CLI::App* app, CommonFlags& flags, std::function<void()> chosen)
    : app_(app), flags_(&flags), chosen_(std::move(chosen)) {
  if (chosen_) app_->callback(chosen_);
}
OptionSet OptionSet::action(const char* name, const char* summary, std::function<void()> chosen) {
  app_->require_subcommand(1);
  CLI::App* action = app_->add_subcommand(name, summary);
  add_common(*action, *flags_);
  return {action, *flags_, std::move(chosen)};
}
void OptionSet::check(std::function<std::string()> wrong) {
  app_->callback([chosen = chosen_, wrong = std::move(wrong)] {
    if (chosen) chosen();
    const std::string text = wrong();
    if (!text.empty()) throw CLI::ValidationError(text);
  });
}

}  // namespace command
