// Image operations for the Python tests, one request after the other: a line of text, then W * H * 3 bytes where the
// request has W and H in front. The answer is "ok A B N" and N bytes, or "error CODE TEXT".
//
//   resize W H x0 y0 x1 y1 w h      resize_bilinear of a float box   -> w x h bytes
//   crop W H x0 y0 x1 y1 w h        crop_resize of a whole box       -> w x h bytes
//   area W H w h                    resize_area                      -> w x h floats
//   standardise W H scaling order   scaling 0-3; order 0 RGB, 1 BGR  -> W x H floats
//   margin kind x0 y0 x1 y1 m s w h  kind 0: m in the output of size s, 1: in the source -> 4 ints, no pixels
//   decode PATH                     read_image                       -> width x height bytes
//
// Floats are sent as their 32 bits, so that no text conversion comes between.
#include <cinttypes>
#include <cstdio>
#include <string>
#include <vector>

#include "facenet/image_io.hpp"

namespace {

using facenet::Box;
using facenet::ChannelOrder;
using facenet::Image;
using facenet::ImageView;
using facenet::Rect;

void answer(int a, int b, const void* data, std::size_t bytes) {
  std::printf("ok %d %d %zu\n", a, b, bytes);
  std::fwrite(data, 1, bytes, stdout);
}

void answer(const facenet::Status& status) {
  char text[1024];
  std::printf("error %s %s\n", facenet::name(status.code()), status.print(text, sizeof text));
}

void answer(const facenet::Result<Image>& image) {
  if (image)
    answer(image->width(), image->height(), image->data(), image->bytes());
  else
    answer(image.status());
}

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

int main() {
  std::vector<std::uint8_t> pixels;
  std::vector<float> floats;
  Image decoded;  // one after the other in the same memory
  char word[16];
  while (std::scanf("%15s", word) == 1) {
    const std::string request = word;
    int w = 0, h = 0;
    if (request == "decode") {
      char path[4096];
      if (std::scanf(" %4095[^\n]", path) != 1) return 2;
      const facenet::Status status = facenet::read_image(path, decoded);
      if (status.ok())
        answer(decoded.width(), decoded.height(), decoded.data(), decoded.bytes());
      else
        answer(status);
      std::fflush(stdout);
      continue;
    }
    if (request == "margin") {
      int kind, margin, size;
      std::uint32_t b[4];
      if (std::scanf("%d %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %d %d %d %d", &kind, &b[0], &b[1], &b[2],
                     &b[3], &margin, &size, &w, &h) != 9)
        return 2;
      const Box face{from_bits(b[0]), from_bits(b[1]), from_bits(b[2]), from_bits(b[3])};
      const Rect r = kind == 0 ? facenet::crop_output_margin(face, margin, size, w, h)
                               : facenet::crop_source_margin(face, margin, w, h);
      answer(0, 0, &r, sizeof r);
      std::fflush(stdout);
      continue;
    }
    long long number[6];
    const int numbers = request == "resize" || request == "crop" ? 6 : 2;
    if (std::scanf("%d %d", &w, &h) != 2) return 2;
    for (int i = 0; i < numbers; ++i)
      if (std::scanf("%lld", &number[i]) != 1) return 2;
    if (std::getchar() != '\n') return 2;
    pixels.resize(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3);
    if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 2;
    const auto at = [&](int i) { return static_cast<int>(number[i]); };
    const ImageView view(pixels.data(), w, h, std::ptrdiff_t{3} * w, ChannelOrder::rgb);
    if (request == "resize") {
      const auto edge = [&](int i) { return from_bits(static_cast<std::uint32_t>(number[i])); };
      answer(facenet::resize_bilinear(view, {edge(0), edge(1), edge(2), edge(3)}, at(4), at(5)));
    } else if (request == "crop") {
      answer(facenet::crop_resize(view, {at(0), at(1), at(2), at(3)}, at(4), at(5)));
    } else if (request == "area" || request == "standardise") {
      const bool area = request == "area";
      const int out_w = area ? at(0) : w, out_h = area ? at(1) : h;
      floats.resize(static_cast<std::size_t>(out_w) * static_cast<std::size_t>(out_h) * 3);
      const facenet::Status status = area ? facenet::resize_area(view, out_w, out_h, floats)
                                          : facenet::standardise(view, static_cast<facenet::Scaling>(at(0)),
                                                                 static_cast<ChannelOrder>(at(1)), floats);
      if (status.ok())
        answer(out_w, out_h, floats.data(), floats.size() * sizeof(float));
      else
        answer(status);
    } else {
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
