// The table of decoders that are built in.
#include "command/formats/decoder.hpp"

namespace command {

#define DECLARED(name) \
  std::string name##_library(); \
  void decode_##name(Source file, Canvas& canvas);
DECLARED(png)
DECLARED(webp)
DECLARED(heif)
DECLARED(tiff)
DECLARED(gif)
DECLARED(bmp)
DECLARED(jxl)
#undef DECLARED
std::string jpeg_library();
std::string raw_library();
void prepare_heif();

const Decoder* find_decoder(Kind kind) {
  static const std::vector<Decoder> all {
#if defined(FACENET_JPEG)
    {Kind::jpeg, jpeg_library, nullptr, decode_jpeg},
#endif
#if defined(FACENET_PNG)
        {Kind::png, png_library, nullptr, decode_png},
#endif
#if defined(FACENET_WEBP)
        {Kind::webp, webp_library, nullptr, decode_webp},
#endif
#if defined(FACENET_HEIF)
        {Kind::heic, heif_library, prepare_heif, decode_heif}, {Kind::avif, heif_library, prepare_heif, decode_heif},
#endif
#if defined(FACENET_TIFF)
        {Kind::tiff, tiff_library, nullptr, decode_tiff},
#endif
#if defined(FACENET_GIF)
        {Kind::gif, gif_library, nullptr, decode_gif},
#endif
#if defined(FACENET_BMP)
        {Kind::bmp, bmp_library, nullptr, decode_bmp},
#endif
#if defined(FACENET_JXL)
        {Kind::jxl, jxl_library, nullptr, decode_jxl},
#endif
#if defined(FACENET_RAW)
        {Kind::raw, raw_library, nullptr, decode_raw},
#endif
  };
  for (const Decoder& d : all)
    if (d.kind == kind) return &d;
  return nullptr;
}

}  // namespace command
