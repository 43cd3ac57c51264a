#if defined(FACENET_TIFF)

#  include <tiffio.h>

#  include <algorithm>
#  include <cstdarg>
#  include <cstring>
#  include <vector>

#  include "command/formats/decoder.hpp"

namespace command {

std::string tiff_library() {
  // "LIBTIFF, Version 4.5.0\nCopyright…"
  const std::string all = TIFFGetVersion();
  const std::size_t number = all.find_first_of("0123456789");
  return "libtiff " +
         (number == std::string::npos ? "" : all.substr(number, all.find_first_of("\n ", number) - number));
}

namespace {

struct Reader {
  Source file;
  std::uint64_t at = 0;
};

tmsize_t read_some(thandle_t handle, void* to, tmsize_t size) {
  auto* r = static_cast<Reader*>(handle);
  if (r->at >= r->file.size || size <= 0) return 0;
  const std::size_t n = std::min(r->file.size - static_cast<std::size_t>(r->at), static_cast<std::size_t>(size));
  std::memcpy(to, r->file.data + r->at, n);
  r->at += n;
  return static_cast<tmsize_t>(n);
}
tmsize_t write_none(thandle_t, void*, tmsize_t) { return 0; }
toff_t seek(thandle_t handle, toff_t offset, int from) {
  auto* r = static_cast<Reader*>(handle);
  r->at = from == SEEK_SET ? offset : from == SEEK_CUR ? r->at + offset : r->file.size + offset;
  return r->at;
}
int close_none(thandle_t) { return 0; }
toff_t size_of(thandle_t handle) { return static_cast<Reader*>(handle)->file.size; }
int map(thandle_t, void**, toff_t*) { return 0; }
void unmap(thandle_t, void*, toff_t) {}

// libtiff has one word for all that goes wrong, its text; of hostile files nothing but these parts of it is looked at.
Trouble last = Trouble::corrupt;

void on_error(const char*, const char* format, va_list values) {
  char text[400];
  std::vsnprintf(text, sizeof text, format, values);
  const auto says = [&](const char* part) { return std::strstr(text, part) != nullptr; };
  if (says("emory") || says("No space"))
    last = Trouble::no_memory;
  else if (says("Read error") || says("not enough data") || says("EOF") || says("Not enough data") ||
           says("scanline") || says("Can not read"))
    last = Trouble::truncated;
  else if (says("not implemented") || says("support is not configured") || says("Sorry, ") || says("not supported"))
    last = Trouble::unsupported;
}
void on_warning(const char*, const char*, va_list) {}

/// Raw files of cameras are TIFFs whose first directory is no photograph: a thumbnail, or the sensor's own values.
bool is_raw(TIFF* tiff, Source file) {
  if (file.size > 10 && std::memcmp(file.data + 8, "CR\2", 3) == 0) return true;  // Canon
  const void* version = nullptr;
  std::uint32_t count = 0, subfile = 0;
  std::uint16_t compression = 0, photometric = 0, sub_directories = 0;
  std::uint64_t* offsets = nullptr;
  char* make = nullptr;
  if (TIFFGetField(tiff, TIFFTAG_DNGVERSION, &version) != 0) return true;
  (void)count;
  if (TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &photometric) != 0 && (photometric == 32803 || photometric == 34892))
    return true;  // colour filter array, linear raw
  if (TIFFGetField(tiff, TIFFTAG_COMPRESSION, &compression) != 0 &&
      (compression == 34713 || compression == 65535 || compression == 32767))
    return true;  // Nikon, Pentax, Sony
  return TIFFGetField(tiff, TIFFTAG_SUBFILETYPE, &subfile) != 0 && (subfile & FILETYPE_REDUCEDIMAGE) != 0 &&
         TIFFGetField(tiff, TIFFTAG_SUBIFD, &sub_directories, &offsets) != 0 && sub_directories != 0 &&
         TIFFGetField(tiff, TIFFTAG_MAKE, &make) != 0;
}

/// libtiff's pixels are numbers, whose lowest byte is red.
void unpack(const std::uint32_t* from, std::size_t count, std::uint8_t* to) {
  for (std::size_t i = 0; i < count; ++i, to += 4) {
    to[0] = static_cast<std::uint8_t>(TIFFGetR(from[i]));
    to[1] = static_cast<std::uint8_t>(TIFFGetG(from[i]));
    to[2] = static_cast<std::uint8_t>(TIFFGetB(from[i]));
    to[3] = static_cast<std::uint8_t>(TIFFGetA(from[i]));
  }
}

}  // namespace

/// The first picture, a band of rows at a time: as many as a strip or a tile has.
void decode_tiff(Source file, Canvas& canvas) {
  TIFFSetErrorHandler(on_error);
  TIFFSetWarningHandler(on_warning);
  Reader reader{file};
  TIFF* tiff = TIFFClientOpen("picture", "rm", &reader, read_some, write_none, seek, close_none, size_of, map, unmap);
  if (tiff == nullptr) refuse(file.size < 64 ? Trouble::truncated : last);
  if (is_raw(tiff, file)) {
#  if defined(FACENET_RAW)
    return decode_raw(file, canvas);
#  else
    refuse(Trouble::unsupported);
#  endif
  }
  std::uint32_t width = 0, height = 0, band = 0;
  if (TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width) == 0 || TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height) == 0)
    refuse(Trouble::corrupt);
  Canvas::check(width, height);
  const bool tiled = TIFFIsTiled(tiff) != 0;
  if (tiled)
    TIFFGetField(tiff, TIFFTAG_TILELENGTH, &band);
  else
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &band);
  if (band == 0 || band > height) band = height;
  std::uint16_t orientation = 1, depth = 8;
  TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &orientation);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &depth);
  std::uint32_t icc_size = 0;
  void* icc = nullptr;
  if (TIFFGetField(tiff, TIFFTAG_ICCPROFILE, &icc_size, &icc) != 0)
    canvas.set_profile(static_cast<const std::uint8_t*>(icc), icc_size);
  char why[1024];
  TIFFRGBAImage image;
  if (TIFFRGBAImageOK(tiff, why) == 0 || TIFFRGBAImageBegin(&image, tiff, 1, why) == 0)
    refuse(last == Trouble::no_memory ? last : Trouble::unsupported);
  // Rows as they are stored: what turns them is done where all other pictures are turned.
  canvas.set_orientation(orientation >= 1 && orientation <= 8 ? orientation : 1);
  image.req_orientation = image.orientation;
  if (std::size_t{4} * width * band > canvas.wanted().memory) refuse(Trouble::no_memory);
  std::vector<std::uint32_t> pixels(std::size_t{width} * band);
  std::vector<std::uint8_t> row(std::size_t{4} * width);
  canvas.begin(static_cast<int>(width), static_cast<int>(height));
  for (std::uint32_t top = 0; top < height; top += band) {
    const std::uint32_t rows = std::min(band, height - top);
    image.row_offset = static_cast<int>(top);
    if (TIFFRGBAImageGet(&image, pixels.data(), width, rows) == 0) refuse(last);
    // libtiff has the band's rows from the top down where the stored order is asked for.
    for (std::uint32_t y = 0; y < rows; ++y) {
      unpack(pixels.data() + std::size_t{width} * y, width, row.data());
      canvas.row_rgba(row.data(), true);
    }
  }
}

}  // namespace command

#endif
