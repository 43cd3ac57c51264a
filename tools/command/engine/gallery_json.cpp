#include "command/engine/gallery_json.hpp"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "command/io/escape.hpp"

namespace command {

namespace {

constexpr const char* export_format = "facenet-gallery";
constexpr int export_version = 1;

}  // namespace

Json as_json(const GalleryModel& m) {
  Json j;
  j["model"] = m.digest;
  j["architecture"] = m.architecture;
  j["embedding_dim"] = m.embedding_dim;
  j["trained"] = m.trained;
  j["normalise"] = m.normalise;
  j["image_size"] = m.image_size;
  j["crop"] = m.crop;
  j["margin"] = static_cast<float>(m.margin);
  j["detector"] = m.detector;
  return j;
}

Json as_json(const Template& t) {
  Json j;
  j["name"] = t.name;
  if (!t.uuid.empty()) j["uuid"] = t.uuid;
  j["image"] = t.image;
  j["sha256"] = t.sha256;
  j["face"] = t.face;
  j["box"] = Json::array();
  for (const double side : t.box) j["box"].push_back(static_cast<float>(side));
  j["score"] = static_cast<float>(t.score);
  j["enrolled"] = t.enrolled;
  return j;
}

std::string export_head(const GalleryModel& model) {
  Json head;
  head["format"] = export_format;
  head["version"] = export_version;
  head.update(as_json(model));
  return line(head);
}

std::string export_line(const Template& face) {
  Json j = as_json(face);
  j["embedding"] = face.embedding;
  return line(j);
}

std::string export_line(const Person& person) {
  Json j;
  j["name"] = person.name;
  return line(j);
}

GalleryLines::GalleryLines(const std::string& file) : shown_(file.empty() ? "standard input" : file) {
  file_.reset(file.empty() ? stdin : std::fopen(file.c_str(), "rb"));
  std::error_code error;
  if (file_ == nullptr) refuse_file(std::strerror(errno));
  if (!file.empty() && std::filesystem::is_directory(file, error)) refuse_file("it is a folder");
  read_head();
}

GalleryLines::GalleryLines(std::string_view lines, std::string shown) : shown_(std::move(shown)) {
  // Read only: fmemopen writes nothing where the mode is "r".
  file_.reset(fmemopen(const_cast<char*>(lines.data()), lines.size(), "rb"));
  if (file_ == nullptr) refuse_file(std::strerror(errno));
  read_head();
}

std::vector<Template> GalleryLines::templates() {
  std::vector<Template> all;
  for (Template t; next(t);) {
    if (t.embedding.empty()) {
      persons_.push_back(t.name);
    } else {
      all.push_back(t);
      lines_.push_back(number_);
    }
  }
  return all;
}

void GalleryLines::refuse(std::size_t number, const std::string& why) const {
  throw DatabaseError(shown_ + ": line " + std::to_string(number) + ": " + why +
                      "; nothing was imported, give a file that 'facenet gallery export' wrote.");
}

bool GalleryLines::next(Template& t) {
  Json j;
  if (!parse(j)) return false;
  t = {};
  t.name = text(j, "name");
  if (j.size() == 1) {
    const std::string wrong = wrong_name(t.name);
    if (!wrong.empty()) refuse(wrong);
    return true;
  }
  if (j.contains("uuid")) t.uuid = text(j, "uuid");
  t.image = text(j, "image");
  t.sha256 = text(j, "sha256");
  t.enrolled = text(j, "enrolled");
  t.face = integer(j, "face", 0);
  t.score = number(member(j, "score"), "score");
  const std::vector<float> box = numbers(j, "box", 4);
  for (std::size_t i = 0; i < 4; ++i) t.box[i] = static_cast<double>(box[i]);
  t.embedding = numbers(j, "embedding", static_cast<std::size_t>(model_.embedding_dim));
  const std::string wrong = wrong_template(model_, t);
  if (!wrong.empty()) refuse(wrong);
  return true;
}

void GalleryLines::read_head() {
  Json j;
  number_ = 0;
  if (!parse(j)) {
    number_ = 1;
    refuse("there is nothing in it");
  }
  if (!j.contains("format") || j["format"] != export_format) refuse("this is no exported gallery");
  if (integer(j, "version", 1) != export_version) refuse("this is another version of the format than 1");
  model_.digest = text(j, "model");
  model_.architecture = text(j, "architecture");
  model_.embedding_dim = integer(j, "embedding_dim", 1);
  model_.trained = member(j, "trained") == Json(true);
  model_.normalise = text(j, "normalise");
  model_.image_size = integer(j, "image_size", 1);
  model_.crop = text(j, "crop");
  model_.margin = number(member(j, "margin"), "margin");
  model_.detector = text(j, "detector");
  if (!j["trained"].is_boolean()) refuse_key("trained");
  const std::string wrong = wrong_model(model_);
  if (!wrong.empty()) refuse(wrong);
}

bool GalleryLines::parse(Json& j) {
  constexpr std::size_t most = 4 << 20;  // 65536 numbers of 14 characters and the rest are under a million
  std::string bytes;
  int c;
  ++number_;
  while ((c = getc_unlocked(file_.get())) != EOF && c != '\n') {
    bytes += static_cast<char>(c);
    if (bytes.size() > most) refuse("it is longer than 4 MiB");
  }
  if (std::ferror(file_.get())) refuse_file(std::strerror(errno));
  if (c == EOF && bytes.empty()) return false;
  if (line_not_utf8(bytes) != 0) refuse("it is not UTF-8");
  j = Json::parse(bytes, nullptr, false);
  if (!j.is_object()) refuse("this is no JSON object, or a number in it is too large for a float");
  return true;
}

const Json& GalleryLines::member(const Json& j, const char* key) const {
  const auto at = j.find(key);
  if (at == j.end()) refuse_key(key);
  return *at;
}

std::string GalleryLines::text(const Json& j, const char* key) const {
  const Json& value = member(j, key);
  if (!value.is_string()) refuse_key(key);
  return value.get<std::string>();
}

std::int64_t GalleryLines::integer(const Json& j, const char* key, std::int64_t least) const {
  const Json& value = member(j, key);
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  if (!value.is_number_integer() || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most)
    refuse_key(key);
  return value.get<std::int64_t>();
}

double GalleryLines::number(const Json& value, const char* key) const {
  if (!value.is_number() || !std::isfinite(value.get<float>())) refuse_key(key);
  return static_cast<double>(value.get<float>());
}

std::vector<float> GalleryLines::numbers(const Json& j, const char* key, std::size_t count) const {
  const Json& list = member(j, key);
  if (!list.is_array() || list.size() != count)
    refuse("'" + std::string(key) + "' is not an array of " + std::to_string(count) + " numbers");
  std::vector<float> all;
  for (const Json& value : list) all.push_back(static_cast<float>(number(value, key)));
  return all;
}

void GalleryLines::refuse_key(const char* key) const {
  refuse("'" + std::string(key) + "' is missing or not what it should be");
}

void GalleryLines::refuse_file(const std::string& why) const {
  throw DatabaseError(shown_ + ": this file cannot be read (" + why + "); check its name and permissions.");
}

}  // namespace command
