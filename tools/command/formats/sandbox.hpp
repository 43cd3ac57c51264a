// Decoders of foreign formats, each in a process of its own (decoder_program.hpp), with a memory and a time limit, and
// with system calls for memory, for reading its file and for writing its picture alone. A file that makes one crash,
// hang or obey its author costs one picture.
#pragma once

#include <functional>

#include "command/formats/decoder.hpp"

namespace command {

/// Where a decoded picture goes.
struct PictureSink {
  /// Its size as stored, after shrinking and before; false ends the decoding with Trouble::no_memory.
  std::function<bool(int width, int height, int full_width, int full_height, int orientation)> begin;
  /// Rows `first` to `first` + `count` - 1, RGB, without gaps.
  std::function<void(const std::uint8_t* rgb, int first, int count)> rows;
};

/// `file` is copied before `copied`, if any, is called: the caller may free its own copy then. What the sink got is
/// worth nothing where this is not Trouble::none. Several threads may decode at once.
Trouble decode_apart(Kind kind, Source file, const Wanted& wanted, const PictureSink& sink,
                     const std::function<void()>& copied = {});

/// A sentence of static lifetime, with a remedy after its colon.
const char* sentence_of(Trouble trouble, Kind kind);

/// Whether this process was started to decode. Then run_decoder() must be called before all else, and ends it.
bool is_decoder(int argc, char** argv);
[[noreturn]] void run_decoder(char** argv);

/// The largest resident memory of any process of a decoder so far, in bytes: for tests and `bench`.
std::uint64_t largest_decoder();

}  // namespace command
