// Pictures named on the command line: files, and "-" for standard input.
#pragma once

#include <string>

#include "facenet/image.hpp"

namespace command {

/// Decodes `name`; "-" is standard input, once.
facenet::Result<facenet::Image> read_picture(const std::string& name);

/// The part of the picture that is embedded: all of it when it is a face crop already, else the centre square, since
/// there is no detector yet.
facenet::Rect face_in(const facenet::Image& picture, bool aligned);

/// Says once what is done to pictures that are not crops.
void explain_crop(bool aligned);

}  // namespace command
