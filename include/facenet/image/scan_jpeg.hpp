// What a JPEG file says about itself, and whether all of its picture is there.
//
// ITU-T T.81; JFIF and Adobe markers, markers out of sequence and missing tables as libjpeg-turbo takes them. Every
// scan's Huffman codes are walked, so what is missing is known and what is surplus can be left out of the copy for the
// decoder: data and restart markers after the last block (drones), bytes before restart markers (scanners), segments of
// any kind between those that count. What the copy adds are the tables that Motion JPEG leaves out.
#pragma once

#include "facenet/image/exif.hpp"
#include "facenet/image/jpeg_huffman.hpp"

FACENET_BEGIN

namespace detail {

struct JpegComponent {
  std::uint8_t id = 0, quantisation = 0;
  int h = 1, v = 1;                          // sampling factors
  int columns = 0, rows = 0;                 // of blocks, where it is coded alone
  const std::uint8_t* quantisers = nullptr;  // its table, as of its first scan: precision and number, then values
  std::size_t mask = 0;                      // where its masks begin
  std::int8_t precision[64];                 // bits of each coefficient still to come; -1: none has come
};

// One walk over a file. Large because of its look-up tables: it is made on the heap.
class JpegScan {
 public:
  struct Tables {
    JpegTable dc[4], ac[4];
  };

  JpegScan(Bytes file, Stored& out, Sink& copy, Tables& tables) noexcept
      : file_(file), out_(out), copy_(copy), tables_(tables) {
    for (JpegTable& t : tables_.dc) t.source = nullptr;
    for (JpegTable& t : tables_.ac) t.source = nullptr;
  }

  Status run() noexcept {
    copy_.put({0xFF, 0xD8});
    for (std::size_t at = 2;;) {
      // To the next marker: 0xFF, then neither a stuffed 0 nor more fill. Bytes between segments are skipped.
      while (at + 1 < file_.size() && !(file_[at] == 0xFF && file_[at + 1] != 0 && file_[at + 1] != 0xFF)) ++at;
      if (at + 1 >= file_.size()) return finish(true);
      const std::size_t start = at;
      const int marker = file_[at + 1];
      at += 2;
      if (marker == 0xD9) return finish(false);
      if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) continue;  // these have no length
      if (file_.size() - at < 2) return finish(true);
      const std::size_t length = be16(file_.data() + at);
      if (length < 2 || marker == 0xD8)
        return Status{Errc::corrupt, marker == 0xD8 ? "the JPEG has a second start marker before its end"
                                                    : "the JPEG has a segment without a length"}
            .at(static_cast<std::int64_t>(start));
      if (length > file_.size() - at) return finish(true);
      const Bytes segment = file_.subspan(at + 2, length - 2);
      at += length;
      Status status = read_segment(marker, segment, at);
      if (!status.ok()) return status.offset() < 0 ? status.at(static_cast<std::int64_t>(start)) : status;
      // What follows a whole picture is not read: junk may look like any marker, a frame may lack its end before the
      // next.
      if (marker == 0xDA && whole_coefficients() == 64) return finish(next_marker(at) >= file_.size());
    }
  }

 private:
  Status read_segment(int marker, Bytes segment, std::size_t& at) noexcept {
    if (marker == 0xDA) return read_scan(segment, at);
    if (marker == 0xC4) return read_huffman_tables(segment);
    if (marker == 0xDB) return read_quantisation_tables(segment);
    if (marker >= 0xC0 && marker <= 0xC2) return read_frame(marker, segment);
    if (marker == 0xC3 || marker == 0xCB)
      return {Errc::unsupported, "the JPEG is lossless, which this library does not read: save it as baseline"};
    if (marker == 0xC9 || marker == 0xCA)
      return {Errc::unsupported, "the JPEG is arithmetic-coded, which this library does not read: save it as baseline"};
    if (marker >= 0xC5 && marker <= 0xCF && marker != 0xC8 && marker != 0xCC)
      return {Errc::unsupported, "the JPEG is hierarchical, which this library does not read: save it as baseline"};
    if (marker == 0xDD) {
      if (segment.size() != 2) return {Errc::corrupt, "the JPEG's restart interval has the wrong length"};
      restart_interval_ = be16(segment.data());
    } else if (marker == 0xE0 && segment.size() >= 14 && starts_with(segment, "JFIF\0", 5)) {
      jfif_ = true;
    } else if (marker == 0xE1 && !exif_ && starts_with(segment, "Exif\0\0", 6)) {
      exif_ = true;
      out_.orientation = exif_orientation(segment.subspan(6, segment.size() - 6));
    } else if (marker == 0xEE && segment.size() >= 12 && starts_with(segment, "Adobe", 5)) {
      adobe_transform_ = segment[11];
    }
    return {};
  }

  Status read_quantisation_tables(Bytes segment) noexcept {
    for (std::size_t at = 0; at < segment.size();) {
      const unsigned precision = segment[at] >> 4, table = segment[at] & 15;
      const std::size_t begin = at;
      at += precision == 0 ? 65 : 129;
      if (precision > 1 || table > 3 || at > segment.size())
        return {Errc::corrupt, "a quantisation table of the JPEG is damaged"};
      quantisation_[table] = segment.data() + begin;
    }
    return {};
  }

  // stb_image before 2.29 writes past its table where the 16 counts add up to more than 256 symbols.
  Status read_huffman_tables(Bytes segment) noexcept {
    constexpr const char* damaged = "a Huffman table of the JPEG is damaged";
    for (std::size_t at = 0; at < segment.size();) {
      const unsigned kind = segment[at] >> 4, table = segment[at] & 15;
      if (kind > 1 || table > 3 || segment.size() - at < 17) return {Errc::corrupt, damaged};
      std::size_t symbols = 0;
      for (std::size_t i = 1; i <= 16; ++i) symbols += segment[at + i];
      if (symbols > 256 || segment.size() - at - 17 < symbols) return {Errc::corrupt, damaged};
      huffman_[kind][table] = segment.data() + at + 1;
      at += 17 + symbols;
    }
    return {};
  }

  Status read_frame(int marker, Bytes segment) noexcept {
    if (count_ != 0) return {Errc::corrupt, "the JPEG has two frames"};
    if (segment.size() < 6) return {Errc::corrupt, "the JPEG's frame header is too short"};
    if (segment[0] != 8) return {Errc::unsupported, "the JPEG does not have 8 bits a channel: save it with 8"};
    progressive_ = marker == 0xC2;
    out_.height = static_cast<int>(be16(segment.data() + 1));
    out_.width = static_cast<int>(be16(segment.data() + 3));
    if (out_.height == 0 && out_.width != 0)
      return {Errc::corrupt,
              "the JPEG's frame header has height 0 (a height after the picture, DNL, is not read): "
              "save it again"};
    FACENET_TRY(check_limits(out_));
    const int count = segment[5];
    if (count != 1 && count != 3 && count != 4)
      return {Errc::unsupported, "the JPEG is neither grey nor has three or four channels: save it as RGB"};
    if (segment.size() != 6 + 3 * static_cast<std::size_t>(count))
      return {Errc::corrupt, "the JPEG's frame header has the wrong length"};
    for (int i = 0; i < count; ++i) {
      JpegComponent& c = components_[i];
      const std::uint8_t* p = segment.data() + 6 + 3 * i;
      c.id = p[0];
      c.h = p[1] >> 4;
      c.v = p[1] & 15;
      c.quantisation = p[2];
      std::memset(c.precision, -1, sizeof c.precision);
      if (c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4)
        return {Errc::corrupt, "a sampling factor of the JPEG is not 1 to 4"};
      if (c.quantisation > 3) return {Errc::corrupt, "a quantisation table of the JPEG is damaged"};
      if (count == 1) c.h = c.v = 1;  // one channel has nothing to be sampled against
      if (c.h > h_max_) h_max_ = c.h;
      if (c.v > v_max_) v_max_ = c.v;
    }
    std::size_t masks = 0;
    for (int i = 0; i < count; ++i) {
      JpegComponent& c = components_[i];
      if (h_max_ % c.h != 0 || v_max_ % c.v != 0)  // stb_image before 2.28 reads past a plane subsampled by 3/2
        return {Errc::unsupported, "the JPEG's channels have sizes in no whole ratio: save it again"};
      c.columns = blocks(out_.width, c.h, h_max_);
      c.rows = blocks(out_.height, c.v, v_max_);
      c.mask = masks;
      masks += static_cast<std::size_t>(c.columns) * static_cast<std::size_t>(c.rows);
    }
    mask_count_ = masks;
    count_ = count;
    frame_marker_ = static_cast<unsigned>(marker);
    return {};
  }

  static int blocks(int size, int factor, int most) noexcept {
    const int samples = (size * factor + most - 1) / most;
    return (samples + 7) / 8;
  }

  // ---- one scan -----------------------------------------------------------------------------------------------------

  struct Part {  // a block of the unit that restart intervals count
    const JpegTable *dc, *ac;
  };

  Status read_scan(Bytes segment, std::size_t& at) noexcept {
    if (count_ == 0) return {Errc::corrupt, "the JPEG has a scan before its frame header"};
    if (++scans_ > max_jpeg_scans) return {Errc::limit_exceeded, "the JPEG has more than 64 scans: save it again"};
    const int n = segment.empty() ? 0 : segment[0];
    if (n < 1 || n > 4 || segment.size() != 4 + 2 * static_cast<std::size_t>(n))
      return {Errc::corrupt, "a scan header of the JPEG has the wrong length"};
    const std::uint8_t* spectral = segment.data() + 1 + 2 * n;
    // A sequential scan holds everything whatever its header says, as libjpeg takes it.
    const int from = progressive_ ? spectral[0] : 0, to = progressive_ ? spectral[1] : 63;
    const int high = progressive_ ? spectral[2] >> 4 : 0, low = progressive_ ? spectral[2] & 15 : 0;
    if (from > to || to > 63 || low > 13 || (high != 0 && low != high - 1) ||
        (progressive_ && (from == 0 ? to != 0 : n != 1)))
      return {Errc::corrupt, "a scan of the JPEG has a progression that does not exist"};
    const bool needs_dc = from == 0 && high == 0, needs_ac = to != 0;
    if (scans_ == 1) write_frame();
    JpegComponent* chosen[4] = {};
    Part parts[4 * 16];
    int part_count = 0;
    unsigned header[10], header_size = 0;
    for (int i = 0; i < n; ++i) {
      const unsigned id = segment[1 + 2 * static_cast<std::size_t>(i)];
      const unsigned tables = segment[2 + 2 * static_cast<std::size_t>(i)], dc = tables >> 4, ac = tables & 15;
      int which = 0;  // of two channels with one identifier each is meant once
      while (which < count_ && (components_[which].id != id || used_before(chosen, i, which))) ++which;
      if (which == count_) return {Errc::corrupt, "a scan of the JPEG names an unknown channel"};
      JpegComponent* c = chosen[i] = components_ + which;
      constexpr const char* missing = "a scan of the JPEG needs a table that is not there: the file is damaged";
      if (c->quantisers == nullptr) {
        c->quantisers = quantisation_[c->quantisation];
        if (c->quantisers == nullptr) return {Errc::corrupt, missing};
        write_quantisers(*c, static_cast<unsigned>(which));
      }
      if ((needs_dc && dc > 3) || (needs_ac && ac > 3)) return {Errc::corrupt, missing};
      if (needs_dc) FACENET_TRY(use_table(0, dc));
      if (needs_ac) FACENET_TRY(use_table(1, ac));
      const int repeats = n == 1 ? 1 : c->h * c->v;
      for (int j = 0; j < repeats; ++j) parts[part_count++] = {tables_.dc + (dc & 3), tables_.ac + (ac & 3)};
      header[header_size++] = static_cast<unsigned>(which) + 1;
      header[header_size++] = (needs_dc ? dc << 4 : 0) | (needs_ac ? ac : 0);
      FACENET_TRY(check_order(*c, {from, to}, high));
      for (int k = from; k <= to; ++k) c->precision[k] = static_cast<std::int8_t>(low);
    }
    const JpegComponent& first = *chosen[0];
    const std::int64_t units = n == 1 ? std::int64_t{first.columns} * first.rows
                                      : std::int64_t{blocks(out_.width, 1, h_max_)} * blocks(out_.height, 1, v_max_);
    std::uint64_t* masks = nullptr;
    if (progressive_ && from != 0) {
      if (masks_.empty()) {
        auto made = Buffer<std::uint64_t>::make(mask_count_);
        if (!made) return made.status();
        masks_ = std::move(*made);
      }
      masks = masks_.data() + first.mask;
    }
    write_scan_header(n, header, from, to, high, low);
    return walk(units, {parts, static_cast<std::size_t>(part_count)}, {from, to}, high, masks, at);
  }

  // A first scan of DC clears all coefficients in stb_image, and a refinement adds one bit to those that have come.
  Status check_order(const JpegComponent& c, JpegBand band, int high) const noexcept {
    bool sound = !progressive_ || band.from == 0 || c.precision[0] >= 0;
    if (progressive_ && band.from == 0 && high == 0)
      for (int k = 1; k < 64; ++k) sound = sound && c.precision[k] < 0;
    if (high != 0)
      for (int k = band.from; k <= band.to; ++k) sound = sound && c.precision[k] == high;
    if (sound) return {};
    return {Errc::corrupt, "a scan of the JPEG comes before one that it builds on: scans of the file are missing"};
  }

  bool used_before(JpegComponent* const* chosen, int n, int which) const noexcept {
    for (int i = 0; i < n; ++i)
      if (chosen[i] == components_ + which) return true;
    return false;
  }

  // Looks codes up in the table of this kind and number from now on, and gives it to the decoder where it is new.
  Status use_table(unsigned kind, unsigned number) noexcept {
    JpegTable& table = (kind == 0 ? tables_.dc : tables_.ac)[number];
    const std::uint8_t* source = huffman_[kind][number];
    if (source == nullptr && !progressive_ && number < 2)
      source = kind == 0 ? default_tables.dc[number] : default_tables.ac[number];
    if (source == nullptr)
      return {Errc::corrupt, "a scan of the JPEG needs a table that is not there: the file is damaged"};
    if (table.source == source) return {};
    if (!table.build(source, kind == 0)) return {Errc::corrupt, "a Huffman table of the JPEG is damaged"};
    if (kind == 1 && !progressive_) table.build_many();
    unsigned symbols = 0;
    for (unsigned i = 0; i < 16; ++i) symbols += source[i];
    const unsigned length = 19 + symbols;
    copy_.put({0xFF, 0xC4, length >> 8, length, kind << 4 | number});
    copy_.put(source, 16 + symbols);
    return {};
  }

  // Walks `units` units of coded data from `at`, which moves past them.
  Status walk(std::int64_t units, Span<const Part> parts, JpegBand band, int high, std::uint64_t* masks,
              std::size_t& at) noexcept {
    const std::int64_t interval = restart_interval_ != 0 ? restart_interval_ : units;
    const std::int64_t segments = (units + interval - 1) / interval;
    const auto per_unit = static_cast<std::int64_t>(parts.size());
    std::int64_t there = 0, broken_at = -1;  // blocks
    bool damaged = false;
    surplus_ = false;
    for (std::int64_t segment = 0; segment < segments; ++segment) {
      const std::int64_t first = segment * interval, todo = units - first < interval ? units - first : interval;
      JpegBits bits(file_.data() + at, file_.end());
      band.end_run = 0;
      bool valid = true;
      const std::int64_t walked = progressive_ ? walk_progressive(bits, todo, parts, band, high, masks, first, valid)
                                               : walk_sequential_units(bits, todo, parts, valid);
      there += walked;
      if (walked < todo * per_unit) {
        if (broken_at < 0) broken_at = bits.at() - file_.data();
        damaged = damaged || !valid;
      } else {
        if (segment > 0) copy_.put({0xFF, 0xD0 | (static_cast<unsigned>(segment - 1) & 7)});
        write_data(file_.data() + at, bits.used());
      }
      at = static_cast<std::size_t>(bits.at() - file_.data());
      surplus_ = bits.surplus();
      data_end_ = at - (surplus_ ? bits.left() : 0);
      if (segment + 1 < segments) {
        const std::int64_t lost = next_restart(at, static_cast<unsigned>(segment) & 7, segments - 1 - segment);
        if (lost > 0 && broken_at < 0) broken_at = static_cast<std::int64_t>(at);
        segment += lost;
      } else if (at < file_.size() && file_[at] != 0xFF) {
        surplus_ = true;
      }
    }
    if (broken_at < 0) return {};
    const HowMuch words(there, units * per_unit, scans_ == 1 ? "blocks are there" : "blocks of a later scan are there");
    const bool cut = next_marker(at) >= file_.size();
    return Status{cut ? Errc::truncated : Errc::corrupt,
                  cut       ? "the JPEG ends before its picture does: the file is truncated"
                  : damaged ? "the JPEG's coded data is damaged: get the file again from where it came"
                            : "a part of the JPEG's coded data is missing: get the file again from where it came"}
        .in(words.text)
        .at(broken_at);
  }

  // A loop of its own, which lives in registers: this is where the time goes. Blocks that are whole.
  static std::int64_t walk_sequential_units(JpegBits& shared, std::int64_t todo, Span<const Part> parts,
                                            bool& valid) noexcept {
    JpegBits bits = shared;
    std::int64_t blocks = 0;
    for (std::int64_t unit = 0; unit < todo && valid; ++unit)
      for (const Part& part : parts) {
        valid = walk_sequential(bits, *part.dc, *part.ac);
        if (!valid || bits.overrun()) {
          valid = valid || bits.overrun();
          shared = bits;
          return blocks;
        }
        ++blocks;
      }
    shared = bits;
    return blocks;
  }

  static std::int64_t walk_progressive(JpegBits& shared, std::int64_t todo, Span<const Part> parts, JpegBand& band,
                                       int high, std::uint64_t* masks, std::int64_t first, bool& valid) noexcept {
    JpegBits bits = shared;
    std::int64_t blocks = 0;
    for (std::int64_t unit = 0; unit < todo; ++unit) {
      if (band.from != 0 && high == 0 && band.end_run > 0) {  // blocks without a bit
        const std::int64_t run = band.end_run < todo - unit ? band.end_run : todo - unit;
        band.end_run -= static_cast<std::uint32_t>(run);
        blocks += run;
        unit += run - 1;
        continue;
      }
      for (const Part& part : parts) {
        if (band.from != 0) {
          std::uint64_t& mask = masks[first + unit];
          valid =
              high == 0 ? walk_ac_first(bits, *part.ac, band, mask) : walk_ac_refinement(bits, *part.ac, band, mask);
        } else if (high == 0) {
          valid = walk_dc_first(bits, *part.dc);
        } else {
          bits.take(1);
        }
        if (!valid || bits.overrun()) {
          valid = valid || bits.overrun();
          shared = bits;
          return blocks;
        }
        ++blocks;
      }
    }
    shared = bits;
    return blocks;
  }

  // The place of the next 0xFF that begins a marker, or the file's size.
  std::size_t next_marker(std::size_t at) const noexcept {
    for (; at + 1 < file_.size(); ++at) {
      const void* found = std::memchr(file_.data() + at, 0xFF, file_.size() - 1 - at);
      if (found == nullptr) break;
      at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - file_.data());
      if (file_[at + 1] != 0 && file_[at + 1] != 0xFF) return at;
    }
    return file_.size();
  }

  // Moves past the restart marker that segment `wanted` (modulo 8) ends with; `left` more must follow. Returns how
  // many segments are lost. As libjpeg resynchronises: a marker of the past is passed over, one of the near future
  // means that what lies between is lost, any other is taken for the one that is wanted.
  std::int64_t next_restart(std::size_t& at, unsigned wanted, std::int64_t left) const noexcept {
    for (;;) {
      const std::size_t place = next_marker(at);
      if (place == file_.size()) return left;
      const unsigned marker = file_[place + 1];
      if (marker < 0xD0 || marker > 0xD7) {
        at = place;
        return left;
      }
      at = place + 2;
      const unsigned ahead = (marker - 0xD0 - wanted) & 7;
      if (ahead >= 6) continue;
      const std::int64_t lost = ahead <= 2 ? ahead : 0;
      return lost < left ? lost : left;
    }
  }

  // ---- the copy -----------------------------------------------------------------------------------------------------

  // stb_image takes three channels for RGB where they are called so or Adobe's marker says it, libjpeg only without a
  // JFIF marker. In the copy they are called 1, 2, 3, and Adobe's marker says what libjpeg would find.
  void write_frame() noexcept {
    const bool named_rgb = components_[0].id == 'R' && components_[1].id == 'G' && components_[2].id == 'B';
    const bool rgb = count_ == 3 && !jfif_ && (adobe_transform_ >= 0 ? adobe_transform_ == 0 : named_rgb);
    if (count_ == 4 || rgb)
      copy_.put(
          {0xFF, 0xEE, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, rgb || adobe_transform_ == 0 ? 0u : 2u});
    const auto w = static_cast<unsigned>(out_.width), h = static_cast<unsigned>(out_.height);
    const auto n = static_cast<unsigned>(count_);
    copy_.put({0xFF, frame_marker_, 0, 8 + 3 * n, 8, h >> 8, h, w >> 8, w, n});
    for (unsigned i = 0; i < n; ++i)
      copy_.put({i + 1, static_cast<unsigned>(components_[i].h << 4 | components_[i].v), i});
  }

  void write_quantisers(const JpegComponent& c, unsigned number) noexcept {
    const unsigned precision = c.quantisers[0] >> 4, values = precision == 0 ? 64 : 128;
    copy_.put({0xFF, 0xDB, 0, values + 3, precision << 4 | number});
    copy_.put(c.quantisers + 1, values);
  }

  void write_scan_header(int n, const unsigned* header, int from, int to, int high, int low) noexcept {
    if (restart_interval_ != written_interval_) {
      copy_.put({0xFF, 0xDD, 0, 4, restart_interval_ >> 8, restart_interval_});
      written_interval_ = restart_interval_;
    }
    copy_.put({0xFF, 0xDA, 0, 6 + 2 * static_cast<unsigned>(n), static_cast<unsigned>(n)});
    for (int i = 0; i < 2 * n; ++i) copy_.put({header[i]});
    copy_.put({static_cast<unsigned>(from), static_cast<unsigned>(to), static_cast<unsigned>(high << 4 | low)});
  }

  // `n` bytes of data, each 0xFF with its stuffed 0 and without fill bytes.
  void write_data(const std::uint8_t* data, std::size_t n) noexcept {
    while (n > 0) {
      const void* found = std::memchr(data, 0xFF, n);
      const std::size_t plain =
          found != nullptr ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - data) : n;
      copy_.put(data, plain);
      data += plain;
      n -= plain;
      if (n == 0) return;
      while (*data == 0xFF) ++data;
      ++data;
      copy_.put({0xFF, 0});
      --n;
    }
  }

  // How many coefficients of a block have come with all their bits, of the channel that has fewest.
  int whole_coefficients() const noexcept {
    int whole = 64;
    for (int i = 0; i < count_; ++i) {
      int coefficients = 0;
      for (const std::int8_t p : components_[i].precision) coefficients += p == 0;
      whole = coefficients < whole ? coefficients : whole;
    }
    return whole;
  }

  // Zeros fill the file up from where its last block ends, and that block takes none of them.
  bool only_padding() const noexcept {
    if (data_end_ == 0 || file_[data_end_ - 1] == 0) return false;
    for (std::size_t at = data_end_; at < file_.size(); ++at)
      if (file_[at] != 0) return false;
    return true;
  }

  // ---- the end ------------------------------------------------------------------------------------------------------

  // An end marker may be missing where nothing else is: every scan whole, every bit of every coefficient sent, and no
  // data after the last block, such as the zeros of a download that stopped, unless the last block ends before them.
  Status finish(bool cut) noexcept {
    const auto end = static_cast<std::int64_t>(file_.size());
    constexpr const char* ends = "the JPEG ends before its end marker: the file is truncated";
    if (count_ == 0 || scans_ == 0) {
      if (cut) return Status{Errc::truncated, ends}.at(end);
      return {Errc::corrupt, "the JPEG holds no picture"};
    }
    const int whole = whole_coefficients();
    bool scanned = true;
    for (int i = 0; i < count_; ++i) scanned = scanned && components_[i].precision[0] >= 0;
    if (!scanned && !cut) return {Errc::corrupt, "a channel of the JPEG has no scan: the file is damaged"};
    if (whole < 64) {
      const HowMuch words(whole, 64, "coefficients of a channel are whole");
      return Status{cut ? Errc::truncated : Errc::corrupt,
                    cut ? ends : "the last scans of the JPEG are missing: get the file again from where it came"}
          .in(words.text)
          .at(end);
    }
    if (cut && surplus_ && !only_padding()) return Status{Errc::truncated, ends}.at(end);
    if (count_ == 4 && adobe_transform_ != 0 && adobe_transform_ != 2)
      return {Errc::unsupported, "the JPEG has four channels and does not say which: save it as RGB"};
    copy_.put({0xFF, 0xD9});
    return {};
  }

  Bytes file_;
  Stored& out_;
  Sink& copy_;
  Tables& tables_;
  JpegComponent components_[4];
  int count_ = 0, h_max_ = 1, v_max_ = 1, scans_ = 0, adobe_transform_ = -1;
  bool progressive_ = false, jfif_ = false, exif_ = false;
  bool surplus_ = false;      // data lies after the last block,
  std::size_t data_end_ = 0;  // which ends here
  unsigned frame_marker_ = 0xC0, restart_interval_ = 0, written_interval_ = 0;
  const std::uint8_t* quantisation_[4] = {};
  const std::uint8_t* huffman_[2][4] = {};
  std::size_t mask_count_ = 0;
  Buffer<std::uint64_t> masks_;
};

inline Status scan_jpeg(Bytes file, Stored& out, Sink& copy) noexcept {
  auto tables = Buffer<JpegScan::Tables>::make(1, false);
  if (!tables) return tables.status();
  return JpegScan(file, out, copy, (*tables)[0]).run();
}

}  // namespace detail

FACENET_END
