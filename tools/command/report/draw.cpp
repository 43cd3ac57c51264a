#include "command/report/draw.hpp"

#include <cmath>
#include <cstdio>
#include <string>

namespace command {

namespace {

using facenet::Image;
using facenet::Rect;

struct Colour {
  std::uint8_t r, g, b;
};
constexpr Colour line_colour{0, 230, 118}, point_colour{255, 64, 129}, dark{16, 24, 32};

// 5 x 7 pixels a character, the left one in the highest of five bits.
constexpr int glyph_width = 5, glyph_height = 7;
constexpr char glyph_names[] = "0123456789.#";
constexpr std::uint8_t glyphs[][glyph_height] = {
    {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}, {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e},
    {0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f}, {0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e},
    {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}, {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e},
    {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}, {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08},
    {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}, {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c}, {0x0a, 0x0a, 0x1f, 0x0a, 0x1f, 0x0a, 0x0a},
};
static_assert(sizeof glyphs / sizeof *glyphs == sizeof glyph_names - 1, "a glyph for each name");

/// The part of `r` that is in the picture.
void fill(Image& picture, Rect r, Colour c) {
  const int x1 = r.x1 < picture.width() ? r.x1 : picture.width(),
            y1 = r.y1 < picture.height() ? r.y1 : picture.height();
  for (int y = r.y0 > 0 ? r.y0 : 0; y < y1; ++y)
    for (int x = r.x0 > 0 ? r.x0 : 0; x < x1; ++x) {
      std::uint8_t* p = picture.row(y) + 3 * x;
      p[0] = c.r;
      p[1] = c.g;
      p[2] = c.b;
    }
}

/// `thick` pixels wide, inside of `r`.
void outline(Image& picture, Rect r, int thick, Colour c) {
  fill(picture, {r.x0, r.y0, r.x1, r.y0 + thick}, c);
  fill(picture, {r.x0, r.y1 - thick, r.x1, r.y1}, c);
  fill(picture, {r.x0, r.y0, r.x0 + thick, r.y1}, c);
  fill(picture, {r.x1 - thick, r.y0, r.x1, r.y1}, c);
}

void disc(Image& picture, int x, int y, int radius, Colour c) {
  for (int dy = -radius; dy <= radius; ++dy) {
    const int half = static_cast<int>(std::sqrt(static_cast<double>(radius * radius - dy * dy)) + 0.5);
    fill(picture, {x - half, y + dy, x + half + 1, y + dy + 1}, c);
  }
}

void write(Image& picture, const std::string& text, int x, int y, int pixel, Colour c) {
  for (const char letter : text) {
    for (std::size_t g = 0; g + 1 < sizeof glyph_names; ++g) {
      if (glyph_names[g] != letter) continue;
      for (int row = 0; row < glyph_height; ++row)
        for (int column = 0; column < glyph_width; ++column)
          if ((glyphs[g][row] >> (glyph_width - 1 - column) & 1) != 0)
            fill(picture, {x + column * pixel, y + row * pixel, x + (column + 1) * pixel, y + (row + 1) * pixel}, c);
    }
    x += (glyph_width + 1) * pixel;
  }
}

/// A detector's numbers may lie far outside of the picture: held near it, where int holds them.
int near_picture(float v) {
  constexpr float far = 2 * facenet::max_image_side;
  return static_cast<int>(std::lround(v > far ? far : v > -far ? v : -far));
}

}  // namespace

void draw_face(Image& picture, const facenet::Face& face, int number) {
  const int longest = picture.width() > picture.height() ? picture.width() : picture.height();
  const int thick = 1 + longest / 500, pixel = 1 + longest / 700;
  const Rect box{near_picture(face.box.x0), near_picture(face.box.y0), near_picture(face.box.x1),
                 near_picture(face.box.y1)};
  outline(picture, {box.x0 - 1, box.y0 - 1, box.x1 + 1, box.y1 + 1}, thick + 2, dark);  // for bright backgrounds
  outline(picture, box, thick, line_colour);
  for (const facenet::Point p : face.landmarks) {
    disc(picture, near_picture(p.x), near_picture(p.y), thick + 1, dark);
    disc(picture, near_picture(p.x), near_picture(p.y), thick, point_colour);
  }

  char text[32];
  std::snprintf(text, sizeof text, "#%d %.3f", number, static_cast<double>(face.score));
  const std::string label = text;
  const int w = static_cast<int>(label.size()) * (glyph_width + 1) * pixel + 3 * pixel, h = (glyph_height + 4) * pixel;
  // Above the box, else inside; moved into the picture at its right edge.
  const int room = picture.width() - w;
  const int x = box.x0 < room ? (box.x0 > 0 ? box.x0 : 0) : (room > 0 ? room : 0);
  const int y = box.y0 >= h ? box.y0 - h : (box.y0 > 0 ? box.y0 : 0);
  fill(picture, {x, y, x + w, y + h}, line_colour);
  write(picture, label, x + 2 * pixel, y + 2 * pixel, pixel, dark);
}

}  // namespace command
