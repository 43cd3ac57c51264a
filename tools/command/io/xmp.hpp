// XMP sidecars: who is where in a picture, as the Metadata Working Group has it, beside whatever else stands in them.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace command {

/// A face in the picture as it is stored, whatever its orientation: centre and size as shares of width and height.
struct XmpFace {
  std::string name, uuid;
  double x = 0, y = 0, w = 0, h = 0;
};

struct XmpRegions {
  int width = 0, height = 0;  // of the stored picture
  std::vector<XmpFace> faces;
};

/// Whether sidecars can be read: this program was built with Expat.
bool can_read_xmp();

/// `old` with these faces in place of those that an earlier call wrote, and all else byte for byte as it was. "" as
/// `old`: a new sidecar. A region of another program that covers a face stays, and the face gets none. Nothing where
/// the text is no XMP that can be changed; `wrong` says why.
std::optional<std::string> with_regions(const std::string& old, const XmpRegions& regions, std::string& wrong);
/// `old` as it was before the first with_regions(); "" for what that made.
std::optional<std::string> without_regions(const std::string& old, std::string& wrong);

}  // namespace command
