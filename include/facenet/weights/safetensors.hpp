// The header of a safetensors file: a strict, non-recursive parser of exactly the JSON that the format allows, and the
// layout rules. The format: https://github.com/huggingface/safetensors#format
#pragma once

#include "facenet/base/hash.hpp"

FACENET_SETUP_BEGIN

/// How a tensor's elements are stored. `other`: a dtype of the format that no weight may have, such as I64.
enum class Dtype : std::uint8_t { f32, f16, i8, u8, other };

inline const char* name(Dtype d) noexcept {
  constexpr const char* names[] = {"F32", "F16", "I8", "U8", "other"};
  return names[static_cast<std::size_t>(d)];
}

struct TensorInfo {
  static constexpr int max_rank = 4;
  const char* name = "";
  Dtype dtype = Dtype::f32;
  int rank = 0;
  int dims[max_rank] = {};  // outermost first
  std::int64_t offset = 0;  // of the first byte, from the start of the data section
  std::int64_t bytes = 0;
};

constexpr std::int64_t elements(const TensorInfo& t) noexcept {
  std::int64_t n = 1;
  for (int i = 0; i < t.rank; ++i) n *= t.dims[i];
  return n;
}

/// One pair of `__metadata__`. `at` and `length` say where the value lies in the header, between its quotes.
struct MetadataEntry {
  const char* key = "";
  const char* value = "";
  std::uint32_t at = 0, length = 0;
};

/// Limits of what is read. Inception-ResNet-v1 needs 267 tensors of 94 MB in a header of 26 KB.
struct SafetensorsLimits {
  static constexpr std::int64_t file = std::int64_t{512} << 20, header = std::int64_t{1} << 20;
  static constexpr std::int64_t dimension = std::int64_t{1} << 20;
  static constexpr int tensors = 4096, name = 128, entries = 64, value = 4096;
};

namespace detail {
class HeaderParser;
}

/// A parsed header: tensors in the order of their data, metadata, look-up by name. Owns every string; move-only.
class SafetensorsHeader {
 public:
  static constexpr std::int64_t length_bytes = 8;  // the header's length precedes it in the file

  /// Reads the header text of a file whose data section has `data_bytes`. Keeps no pointer into `text`.
  /// Errors name the tensor or key, and the byte in the file: corrupt (JSON, UTF-8, keys, layout), truncated,
  /// limit_exceeded, out_of_memory.
  static Result<SafetensorsHeader> parse(Span<const std::uint8_t> text, std::int64_t data_bytes,
                                         Memory memory = {}) noexcept;

  int size() const noexcept { return size_; }
  const TensorInfo& operator[](int i) const noexcept { return tensors_[static_cast<std::size_t>(i)]; }
  /// The tensor of that name, or -1.
  int find(const char* name) const noexcept {
    if (table_.empty()) return -1;
    return table_[slot(name)] - 1;
  }
  Span<const MetadataEntry> metadata() const noexcept {
    return {entries_.data(), static_cast<std::size_t>(entry_count_)};
  }
  /// The value of a metadata key, or nullptr.
  const MetadataEntry* metadata(const char* key) const noexcept {
    for (const MetadataEntry& e : metadata())
      if (std::strcmp(e.key, key) == 0) return &e;
    return nullptr;
  }
  /// Removes a leading `prefix` from every tensor's name. Error: two names become equal.
  Status strip(const char* prefix) noexcept {
    const std::size_t length = std::strlen(prefix);
    std::memset(table_.data(), 0, table_.size() * sizeof table_[0]);
    for (int i = 0; i < size_; ++i) {
      TensorInfo& t = tensors_[static_cast<std::size_t>(i)];
      if (std::strncmp(t.name, prefix, length) == 0) t.name += length;
      if (!insert(i))
        return Status(Errc::corrupt, "a tensor is there with and without the same prefix: save the file again")
            .in(t.name);
    }
    return {};
  }

 private:
  friend class detail::HeaderParser;

  /// Where `name` is in the open-addressing table, or the free slot where it would be.
  std::size_t slot(const char* name) const noexcept {
    const std::size_t mask = table_.size() - 1;
    std::size_t i = static_cast<std::size_t>(xxh64(name, std::strlen(name))) & mask;
    while (table_[i] != 0 && std::strcmp(tensors_[static_cast<std::size_t>(table_[i] - 1)].name, name) != 0)
      i = (i + 1) & mask;
    return i;
  }
  bool insert(int tensor) noexcept {
    const std::size_t i = slot(tensors_[static_cast<std::size_t>(tensor)].name);
    if (table_[i] != 0) return false;
    table_[i] = static_cast<std::int16_t>(tensor + 1);
    return true;
  }

  Buffer<char> strings_;
  Buffer<TensorInfo> tensors_;
  Buffer<std::int16_t> table_;  // tensor + 1, 0 where free; at most half full
  Buffer<MetadataEntry> entries_;
  int size_ = 0, entry_count_ = 0;
};

namespace detail {

/// The first byte that is not part of a well-formed UTF-8 sequence (RFC 3629: no overlong forms, no surrogates,
/// nothing above U+10FFFF), or `size`.
inline std::size_t invalid_utf8(const std::uint8_t* s, std::size_t size) noexcept {
  for (std::size_t i = 0; i < size;) {
    const std::uint8_t c = s[i];
    const std::size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
    if (more == 4 || more >= size - i) return i;
    const std::uint8_t low = c == 0xe0   ? 0xa0
                             : c == 0xf0 ? 0x90
                                         : 0x80,
                       high = c == 0xed   ? 0x9f
                              : c == 0xf4 ? 0x8f
                                          : 0xbf;
    if (more > 0 && (s[i + 1] < low || s[i + 1] > high)) return i;
    for (std::size_t k = 2; k <= more; ++k)
      if ((s[i + k] & 0xc0) != 0x80) return i;
    i += more + 1;
  }
  return size;
}

/// Parses into a SafetensorsHeader. Three loops for the three levels the format has, no recursion, and no allocation
/// after the start: an unescaped string with its final zero is never longer than the quoted one it came from.
class HeaderParser {
 public:
  HeaderParser(Span<const std::uint8_t> text, std::int64_t data_bytes, Memory memory, SafetensorsHeader& into) noexcept
      : text_(text), data_bytes_(data_bytes), memory_(memory), out_(into) {}

  Status run() noexcept {
    if (static_cast<std::int64_t>(text_.size()) > SafetensorsLimits::header)
      return {Errc::limit_exceeded, "the header is longer than 1 MiB"};
    at_ = invalid_utf8(text_.data(), text_.size());
    if (at_ != text_.size()) return fail(Errc::corrupt, "the header is not valid UTF-8");
    at_ = 0;
    FACENET_TRY(allocate());
    if (!peek('{')) return fail(Errc::corrupt, "the header does not begin with '{': this is not a safetensors file");
    ++at_;
    bool have_metadata = false;
    for (bool first = true;; first = false) {
      Text key;
      bool more = false;
      FACENET_TRY(next_key(first, more, key, SafetensorsLimits::name));
      if (!more) break;
      if (key == "__metadata__") {
        if (have_metadata) return fail(Errc::corrupt, "the header has __metadata__ twice");
        have_metadata = true;
        FACENET_TRY(metadata());
      } else {
        Status s = tensor(key);
        if (!s.ok()) return s.in(key.data);
      }
    }
    for (; at_ != text_.size(); ++at_)
      if (text_[at_] != ' ') return fail(Errc::corrupt, "only spaces may follow the header's JSON");
    if (end_ != data_bytes_) {
      at_ = text_.size() + static_cast<std::size_t>(end_);
      return fail(Errc::corrupt, "bytes follow the data of the last tensor: copy or convert the file again");
    }
    return {};
  }

 private:
  /// A decoded string with a final zero, and where its raw form lies in the header.
  struct Text {
    const char* data = "";
    std::uint32_t at = 0, length = 0;
    bool operator==(const char* s) const noexcept { return std::strcmp(data, s) == 0; }
  };

  Status allocate() noexcept {
    // {"":{"dtype":"I8","shape":[],"data_offsets":[0,0]}} less the outer braces, and a comma
    constexpr std::size_t shortest = 50;
    std::size_t most = text_.size() / shortest + 1;
    if (most > std::size_t{SafetensorsLimits::tensors}) most = std::size_t{SafetensorsLimits::tensors};
    std::size_t slots = 2;
    while (slots < 2 * most) slots *= 2;
    FACENET_TRY(detail::allocate(out_.strings_, text_.size() + 1, false, memory_));
    FACENET_TRY(detail::allocate(out_.tensors_, most, false, memory_));
    FACENET_TRY(detail::allocate(out_.table_, slots, true, memory_));
    FACENET_TRY(detail::allocate(out_.entries_, std::size_t{SafetensorsLimits::entries}, false, memory_));
    return {};
  }

  Status fail(Errc code, const char* why) const noexcept {
    return Status(code, why).at(SafetensorsHeader::length_bytes + static_cast<std::int64_t>(at_));
  }
  bool peek(char c) const noexcept { return at_ < text_.size() && text_[at_] == static_cast<std::uint8_t>(c); }
  void skip_space() noexcept {
    while (peek(' ') || peek('\n') || peek('\r') || peek('\t')) ++at_;
  }
  bool take(char c) noexcept {
    skip_space();
    if (!peek(c)) return false;
    ++at_;
    return true;
  }

  /// Inside an object, after its '{': the next key and its ':', or its '}' and `more` false.
  Status next_key(bool first, bool& more, Text& key, int limit) noexcept {
    more = false;
    if (take('}')) return {};
    if (!first && !take(',')) return fail(Errc::corrupt, "the header's JSON lacks a ',' or a '}' here");
    FACENET_TRY(string(key, limit, "a name or key in the header is longer than 128 bytes"));
    for (const char* c = key.data; *c != 0; ++c)  // a name is printed in messages: it must not steer a terminal
      if (static_cast<unsigned char>(*c) < 0x20 || *c == 0x7f)
        return fail(Errc::corrupt, "a name or key in the header has a control character");
    if (*key.data == 0) return fail(Errc::corrupt, "a name or key in the header is empty");
    if (!take(':')) return fail(Errc::corrupt, "the header's JSON lacks a ':' here");
    more = true;
    return {};
  }

  Status string(Text& out, int limit, const char* too_long) noexcept {
    if (!take('"')) return fail(Errc::corrupt, "the header's JSON needs a string here");
    char* const begin = out_.strings_.data() + used_;
    char* to = begin;
    out.at = static_cast<std::uint32_t>(at_);
    while (!peek('"')) {
      if (at_ == text_.size()) return fail(Errc::corrupt, "a string in the header has no end");
      const std::uint8_t c = text_[at_];
      if (c < 0x20) return fail(Errc::corrupt, "a string in the header has a raw control character");
      if (c == '\\') {
        if (!escape(to)) return fail(Errc::corrupt, "a string in the header has a bad escape");
      } else {
        *to++ = static_cast<char>(c);
        ++at_;
      }
      if (to - begin > limit) return fail(Errc::limit_exceeded, too_long);
    }
    out.length = static_cast<std::uint32_t>(at_) - out.at;
    ++at_;
    *to++ = 0;
    used_ = static_cast<std::size_t>(to - out_.strings_.data());
    out.data = begin;
    return {};
  }

  /// At a backslash: writes what the escape means as UTF-8.
  bool escape(char*& to) noexcept {
    if (text_.size() - at_ < 2) return false;
    const char c = static_cast<char>(text_[at_ + 1]);
    at_ += 2;
    constexpr char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    for (int i = 0; from[i] != 0; ++i) {
      if (c != from[i]) continue;
      *to++ = means[i];
      return true;
    }
    std::uint32_t code = 0;
    if (c != 'u' || !hex4(code) || code == 0 || (code >= 0xdc00 && code < 0xe000)) return false;
    if (code >= 0xd800 && code < 0xdc00) {
      std::uint32_t low = 0;
      if (text_.size() - at_ < 6 || text_[at_] != '\\' || text_[at_ + 1] != 'u') return false;
      at_ += 2;
      if (!hex4(low) || low < 0xdc00 || low >= 0xe000) return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    auto put = [&to](std::uint32_t byte) { *to++ = static_cast<char>(byte); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | code >> 6);
      put(0x80 | (code & 63));
    } else {
      if (code < 0x10000) {
        put(0xe0 | code >> 12);
      } else {
        put(0xf0 | code >> 18);
        put(0x80 | (code >> 12 & 63));
      }
      put(0x80 | (code >> 6 & 63));
      put(0x80 | (code & 63));
    }
    return true;
  }
  bool hex4(std::uint32_t& out) noexcept {
    if (text_.size() - at_ < 4) return false;
    for (int i = 0; i < 4; ++i) {
      const std::uint8_t c = text_[at_++];
      const std::uint8_t lower = c | 0x20;
      const bool digit = c >= '0' && c <= '9', letter = lower >= 'a' && lower <= 'f';
      if (!digit && !letter) return false;
      out = out << 4 | static_cast<std::uint32_t>(digit ? c - '0' : lower - 'a' + 10);
    }
    return true;
  }

  /// [1,2,3]: at most `most` integers.
  Status integers(std::int64_t* out, int most, int& count, const char* too_many) noexcept {
    count = 0;
    if (!take('[')) return fail(Errc::corrupt, "the header's JSON needs a list of integers here");
    if (take(']')) return {};
    do {
      if (count == most) return fail(Errc::corrupt, too_many);
      FACENET_TRY(integer(out[count++]));
    } while (take(','));
    if (!take(']')) return fail(Errc::corrupt, "the header's JSON lacks a ',' or a ']' here");
    return {};
  }
  Status integer(std::int64_t& out) noexcept {
    skip_space();
    const std::size_t begin = at_;
    out = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      out = out * 10 + (text_[at_] - '0');
      if (out > std::int64_t{1} << 40) return fail(Errc::limit_exceeded, "an integer in the header is too large");
    }
    const bool plain =
        at_ != begin && (at_ - begin == 1 || text_[begin] != '0') && !peek('.') && !peek('e') && !peek('E');
    if (!plain)
      return fail(Errc::corrupt, "an integer in the header is not plain digits (no sign, zeros in front, exponent)");
    return {};
  }

  Status metadata() noexcept {
    if (!take('{')) return fail(Errc::corrupt, "__metadata__ must be an object of strings");
    for (bool first = true;; first = false) {
      Text key, value;
      bool more = false;
      FACENET_TRY(next_key(first, more, key, SafetensorsLimits::name));
      if (!more) return {};
      if (out_.metadata(key.data) != nullptr) return fail(Errc::corrupt, "a metadata key is there twice").in(key.data);
      if (out_.entry_count_ == SafetensorsLimits::entries)
        return fail(Errc::limit_exceeded, "the header has more than 64 metadata keys");
      Status s = string(value, SafetensorsLimits::value, "a metadata value is longer than 4096 bytes");
      if (!s.ok()) return s.in(key.data);
      out_.entries_[static_cast<std::size_t>(out_.entry_count_++)] = {key.data, value.data, value.at, value.length};
    }
  }

  Status tensor(const Text& name) noexcept {
    if (static_cast<std::size_t>(out_.size_) == out_.tensors_.size())
      return fail(Errc::limit_exceeded, "the file has more than 4096 tensors");
    TensorInfo t;
    t.name = name.data;
    std::int64_t shape[TensorInfo::max_rank] = {}, range[2] = {}, item = 0;
    enum : unsigned { none = 0, dtype = 1, dims = 2, offsets = 4, all = 7 };
    unsigned seen = 0;
    if (!take('{')) return fail(Errc::corrupt, "a tensor must be an object with dtype, shape and data_offsets");
    for (bool first = true;; first = false) {
      Text key;
      bool more = false;
      FACENET_TRY(next_key(first, more, key, SafetensorsLimits::name));
      if (!more) break;
      const unsigned which = key == "dtype" ? dtype : key == "shape" ? dims : key == "data_offsets" ? offsets : none;
      if (which == none) return fail(Errc::corrupt, "a tensor has an unknown key");
      if ((seen & which) != 0) return fail(Errc::corrupt, "a tensor has a key twice");
      seen |= which;
      if (which == dtype) {
        Text value;
        FACENET_TRY(string(value, SafetensorsLimits::name, "a dtype is longer than 128 bytes"));
        item = item_size(value, t.dtype);
        if (item == 0) return fail(Errc::unsupported, "a tensor has an unknown dtype");
      } else if (which == dims) {
        FACENET_TRY(integers(shape, TensorInfo::max_rank, t.rank, "a tensor has more than 4 dimensions"));
      } else {
        int count = 0;
        FACENET_TRY(integers(range, 2, count, "data_offsets has more than 2 integers"));
        if (count != 2) return fail(Errc::corrupt, "data_offsets has less than 2 integers");
      }
    }
    if (seen != all) return fail(Errc::corrupt, "a tensor lacks its dtype, shape or data_offsets");
    std::int64_t size = item;
    for (int i = 0; i < t.rank; ++i) {
      if (shape[i] < 1 || shape[i] > SafetensorsLimits::dimension)
        return fail(Errc::limit_exceeded, "a dimension is not in 1 ... 1048576");
      t.dims[i] = static_cast<int>(shape[i]);
      if (size > SafetensorsLimits::file / shape[i])
        return fail(Errc::limit_exceeded, "a tensor is larger than 512 MiB");
      size *= shape[i];
    }
    FACENET_TRY(place(t, range[0], range[1], size));
    const int index = out_.size_++;
    out_.tensors_[static_cast<std::size_t>(index)] = t;
    return {};
  }

  /// The layout rules: each tensor begins where the one before it ended.
  Status place(TensorInfo& t, std::int64_t begin, std::int64_t end, std::int64_t size) noexcept {
    out_.tensors_[static_cast<std::size_t>(out_.size_)] = t;
    if (!out_.insert(out_.size_)) return fail(Errc::corrupt, "a tensor is there twice");
    if (end < begin || end - begin != size)
      return fail(Errc::corrupt, "data_offsets do not agree with dtype and shape");
    if (begin < end_)
      return fail(Errc::corrupt, "a tensor overlaps the one before, or is not listed in the order of the data");
    if (begin > end_) return fail(Errc::corrupt, "there is a gap in the data before a tensor");
    if (end > data_bytes_)
      return fail(Errc::truncated, "the file ends before the end of a tensor's data: copy or download it again");
    t.offset = begin;
    t.bytes = size;
    end_ = end;
    return {};
  }

  /// Bytes of an element; 0 for a dtype that the format does not have.
  static std::int64_t item_size(const Text& dtype, Dtype& out) noexcept {
    struct Known {
      const char* name;
      Dtype dtype;
      std::int64_t bytes;
    };
    constexpr Known known[] = {{"F32", Dtype::f32, 4},    {"F16", Dtype::f16, 2},   {"I8", Dtype::i8, 1},
                               {"U8", Dtype::u8, 1},      {"I64", Dtype::other, 8}, {"F64", Dtype::other, 8},
                               {"BF16", Dtype::other, 2}, {"I32", Dtype::other, 4}, {"I16", Dtype::other, 2},
                               {"U64", Dtype::other, 8},  {"U32", Dtype::other, 4}, {"U16", Dtype::other, 2},
                               {"BOOL", Dtype::other, 1}};
    for (const Known& k : known) {
      if (!(dtype == k.name)) continue;
      out = k.dtype;
      return k.bytes;
    }
    return 0;
  }

  Span<const std::uint8_t> text_;
  std::int64_t data_bytes_;
  Memory memory_;
  SafetensorsHeader& out_;
  std::size_t at_ = 0, used_ = 0;  // read position in the text, write position in the strings
  std::int64_t end_ = 0;           // of the data described so far
};

}  // namespace detail

inline Result<SafetensorsHeader> SafetensorsHeader::parse(Span<const std::uint8_t> text, std::int64_t data_bytes,
                                                          Memory memory) noexcept {
  SafetensorsHeader header;
  Status s = detail::HeaderParser(text, data_bytes, memory, header).run();
  if (!s.ok()) return s;
  return header;
}

FACENET_SETUP_END
