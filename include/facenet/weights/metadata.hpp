// What a weight file says about the model, its preprocessing and where it comes from.
#pragma once

#include "facenet/base/preprocessing.hpp"
#include "facenet/base/tensor.hpp"
#include "facenet/base/text.hpp"
#include "facenet/weights/safetensors.hpp"

FACENET_SETUP_BEGIN

/// What a weight file says about itself. Strings live as long as the reader, or for ever.
struct Metadata : Preprocessing {
  bool assumed = true;  // Import: preprocessing is the usual one of its model, which the file does not state
  const char* architecture = "unknown";
  int embedding_dim = 0;
  bool trained = true;  // false: distances between embeddings mean nothing
  double width = 1;     // channel multiplier of the architecture
  const char* dataset = "unknown";
  const char* source = "unknown";
  const char* source_sha256 = "";
  const char* licence = "unknown";
  // The Euclidean distance up to which two faces are one person's, and what measured it; 0 and "": the file says
  // nothing.
  double threshold = 0;
  const char* threshold_source = "";
  // Format 2: scales for integer arithmetic, measured on pictures of this digest; the convolutions that stay float, by
  // name.
  bool integer = false;
  const char* calibration_sha256 = "";
  const char* float_layers = "";
};

namespace detail {

/// Digits with an optional fraction, such as "0.25", whatever the locale.
inline bool parse_decimal(const char* s, double& out) noexcept {
  double value = 0, unit = 1;
  int digits = 0, places = -1;
  for (; *s != 0; ++s) {
    if (*s == '.' && places < 0 && digits > 0) {
      places = 0;
      continue;
    }
    if (*s < '0' || *s > '9' || ++digits > 15) return false;
    value = value * 10 + (*s - '0');
    if (places >= 0) ++places, unit *= 10;
  }
  out = value / unit;
  return digits > 0 && places != 0;
}
/// Plain digits of a number in 1 ... most, without zeros in front.
inline bool parse_count(const char* s, int most, int& out) noexcept {
  return *s != '0' && parse_count(s, std::strlen(s), most, out);
}
template <class T, std::size_t N>
bool parse_choice(const char* s, const char* const (&words)[N], T& out) noexcept {
  for (std::size_t i = 0; i < N; ++i) {
    if (std::strcmp(s, words[i]) != 0) continue;
    out = static_cast<T>(i);
    return true;
  }
  return false;
}
constexpr const char* bool_words[] = {"false", "true"};

/// What a threshold may be: unit vectors lie at most 2 apart; other embeddings are not that far from each other.
constexpr double largest_threshold(Normalise normalise) noexcept { return normalise == Normalise::l2 ? 2 : 1e6; }

/// Whether a file's networks are parts of one model, as a detector's are: "<architecture>.<part>.<layer>.weight".
inline bool holds_parts(const SafetensorsHeader& header, const char* architecture) noexcept {
  for (int i = 0; i < header.size(); ++i)
    if (starts_with(header[i].name, architecture) && header[i].name[std::strlen(architecture)] == '.') return true;
  return false;
}

/// Every key of format 1 is there, no other but the two of a threshold, and each value makes sense.
inline Status read_metadata(const SafetensorsHeader& header, Metadata& m) noexcept {
  constexpr const char* keys[] = {"format",  "architecture", "embedding_dim", "trained", "normalise",
                                  "width",   "image_size",   "channel_order", "scaling", "crop",
                                  "margin",  "resize",       "dataset",       "source",  "source_sha256",
                                  "licence", "data_xxh64",   "header_xxh64"};
  for (const char* key : keys)
    if (header.metadata(key) == nullptr)
      return Status(Errc::not_found, "the metadata lacks this key: convert the weights again").in(key);
  constexpr const char* optional[] = {"threshold", "threshold_source"};  // both or neither
  constexpr const char* second[] = {"arithmetic", "calibration_sha256", "float_layers"};
  m.integer = std::strcmp(header.metadata("format")->value, "2") == 0;
  for (const MetadataEntry& e : header.metadata()) {
    int index = 0;
    if (!parse_choice(e.key, keys, index) && !parse_choice(e.key, optional, index) &&
        !(m.integer && parse_choice(e.key, second, index)))
      return Status(Errc::corrupt, "the metadata has a key that its format does not know: convert the weights again")
          .in(e.key);
  }
  for (int i = 0; m.integer && i < 2; ++i)
    if (header.metadata(second[i]) == nullptr)
      return Status(Errc::not_found, "the metadata lacks this key: calibrate the weights again").in(second[i]);
  m.assumed = false;
  const char* wrong = nullptr;  // the first key whose value makes no sense
  const char* why = "";
  auto value = [&](const char* key) { return header.metadata(key)->value; };
  auto need = [&](bool ok, const char* key, const char* sentence) {
    if (!ok && wrong == nullptr) wrong = key, why = sentence;
  };
  auto text = [&](const char* key, const char*& out) {
    out = value(key);
    need(*out != 0, key, "this metadata key must not be empty");
  };
  std::uint8_t digest[Sha256::digest_size];
  text("architecture", m.architecture);
  text("resize", m.resize);
  text("dataset", m.dataset);
  text("source", m.source);
  text("licence", m.licence);
  text("source_sha256", m.source_sha256);
  const bool detector = std::strcmp(value("embedding_dim"), "0") == 0 && holds_parts(header, m.architecture);
  need(detector || parse_count(value("embedding_dim"), max_embedding_dim, m.embedding_dim), "embedding_dim",
       "must be a number in 1 ... 16384");
  need(parse_count(value("image_size"), 4096, m.image_size), "image_size", "must be a number in 1 ... 4096");
  need(parse_decimal(value("width"), m.width) && m.width > 0, "width", "must be a decimal number above 0");
  need(parse_decimal(value("margin"), m.margin), "margin", "must be a decimal number, 0 or above");
  need(parse_choice(value("trained"), bool_words, m.trained), "trained", "must be true or false");
  need(parse_choice(value("normalise"), normalise_words, m.normalise), "normalise", "must be l2 or none");
  need(parse_choice(value("channel_order"), channel_order_words, m.channel_order), "channel_order",
       "must be rgb or bgr");
  need(parse_choice(value("scaling"), scaling_words, m.scaling), "scaling",
       "must be fixed, prewhiten, unit or mean_255");
  need(parse_choice(value("crop"), crop_words, m.crop), "crop", "must be box or five_point");
  need(from_hex(m.source_sha256, digest), "source_sha256", "must be 64 lowercase hex digits");
  if (m.integer) {
    need(std::strcmp(value(second[0]), "int8") == 0, second[0], "must be int8");
    text(second[1], m.calibration_sha256);
    need(from_hex(m.calibration_sha256, digest), second[1], "must be 64 lowercase hex digits");
    if (header.metadata(second[2]) != nullptr) text(second[2], m.float_layers);
  }
  if (header.metadata(optional[0]) != nullptr || header.metadata(optional[1]) != nullptr) {
    for (const char* key : optional)
      if (header.metadata(key) == nullptr)
        return Status(Errc::not_found, "threshold and threshold_source belong together: convert the weights again")
            .in(key);
    text(optional[1], m.threshold_source);
    need(!detector, optional[0], "a detector has no threshold: convert the weights again");
    const bool number = parse_decimal(value(optional[0]), m.threshold) && m.threshold > 0;
    need(number && m.threshold <= largest_threshold(m.normalise), optional[0],
         m.normalise == Normalise::l2 ? "must be a decimal number above 0, and at most 2 as unit vectors are"
                                      : "must be a decimal number above 0, and at most 1000000");
  }
  if (wrong != nullptr) return Status(Errc::corrupt, why).in(wrong);
  return {};
}

}  // namespace detail

FACENET_SETUP_END
