#if defined(FACENET_WEBP)

#  include <webp/decode.h>
#  include <webp/demux.h>

#  include "command/formats/decoder.hpp"

namespace command {

std::string webp_library() {
  const int v = WebPGetDecoderVersion();
  return version_text("libwebp", v >> 16, v >> 8 & 255, v & 255);
}

namespace {

Trouble trouble_of(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return Trouble::no_memory;
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return Trouble::truncated;
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return Trouble::unsupported;
    default:
      return Trouble::corrupt;
  }
}

/// EXIF and the colour profile, which a file has in chunks of its own.
void read_chunks(const WebPData& data, Canvas& canvas) {
  WebPDemuxer* demuxer = WebPDemux(&data);
  if (demuxer == nullptr) return;  // a plain file has none, and one that is damaged fails below
  WebPChunkIterator chunk;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0) {
    const int found = orientation_of_exif(chunk.chunk.bytes, chunk.chunk.size);
    if (found != 0) canvas.set_orientation(found);
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  if (WebPDemuxGetChunk(demuxer, "ICCP", 1, &chunk) != 0) {
    canvas.set_profile(chunk.chunk.bytes, chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  WebPDemuxDelete(demuxer);
}

void first_frame(const WebPData& data, Canvas& canvas) {
  WebPAnimDecoder* decoder = WebPAnimDecoderNew(&data, nullptr);
  if (decoder == nullptr) refuse(Trouble::corrupt);
  WebPAnimInfo info;
  std::uint8_t* pixels = nullptr;
  int when = 0;
  if (WebPAnimDecoderGetInfo(decoder, &info) == 0) refuse(Trouble::corrupt);
  if (WebPAnimDecoderGetNext(decoder, &pixels, &when) == 0) refuse(Trouble::truncated);
  canvas.begin(static_cast<int>(info.canvas_width), static_cast<int>(info.canvas_height));
  for (std::uint32_t y = 0; y < info.canvas_height; ++y)
    canvas.row_rgba(pixels + std::size_t{4} * info.canvas_width * y);
}

}  // namespace

void decode_webp(Source file, Canvas& canvas) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) refuse(Trouble::unsupported);
  VP8StatusCode status = WebPGetFeatures(file.data, file.size, &config.input);
  if (status != VP8_STATUS_OK) refuse(trouble_of(status));
  const int width = config.input.width, height = config.input.height;
  Canvas::check(static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height));
  const WebPData data{file.data, file.size};
  read_chunks(data, canvas);
  if (config.input.has_animation != 0) return first_frame(data, canvas);
  int n = 1;
  const auto smaller = [&](int side) { return (side + n - 1) / n; };
  while (!canvas.fits(static_cast<std::uint64_t>(smaller(width)), static_cast<std::uint64_t>(smaller(height)))) ++n;
  if (n > 1) {
    config.options.use_scaling = 1;
    config.options.scaled_width = smaller(width);
    config.options.scaled_height = smaller(height);
  }
  const bool alpha = config.input.has_alpha != 0;
  config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
  status = WebPDecode(file.data, file.size, &config);
  if (status != VP8_STATUS_OK) refuse(trouble_of(status));
  canvas.begin(smaller(width), smaller(height), width, height);
  for (int y = 0; y < smaller(height); ++y) {
    const std::uint8_t* row = config.output.u.RGBA.rgba + std::ptrdiff_t{config.output.u.RGBA.stride} * y;
    if (alpha)
      canvas.row_rgba(row);
    else
      canvas.row(row);
  }
}

}  // namespace command

#endif
