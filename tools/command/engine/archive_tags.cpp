#include "command/engine/archive_tags.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "command/engine/bulk.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "command/io/tree.hpp"
#include "command/io/xmp.hpp"
#include "facenet/image/scan.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t head_bytes = 1 << 20;  // a camera's notes and thumbnails come first

/// A picture as it is stored.
struct StoredSize {
  int width = 0, height = 0, orientation = 1;
};

bool read_size(const std::string& path, StoredSize& size) {
  for (const bool whole : {false, true}) {
    std::vector<std::uint8_t> bytes;
    std::ifstream file(path, std::ios::binary);
    if (!whole) {
      bytes.resize(head_bytes);
      file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      bytes.resize(static_cast<std::size_t>(file.gcount()));
    } else {
      bytes.assign(std::istreambuf_iterator<char>(file), {});
    }
    facenet::detail::Stored stored;
    facenet::detail::Sink none;
    bool cut = false;
    const facenet::Status scanned = facenet::detail::scan_picture({bytes.data(), bytes.size()}, stored, none, cut);
    if (stored.width > 0 && (scanned.ok() || (!whole && bytes.size() == head_bytes && !stored.png))) {
      size = {stored.width, stored.height, stored.orientation};
      return true;
    }
  }
  // Of another format: its decoder turns it, and so do the programs that read its sidecar.
  Picture picture;
  if (!read_picture(path, picture).ok()) return false;
  size = {picture.given_width, picture.given_height, 1};
  return true;
}

/// A box of the upright picture, in shares of the stored one.
XmpFace in_stored(const double (&box)[4], const StoredSize& size) {
  const bool turned = size.orientation >= 5;
  const double width = turned ? size.height : size.width, height = turned ? size.width : size.height;
  const auto share = [](double value, double of) { return std::min(std::max(value / of, 0.0), 1.0); };
  const double x0 = share(box[0], width), x1 = share(box[2], width), y0 = share(box[1], height),
               y1 = share(box[3], height);
  double x = (x0 + x1) / 2, y = (y0 + y1) / 2, w = x1 - x0, h = y1 - y0;
  // The stored pixel of an upright one, as image_io.hpp's place() has it.
  if (turned) std::swap(x, y), std::swap(w, h);
  const int o = size.orientation;
  if (o == 2 || o == 3 || o == 7 || o == 8) x = 1 - x;
  if (o == 3 || o == 4 || o == 6 || o == 7) y = 1 - y;
  XmpFace face;
  face.x = x, face.y = y, face.w = w, face.h = h;
  return face;
}

class Tagging {
 public:
  explicit Tagging(const ArchiveTags& options) : options_(options) {}

  int run() {
    if (!can_read_xmp()) {
      say("this facenet was built without Expat, and writes no sidecars; 'facenet people export' has the same as CSV.");
      return failed;
    }
    for (const std::string& folder : options_.folders)
      if (!is_folder(folder)) return failed;
    load();
    Output out;
    Progress progress(files_.size());
    for (const auto& [path, sha256] : files_) {
      if (!tag(path, sha256, out)) return failed;
      progress.step();
    }
    progress.clear();
    failures_.say_all();
    if (files_.empty()) note(options_.gallery + ": it knows no picture of that folder; 'facenet people' looks at one.");
    if (!out.finish() || !failures_.none()) return failed;
    return files_.empty() ? no : done;
  }

 private:
  void load() {
    GalleryStore store(options_.gallery, Access::read);
    const ReadTransaction reading = store.reading();
    std::vector<std::string> names;
    for (const Person& p : store.persons())
      if (p.named) names.push_back(p.name);
    for (Template& t : store.templates_of(names)) faces_[t.sha256].push_back(std::move(t));
    std::vector<std::string> roots;
    for (const std::string& folder : options_.folders) {
      std::error_code error;
      std::string root = fs::absolute(folder, error).lexically_normal().string();
      if (root.back() != '/') root += '/';
      roots.push_back(root);
    }
    store.each_file([&](const SeenFile& f) {
      const bool wanted =
          std::any_of(roots.begin(), roots.end(), [&](const std::string& root) { return f.path.rfind(root, 0) == 0; });
      if (wanted && !f.sha256.empty()) files_.emplace(f.path, f.sha256);
      return true;
    });
  }

  std::string sidecar_of(const std::string& path) const {
    return options_.sidecar == "stem" ? fs::path(path).replace_extension(".xmp").string() : path + ".xmp";
  }

  /// False where the answer could not be printed, or nothing can be written any more.
  bool tag(const std::string& path, const std::string& sha256, Output& out) {
    const auto at = faces_.find(sha256);
    const bool has_faces = at != faces_.end() && !options_.undo;
    const std::string sidecar = sidecar_of(path);
    std::string old, wrong;
    const bool there = ::access(sidecar.c_str(), F_OK) == 0;
    if (!there && !has_faces) return true;
    if (!taken_.insert(sidecar).second) {
      if (has_faces) fail(path, sidecar + ": another picture has this sidecar; give --sidecar full");
      return true;
    }
    if (there && !read(sidecar, old)) {
      fail(path, sidecar + ": this sidecar cannot be read (" + std::strerror(errno) + "); check its permissions");
      return true;
    }
    XmpRegions regions;
    std::set<std::string> names;
    if (has_faces) {
      StoredSize size;
      if (::access(path.c_str(), F_OK) != 0) return true;  // gone, or moved: 'facenet people' knows where to
      if (!read_size(path, size)) {
        fail(path, path + ": this picture cannot be read; check it");
        return true;
      }
      regions.width = size.width, regions.height = size.height;
      for (const Template& t : at->second) {
        XmpFace face = in_stored(t.box, size);
        face.name = t.name, face.uuid = t.uuid;
        regions.faces.push_back(std::move(face));
        names.insert(t.name);
      }
    }
    const std::optional<std::string> now =
        options_.undo ? without_regions(old, wrong) : with_regions(old, regions, wrong);
    if (!now) {
      fail(path, sidecar + ": this sidecar is left as it is (" + wrong + "); tag the picture by hand");
      return true;
    }
    if (*now == old) return true;
    if (!options_.dry_run) {
      const int error = now->empty() ? (::unlink(sidecar.c_str()) == 0 ? 0 : errno) : write_file(sidecar, *now);
      if (error != 0) {
        fail(path, unwritable(sidecar, error));
        return error != ENOSPC && error != EDQUOT && error != EROFS && error != EIO;
      }
    }
    const char* change = now->empty() ? "removed" : old.empty() ? "made" : "changed";
    if (options_.json) {
      Json j;
      j["image"] = path;
      j["sidecar"] = sidecar;
      j["names"] = names;
      j["change"] = change;
      j["written"] = !options_.dry_run;
      return out.line(line(j));
    }
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
    return out.row({sidecar, change, all});
  }

  static bool read(const std::string& path, std::string& text) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return false;
    text.assign(std::istreambuf_iterator<char>(file), {});
    return !file.bad();
  }

  void fail(const std::string& path, const std::string& sentence) {
    failures_.add(path, sentence.back() == '.' ? sentence : sentence + ".");
  }

  const ArchiveTags& options_;
  std::map<std::string, std::string> files_;  // path and content
  std::map<std::string, std::vector<Template>> faces_;
  std::set<std::string> taken_;
  Failures failures_;
};

}  // namespace

int tag_archive(const ArchiveTags& options) { return Tagging(options).run(); }

}  // namespace command
