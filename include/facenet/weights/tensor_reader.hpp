// The tensors of a weight file, each read once from start to end: hashed, checked and converted chunk by chunk.
#pragma once

#include "facenet/weights/convert.hpp"
#include "facenet/weights/safetensors.hpp"
#include "facenet/weights/source.hpp"

FACENET_BEGIN

namespace detail {

/// A source, its header, and a chunk of working space. Move-only.
struct TensorReader {
  static constexpr std::size_t chunk_bytes = 128 << 10;  // stays in the L2 of every CPU between copy, hash and check

  WeightSource source;
  SafetensorsHeader header;
  Buffer<std::uint8_t> chunk;
  std::int64_t data_start = 0;     // where the data section begins in the file
  bool bytes_are_padding = false;  // a converted file's U8 tensors are padding, and zero

  /// Bytes of the chunk that begins at `at` and ends before `end`.
  static std::size_t chunk_at(std::int64_t at, std::int64_t end) noexcept {
    return end - at < std::int64_t{chunk_bytes} ? static_cast<std::size_t>(end - at) : chunk_bytes;
  }

  /// Reads a tensor as floats to `out`. Null `out`: only hashes and checks. Null `hash`: does not hash.
  Status read(const TensorInfo& t, float* out, Xxh64* hash) noexcept {
    if (out != nullptr && t.dtype == Dtype::other)
      return Status(Errc::unsupported, "a tensor's dtype is not F32, F16, I8 or U8").in(t.name);
    const bool in_place = out != nullptr && t.dtype == Dtype::f32;
    const std::int64_t item = t.bytes / elements(t);
    for (std::int64_t done = 0; done < t.bytes;) {
      const std::size_t n = chunk_at(done, t.bytes), count = n / static_cast<std::size_t>(item);
      float* const to = out == nullptr ? nullptr : out + done / item;
      std::uint8_t* const own = in_place ? reinterpret_cast<std::uint8_t*>(to) : chunk.data();
      const std::uint8_t* raw = t.dtype == Dtype::f32 ? nullptr : source.bytes(data_start + t.offset + done);
      if (raw == nullptr) {
        Status s = source.read(data_start + t.offset + done, own, n);
        if (!s.ok()) return s.in(t.name);
        raw = own;
      }
      if (hash != nullptr) hash->update(raw, n);
      if constexpr (big_endian) {
        if (t.dtype == Dtype::f32)
          for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t v = load_le<std::uint32_t>(own + 4 * i);
            std::memcpy(own + 4 * i, &v, sizeof v);
          }
      }
      const std::size_t bad = convert(t.dtype, raw, to, count);
      if (bad != count)
        return Status(Errc::corrupt,
                      t.dtype == Dtype::u8 ? "a padding tensor is not zero" : "a value is NaN or infinite")
            .in(t.name)
            .at(data_start + t.offset + done + static_cast<std::int64_t>(bad) * item);
      done += static_cast<std::int64_t>(n);
    }
    return {};
  }
  /// Reads an int8 tensor to `to`, or leaves it where it lies in the caller's memory; returns in `out` where it is.
  Status read_int8(const TensorInfo& t, std::int8_t* to, Xxh64& hash, const std::int8_t*& out) noexcept {
    const std::uint8_t* const in_place = source.bytes(data_start + t.offset);
    out = in_place != nullptr ? reinterpret_cast<const std::int8_t*>(in_place) : to;
    for (std::int64_t done = 0; done < t.bytes;) {
      const std::size_t n = chunk_at(done, t.bytes);
      if (in_place == nullptr) {
        Status s = source.read(data_start + t.offset + done, to + done, n);
        if (!s.ok()) return s.in(t.name);
      }
      hash.update(out + done, n);
      done += static_cast<std::int64_t>(n);
    }
    return {};
  }

 private:
  /// Returns the index of the first value that must not be, or `count`.
  std::size_t convert(Dtype dtype, const std::uint8_t* raw, float* to, std::size_t count) const noexcept {
    switch (dtype) {
      case Dtype::f32:
        return first_non_finite_f32(reinterpret_cast<const float*>(raw), count);
      case Dtype::f16:
        if (to != nullptr) expand_f16(raw, to, count);
        return first_non_finite_f16(raw, count);
      case Dtype::i8:
        if (to != nullptr) expand_i8(raw, to, count);
        return count;
      case Dtype::u8:
        if (to != nullptr) expand_u8(raw, to, count);
        for (std::size_t i = 0; bytes_are_padding && i < count; ++i)
          if (raw[i] != 0) return i;
        return count;
      case Dtype::other:
        return count;
    }
    return count;
  }
};

}  // namespace detail

FACENET_END
