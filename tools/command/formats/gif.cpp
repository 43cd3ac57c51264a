#if defined(FACENET_GIF)

#  include <gif_lib.h>

#  include <algorithm>
#  include <cstring>
#  include <vector>

#  include "command/formats/decoder.hpp"

namespace command {

std::string gif_library() { return version_text("giflib", GIFLIB_MAJOR, GIFLIB_MINOR, GIFLIB_RELEASE); }

namespace {

struct Reader {
  Source file;
  std::size_t at = 0;
};

int read_some(GifFileType* gif, GifByteType* to, int size) {
  auto* reader = static_cast<Reader*>(gif->UserData);
  const std::size_t n = std::min(reader->file.size - reader->at, static_cast<std::size_t>(size));
  std::memcpy(to, reader->file.data + reader->at, n);
  reader->at += n;
  return static_cast<int>(n);
}

[[noreturn]] void refuse_for(int error) {
  switch (error) {
    case D_GIF_ERR_READ_FAILED:
    case D_GIF_ERR_EOF_TOO_SOON:
      refuse(Trouble::truncated);
    case D_GIF_ERR_NOT_ENOUGH_MEM:
      refuse(Trouble::no_memory);
    default:
      refuse(Trouble::corrupt);
  }
}

/// Moves past everything before the first picture; the index of its transparent colour, or -1.
int find_first(GifFileType* gif) {
  int transparent = -1;
  for (;;) {
    GifRecordType record;
    if (DGifGetRecordType(gif, &record) == GIF_ERROR) refuse_for(gif->Error);
    if (record == IMAGE_DESC_RECORD_TYPE) return transparent;
    if (record == TERMINATE_RECORD_TYPE) refuse(Trouble::truncated);
    if (record != EXTENSION_RECORD_TYPE) continue;
    int code = 0;
    GifByteType* block = nullptr;
    if (DGifGetExtension(gif, &code, &block) == GIF_ERROR) refuse_for(gif->Error);
    while (block != nullptr) {
      if (code == GRAPHICS_EXT_FUNC_CODE && block[0] >= 4 && (block[1] & 1) != 0) transparent = block[4];
      if (DGifGetExtensionNext(gif, &block) == GIF_ERROR) refuse_for(gif->Error);
    }
  }
}

}  // namespace

/// The first frame on its screen, white around it and where it is transparent.
void decode_gif(Source file, Canvas& canvas) {
  Reader reader{file};
  int error = 0;
  GifFileType* gif = DGifOpen(&reader, read_some, &error);
  if (gif == nullptr) refuse_for(error);
  const int transparent = find_first(gif);
  if (DGifGetImageDesc(gif) == GIF_ERROR) refuse_for(gif->Error);
  const GifImageDesc& frame = gif->Image;
  // Some writers leave the screen's size out.
  const int width = gif->SWidth > 0 ? gif->SWidth : frame.Left + frame.Width,
            height = gif->SHeight > 0 ? gif->SHeight : frame.Top + frame.Height;
  if (frame.Width < 1 || frame.Height < 1 || frame.Left < 0 || frame.Top < 0) refuse(Trouble::corrupt);
  const auto unsigned_of = [](int v) { return static_cast<std::size_t>(v); };
  Canvas::check(unsigned_of(width), unsigned_of(height));
  Canvas::check(unsigned_of(frame.Width), unsigned_of(frame.Height));
  const ColorMapObject* map = frame.ColorMap != nullptr ? frame.ColorMap : gif->SColorMap;
  if (map == nullptr) refuse(Trouble::corrupt);
  std::vector<GifPixelType> indices(unsigned_of(frame.Width) * unsigned_of(frame.Height));
  const auto line = [&](int y) {
    if (DGifGetLine(gif, indices.data() + unsigned_of(y) * unsigned_of(frame.Width), frame.Width) == GIF_ERROR)
      refuse_for(gif->Error);
  };
  if (frame.Interlace) {
    constexpr int starts[] = {0, 4, 2, 1}, steps[] = {8, 8, 4, 2};
    for (int pass = 0; pass < 4; ++pass)
      for (int y = starts[pass]; y < frame.Height; y += steps[pass]) line(y);
  } else {
    for (int y = 0; y < frame.Height; ++y) line(y);
  }
  canvas.begin(width, height);
  std::vector<std::uint8_t> row(3 * unsigned_of(width));
  for (int y = 0; y < height; ++y) {
    std::fill(row.begin(), row.end(), std::uint8_t{255});
    const int inside = y - frame.Top;
    for (int x = 0; inside >= 0 && inside < frame.Height && x < frame.Width && frame.Left + x < width; ++x) {
      const int index = indices[unsigned_of(inside) * unsigned_of(frame.Width) + unsigned_of(x)];
      if (index == transparent) continue;
      const GifColorType black{0, 0, 0};
      const GifColorType& c = index < map->ColorCount ? map->Colors[index] : black;
      std::uint8_t* to = row.data() + 3 * unsigned_of(frame.Left + x);
      to[0] = c.Red;
      to[1] = c.Green;
      to[2] = c.Blue;
    }
    canvas.row(row.data());
  }
}

}  // namespace command

#endif
