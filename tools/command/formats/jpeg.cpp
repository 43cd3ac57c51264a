#if defined(FACENET_JPEG)

#  include <cstddef>
#  include <cstdio>
#  include <cstdlib>
#  include <jpeglib.h>

#  include <jerror.h>

#  include <cstring>
#  include <vector>

#  include "command/formats/decoder.hpp"

namespace command {

std::string jpeg_library() {
#  if defined(LIBJPEG_TURBO_VERSION_NUMBER)
  constexpr int v = LIBJPEG_TURBO_VERSION_NUMBER;
  return version_text("libjpeg-turbo", v / 1000000, v / 1000 % 1000, v % 1000);
#  else
  return "libjpeg " + std::to_string(JPEG_LIB_VERSION);
#  endif
}

namespace {

// The process ends where libjpeg cannot go on, so nothing has to find its way back from there.
[[noreturn]] void on_error(j_common_ptr jpeg) {
  switch (jpeg->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
      refuse(Trouble::no_memory);
    case JERR_IMAGE_TOO_BIG:  // its own limit is 65500
      refuse(Trouble::too_large);
    case JERR_INPUT_EOF:
      refuse(Trouble::truncated);
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_NOTIMPL:
      refuse(Trouble::unsupported);
    default:
      refuse(Trouble::corrupt);
  }
}

/// libjpeg fills what is missing with grey and warns: half a picture is none.
void on_message(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
      refuse(Trouble::truncated);
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
      return;
    default:
      refuse(Trouble::corrupt);
  }
}
void no_output(j_common_ptr) {}

}  // namespace

void decode_jpeg(Source file, Canvas& canvas, int orientation) {
  jpeg_decompress_struct jpeg;
  jpeg_error_mgr errors;
  std::memset(&jpeg, 0, sizeof jpeg);
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = on_error;
  errors.emit_message = on_message;
  errors.output_message = no_output;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, const_cast<unsigned char*>(file.data), static_cast<unsigned long>(file.size));
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_save_markers(&jpeg, JPEG_APP0 + 2, 0xFFFF);
  jpeg_read_header(&jpeg, TRUE);
  Canvas::check(jpeg.image_width, jpeg.image_height);
  for (const jpeg_marker_struct* m = jpeg.marker_list; m != nullptr; m = m->next)
    if (m->marker == JPEG_APP0 + 1 && m->data_length >= 6 && std::memcmp(m->data, "Exif\0\0", 6) == 0) {
      const int own = orientation_of_exif(m->data, m->data_length);
      if (own != 0) orientation = own;
      break;  // the first counts, as in facenet/image/scan_jpeg.hpp
    }
  canvas.set_orientation(orientation);
  JOCTET* icc = nullptr;
  unsigned icc_size = 0;
  if (jpeg_read_icc_profile(&jpeg, &icc, &icc_size) == TRUE) canvas.set_profile(icc, icc_size);
  std::free(icc);

  const bool inks = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
  if (inks && !jpeg.saw_Adobe_marker) refuse(Trouble::unsupported);
  jpeg.out_color_space = inks ? JCS_CMYK : JCS_RGB;
  jpeg.scale_denom = 8;
  // A progressive picture's coefficients are kept, while its pixels are there too.
  std::uint64_t kept = file.size;
  for (int i = 0; jpeg_has_multiple_scans(&jpeg) && i < jpeg.num_components; ++i)
    kept += std::uint64_t{jpeg.comp_info[i].width_in_blocks} * jpeg.comp_info[i].height_in_blocks * sizeof(JBLOCK);
  const auto fits = [&] {
    return canvas.fits(jpeg.output_width, jpeg.output_height) &&
           kept + std::uint64_t{3} * jpeg.output_width * jpeg.output_height <= canvas.wanted().memory;
  };
  for (jpeg.scale_num = 8; jpeg.scale_num > 1; --jpeg.scale_num) {
    jpeg_calc_output_dimensions(&jpeg);
    if (fits()) break;
  }
  jpeg_start_decompress(&jpeg);
  canvas.begin(static_cast<int>(jpeg.output_width), static_cast<int>(jpeg.output_height),
               static_cast<int>(jpeg.image_width), static_cast<int>(jpeg.image_height));
  std::vector<std::uint8_t> row(std::size_t{jpeg.output_width} * static_cast<std::size_t>(jpeg.output_components));
  JSAMPROW rows[] = {row.data()};
  while (jpeg.output_scanline < jpeg.output_height) {
    if (jpeg_read_scanlines(&jpeg, rows, 1) != 1) refuse(Trouble::truncated);
    if (inks)  // Adobe's are inverted: what is left of the light
      for (std::size_t x = 0; x < jpeg.output_width; ++x)
        for (std::size_t c = 0; c < 3; ++c)
          row[3 * x + c] = static_cast<std::uint8_t>((row[4 * x + c] * row[4 * x + 3] + 127) / 255);
    canvas.row(row.data());
  }
}

void decode_jpeg(Source file, Canvas& canvas) { decode_jpeg(file, canvas, 1); }

}  // namespace command

#endif
