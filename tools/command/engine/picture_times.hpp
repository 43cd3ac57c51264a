// Where the time of one picture goes, from the file to the embeddings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "command/options.hpp"
#include "facenet/embedder.hpp"

namespace command {

/// The parts of a picture's way, in order.
constexpr const char* picture_parts[] = {"decode", "pyramid", "pnet", "rnet", "onet", "crop", "embed"};
constexpr std::size_t picture_part_count = sizeof picture_parts / sizeof picture_parts[0];

struct PartTime {
  double wall = 0, cpu = 0;     // seconds; cpu: of all threads, without those that wait
  std::uint64_t allocated = 0;  // bytes
};

/// One run.
struct PictureTime {
  PartTime parts[picture_part_count];
  double wall = 0, cpu = 0, system = 0;  // seconds; cpu: of the process, system: the kernel's part of it
  std::int64_t page_faults = 0;
};

struct PictureTimes {
  int width = 0, height = 0, faces = 0;
  std::string detector;         // its digest
  std::int64_t peak_bytes = 0;  // resident memory of the process, weights included
  std::vector<PictureTime> runs;
};

/// Reads the picture, finds, cuts out and embeds its faces, again and again for `seconds`, three times at least, after
/// one run that is not counted. False when that failed, which has been reported.
bool time_picture(const std::string& name, double seconds, const FaceOptions& faces, const ModelOptions& model,
                  facenet::Embedder& embedder, PictureTimes& times);

}  // namespace command
