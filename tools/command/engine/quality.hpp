// How much a face's picture can be trusted to tell whose it is: size, blur, pose and the detector's score.
#pragma once

#include "command/io/json.hpp"
#include "facenet/detector/boxes.hpp"

namespace command {

/// Each part is 1 where more of it would not help and falls to 0; `value` is their product, so that one bad part is
/// enough. Nothing in it was learnt from labelled pictures: it ranks pictures of one face, and a gate on it leaves out
/// what is certainly no use.
struct FaceQuality {
  float value = 0;
  float size = 0;       // the box's mean side / 80 pixels
  float sharpness = 0;  // variance of the Laplacian of 112 x 112 grey pixels / 250
  float pose = 0;       // 1 facing the camera, 0 in profile or looking far up or down; from the five landmarks
  float score = 0;      // the detector's
};

/// 0 in all of it where no pixel of the box lies in the picture. Errors: out_of_memory.
facenet::Result<FaceQuality> measure_quality(facenet::ImageView picture, const facenet::Face& face);
/// The same of a face crop, in which nothing was looked for: size and sharpness, the other parts are 1.
facenet::Result<FaceQuality> measure_aligned_quality(facenet::ImageView crop);

/// The part of measure_quality() that landmarks decide.
float pose_quality(const facenet::Point (&landmarks)[5]);

/// "quality", its value, and "quality_parts".
void add_quality(Json& j, const FaceQuality& quality);

}  // namespace command
