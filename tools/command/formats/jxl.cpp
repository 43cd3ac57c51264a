#if defined(FACENET_JXL)

#  include <jxl/decode.h>

#  include <cstdlib>
#  include <vector>

#  include "command/formats/decoder.hpp"

namespace command {

std::string jxl_library() {
  const auto v = static_cast<int>(JxlDecoderVersion());
  return version_text("libjxl", v / 1000000, v / 1000 % 1000, v % 1000);
}

namespace {

bool lacked_memory = false;

void* allocate(void*, std::size_t size) {
  void* memory = std::malloc(size);
  lacked_memory = lacked_memory || memory == nullptr;
  return memory;
}
void release(void*, void* memory) { std::free(memory); }

void take_profile(JxlDecoder* decoder, const JxlPixelFormat& format, Canvas& canvas) {
  std::size_t size = 0;
  if (JxlDecoderGetICCProfileSize(decoder, &format, JXL_COLOR_PROFILE_TARGET_DATA, &size) != JXL_DEC_SUCCESS ||
      size == 0 || size > (4u << 20))
    return;
  std::vector<std::uint8_t> icc(size);
  if (JxlDecoderGetColorAsICCProfile(decoder, &format, JXL_COLOR_PROFILE_TARGET_DATA, icc.data(), size) ==
      JXL_DEC_SUCCESS)
    canvas.set_profile(icc.data(), size);
}

}  // namespace

/// The first frame. The orientation of the file is libjxl's business; EXIF's says the same once more.
void decode_jxl(Source file, Canvas& canvas) {
  const JxlMemoryManager memory{nullptr, allocate, release};
  JxlDecoder* decoder = JxlDecoderCreate(&memory);
  if (decoder == nullptr) refuse(Trouble::no_memory);
  JxlDecoderSubscribeEvents(decoder, JXL_DEC_BASIC_INFO | JXL_DEC_COLOR_ENCODING | JXL_DEC_FULL_IMAGE);
  JxlDecoderSetInput(decoder, file.data, file.size);
  JxlDecoderCloseInput(decoder);
  JxlBasicInfo info{};
  JxlPixelFormat format{4, JXL_TYPE_UINT8, JXL_NATIVE_ENDIAN, 0};
  std::vector<std::uint8_t> pixels;
  for (;;) {
    switch (JxlDecoderProcessInput(decoder)) {
      case JXL_DEC_BASIC_INFO:
        if (JxlDecoderGetBasicInfo(decoder, &info) != JXL_DEC_SUCCESS) refuse(Trouble::corrupt);
        Canvas::check(info.xsize, info.ysize);
        // libjxl ends the process where memory lacks: 4 bytes of pixels, and as many again of its own at the least.
        if (std::uint64_t{8} * info.xsize * info.ysize > canvas.wanted().memory) refuse(Trouble::no_memory);
        // The colours of a lossy file are the decoder's to choose.
        if (info.uses_original_profile == JXL_FALSE) {
          JxlColorEncoding srgb{};
          srgb.color_space = info.num_color_channels == 1 ? JXL_COLOR_SPACE_GRAY : JXL_COLOR_SPACE_RGB;
          srgb.white_point = JXL_WHITE_POINT_D65;
          srgb.primaries = JXL_PRIMARIES_SRGB;
          srgb.transfer_function = JXL_TRANSFER_FUNCTION_SRGB;
          srgb.rendering_intent = JXL_RENDERING_INTENT_RELATIVE;
          JxlDecoderSetPreferredColorProfile(decoder, &srgb);
        }
        break;
      case JXL_DEC_COLOR_ENCODING:
        take_profile(decoder, format, canvas);
        break;
      case JXL_DEC_NEED_IMAGE_OUT_BUFFER: {
        std::size_t size = 0;
        if (JxlDecoderImageOutBufferSize(decoder, &format, &size) != JXL_DEC_SUCCESS ||
            size != std::size_t{4} * info.xsize * info.ysize)
          refuse(Trouble::corrupt);
        pixels.resize(size);
        JxlDecoderSetImageOutBuffer(decoder, &format, pixels.data(), size);
        break;
      }
      case JXL_DEC_FULL_IMAGE:
        canvas.begin(static_cast<int>(info.xsize), static_cast<int>(info.ysize));
        for (std::uint32_t y = 0; y < info.ysize; ++y)
          canvas.row_rgba(pixels.data() + std::size_t{4} * info.xsize * y, info.alpha_premultiplied != JXL_FALSE);
        return;
      case JXL_DEC_NEED_MORE_INPUT:
        refuse(Trouble::truncated);
      case JXL_DEC_ERROR:
        refuse(lacked_memory ? Trouble::no_memory : Trouble::corrupt);
      case JXL_DEC_SUCCESS:
        refuse(Trouble::corrupt);  // without a picture
      default:
        break;
    }
  }
}

}  // namespace command

#endif
