// The weight-file reader: safetensors in two profiles, streamed, hashed and checked once. Layer 3.
//   Converted   metadata has format 1: what tools/convert_weights.py writes, batch norm already folded
//   Import      a plain facenet-pytorch state_dict saved as safetensors: folded here, preprocessing assumed
#pragma once

#include <cfloat>
#include <cmath>

#include "facenet/network.hpp"
#include "facenet/parallel.hpp"
#include "facenet/weight_data.hpp"
#include "facenet/weight_metadata.hpp"

FACENET_BEGIN

struct ReadOptions {
  bool verify_hashes = true;              // false: a header or data hash that does not agree is accepted
  const char* expected_sha256 = nullptr;  // 64 hex digits of the whole file; checked before anything is parsed
  Arena* arena = nullptr;                 // where the reader's own memory comes from: its back; null: malloc
};

namespace detail {

/// One tensor of a layer. A suffix that does not begin with '.' is the whole name.
struct Part {
  const char* suffix;
  std::uint8_t slot;
};
// The slopes lie right behind the biases: the two are handed out as one span.
constexpr std::uint8_t slot_bias = 0, slot_slope = 1, slot_scale = 2, slot_mean = 3, slot_variance = 4, slot_weight = 5;

inline Span<const Part> parts(Params params, bool imported) noexcept {
  static constexpr Part converted[] = {
      {".weight", slot_weight}, {".bias", slot_bias}, {".weight_scale", slot_scale}, {".slope", slot_slope}};
  static constexpr Part plain[] = {{".weight", slot_weight}, {".bias", slot_bias}, {".slope", slot_slope}};
  static constexpr Part conv_bn[] = {{".conv.weight", slot_weight},
                                     {".bn.bias", slot_bias},
                                     {".bn.weight", slot_scale},
                                     {".bn.running_mean", slot_mean},
                                     {".bn.running_var", slot_variance}};
  static constexpr Part linear_bn[] = {{".weight", slot_weight},
                                       {"last_bn.bias", slot_bias},
                                       {"last_bn.weight", slot_scale},
                                       {"last_bn.running_mean", slot_mean},
                                       {"last_bn.running_var", slot_variance}};
  if (imported && params == Params::conv_bn) return conv_bn;
  if (imported && params == Params::linear_bn) return linear_bn;
  const Span<const Part> all = imported ? Span<const Part>(plain) : Span<const Part>(converted);
  return all.subspan(0, all.size() - (params == Params::bias_slope ? 0 : 1));  // the slopes come last
}

constexpr double batch_norm_eps = 1e-3;

struct PartName {
  char text[Name::capacity + 32] = {};
  PartName(const Name& op, const char* suffix) noexcept {
    const std::size_t prefix = *suffix == '.' ? static_cast<std::size_t>(op.length) : 0;
    std::memcpy(text, op.text, prefix);
    std::memcpy(text + prefix, suffix, std::strlen(suffix) + 1);
  }
};

/// A line of text that is cut, never overrun.
class Line {
 public:
  const char* text() const noexcept { return text_; }
  std::size_t length() const noexcept { return length_; }
  Line& add(const char* s) noexcept {
    while (*s != 0 && length_ + 1 < sizeof text_) text_[length_++] = *s++;
    text_[length_] = 0;
    return *this;
  }
  Line& add(std::int64_t n) noexcept {
    char digits[24] = {};
    int at = 23;
    do digits[--at] = static_cast<char>('0' + n % 10);
    while ((n /= 10) != 0);
    return add(digits + at);
  }
  Line& shape(const std::int64_t* dims, int rank) noexcept {
    add("[");
    for (int i = 0; i < rank; ++i) add(i == 0 ? "" : ",").add(dims[i]);
    return add("]");
  }
  /// "a, b and 3 more": names as long as they fit `room` characters.
  void name(const char* s, std::size_t room) noexcept {
    if (more_ == 0 && length_ + std::strlen(s) + 2 <= room) {
      add(length_ == 0 ? "" : ", ").add(s);
    } else {
      ++more_;
    }
  }
  void end_names() noexcept {
    if (more_ > 0) add(length_ == 0 ? "" : " and ").add(more_).add(" more");
  }

 private:
  char text_[384] = {};
  std::size_t length_ = 0;
  std::int64_t more_ = 0;
};

inline bool starts_with(const char* s, const char* prefix) noexcept {
  return std::strncmp(s, prefix, std::strlen(prefix)) == 0;
}
inline bool ends_with(const char* s, const char* suffix) noexcept {
  const std::size_t n = std::strlen(s), m = std::strlen(suffix);
  return n >= m && std::strcmp(s + n - m, suffix) == 0;
}

/// Copies a text, cut to what fits.
template <std::size_t N>
inline void copy_text(char (&to)[N], const char* from) noexcept {
  std::size_t n = std::strlen(from);
  if (n >= N) n = N - 1;
  std::memcpy(to, from, n);
  to[n] = 0;
}

}  // namespace detail

/// A weight file: opened and its header checked by open() or from_memory(), its data read by for_each_layer().
/// Holds the header, 128 KiB of working space, and while layers are read the largest weight tensor and the small
/// tensors. Move-only; one thread at a time.
class WeightsReader {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Errors: not_found, io_error, unsupported (not a regular file, a checkpoint of another kind, a newer format),
  /// truncated, corrupt, limit_exceeded, out_of_memory; each names the file and the place in it.
  static Result<WeightsReader> open(const char* path, ReadOptions options = {}) noexcept {
    WeightsReader r;
    Status s = r.open_file(path, options);
    if (!s.ok()) return s.in(path);
    return r;
  }
#endif
  /// The same from bytes, which must outlive the reader.
  static Result<WeightsReader> from_memory(Span<const std::uint8_t> bytes, ReadOptions options = {}) noexcept {
    WeightsReader r;
    r.source_ = detail::WeightSource(bytes);
    FACENET_TRY(r.start(options));
    return r;
  }

  const Metadata& metadata() const noexcept { return metadata_; }
  /// The metadata as it stands in the file.
  Span<const MetadataEntry> entries() const noexcept { return header_.metadata(); }
  /// Tensors in the order of the file; an Import's names are without "module.".
  int size() const noexcept { return header_.size(); }
  const TensorInfo& tensor(int i) const noexcept { return header_[i]; }
  /// The tensor of that name, or -1.
  int find(const char* name) const noexcept { return header_.find(name); }
  /// Whether a tensor's name begins so: a detector beside an embedder is under "mtcnn.".
  bool holds(const char* prefix) const noexcept {
    for (int i = 0; i < size(); ++i)
      if (detail::starts_with(tensor(i).name, prefix)) return true;
    return false;
  }
  std::int64_t file_bytes() const noexcept { return source_.size(); }
  /// 16 hex digits that stand for the model: XXH64 of its data and of every property that changes an embedding.
  /// Equal digests, comparable embeddings. An Import's is "" before for_each_layer().
  const char* digest() const noexcept { return digest_; }

  /// Checks that the file's tensors are the network's, then reads all data once, in file order, and calls
  /// `Status f(int op, Span<const float> weight, Span<const float> bias)` once for every convolution and linear layer
  /// as soon as its tensors are there: weight is [O][I][kh][kw] or [O][I], batch norm folded; both are only valid
  /// inside f. The order of the calls is the file's. Until this returns ok the data's hash is unknown: drop what was
  /// built if not. Once it is known to agree, a reader of bytes in memory reads a further network's tensors alone. A `team`
  /// folds on all its threads, in its floating-point mode. Errors: weights_mismatch, corrupt, truncated, io_error,
  /// out_of_memory, and what f returns.
  template <class F>
  Status for_each_layer(const Network& network, F&& f, SharedTeam* team = nullptr) {
    using Function = std::remove_reference_t<F>;
    Sink sink;
    sink.call = [](void* self, int op, Span<const float> weight, Span<const float> bias) -> Status {
      return (*static_cast<Function*>(self))(op, weight, bias);
    };
    sink.self = const_cast<void*>(static_cast<const void*>(&f));
    return in_file(read_layers(network, sink, team));
  }
  /// The same with int8 weights as they are: f(op, const std::int8_t* weight, Span<const float> scale,
  /// Span<const float> bias). A reader from memory hands out the caller's bytes; one of a file copies them to
  /// `std::int8_t* place(op)`, and both stay. Error beside: weights_mismatch where a layer's weight is not I8.
  template <class P, class F>
  Status for_each_int8_layer(const Network& network, P&& place, F&& f) {
    struct Both {
      std::remove_reference_t<P>* place;
      std::remove_reference_t<F>* f;
    } both{&place, &f};
    Sink sink;
    sink.place = [](void* self, int op) { return (*static_cast<Both*>(self)->place)(op); };
    sink.call_int8 = [](void* self, int op, const std::int8_t* weight, Span<const float> scale,
                        Span<const float> bias) -> Status {
      return (*static_cast<Both*>(self)->f)(op, weight, scale, bias);
    };
    sink.self = &both;
    return in_file(read_layers(network, sink, nullptr));
  }
  /// Whether the bytes are the caller's, and so need no copy.
  bool from_memory() const noexcept { return source_.bytes(0) != nullptr; }
  /// Counts in an arena that measures what for_each_layer() or for_each_int8_layer() takes.
  Status measure_layers(const Network& network, bool int8) noexcept {
    Job job = {network, {}, nullptr, {}, {}, {}, {}, -1};
    if (int8) job.sink.place = [](void*, int) -> std::int8_t* { return nullptr; };
    return in_file(assign(job));
  }

  /// The elements of one tensor as floats (int8 without its scale), checked but not hashed.
  Status read_f32(int tensor, float* out) noexcept { return in_file(stream(header_[tensor], out, nullptr)); }

 private:
  static constexpr std::size_t chunk_bytes = 128 << 10;  // stays in the L2 of every CPU between copy, hash and check

  struct Sink {
    Status (*call)(void*, int, Span<const float>, Span<const float>) = nullptr;
    std::int8_t* (*place)(void*, int) = nullptr;  // set: int8 weights stay as they are
    Status (*call_int8)(void*, int, const std::int8_t*, Span<const float>, Span<const float>) = nullptr;
    void* self = nullptr;
  };
  struct Role {
    std::int16_t op = -1;  // -1: no layer's
    std::uint8_t slot = 0;
  };
  struct Layer {
    std::int64_t stash = 0;  // where its vectors of out.c floats begin
    int weight = -1;         // tensor
    unsigned waiting = 0;    // bit set of slots that have not been read
    const std::int8_t* bytes = nullptr;  // the weight, where it stays int8
  };
  struct Job {
    const Network& network;
    Sink sink;
    SharedTeam* team;
    Buffer<Role> roles;    // by tensor
    Buffer<Layer> layers;  // by operator
    Buffer<float> stash, weight;
    int held = -1;  // the operator whose unfolded weight is in `weight`
  };

  bool imported() const noexcept { return metadata_.assumed; }
  Status in_file(Status s) const noexcept {
    if (!s.ok() && !path_.empty()) s.in(path_.data());
    return s;
  }

#if !defined(FACENET_NO_STDIO)
  Status open_file(const char* path, ReadOptions options) noexcept {
    FACENET_TRY(source_.open(path));
    FACENET_TRY(start(options));
    const std::size_t length = std::strlen(path) + 1;
    FACENET_TRY(detail::allocate(path_, length, false, memory_));
    std::memcpy(path_.data(), path, length);
    return {};
  }
#endif

  Status start(ReadOptions options) noexcept {
    using Limits = SafetensorsLimits;
    constexpr std::int64_t prefix = SafetensorsHeader::length_bytes;
    const std::int64_t size = source_.size();
    if (size == 0) return {Errc::truncated, "the file is empty: copy or download it again"};
    if (size > Limits::file) return {Errc::limit_exceeded, "the file is larger than 512 MiB"};
    memory_ = {options.arena, Arena::back};
    FACENET_TRY(detail::allocate(chunk_, chunk_at(0, size), false, memory_));
    if (options.expected_sha256 != nullptr) FACENET_TRY(check_sha256(options.expected_sha256));
    if (size < prefix + 2)
      return Status(Errc::truncated, "the file is shorter than 10 bytes: copy or download it again").at(size);

    std::uint8_t start[prefix];
    FACENET_TRY(source_.read(0, start, sizeof start));
    const std::uint64_t length = detail::load_le<std::uint64_t>(start);
    if (length > static_cast<std::uint64_t>(Limits::header)) {
      if (std::memcmp(start, "PK\3\4", 4) == 0 || (start[0] == 0x80 && start[1] == 2))
        return {Errc::unsupported, "this is a PyTorch checkpoint: convert it with tools/convert_weights.py"};
      return Status(Errc::limit_exceeded, "the header's length is above 1 MiB: this is not a safetensors file").at(0);
    }
    if (length < 2)
      return Status(Errc::corrupt, "the header's length is below 2: this is not a safetensors file").at(0);
    if (length > static_cast<std::uint64_t>(size - prefix))
      return Status(Errc::truncated, "the file ends inside its header: copy or download it again").at(size);

    Buffer<std::uint8_t> text;
    FACENET_TRY(detail::allocate(text, static_cast<std::size_t>(length), false, memory_));
    FACENET_TRY(source_.read(prefix, text.data(), text.size()));
    data_start_ = prefix + static_cast<std::int64_t>(length);
    auto header = SafetensorsHeader::parse(text.span(), size - data_start_, memory_);
    if (!header.ok()) return header.status();
    header_ = std::move(*header);
    return profile(text.span(), options.verify_hashes);
  }

  Status check_sha256(const char* expected) noexcept {
    std::uint8_t want[Sha256::digest_size], got[Sha256::digest_size];
    if (!from_hex(expected, want))
      return {Errc::invalid_argument, "the expected SHA-256 must be 64 lowercase hex digits"};
    Sha256 hash;
    for (std::int64_t at = 0; at < source_.size();) {
      const std::size_t n = chunk_at(at, source_.size());
      FACENET_TRY(source_.read(at, chunk_.data(), n));
      hash.update(chunk_.data(), n);
      at += static_cast<std::int64_t>(n);
    }
    hash.digest(got);
    if (std::memcmp(want, got, sizeof got) != 0)
      return {Errc::corrupt, "the file's SHA-256 is not the expected one: this is another file, or a forged one"};
    return {};
  }
  std::size_t chunk_at(std::int64_t at, std::int64_t end) const noexcept {
    return end - at < std::int64_t{chunk_bytes} ? static_cast<std::size_t>(end - at) : chunk_bytes;
  }

  /// Tells Converted from Import and reads the metadata.
  Status profile(Span<const std::uint8_t> text, bool verify) noexcept {
    const MetadataEntry* format = header_.metadata("format");
    // Hugging Face tools write format "pt": the framework a state_dict came from.
    if (format == nullptr || std::strcmp(format->value, "pt") == 0) return import_profile();
    if (std::strcmp(format->value, "1") != 0)
      return {Errc::unsupported, "the metadata's format is not 1: a newer version of facenet wrote this file"};
    verify_ = verify;
    const MetadataEntry* digests[] = {header_.metadata("header_xxh64"), header_.metadata("data_xxh64")};
    for (const MetadataEntry* d : digests) {
      std::uint8_t bytes[8];
      if (d != nullptr && (d->length != 16 || !from_hex(d->value, bytes)))
        return Status(Errc::corrupt, "must be 16 lowercase hex digits").in(d->key);
    }
    if (digests[0] != nullptr && verify) {
      Xxh64 hash;
      const std::size_t at = digests[0]->at;
      hash.update(text.data(), at);
      hash.update("0000000000000000", 16);
      hash.update(text.data() + at + 16, text.size() - at - 16);
      char hex[17];
      to_hex(hash.digest(), hex);
      if (std::strcmp(hex, digests[0]->value) != 0)
        return Status(Errc::corrupt, "the header's XXH64 does not agree: the file is damaged, copy or convert it again")
            .in("header_xxh64");
    }
    FACENET_TRY(detail::read_metadata(header_, metadata_));
    for (int i = 0; i < size(); ++i)
      if (header_[i].dtype == Dtype::other)
        return Status(Errc::unsupported, "a tensor's dtype is not F32, F16, I8 or U8").in(header_[i].name);
    identify(digests[1]->value);
    return {};
  }

  Status import_profile() noexcept {
    for (const char* key : {"header_xxh64", "data_xxh64"})
      if (header_.metadata(key) != nullptr)
        return Status(Errc::not_found,
                      "the metadata has this key of a converted file but not format: convert the weights again")
            .in(key);
    FACENET_TRY(header_.strip("module."));
    const int linear = find("last_linear.weight");
    if (linear >= 0 && header_[linear].rank == 2) metadata_.embedding_dim = header_[linear].dims[0];
    if (find("mixed_5b.branch0.conv.weight") >= 0) metadata_.architecture = "inception_resnet_v2";  // v1 has no mixed_5b
    if (metadata_.embedding_dim == 0) metadata_.architecture = "unknown";
    const int first = find("conv2d_1a.conv.weight");  // 32 channels as published
    if (first >= 0 && header_[first].rank == 4) metadata_.width = header_[first].dims[0] / 32.0;
    metadata_.trained = find("facenet_untrained") < 0;
    return {};
  }

  void identify(const char* data_xxh64) noexcept {
    const Metadata& m = metadata_;
    Xxh64 hash;
    hash.update(data_xxh64, 16);
    hash.update(m.architecture, std::strlen(m.architecture) + 1);
    const std::int64_t numbers[] = {m.embedding_dim, m.image_size, static_cast<std::int64_t>(m.width * 1e6 + 0.5)};
    for (std::int64_t n : numbers) {
      detail::Line digits;
      digits.add(n).add(" ");
      hash.update(digits.text(), digits.length());
    }
    const std::uint8_t choices[] = {static_cast<std::uint8_t>(m.normalise), static_cast<std::uint8_t>(m.channel_order),
                                    static_cast<std::uint8_t>(m.scaling)};
    hash.update(choices, sizeof choices);
    to_hex(hash.digest(), digest_);
  }

  /// Reads a tensor chunk by chunk: hash, check, convert, while the chunk is in the cache. `out` may be null.
  Status stream(const TensorInfo& t, float* out, Xxh64* hash) noexcept {
    if (out != nullptr && t.dtype == Dtype::other)
      return Status(Errc::unsupported, "a tensor's dtype is not F32, F16, I8 or U8").in(t.name);
    const bool in_place = out != nullptr && t.dtype == Dtype::f32;
    const std::int64_t item = t.bytes / elements(t);
    for (std::int64_t done = 0; done < t.bytes;) {
      const std::size_t n = chunk_at(done, t.bytes), count = n / static_cast<std::size_t>(item);
      float* const to = out == nullptr ? nullptr : out + done / item;
      std::uint8_t* const own = in_place ? reinterpret_cast<std::uint8_t*>(to) : chunk_.data();
      const std::uint8_t* raw = t.dtype == Dtype::f32 ? nullptr : source_.bytes(data_start_ + t.offset + done);
      if (raw == nullptr) {
        Status s = source_.read(data_start_ + t.offset + done, own, n);
        if (!s.ok()) return s.in(t.name);
        raw = own;
      }
      if (hash != nullptr) hash->update(raw, n);
      if constexpr (detail::big_endian) {
        if (t.dtype == Dtype::f32)
          for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t v = detail::load_le<std::uint32_t>(own + 4 * i);
            std::memcpy(own + 4 * i, &v, sizeof v);
          }
      }
      const std::size_t bad = convert(t.dtype, raw, to, count);
      if (bad != count)
        return Status(Errc::corrupt,
                      t.dtype == Dtype::u8 ? "a padding tensor is not zero" : "a value is NaN or infinite")
            .in(t.name)
            .at(data_start_ + t.offset + done + static_cast<std::int64_t>(bad) * item);
      done += static_cast<std::int64_t>(n);
    }
    return {};
  }
  /// Reads an int8 tensor to `to`, or leaves it where it lies in the caller's memory; returns in `out` where it is.
  Status stream_int8(const TensorInfo& t, std::int8_t* to, Xxh64& hash, const std::int8_t*& out) noexcept {
    const std::uint8_t* const in_place = source_.bytes(data_start_ + t.offset);
    out = in_place != nullptr ? reinterpret_cast<const std::int8_t*>(in_place) : to;
    for (std::int64_t done = 0; done < t.bytes;) {
      const std::size_t n = chunk_at(done, t.bytes);
      if (in_place == nullptr) {
        Status s = source_.read(data_start_ + t.offset + done, to + done, n);
        if (!s.ok()) return s.in(t.name);
      }
      hash.update(out + done, n);
      done += static_cast<std::int64_t>(n);
    }
    return {};
  }
  /// Returns the index of the first value that must not be, or `count`.
  std::size_t convert(Dtype dtype, const std::uint8_t* raw, float* to, std::size_t count) const noexcept {
    switch (dtype) {
      case Dtype::f32: return detail::first_non_finite_f32(reinterpret_cast<const float*>(raw), count);
      case Dtype::f16:
        if (to != nullptr) detail::expand_f16(raw, to, count);
        return detail::first_non_finite_f16(raw, count);
      case Dtype::i8:
        if (to != nullptr) detail::expand_i8(raw, to, count);
        return count;
      case Dtype::u8:
        if (to != nullptr) detail::expand_u8(raw, to, count);
        for (std::size_t i = 0; !imported() && i < count; ++i)
          if (raw[i] != 0) return i;
        return count;
      case Dtype::other:
        return count;
    }
    return count;
  }

  /// Tensors that no layer reads but a file may have.
  /// A detector may lie beside an embedder: each leaves the other's tensors alone.
  bool may_be_extra(const Network& network, const TensorInfo& t) const noexcept {
    using detail::ends_with, detail::starts_with;
    const Name& who = network.architecture();
    if (starts_with(who.text, "mtcnn.")) return !starts_with(t.name, (who / "").text);
    if (!imported()) return starts_with(t.name, "selftest.") || starts_with(t.name, "mtcnn.") || t.dtype == Dtype::u8;
    return starts_with(t.name, "logits.") || ends_with(t.name, "num_batches_tracked") ||
           std::strcmp(t.name, "facenet_untrained") == 0;
  }
  /// Whether the file must have this part, given the layer's weight tensor or -1.
  bool needs(const detail::Part& part, int weight) const noexcept {
    return imported() || part.slot != detail::slot_scale || (weight >= 0 && header_[weight].dtype == Dtype::i8);
  }

  Status read_layers(const Network& network, const Sink& sink, SharedTeam* team) noexcept {
    Job job = {network, sink, team, {}, {}, {}, {}, -1};
    FACENET_TRY(assign(job));
    Xxh64 hash;
    for (int i = 0; i < size(); ++i) {
      const TensorInfo& t = header_[i];
      const Role role = job.roles[static_cast<std::size_t>(i)];
      if (role.op < 0) {
        if (!known_) FACENET_TRY(stream(t, nullptr, &hash));
        continue;
      }
      Layer& layer = job.layers[static_cast<std::size_t>(role.op)];
      const bool is_weight = role.slot == detail::slot_weight, stays = is_weight && sink.place != nullptr;
      float* to = is_weight ? job.weight.data() : vector(job, role.op, role.slot);
      if (stays) {
        std::int8_t* const place = from_memory() ? nullptr : sink.place(sink.self, role.op);
        FACENET_TRY(stream_int8(t, place, hash, layer.bytes));
      } else {
        FACENET_TRY(stream(t, to, known_ ? nullptr : &hash));
      }
      if (is_weight) job.held = role.op;
      if (!is_weight) FACENET_TRY(check_sign(t, to, role.slot));
      layer.waiting &= ~(1u << role.slot);
      if (layer.waiting != 0) continue;
      if (job.held != role.op && layer.bytes == nullptr)
        FACENET_TRY(stream(header_[layer.weight], job.weight.data(), nullptr));
      FACENET_TRY(emit(job, role.op));
      job.held = -1;
    }
    if (known_) return {};
    char hex[17];
    to_hex(hash.digest(), hex);
    if (!imported() && verify_ && std::strcmp(hex, header_.metadata("data_xxh64")->value) != 0)
      return Status(Errc::corrupt, "the data's XXH64 does not agree: the file is damaged, copy or convert it again")
          .in("data_xxh64");
    identify(hex);
    known_ = path_.empty();  // a file may change between two passes
    return {};
  }

  static float* vector(Job& job, int op, int slot) noexcept {
    return job.stash.data() + job.layers[static_cast<std::size_t>(op)].stash +
           std::int64_t{slot} * job.network[op].out.c;
  }

  /// Finds out which tensor is which part of which layer, and allocates what reading them takes.
  Status assign(Job& job) noexcept {
    const Network& network = job.network;
    if (!network.ok()) return {Errc::invalid_argument, "the network's shapes do not fit together"};
    FACENET_TRY(detail::allocate(job.roles, static_cast<std::size_t>(size()), false, memory_));
    FACENET_TRY(detail::allocate(job.layers, static_cast<std::size_t>(network.size()), false, memory_));
    for (Role& r : job.roles) r = Role();
    for (Layer& l : job.layers) l = Layer();
    std::int64_t stash = 0, largest = 0;
    bool all_there = true;
    for (int i = 0; i < network.size(); ++i) {
      const Op& op = network[i];
      Layer& layer = job.layers[static_cast<std::size_t>(i)];
      if (!has_weights(op)) continue;
      layer.stash = stash;
      stash += std::int64_t{detail::slot_weight} * op.out.c;
      if (largest < weight_count(network, op) && job.sink.place == nullptr) largest = weight_count(network, op);
      for (const detail::Part& part : detail::parts(op.params, imported())) {
        if (!needs(part, layer.weight)) continue;
        const int tensor = find(detail::PartName(op.name, part.suffix).text);
        if (tensor < 0) {
          all_there = false;
          continue;
        }
        Role& role = job.roles[static_cast<std::size_t>(tensor)];
        if (role.op >= 0)
          return Status(Errc::invalid_argument, "the network has two layers of one name").in(op.name.text);
        role = {static_cast<std::int16_t>(i), part.slot};
        if (part.slot == detail::slot_weight) layer.weight = tensor;
        layer.waiting |= 1u << part.slot;
      }
    }
    for (int i = 0; i < size(); ++i)
      if (job.roles[static_cast<std::size_t>(i)].op < 0 && !may_be_extra(job.network, header_[i])) all_there = false;
    if (!all_there) return list_differences(job);
    for (int i = 0; i < size(); ++i) FACENET_TRY(check_tensor(job, i));
    auto vectors = Buffer<float>::make_bulk(static_cast<std::size_t>(stash), false, memory_);
    if (!vectors) return vectors.status();
    job.stash = std::move(*vectors);
    auto weight = Buffer<float>::make_bulk(static_cast<std::size_t>(largest), false, memory_);
    if (!weight) return weight.status();
    job.weight = std::move(*weight);
    return {};
  }

  /// Shape and dtype of one tensor are what its layer declares.
  Status check_tensor(const Job& job, int tensor) const noexcept {
    const Role role = job.roles[static_cast<std::size_t>(tensor)];
    if (role.op < 0) return {};
    const TensorInfo& t = header_[tensor];
    const Op& op = job.network[role.op];
    const bool is_weight = role.slot == detail::slot_weight;
    const std::int64_t want[] = {op.out.c, in_channels(job.network, op), op.window.kh, op.window.kw};
    const int rank = !is_weight ? 1 : op.kind == OpKind::linear ? 2 : 4;
    std::int64_t have[TensorInfo::max_rank] = {};
    bool same = t.rank == rank;
    for (int i = 0; i < t.rank; ++i) {
      have[i] = t.dims[i];
      same = same && have[i] == want[i];
    }
    if (!same) {
      detail::Line where;
      where.add(t.name).add(" is ").shape(have, t.rank).add(", not ").shape(want, rank);
      return Status(Errc::weights_mismatch,
                    "a tensor's shape is not the network's: these weights are for another network")
          .in(where.text());
    }
    const bool scales = !imported() && role.slot == detail::slot_scale;
    if (is_weight && job.sink.place != nullptr && (imported() || t.dtype != Dtype::i8))
      return Status(Errc::weights_mismatch,
                    "weights that are to stay int8 must be int8 in the file: convert them with --dtype i8")
          .in(t.name);
    if (t.dtype == Dtype::f32 || (t.dtype == Dtype::f16 && !scales) ||
        (t.dtype == Dtype::i8 && is_weight && !imported()))
      return {};
    return Status(Errc::weights_mismatch,
                  "a layer's tensor cannot have this dtype: convert it with tools/convert_weights.py")
        .in(t.name);
  }

  Status list_differences(const Job& job) const noexcept {
    // What the place of a Status holds, less the file's name and the words around the lists.
    const std::size_t path = path_.size() < 180 ? path_.size() : 180, room = 383 - path - 60;
    detail::Line missing, extra;
    bool any_extra = false;
    for (int i = 0; i < size(); ++i)
      any_extra = any_extra || (job.roles[static_cast<std::size_t>(i)].op < 0 && !may_be_extra(job.network, header_[i]));
    for (int i = 0; i < job.network.size(); ++i) {
      const Op& op = job.network[i];
      if (!has_weights(op)) continue;
      for (const detail::Part& part : detail::parts(op.params, imported())) {
        const detail::PartName name(op.name, part.suffix);
        if (needs(part, job.layers[static_cast<std::size_t>(i)].weight) && find(name.text) < 0)
          missing.name(name.text, any_extra ? room / 2 : room);
      }
    }
    for (int i = 0; i < size(); ++i)
      if (job.roles[static_cast<std::size_t>(i)].op < 0 && !may_be_extra(job.network, header_[i]))
        extra.name(header_[i].name, room - missing.length());
    missing.end_names();
    extra.end_names();
    detail::Line all;
    if (*missing.text() != 0) all.add("missing ").add(missing.text());
    if (*extra.text() != 0) all.add(*all.text() != 0 ? "; extra " : "extra ").add(extra.text());
    return Status(Errc::weights_mismatch,
                  "the file's tensors are not the network's: these weights are for another network")
        .in(all.text());
  }

  /// Quantisation scales are above 0, variances not below.
  Status check_sign(const TensorInfo& t, const float* x, int slot) const noexcept {
    const bool scale = slot == detail::slot_scale && !imported();
    if (!scale && slot != detail::slot_variance) return {};
    const std::int64_t count = elements(t);
    for (std::int64_t i = 0; i < count; ++i) {
      if (x[i] > 0 || (x[i] == 0 && !scale)) continue;
      return Status(Errc::corrupt, scale ? "a quantisation scale is not above 0" : "a running_var is below 0")
          .in(t.name)
          .at(data_start_ + t.offset + i * (t.bytes / count));
    }
    return {};
  }

  /// Folds the layer in double, in place, and hands it over:
  /// w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps); int8: w' = q * scale.
  Status emit(Job& job, int index) noexcept {
    const Op& op = job.network[index];
    const std::size_t outputs = static_cast<std::size_t>(op.out.c);
    const std::size_t count = static_cast<std::size_t>(weight_count(job.network, op)), row = count / outputs;
    float* const weight = job.weight.data();
    float* const bias = vector(job, index, detail::slot_bias);
    const float* const scale = vector(job, index, detail::slot_scale);
    const float* const mean = vector(job, index, detail::slot_mean);
    const float* const variance = vector(job, index, detail::slot_variance);
    const bool batch_norm = imported() && (op.params == Params::conv_bn || op.params == Params::linear_bn);
    const Layer& layer = job.layers[static_cast<std::size_t>(index)];
    const TensorInfo& t = header_[layer.weight];
    if (layer.bytes != nullptr) {
      for (std::size_t o = 0; o < outputs; ++o)
        if (!(scale[o] <= FLT_MAX / 128))
          return Status(Errc::corrupt, "a value becomes infinite when its scale is applied").in(t.name);
      return job.sink.call_int8(job.sink.self, index, layer.bytes, {scale, outputs}, {bias, bias_count(op)});
    }
    if (batch_norm || t.dtype == Dtype::i8) {
      std::atomic<bool> finite{true};
      const auto fold = [&](std::size_t o) noexcept {
        double s = static_cast<double>(scale[o]);
        if (batch_norm) {
          s /= std::sqrt(static_cast<double>(variance[o]) + detail::batch_norm_eps);
          bias[o] = static_cast<float>(static_cast<double>(bias[o]) - static_cast<double>(mean[o]) * s);
        }
        float* const w = weight + o * row;
        if (batch_norm) detail::scale_f64(w, row, s);
        else detail::scale_f32(w, row, scale[o]);  // a byte times a float: double would round to the same
        if (detail::first_non_finite_f32(w, row) != row) finite.store(false, std::memory_order_relaxed);
      };
      if (job.team != nullptr) job.team->for_chunks(op.out.c, [&](int, int o) { fold(static_cast<std::size_t>(o)); });
      else
        for (std::size_t o = 0; o < outputs; ++o) fold(o);
      if (!finite.load(std::memory_order_relaxed) || detail::first_non_finite_f32(bias, outputs) != outputs)
        return Status(Errc::corrupt, "a value becomes infinite when its scale is applied").in(t.name);
    }
    return job.sink.call(job.sink.self, index, {weight, count}, {bias, bias_count(op)});
  }

  detail::WeightSource source_;
  SafetensorsHeader header_;
  Metadata metadata_;
  Memory memory_;
  Buffer<std::uint8_t> chunk_;
  Buffer<char> path_;
  std::int64_t data_start_ = 0;
  bool verify_ = true;
  bool known_ = false;  // all of the data has been checked, its hash included
  char digest_[17] = "";
};

FACENET_END
