// The weight-file reader: safetensors in two profiles, streamed, hashed and checked once.
//   Converted   metadata has format 1: what tools/convert_weights.py writes, batch norm already folded
//   Import      a plain state_dict saved as safetensors: folded here, preprocessing assumed
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/network.hpp"
#include "facenet/weights/layer_reader.hpp"
#include "facenet/weights/metadata.hpp"

FACENET_SETUP_BEGIN

struct ReadOptions {
  bool verify_hashes = true;              // false: a header or data hash that does not agree is accepted
  const char* expected_sha256 = nullptr;  // 64 hex digits of the whole file; checked before anything is parsed
  Arena* arena = nullptr;                 // where the reader's own memory comes from: its back; null: malloc
};

/// A weight file: opened and its header checked by open() or from_memory(), its data read by for_each_layer().
/// Holds the header, 128 KiB of working space, and while layers are read the largest weight tensor and the small
/// tensors. Move-only; one thread at a time.
class WeightsReader {
 public:
#if !defined(FACENET_NO_STDIO)
  /// Errors: not_found, io_error, unsupported (not a regular file, a checkpoint of another kind, a newer format),
  /// truncated, corrupt, limit_exceeded, out_of_memory; each names the file and the place in it.
  static Result<WeightsReader> open(const char* path, ReadOptions options = {}) noexcept {
    if (path == nullptr) return {Errc::invalid_argument, "there is no path: it is null"};
    const simd::FlushDenormals mode;
    WeightsReader r;
    Status s = r.open_file(path, options);
    if (!s.ok()) return s.in(path);
    return r;
  }
#endif
  /// Opens a file's bytes, which must outlive the reader.
  static Result<WeightsReader> from_memory(Span<const std::uint8_t> bytes, ReadOptions options = {}) noexcept {
    if (bytes.data() == nullptr && !bytes.empty())
      return {Errc::invalid_argument, "there is no file: its pointer is null"};
    const simd::FlushDenormals mode;
    WeightsReader r;
    r.file_.source = detail::WeightSource(bytes);
    FACENET_TRY(r.start(options));
    return r;
  }

  const Metadata& metadata() const noexcept { return metadata_; }
  /// The metadata as it stands in the file.
  Span<const MetadataEntry> entries() const noexcept { return file_.header.metadata(); }
  /// Tensors in the order of the file; an Import's names are without "module.".
  int size() const noexcept { return file_.header.size(); }
  const TensorInfo& tensor(int i) const noexcept { return file_.header[i]; }
  /// The tensor of that name, or -1.
  int find(const char* name) const noexcept { return file_.header.find(name); }
  /// Whether a tensor's name begins so, as those of another network in the same file do.
  bool holds(const char* prefix) const noexcept {
    for (int i = 0; i < size(); ++i)
      if (detail::starts_with(tensor(i).name, prefix)) return true;
    return false;
  }
  /// Finds out which of these models an Import is: its architecture, embedding_dim, width and preprocessing, which no
  /// state_dict says. Without it the architecture is "unknown"; an Embedder does it with models::all(). Does nothing to
  /// a Converted file. Error: limit_exceeded (more than 16384 components).
  Status recognise(Span<const models::Entry> models) noexcept {
    if (!imported()) return {};
    for (const models::Entry& e : models) {
      const FileTraits* const t = e.traits;
      if (t == nullptr || t->mark == nullptr || find(t->mark) < 0) continue;
      const int embedding = find(t->embedding), stem = t->stem != nullptr ? find(t->stem) : -1;
      if (embedding < 0 || tensor(embedding).rank != 2) continue;
      if (tensor(embedding).dims[0] > max_embedding_dim)
        return in_file(Status(Errc::limit_exceeded, "an embedding has at most 16384 components").in(t->embedding));
      if (std::strcmp(e.architecture, metadata_.architecture) != 0) {  // the digest is another then
        digest_[0] = 0;
        data_checked_ = false;
      }
      static_cast<Preprocessing&>(metadata_) = t->preprocessing;
      metadata_.architecture = e.architecture;
      metadata_.embedding_dim = tensor(embedding).dims[0];
      metadata_.width = 1;
      if (stem >= 0 && tensor(stem).rank == 4)
        metadata_.width = tensor(stem).dims[0] / static_cast<double>(t->stem_channels);
      return {};
    }
    return {};
  }
  std::int64_t file_bytes() const noexcept { return file_.source.size(); }
  /// 16 hex digits that stand for the model: XXH64 of its data and of every property that changes an embedding.
  /// Equal digests, comparable embeddings. An Import's is "" before for_each_layer().
  const char* digest() const noexcept { return digest_; }

  /// Checks that the file's tensors are the network's, then reads all data once, in file order, and calls
  /// `Status f(int op, Span<const float> weight, Span<const float> bias)` once for every convolution and linear layer
  /// as soon as its tensors are there: weight is [O][I][kh][kw] or [O][I], batch norm folded; both are only valid
  /// inside f. The order of the calls is the file's. Until this returns ok the data's hash is unknown: drop what was
  /// built if not. Once it is known to agree, a reader of bytes in memory reads a further network's tensors alone. A
  /// `team` folds on all its threads, in its floating-point mode. Errors: weights_mismatch, corrupt, truncated,
  /// io_error, out_of_memory, and what f returns.
  template <class F>
  Status for_each_layer(const Network& network, F&& f, OwnedTeam* team = nullptr) {
    using Function = std::remove_reference_t<F>;
    detail::LayerSink sink;
    sink.floats = [](void* self, int op, Span<const float> weight, Span<const float> bias) -> Status {
      return (*static_cast<Function*>(self))(op, weight, bias);
    };
    sink.self = const_cast<void*>(static_cast<const void*>(&f));
    return in_file(read_layers(network, sink, team));
  }
  /// Yields int8 weights as they are: f(op, const std::int8_t* weight, Span<const float> scale,
  /// Span<const float> bias). A reader from memory hands out the caller's bytes; one of a file copies them to
  /// `std::int8_t* place(op)`, and both stay. Error beside: weights_mismatch where a layer's weight is not I8.
  template <class P, class F>
  Status for_each_int8_layer(const Network& network, P&& place, F&& f) {
    struct Both {
      std::remove_reference_t<P>* place;
      std::remove_reference_t<F>* f;
    } both{&place, &f};
    detail::LayerSink sink;
    sink.int8_place = [](void* self, int op) { return (*static_cast<Both*>(self)->place)(op); };
    sink.int8 = [](void* self, int op, const std::int8_t* weight, Span<const float> scale,
                   Span<const float> bias) -> Status {
      return (*static_cast<Both*>(self)->f)(op, weight, scale, bias);
    };
    sink.self = &both;
    return in_file(read_layers(network, sink, nullptr));
  }
  /// Yields the layers for which is_integer(op) as int8(op, weight, scale, bias), which are only valid inside it, and
  /// the others as f of for_each_layer(). Errors beside: weights_mismatch, and corrupt for a weight of -128.
  template <class I, class F8, class F>
  Status for_each_integer_layer(const Network& network, I&& is_integer, F8&& int8, F&& f, OwnedTeam* team) {
    struct All {
      std::remove_reference_t<I>* is_integer;
      std::remove_reference_t<F8>* int8;
      std::remove_reference_t<F>* f;
    } all{&is_integer, &int8, &f};
    detail::LayerSink sink;
    sink.is_integer = [](void* self, int op) { return (*static_cast<All*>(self)->is_integer)(op); };
    sink.int8 = [](void* self, int op, const std::int8_t* weight, Span<const float> scale,
                   Span<const float> bias) -> Status {
      return (*static_cast<All*>(self)->int8)(op, weight, scale, bias);
    };
    sink.floats = [](void* self, int op, Span<const float> weight, Span<const float> bias) -> Status {
      return (*static_cast<All*>(self)->f)(op, weight, bias);
    };
    sink.self = &all;
    return in_file(read_layers(network, sink, team));
  }
  /// The scales of the bytes that convolution `op` reads (format 2): `count` of them, 1 or one a channel, in `room`; 0
  /// where it runs in float. Errors: weights_mismatch, corrupt, those of read_f32().
  Status input_scales(const Network& network, int op, Span<float> room, std::size_t& count) noexcept {
    count = 0;
    const detail::PartName name(network[op].name, detail::input_scale_suffix);
    const int index = find(name.text);
    if (index < 0) return {};
    const TensorInfo& t = tensor(index);
    const std::int64_t values = elements(t);
    if (t.dtype != Dtype::f32 || t.rank != 1 || (values != 1 && values != static_cast<std::int64_t>(room.size())))
      return in_file(Status(Errc::weights_mismatch, "must be F32 with 1 element, or one for each channel").in(t.name));
    FACENET_TRY(read_f32(index, room));
    count = static_cast<std::size_t>(values);
    for (std::size_t i = 0; i < count; ++i)
      if (!(room[i] >= 0x1p-100f && room[i] <= 0x1p80f))
        return in_file(
            Status(Errc::corrupt, "an input scale is outside 2^-100 ... 2^80: calibrate the weights again").in(t.name));
    return {};
  }
  /// Whether the bytes are the caller's, and so need no copy.
  bool from_memory() const noexcept { return file_.source.bytes(0) != nullptr; }
  /// Counts in an arena that measures what for_each_layer() or for_each_int8_layer() takes.
  Status measure_layers(const Network& network, bool int8) noexcept {
    detail::LayerSink sink;
    if (int8) sink.int8_place = [](void*, int) -> std::int8_t* { return nullptr; };
    return in_file(layer_reader(network, sink).match(memory_));
  }

  /// The elements of one tensor as floats (int8 without its scale), checked but not hashed. Errors beside:
  /// invalid_argument (no such tensor, or `out` is too small).
  Status read_f32(int tensor, Span<float> out) noexcept {
    if (tensor < 0 || tensor >= size()) return {Errc::invalid_argument, "there is no tensor of that number"};
    FACENET_TRY(detail::check_room(out, elements(file_.header[tensor])));
    return in_file(file_.read(file_.header[tensor], out.data(), nullptr));
  }

 private:
  bool imported() const noexcept { return metadata_.assumed; }
  Status in_file(Status s) const noexcept {
    if (!s.ok() && !path_.empty()) s.in(path_.data());
    return s;
  }

#if !defined(FACENET_NO_STDIO)
  Status open_file(const char* path, ReadOptions options) noexcept {
    FACENET_TRY(file_.source.open(path));
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
    const std::int64_t size = file_.source.size();
    if (size == 0) return {Errc::truncated, "the file is empty: copy or download it again"};
    if (size > Limits::file) return {Errc::limit_exceeded, "the file is larger than 512 MiB"};
    memory_ = {options.arena, Arena::back};
    FACENET_TRY(detail::allocate(file_.chunk, file_.chunk_at(0, size), false, memory_));
    if (options.expected_sha256 != nullptr) FACENET_TRY(check_sha256(options.expected_sha256));
    if (size < prefix + 2)
      return Status(Errc::truncated, "the file is shorter than 10 bytes: copy or download it again").at(size);

    std::uint8_t start[prefix];
    FACENET_TRY(file_.source.read(0, start, sizeof start));
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
    FACENET_TRY(file_.source.read(prefix, text.data(), text.size()));
    file_.data_start = prefix + static_cast<std::int64_t>(length);
    auto header = SafetensorsHeader::parse(text.span(), size - file_.data_start, memory_);
    if (!header.ok()) return header.status();
    file_.header = std::move(*header);
    return profile(text.span(), options.verify_hashes);
  }

  Status check_sha256(const char* expected) noexcept {
    std::uint8_t want[Sha256::digest_size], got[Sha256::digest_size];
    if (!from_hex(expected, want))
      return {Errc::invalid_argument, "the expected SHA-256 must be 64 lowercase hex digits"};
    Sha256 hash;
    for (std::int64_t at = 0; at < file_.source.size();) {
      const std::size_t n = file_.chunk_at(at, file_.source.size());
      FACENET_TRY(file_.source.read(at, file_.chunk.data(), n));
      hash.update(file_.chunk.data(), n);
      at += static_cast<std::int64_t>(n);
    }
    hash.digest(got);
    if (std::memcmp(want, got, sizeof got) != 0)
      return {Errc::corrupt, "the file's SHA-256 is not the expected one: this is another file, or a forged one"};
    return {};
  }

  /// Tells Converted from Import and reads the metadata.
  Status profile(Span<const std::uint8_t> text, bool verify) noexcept {
    const MetadataEntry* format = file_.header.metadata("format");
    // Hugging Face tools write format "pt": the framework a state_dict came from.
    if (format == nullptr || std::strcmp(format->value, "pt") == 0) return import_profile();
    if (std::strcmp(format->value, "1") != 0 && std::strcmp(format->value, "2") != 0)
      return {Errc::unsupported, "the metadata's format is not 1 or 2: a newer version of facenet wrote this file"};
    verify_ = verify;
    const MetadataEntry* digests[] = {file_.header.metadata("header_xxh64"), file_.header.metadata("data_xxh64")};
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
    FACENET_TRY(detail::read_metadata(file_.header, metadata_));
    file_.bytes_are_padding = true;
    for (int i = 0; i < size(); ++i)
      if (file_.header[i].dtype == Dtype::other)
        return Status(Errc::unsupported, "a tensor's dtype is not F32, F16, I8 or U8").in(file_.header[i].name);
    identify(digests[1]->value);
    return {};
  }

  Status import_profile() noexcept {
    for (const char* key : {"header_xxh64", "data_xxh64"})
      if (file_.header.metadata(key) != nullptr)
        return Status(Errc::not_found,
                      "the metadata has this key of a converted file but not format: convert the weights again")
            .in(key);
    FACENET_TRY(file_.header.strip("module."));
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

  detail::LayerReader layer_reader(const Network& network, const detail::LayerSink& sink) noexcept {
    return {file_, network, sink, imported(), path_.size()};
  }
  Status read_layers(const Network& network, const detail::LayerSink& sink, OwnedTeam* team) noexcept {
    detail::LayerReader layers = layer_reader(network, sink);
    FACENET_TRY(layers.match(memory_));
    Xxh64 hash;
    FACENET_TRY(layers.read(hash, data_checked_, team));
    if (data_checked_) return {};
    char hex[17];
    to_hex(hash.digest(), hex);
    if (!imported() && verify_ && std::strcmp(hex, file_.header.metadata("data_xxh64")->value) != 0)
      return Status(Errc::corrupt, "the data's XXH64 does not agree: the file is damaged, copy or convert it again")
          .in("data_xxh64");
    identify(hex);
    data_checked_ = path_.empty();  // a file may change between two passes
    return {};
  }

  detail::TensorReader file_;
  Metadata metadata_;
  Memory memory_;
  Buffer<char> path_;
  bool verify_ = true;
  bool data_checked_ = false;  // all of the data has been checked, its hash included
  char digest_[17] = "";
};

FACENET_SETUP_END

#include "facenet/base/macros_pop.inc"
