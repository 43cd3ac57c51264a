#include "command/watch/jpeg_stream.hpp"

#include <algorithm>
#include <cstring>

namespace command {

namespace {

// ITU-T T.81, table B.1.
constexpr std::uint8_t rst0 = 0xD0, rst7 = 0xD7, soi = 0xD8, eoi = 0xD9, sos = 0xDA, tem = 0x01;

}  // namespace

void JpegStream::feed(const std::uint8_t* bytes, std::size_t size) {
  if (begin_ > 0) {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_));
    at_ -= begin_;
    begin_ = 0;
  }
  bytes_.insert(bytes_.end(), bytes, bytes + size);
}

bool JpegStream::next(std::vector<std::uint8_t>& file) {
  while (!whole_ && step()) {
  }
  if (!whole_) return false;
  file.assign(bytes_.begin() + static_cast<std::ptrdiff_t>(begin_), bytes_.begin() + static_cast<std::ptrdiff_t>(at_));
  whole_ = false;
  state_ = At::outside;
  begin_ = at_;
  return true;
}

bool JpegStream::finish() {
  const bool cut = state_ != At::outside;
  dropped_ += cut;
  passed_ += held();
  begin_ = at_ = bytes_.size();
  state_ = At::outside;
  return cut;
}

/// Looks for the next beginning from here on: what was followed so far holds a thumbnail's at the most.
void JpegStream::drop() {
  ++dropped_;
  at_ = std::min(at_, begin_ + limit_);  // the same place, however the bytes came
  passed_ += at_ - begin_;
  begin_ = at_;
  state_ = At::outside;
}

/// One part of the stream. False: its bytes are not there yet, or a file is whole.
bool JpegStream::step() {
  const std::uint8_t* const all = bytes_.data();
  const std::size_t size = bytes_.size();
  if (state_ != At::outside && at_ - begin_ > limit_) {
    drop();
    return true;
  }
  switch (state_) {
    case At::outside: {
      while (at_ + 1 < size) {
        const void* found = std::memchr(all + at_, 0xFF, size - 1 - at_);
        at_ = found == nullptr ? size - 1 : static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - all);
        if (found == nullptr) break;
        if (all[at_ + 1] == soi) {
          passed_ += at_ - begin_;
          begin_ = at_;
          at_ += 2;
          scanned_ = false;
          state_ = At::marker;
          return true;
        }
        ++at_;
      }
      passed_ += at_ - begin_;
      begin_ = at_;
      return false;
    }
    case At::marker:  // FF, more FF to fill, and what it is
      while (at_ + 1 < size && all[at_] == 0xFF && all[at_ + 1] == 0xFF) ++at_;
      if (at_ + 1 >= size) return false;
      marker_ = all[at_ + 1];
      if (all[at_] != 0xFF || marker_ == 0 || marker_ == soi) {
        drop();
        return true;
      }
      at_ += 2;
      if (marker_ == eoi) {
        whole_ = scanned_ && at_ - begin_ <= limit_;
        if (!whole_) drop();
        return !whole_;
      }
      state_ = marker_ == tem || (marker_ >= rst0 && marker_ <= rst7) ? At::marker : At::length;
      return true;
    case At::length: {
      if (at_ + 2 > size) return false;
      const std::size_t length = std::size_t{all[at_]} << 8 | all[at_ + 1];
      if (length < 2) {
        drop();
        return true;
      }
      state_ = At::segment;
      return true;
    }
    case At::segment: {
      const std::size_t length = std::size_t{all[at_]} << 8 | all[at_ + 1];
      if (at_ + length > size) return false;
      at_ += length;
      state_ = marker_ == sos ? At::scan : At::marker;
      scanned_ = scanned_ || marker_ == sos;
      return true;
    }
    case At::scan: {  // coded data: FF 00 is a byte of it, and restart markers belong to it
      while (at_ + 1 < size && at_ - begin_ <= limit_) {
        const std::size_t last = std::min(size - 1, begin_ + limit_ + 2);
        const void* found = at_ < last ? std::memchr(all + at_, 0xFF, last - at_) : nullptr;
        if (found == nullptr) {
          at_ = std::max(at_, last);
          break;
        }
        at_ = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - all);
        const std::uint8_t next = all[at_ + 1];
        if (next == 0xFF) {
          ++at_;
        } else if (next == 0 || (next >= rst0 && next <= rst7)) {
          at_ += 2;
        } else {
          state_ = At::marker;
          return true;
        }
      }
      return at_ - begin_ > limit_;
    }
  }
  return false;
}

}  // namespace command
