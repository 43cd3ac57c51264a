#if defined(FACENET_RAW)

#  include <libraw/libraw.h>

#  include "command/formats/decoder.hpp"

namespace command {

std::string raw_library() { return std::string("LibRaw ") + LibRaw::version(); }

/// The preview that the camera put into the file: its own idea of the picture.
void decode_raw(Source file, Canvas& canvas) {
  auto* raw = new LibRaw();
  int error = raw->open_buffer(const_cast<std::uint8_t*>(file.data), file.size);
  if (error == LIBRAW_UNSUFFICIENT_MEMORY) refuse(Trouble::no_memory);
  if (error == LIBRAW_FILE_UNSUPPORTED) refuse(Trouble::unsupported);
  if (error != LIBRAW_SUCCESS) refuse(Trouble::corrupt);
  error = raw->unpack_thumb();
  if (error == LIBRAW_NO_THUMBNAIL || error == LIBRAW_UNSUPPORTED_THUMBNAIL) refuse(Trouble::no_preview);
  if (error == LIBRAW_UNSUFFICIENT_MEMORY) refuse(Trouble::no_memory);
  if (error == LIBRAW_IO_ERROR) refuse(Trouble::truncated);
  if (error != LIBRAW_SUCCESS) refuse(Trouble::corrupt);
  const libraw_thumbnail_t& preview = raw->imgdata.thumbnail;
  const int flip = raw->imgdata.sizes.flip;
  const int orientation = flip == 3 ? 3 : flip == 5 ? 8 : flip == 6 ? 6 : 1;
  const auto* data = reinterpret_cast<const std::uint8_t*>(preview.thumb);
  if (preview.tformat == LIBRAW_THUMBNAIL_JPEG) return decode_jpeg({data, preview.tlength}, canvas, orientation);
  const std::size_t width = preview.twidth, height = preview.theight;
  if (preview.tformat != LIBRAW_THUMBNAIL_BITMAP || width * height * 3 > preview.tlength) refuse(Trouble::no_preview);
  canvas.set_orientation(orientation);
  canvas.begin(static_cast<int>(width), static_cast<int>(height));
  for (std::size_t y = 0; y < height; ++y) canvas.row(data + 3 * width * y);
}

}  // namespace command

#endif
