#include "command/engine/archive_pages.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "command/engine/bulk.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/png.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "command/report/people_page.hpp"
#include "facenet/base/parallel.hpp"
#include "facenet/image.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

constexpr int thumbnail_side = 128, thumbnail_quality = 82;
constexpr double around = 0.3;  // of the box's longer side, on each side

struct PageFace {
  std::string uuid, sha256, image;
  double box[4];
  bool pictured = false;
};
struct PagePerson {
  Person person;
  std::vector<PageFace> faces;
};

/// The square around a face, as much of it as is in the picture. given: of the picture as it was before it was shrunk.
facenet::Result<facenet::Image> thumbnail(const Picture& picture, const double (&given)[4]) {
  const double sx = static_cast<double>(picture.width()) / picture.given_width,
               sy = static_cast<double>(picture.height()) / picture.given_height;
  const double box[4] = {given[0] * sx, given[1] * sy, given[2] * sx, given[3] * sy};
  const double side = std::max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * around);
  const double x = (box[0] + box[2] - side) / 2, y = (box[1] + box[3] - side) / 2;
  const auto clamp = [](double value, int most) {
    return static_cast<int>(std::lround(std::min(std::max(value, 0.0), static_cast<double>(most))));
  };
  const facenet::ImageView view = picture;
  const int x0 = clamp(x, view.width - 1), y0 = clamp(y, view.height - 1);
  const int x1 = std::max(clamp(x + side, view.width), x0 + 1), y1 = std::max(clamp(y + side, view.height), y0 + 1);
  const facenet::Box part{static_cast<float>(x0), static_cast<float>(y0), static_cast<float>(x1),
                          static_cast<float>(y1)};
  const double scale = static_cast<double>(thumbnail_side) / std::max(x1 - x0, y1 - y0);
  return facenet::resize_bilinear(view, part, std::max(1, static_cast<int>(std::lround((x1 - x0) * scale))),
                                  std::max(1, static_cast<int>(std::lround((y1 - y0) * scale))));
}

class Pages {
 public:
  explicit Pages(const ArchivePages& options) : options_(options) {}

  int run() {
    if (!may_write()) return failed;
    load();
    if (!make_folder(options_.folder) || !make_folder(in("p")) || !make_folder(in("t"))) return failed;
    draw_all();
    failures_.say_all();
    if (full_ || !write_all()) return failed;
    remove_others();
    Json j;
    j["folder"] = options_.folder;
    j["persons"] = persons_.size();
    j["faces"] = faces_;
    j["thumbnails"] = drawn_;
    j["without_picture"] = lost_;
    j["failed"] = failures_.pictures();
    const std::string text = in("index.html") + ": " + std::to_string(persons_.size()) + " persons, " +
                             std::to_string(faces_) + " faces, " + std::to_string(drawn_) + " thumbnails made, " +
                             std::to_string(lost_) + " faces whose picture is gone";
    Output out;
    if (!(options_.json ? out.line(line(j)) : out.row({text})) || !out.finish() || !failures_.none()) return failed;
    return done;
  }

 private:
  std::string in(const std::string& name) const { return (fs::path(options_.folder) / name).string(); }

  /// Into a new or empty folder, or one that holds such pages.
  bool may_write() const {
    std::error_code error;
    if (!fs::exists(options_.folder, error) || fs::is_empty(options_.folder, error)) return true;
    std::ifstream page(in("index.html"), std::ios::binary);
    std::string start(300, '\0');
    page.read(start.data(), static_cast<std::streamsize>(start.size()));
    if (start.find("content=\"facenet people\"") != std::string::npos) return true;
    say(options_.folder +
        ": there is something else in it; give a new folder, or one that 'facenet people pages' made.");
    return false;
  }

  void load() {
    GalleryStore store(options_.gallery, Access::read);
    const ReadTransaction reading = store.reading();
    store.each_file([&](const SeenFile& f) {
      if (!f.sha256.empty()) places_.emplace(f.sha256, f.path);
      return true;
    });
    std::vector<Person> all = store.persons();
    std::stable_sort(all.begin(), all.end(), [](const Person& a, const Person& b) {
      return std::make_pair(!a.named, -a.templates) < std::make_pair(!b.named, -b.templates);
    });
    for (const Person& person : all) {
      if (person.templates == 0) continue;
      PagePerson p{person, {}};
      for (const Template& t : store.templates_of({person.name})) {
        PageFace face{t.uuid, t.sha256, t.image, {t.box[0], t.box[1], t.box[2], t.box[3]}};
        const auto place = places_.find(t.sha256);
        if (place != places_.end()) face.image = place->second;
        p.faces.push_back(std::move(face));
      }
      std::stable_sort(p.faces.begin(), p.faces.end(),
                       [](const PageFace& a, const PageFace& b) { return a.image < b.image; });
      faces_ += p.faces.size();
      persons_.push_back(std::move(p));
    }
  }

  static std::string thumbnail_name(const std::string& uuid) { return "t/" + uuid.substr(0, 2) + "/" + uuid + ".jpg"; }

  /// Each picture is decoded once for all its faces.
  void draw_all() {
    std::map<std::string, std::vector<PageFace*>> by_picture;
    std::set<std::string> folders;
    for (PagePerson& p : persons_)
      for (PageFace& face : p.faces) {
        std::error_code error;
        kept_.insert(thumbnail_name(face.uuid));
        if (fs::exists(in(thumbnail_name(face.uuid)), error)) {
          face.pictured = true;
          continue;
        }
        by_picture[face.image].push_back(&face);
        folders.insert(face.uuid.substr(0, 2));
      }
    for (const std::string& folder : folders)
      if (!make_folder(in("t/" + folder))) {
        full_ = true;
        return;
      }
    std::vector<std::pair<const std::string, std::vector<PageFace*>>*> work;
    for (auto& one : by_picture) work.push_back(&one);
    const int most = options_.threads == 0 ? facenet::default_threads() : options_.threads;
    facenet::Team team;
    const facenet::Status started =
        team.start(std::max(1, std::min(most, static_cast<int>(std::min(work.size(), std::size_t{256})))));
    if (!started.ok()) {
      say(std::string(started.text()) + "; give fewer --threads.");
      full_ = true;
      return;
    }
    Progress progress(work.size());
    std::atomic<std::size_t> next{0};
    std::mutex lock;
    team.run([&](int, int) noexcept {
      Picture picture;
      for (std::size_t i; !full_ && (i = next.fetch_add(1)) < work.size();) {
        try {
          draw(work[i]->first, work[i]->second, picture, lock);
        } catch (const std::bad_alloc&) {
          full_ = true;
          const std::lock_guard<std::mutex> locked(lock);
          say("there is not enough memory for a picture; give fewer --threads.");
        }
        const std::lock_guard<std::mutex> locked(lock);
        progress.step();
      }
    });
  }

  void draw(const std::string& path, const std::vector<PageFace*>& faces, Picture& picture, std::mutex& lock) {
    const facenet::Status read = read_picture(path, picture);
    if (!read.ok()) {
      const std::lock_guard<std::mutex> locked(lock);
      lost_ += faces.size();
      if (read.code() != facenet::Errc::not_found) failures_.add(path, sentence(read, path, Subject::picture));
      return;
    }
    for (PageFace* face : faces) {
      const auto small = thumbnail(picture, face->box);
      const int error = small.ok() ? write_file(in(thumbnail_name(face->uuid)), jpeg(*small, thumbnail_quality)) : 0;
      const std::lock_guard<std::mutex> locked(lock);
      face->pictured = small.ok() && error == 0;
      drawn_ += face->pictured;
      if (!small.ok()) failures_.add(path, sentence(small.status(), path, Subject::picture));
      if (error == 0) continue;
      if (!full_.exchange(true)) say_unwritable(in(thumbnail_name(face->uuid)), error);
    }
  }

  /// What a browser follows from the page to the picture; "" where a phone would not have it.
  std::string link(const std::string& image) const {
    std::error_code error;
    const fs::path base = fs::absolute(options_.folder, error).lexically_normal();
    const std::string path = fs::path(image).lexically_relative(base).generic_string();
    std::string out;
    for (const char c : path) {
      const auto byte = static_cast<unsigned char>(c);
      char text[4];
      std::snprintf(text, sizeof text, "%%%02X", byte);
      out += std::isalnum(byte) != 0 || std::string("/-_.~").find(c) != std::string::npos ? std::string(1, c) : text;
    }
    return out;
  }

  bool write(const std::string& name, const std::string& text) {
    kept_.insert(name);
    const int error = write_file(in(name), text);
    return error == 0 || say_unwritable(in(name), error);
  }

  /// The people last: a page never names what is not there.
  bool write_all() {
    Json people = Json::array();
    for (const PagePerson& p : persons_) {
      const auto cover = std::find_if(p.faces.begin(), p.faces.end(), [](const PageFace& f) { return f.pictured; });
      people.push_back(Json::array({p.person.id, escaped(p.person.name), p.person.named ? 1 : 0, p.faces.size(),
                                    cover == p.faces.end() ? "" : cover->uuid}));
      for (std::size_t from = 0; from < p.faces.size(); from += faces_in_chunk) {
        Json faces = Json::array();
        for (std::size_t i = from; i < std::min(from + faces_in_chunk, p.faces.size()); ++i) {
          const PageFace& face = p.faces[i];
          faces.push_back(Json::array(
              {face.pictured ? face.uuid : "", escaped(fs::path(face.image).filename().string()), link(face.image)}));
        }
        const std::string key = std::to_string(p.person.id) + "-" + std::to_string(from / faces_in_chunk);
        if (!write("p/" + key + ".js", "facenetFaces(" + std::to_string(p.person.id) + "," +
                                           std::to_string(from / faces_in_chunk) + "," + line(faces) + ");\n"))
          return false;
      }
    }
    return write("index.html", people_page()) && write("people.js", "facenetPeople(" + line(people) + ");\n");
  }

  /// Of persons and faces that are gone: nobody expects to find them here.
  void remove_others() const {
    std::vector<fs::path> others;
    std::error_code error;
    for (const char* folder : {"p", "t"})
      for (fs::recursive_directory_iterator at(in(folder), error), end; !error && at != end; at.increment(error))
        if (at->is_regular_file(error) &&
            kept_.count(at->path().lexically_relative(options_.folder).generic_string()) == 0)
          others.push_back(at->path());
    for (const fs::path& path : others) fs::remove(path, error);
  }

  const ArchivePages& options_;
  std::vector<PagePerson> persons_;
  std::map<std::string, std::string> places_;
  std::set<std::string> kept_;
  Failures failures_;
  std::size_t faces_ = 0, drawn_ = 0, lost_ = 0;
  std::atomic<bool> full_{false};
};

}  // namespace

int write_archive_pages(const ArchivePages& options) { return Pages(options).run(); }

}  // namespace command
