// Pixels from the other side of the interface, as the engine sees them; and images that the library owns.
#pragma once

#include "facenet/image.hpp"
#include "support.hpp"

namespace facenet_c {

class ImageObject : public ObjectOf<Kind::image> {
 public:
  ~ImageObject() override { wipe(image.data(), image.bytes()); }
  facenet::Image image;
};

/// The engine's view of a picture, through `copy` where it is not three bytes a pixel.
Status view_of(const facenet_picture* picture, const char* name, facenet::Image& copy, facenet::ImageView& view);

}  // namespace facenet_c
