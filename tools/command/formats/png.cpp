#if defined(FACENET_PNG)

#  include <png.h>

#  include <cstring>
#  include <vector>

#  include "command/formats/decoder.hpp"
#  include "facenet/image/exif.hpp"

namespace command {

std::string png_library() { return std::string("libpng ") + png_get_libpng_ver(nullptr); }

namespace {

struct Reader {
  Source file;
  std::size_t at = 0;
};

void read_some(png_structp png, png_bytep to, std::size_t size) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (reader->file.size - reader->at < size) refuse(Trouble::truncated);
  std::memcpy(to, reader->file.data + reader->at, size);
  reader->at += size;
}

[[noreturn]] void on_error(png_structp, png_const_charp text) {
  refuse(std::strstr(text, "emory") != nullptr ? Trouble::no_memory : Trouble::corrupt);
}
void on_warning(png_structp, png_const_charp) {}

int orientation_of(png_structp png, png_infop info) {
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  int found = png_get_eXIf_1(png, info, &size, &exif) != 0 ? orientation_of_exif(exif, size) : 0;
  png_textp texts = nullptr;
  int count = 0;
  png_get_text(png, info, &texts, &count);
  for (int i = 0; i < count && found == 0; ++i) {
    const std::size_t length =
        texts[i].compression >= PNG_ITXT_COMPRESSION_NONE ? texts[i].itxt_length : texts[i].text_length;
    const facenet::detail::Bytes text(reinterpret_cast<const std::uint8_t*>(texts[i].text), length);
    if (std::strcmp(texts[i].key, "Raw profile type exif") == 0 ||
        std::strcmp(texts[i].key, "Raw profile type APP1") == 0)
      found = facenet::detail::raw_profile_orientation(text);
    else if (std::strcmp(texts[i].key, "XML:com.adobe.xmp") == 0)
      found = facenet::detail::xmp_orientation(text);
  }
  return found != 0 ? found : 1;
}

}  // namespace

/// For PNGs that are larger than facenet/image_io.hpp takes, or whose colours are to be turned into sRGB.
void decode_png(Source file, Canvas& canvas) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, on_error, on_warning);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) refuse(Trouble::no_memory);
  Reader reader{file};
  png_set_read_fn(png, &reader, read_some);
  png_set_user_limits(png, most_side_in_file, most_side_in_file);
  png_read_info(png, info);
  const png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  Canvas::check(width, height);
  canvas.set_orientation(orientation_of(png, info));
  png_charp name = nullptr;
  png_bytep icc = nullptr;
  int compression = 0;
  png_uint_32 size = 0;
  if (png_get_iCCP(png, info, &name, &compression, &icc, &size) != 0) canvas.set_profile(icc, size);
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const std::size_t row_bytes = png_get_rowbytes(png, info);
  if (row_bytes != std::size_t{4} * width) refuse(Trouble::unsupported);
  // Interlaced rows are whole only after the last pass: all of them must be kept.
  const std::size_t kept = passes > 1 ? height : 1;
  if (row_bytes * kept > canvas.wanted().memory) refuse(Trouble::no_memory);
  std::vector<std::uint8_t> rows(row_bytes * kept);
  for (int pass = 0; pass + 1 < passes; ++pass)
    for (std::size_t y = 0; y < height; ++y) png_read_row(png, rows.data() + row_bytes * y, nullptr);
  canvas.begin(static_cast<int>(width), static_cast<int>(height));
  for (std::size_t y = 0; y < height; ++y) {
    std::uint8_t* row = rows.data() + row_bytes * (y % kept);
    png_read_row(png, row, nullptr);
    canvas.row_rgba(row);
  }
}

}  // namespace command

#endif
