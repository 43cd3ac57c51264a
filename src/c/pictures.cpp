#include "pictures.hpp"

#include "facenet/image_io.hpp"

namespace facenet_c {

namespace {

int bytes_a_pixel(std::int32_t format) noexcept {
  switch (format) {
    case FACENET_RGB:
    case FACENET_BGR:
      return 3;
    case FACENET_RGBA:
    case FACENET_BGRA:
      return 4;
    case FACENET_GREY:
      return 1;
    default:
      return 0;
  }
}

/// Alpha goes over white and is rounded to nearest, as files with alpha are decoded.
void to_rgb(const std::uint8_t* from, std::size_t width, std::int32_t format, std::uint8_t* to) noexcept {
  const auto over = [](unsigned value, unsigned alpha) {
    return static_cast<std::uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
  };
  for (std::size_t x = 0; x < width; ++x, to += 3) {
    if (format == FACENET_GREY) {
      to[0] = to[1] = to[2] = from[x];
      continue;
    }
    const std::uint8_t* const p = from + 4 * x;
    const int red = format == FACENET_RGBA ? 0 : 2;
    to[0] = over(p[red], p[3]);
    to[1] = over(p[1], p[3]);
    to[2] = over(p[2 - red], p[3]);
  }
}

}  // namespace

Status view_of(const facenet_picture* picture, const char* name, facenet::Image& copy, facenet::ImageView& view) {
  if (picture == nullptr) return null_argument(name);
  const auto wrong = [&](const char* text) { return Status(Errc::invalid_argument, text).in(name); };
  if (picture->pixels == nullptr) return wrong("the picture has no pixels: its pointer is null");
  const int pixel = bytes_a_pixel(picture->format);
  if (pixel == 0) return wrong("the picture's format is none of FACENET_RGB, BGR, RGBA, BGRA and GREY");
  if (picture->reserved != 0) return wrong("the picture's member `reserved` must be 0");
  if (const Status s = facenet::detail::check_size(picture->width, picture->height); !s.ok()) return Status(s).in(name);
  const auto width = static_cast<std::size_t>(picture->width), height = static_cast<std::size_t>(picture->height);
  const std::size_t row = width * static_cast<std::size_t>(pixel);
  const std::size_t stride = picture->stride == 0 ? row : picture->stride;
  if (stride < row) return wrong("the rows of the picture overlap: its stride is below its width in bytes");
  if (picture->size < row || (picture->size - row) / stride < height - 1)
    return wrong("the picture's size is below (height - 1) * stride + width * bytes a pixel");
  if (pixel == 3) {
    const auto step = height > 1 ? static_cast<std::ptrdiff_t>(stride) : static_cast<std::ptrdiff_t>(row);
    const auto order = picture->format == FACENET_RGB ? facenet::ChannelOrder::rgb : facenet::ChannelOrder::bgr;
    view = {picture->pixels, picture->width, picture->height, step, order};
    return {};
  }
  auto made = facenet::Image::make(picture->width, picture->height, facenet::ChannelOrder::rgb, false);
  if (!made) return made.status();
  copy = std::move(*made);
  for (std::size_t y = 0; y < height; ++y)
    to_rgb(picture->pixels + y * stride, width, picture->format, copy.row(static_cast<int>(y)));
  view = copy.view();
  return {};
}

}  // namespace facenet_c

using namespace facenet_c;

extern "C" {

facenet_code facenet_image_decode(const void* bytes, size_t size, facenet_image** image, facenet_error* error) {
  return make_object<ImageObject>(image, "image", error, [&](ImageObject& object) -> Status {
    if (bytes == nullptr) return null_argument("bytes");
    auto decoded = facenet::decode_image({static_cast<const std::uint8_t*>(bytes), size});
    if (!decoded) return decoded.status();
    object.image = std::move(*decoded);
    return {};
  });
}

facenet_code facenet_image_read(const char* path, facenet_image** image, facenet_error* error) {
  return make_object<ImageObject>(image, "image", error, [&](ImageObject& object) -> Status {
    if (path == nullptr) return null_argument("path");
    auto read = facenet::read_image(path);
    if (!read) return read.status();
    object.image = std::move(*read);
    return {};
  });
}

facenet_code facenet_image_pixels(facenet_image* image, facenet_picture* picture, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    if (picture == nullptr) return null_argument("picture");
    std::shared_ptr<ImageObject> object;
    FACENET_TRY(find(image, object));
    const facenet::Image& i = object->image;
    picture->pixels = i.data();
    picture->size = i.bytes();
    picture->width = i.width();
    picture->height = i.height();
    picture->stride = static_cast<std::size_t>(i.stride());
    picture->format = i.order() == facenet::ChannelOrder::rgb ? FACENET_RGB : FACENET_BGR;
    picture->reserved = 0;
    return {};
  });
}

facenet_code facenet_image_free(facenet_image* image) { return free_handle(image, Kind::image); }

}  // extern "C"
