// What a detector found, drawn into the picture.
#pragma once

#include "facenet/detector/boxes.hpp"

namespace command {

/// Box, landmarks, number and score of a face. Lines are as thick as the picture is large.
void draw_face(facenet::Image& picture, const facenet::Face& face, int number);

}  // namespace command
