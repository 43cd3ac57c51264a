// What a weight file says about the model, its preprocessing and where it comes from. Layer 2.
#pragma once

#include "facenet/pixel_format.hpp"
#include "facenet/safetensors.hpp"

FACENET_BEGIN

enum class Normalise : std::uint8_t { none, l2 };
enum class Crop : std::uint8_t { box, five_point };

/// What a weight file says about itself. Strings live as long as the reader.
struct Metadata {
  bool assumed = true;  // Import: all but embedding_dim and trained are facenet-pytorch's habits, not statements
  const char* architecture = "inception_resnet_v1";
  int embedding_dim = 0;
  bool trained = true;  // false: distances between embeddings mean nothing
  Normalise normalise = Normalise::l2;
  double width = 1;      // channel multiplier of the architecture
  int image_size = 160;  // pixels, square
  ChannelOrder channel_order = ChannelOrder::rgb;
  Scaling scaling = Scaling::fixed;
  Crop crop = Crop::box;
  double margin = 0;
  const char* resize = "pillow_bilinear";
  const char* dataset = "unknown";
  const char* source = "unknown";
  const char* source_sha256 = "";
  const char* licence = "unknown";
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
/// Plain digits of a number in 1 ... most.
inline bool parse_count(const char* s, int most, int& out) noexcept {
  std::int64_t value = 0;
  if (*s == '0') return false;
  for (; *s >= '0' && *s <= '9' && value <= most; ++s) value = value * 10 + (*s - '0');
  out = static_cast<int>(value <= most ? value : 0);
  return *s == 0 && out > 0;
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

/// Every key of format 1 is there, no other, and each value makes sense.
inline Status read_metadata(const SafetensorsHeader& header, Metadata& m) noexcept {
  constexpr const char* keys[] = {"format",  "architecture", "embedding_dim", "trained", "normalise",
                                  "width",   "image_size",   "channel_order", "scaling", "crop",
                                  "margin",  "resize",       "dataset",       "source",  "source_sha256",
                                  "licence", "data_xxh64",   "header_xxh64"};
  for (const char* key : keys)
    if (header.metadata(key) == nullptr)
      return Status(Errc::not_found, "the metadata lacks this key: convert the weights again").in(key);
  for (const MetadataEntry& e : header.metadata()) {
    int index = 0;
    if (!parse_choice(e.key, keys, index))
      return Status(Errc::corrupt, "the metadata has a key that format 1 does not know: convert the weights again")
          .in(e.key);
  }
  m.assumed = false;
  constexpr const char* normalise[] = {"none", "l2"};
  constexpr const char* order[] = {"rgb", "bgr"};
  constexpr const char* scaling[] = {"fixed", "prewhiten", "unit", "mean_255"};
  constexpr const char* crop[] = {"box", "five_point"};
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
  const bool detector = std::strcmp(m.architecture, "mtcnn") == 0 && std::strcmp(value("embedding_dim"), "0") == 0;
  need(detector || parse_count(value("embedding_dim"), 65536, m.embedding_dim), "embedding_dim",
       "must be a number in 1 ... 65536");
  need(parse_count(value("image_size"), 4096, m.image_size), "image_size", "must be a number in 1 ... 4096");
  need(parse_decimal(value("width"), m.width) && m.width > 0, "width", "must be a decimal number above 0");
  need(parse_decimal(value("margin"), m.margin), "margin", "must be a decimal number, 0 or above");
  need(parse_choice(value("trained"), bool_words, m.trained), "trained", "must be true or false");
  need(parse_choice(value("normalise"), normalise, m.normalise), "normalise", "must be l2 or none");
  need(parse_choice(value("channel_order"), order, m.channel_order), "channel_order", "must be rgb or bgr");
  need(parse_choice(value("scaling"), scaling, m.scaling), "scaling", "must be fixed, prewhiten, unit or mean_255");
  need(parse_choice(value("crop"), crop, m.crop), "crop", "must be box or five_point");
  need(from_hex(m.source_sha256, digest), "source_sha256", "must be 64 lowercase hex digits");
  if (wrong != nullptr) return Status(Errc::corrupt, why).in(wrong);
  return {};
}

}  // namespace detail

FACENET_END
