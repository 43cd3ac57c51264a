#include "command/engine/archive_scan.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cerrno>
#include <ctime>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "command/engine/bulk.hpp"
#include "command/engine/gallery_model.hpp"
#include "command/engine/growing_clusters.hpp"
#include "command/engine/model.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/file_list.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "command/io/tree.hpp"
#include "facenet/base/hash.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

constexpr auto between_commits = std::chrono::seconds(3);
constexpr std::size_t most_waiting = 1024;        // faces that wait for a commit
constexpr double same_face = 0.5;                 // of the threshold: the same face in a changed file
constexpr std::int64_t settling = 2'000'000'000;  // nanoseconds in which a file may change without another time
constexpr std::int64_t unknown_time = -1;

/// What tells without reading whether a file has changed.
struct FileState {
  std::int64_t bytes = -1, modified = unknown_time;
  bool operator==(const FileState& o) const { return bytes == o.bytes && modified == o.modified; }
};

FileState state_of(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) return {};
  return {about.st_size, std::int64_t{about.st_mtim.tv_sec} * 1'000'000'000 + about.st_mtim.tv_nsec};
}

bool is_gone(const std::string& path) {
  struct stat about {};
  return ::lstat(path.c_str(), &about) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

std::string to_hex(const PictureDigest& digest) {
  char digits[2 * facenet::Sha256::digest_size + 1];
  facenet::to_hex({digest.data(), digest.size()}, digits);
  return digits;
}

/// The same picture, wherever it is called from.
std::string absolute(const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::absolute(path, error).lexically_normal();
  return error ? path : whole.string();
}

class ArchiveScan {
 public:
  explicit ArchiveScan(const ArchiveOptions& options) : options_(options), store_(options.gallery, Access::create) {}

  int run() {
    if (!collect() || !prepare()) return failed;
    load_files();
    plan();
    const bool again = !work_.empty() || !store_.refusals().empty();
    if (again) load_faces();
    if (!work() || (again && !flush(true)) || !forget_gone()) return failed;
    failures_.say_all();
    tree_.say_left_out();
    return summary();
  }

 private:
  /// A picture that was looked at, until it is on the disk.
  struct Looked {
    std::string path;
    FileState state;
    EmbeddedPicture picture;
  };
  struct Known {
    FileState state;
    std::string sha256, settings, problem;
    std::int64_t faces = 0;
  };
  struct Counts {
    std::size_t fresh = 0, changed = 0, moved = 0, unchanged = 0, faceless = 0, faces = 0, gone = 0, pruned = 0;
  };

  bool collect() {
    for (const std::string& folder : options_.folders) {
      if (!is_folder(folder)) return false;
      all_read_ = tree_.collect(absolute(folder)) && all_read_;
    }
    for (const fs::path& picture : tree_.pictures) pictures_.push_back(picture.string());
    if (!options_.list.empty()) {
      std::vector<std::string> listed;
      if (!read_file_list(options_.list, options_.zero, listed)) return false;
      for (const std::string& name : listed) pictures_.push_back(absolute(name));
    }
    std::sort(pictures_.begin(), pictures_.end());
    pictures_.erase(std::unique(pictures_.begin(), pictures_.end()), pictures_.end());
    if (!pictures_.empty() || store_.exists()) return true;
    if (all_read_ && options_.list.empty()) tree_.say_empty();
    if (!options_.list.empty()) say(options_.list + ": it names no picture; give a list of files.");
    return false;
  }

  bool prepare() {
    if (!bulk_.load(options_.model, options_.faces, options_.aligned, "") ||
        !resolve_threshold(options_.threshold, bulk_.info(), threshold_))
      return false;
    dim_ = bulk_.dim();
    model_ = gallery_model(bulk_.info(), bulk_.detector());
    store_.require(model_);
    warn_untrained(bulk_.info());
    char limits[120];
    std::snprintf(limits, sizeof limits, " score %.9g quality %.9g", options_.limits.score, options_.limits.quality);
    settings_ = bulk_.fingerprint() + (options_.aligned ? "" : limits);
    bulk_.leave_out([this](const PictureDigest& key) {
      const std::lock_guard<std::mutex> lock(looking_);
      return looked_.count(to_hex(key)) != 0;
    });
    return true;
  }

  // ---- What is known ------------------------------------------------------------------------------------------------

  void load_files() {
    files_.clear();
    places_.clear();
    {
      const std::lock_guard<std::mutex> lock(looking_);
      looked_.clear();
    }
    version_ = 0;
    if (!store_.exists()) return;
    const ReadTransaction reading = store_.reading();
    version_ = store_.version();
    store_.each_file([&](const SeenFile& f) {
      Known known{{f.bytes, f.modified}, f.sha256, f.settings, f.problem, f.faces};
      if (!f.sha256.empty()) {
        ++places_[f.sha256];
        if (f.settings == settings_) {
          const std::lock_guard<std::mutex> lock(looking_);
          looked_.emplace(f.sha256, std::pair{f.problem, f.faces});
        }
      }
      files_.emplace(f.path, std::move(known));
      return true;
    });
  }

  void load_faces() {
    GrowingOptions o;
    o.threshold = threshold_;
    o.margin = options_.margin;
    o.collages = options_.collages;
    o.threads = options_.model.threads;
    auto made = GrowingClusters::make(dim_, o);
    require(made.status());
    clusters_ = std::move(*made);
    ids_.clear();
    keep_.clear();
    of_picture_.clear();
    slots_.clear();
    if (!store_.exists()) return;
    const ReadTransaction reading = store_.reading();
    if (store_.version() != version_) load_files();
    const auto dim = static_cast<std::size_t>(dim_);
    store_.each_archive_face([&](const ArchiveFace& f) {
      GrowingClusters::Slot slot = 0;
      if (f.named) clusters_->set_named(f.person);
      require(clusters_->add(f.person, picture_number(f.sha256), f.settled, {f.embedding, dim}, slot));
      ids_.push_back(f.id);
      slots_.emplace(f.id, slot);
      of_picture_[f.sha256].push_back(slot);
      keep_.push_back(f.settled || f.named);
    });
    refused_again_.clear();
    for (const auto& [id, person] : store_.refusals()) {
      const auto at = slots_.find(id);
      if (at == slots_.end()) continue;
      clusters_->refuse(at->second, person);
      if (!keep_[at->second]) refused_again_.push_back(at->second);
    }
  }

  static void require(const facenet::Status& status) {
    if (!status.ok())
      throw DatabaseError("the faces of the gallery cannot be sorted: " + std::string(status.text()) + ".");
  }

  static std::uint64_t picture_number(const std::string& sha256) {
    std::uint64_t number = 0;
    for (int i = 0; i < 16; ++i) {
      const char c = sha256[static_cast<std::size_t>(i)];
      number = number << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return number;
  }

  void plan() {
    for (const std::string& path : pictures_) {
      const FileState state = state_of(path);
      const auto at = files_.find(path);
      if (at != files_.end() && at->second.state == state && state.modified != unknown_time &&
          at->second.settings == settings_ && at->second.problem.empty()) {
        ++counts_.unchanged;
        continue;
      }
      work_.push_back(path);
      states_.push_back(state);
    }
  }

  // ---- The work -----------------------------------------------------------------------------------------------------

  bool work() {
    if (work_.empty()) return true;
    Progress progress(work_.size());
    committed_ = Clock::now();
    const bool complete = bulk_.run(work_, [&](std::size_t i, EmbeddedPicture& picture) {
      try {
        return receive(i, picture, progress);
      } catch (const DatabaseError&) {  // threads of the engine let nothing through
        error_ = std::current_exception();
        return false;
      }
    });
    progress.clear();
    if (error_) std::rethrow_exception(error_);
    return complete;
  }

  bool receive(std::size_t i, EmbeddedPicture& picture, Progress& progress) {
    Looked looked{work_[i], states_[i], std::move(picture)};
    const FileState now = state_of(looked.path);
    const std::int64_t clock = std::int64_t{std::time(nullptr)} * 1'000'000'000;
    // Changed while it was read, or so lately that it may change again within one tick of the clock.
    if (!(now == looked.state) || now.modified > clock - settling) looked.state.modified = unknown_time;
    waiting_faces_ += looked.picture.faces.size();
    waiting_.push_back(std::move(looked));
    progress.step();
    if (waiting_faces_ < most_waiting && Clock::now() - committed_ < between_commits) return true;
    return flush(false);
  }

  /// Sorts what waits and writes it, all or nothing. Another process's change is read first.
  bool flush(bool last) {
    if (waiting_.empty() && !(last && !refused_again_.empty())) return true;
    for (;;) {
      ArchiveChange change;
      change.version = version_;
      Counts counts = counts_;
      std::vector<std::pair<std::string, std::string>> failures;
      std::vector<GrowingClusters::Slot> fresh, renewed, moved;
      std::unordered_map<std::string, std::pair<std::string, std::int64_t>> looked;
      std::unordered_map<GrowingClusters::Slot, std::size_t> at;  // in change.faces
      for (const Looked& picture : waiting_) take(picture, change, counts, failures, looked, fresh, at);
      for (const GrowingClusters::Slot slot : refused_again_) fresh.push_back(slot);
      require(clusters_->settle(fresh, moved));
      for (const GrowingClusters::Slot slot : moved) {
        if (at.count(slot) != 0) continue;
        at.emplace(slot, change.faces.size());
        change.faces.push_back({ids_[slot], 0, false, {}});
      }
      for (const auto& [slot, index] : at) change.faces[index].person = clusters_->person(slot);
      const ArchiveChanged changed = store_.apply(model_, change);
      if (!changed.done) {
        version_ = -1;
        load_files();
        load_faces();
        continue;
      }
      version_ = store_.version();
      clusters_->renumber({changed.persons.begin(), changed.persons.end()});
      for (const auto& [slot, index] : at) ids_[slot] = changed.ids[index];
      for (const SeenFile& f : change.files) remember(f);
      {
        const std::lock_guard<std::mutex> lock(looking_);
        for (auto& one : looked) looked_[one.first] = one.second;
      }
      for (const auto& [path, sentence] : failures) failures_.add(path, sentence);
      counts_ = counts;
      refused_again_.clear();
      waiting_.clear();
      waiting_faces_ = 0;
      committed_ = Clock::now();
      return true;
    }
  }

  void remember(const SeenFile& f) {
    Known& known = files_[f.path];
    if (!known.sha256.empty() && known.sha256 != f.sha256 && --places_[known.sha256] == 0) places_.erase(known.sha256);
    if (!f.sha256.empty() && known.sha256 != f.sha256) ++places_[f.sha256];
    known = {{f.bytes, f.modified}, f.sha256, f.settings, f.problem, f.faces};
  }

  using LookedAt = std::unordered_map<std::string, std::pair<std::string, std::int64_t>>;  // problem, faces

  void take(const Looked& looked, ArchiveChange& change, Counts& counts,
            std::vector<std::pair<std::string, std::string>>& failures, LookedAt& now,
            std::vector<GrowingClusters::Slot>& fresh, std::unordered_map<GrowingClusters::Slot, std::size_t>& at) {
    const bool read = looked.picture.key != PictureDigest{};
    SeenFile file;
    file.path = looked.path;
    file.sha256 = read ? to_hex(looked.picture.key) : "";
    file.bytes = looked.state.bytes;
    file.modified = looked.state.modified;
    file.settings = settings_;
    const auto before = files_.find(looked.path);
    const bool was_there = before != files_.end();
    const auto known = find_looked(file.sha256, now);
    if (known) {  // a copy, moved, or only touched
      file.problem = known->first;
      file.faces = known->second;
      ++(was_there && before->second.sha256 == file.sha256 ? counts.unchanged : counts.moved);
    } else if (!looked.picture.failure.empty()) {
      file.problem = without_name(looked.picture.failure, looked.path);
      if (read) now[file.sha256] = {file.problem, 0};
    } else if (looked.picture.known) {
      return;  // another process took its row away; the next run looks at it
    } else {
      ++(was_there ? counts.changed : counts.fresh);
      file.faces = sort_in(looked, file.sha256, was_there ? before->second.sha256 : "", change, fresh, at);
      counts.faces += static_cast<std::size_t>(file.faces);
      counts.faceless += file.faces == 0;
      now[file.sha256] = {"", file.faces};
    }
    if (!file.problem.empty()) failures.emplace_back(looked.path, looked.path + ": " + file.problem);
    change.files.push_back(std::move(file));
  }

  std::optional<std::pair<std::string, std::int64_t>> find_looked(const std::string& sha256, const LookedAt& now) {
    const auto here = now.find(sha256);
    if (here != now.end()) return here->second;
    const std::lock_guard<std::mutex> lock(looking_);
    const auto at = looked_.find(sha256);
    if (sha256.empty() || at == looked_.end()) return {};
    return at->second;
  }

  static std::string without_name(const std::string& sentence, const std::string& path) {
    const std::string start = path + ": ";
    return sentence.rfind(start, 0) == 0 ? sentence.substr(start.size()) : sentence;
  }

  /// The picture's faces among those that are known of it, or of what the file was before. Returns how many count.
  std::int64_t sort_in(const Looked& looked, const std::string& sha256, const std::string& was, ArchiveChange& change,
                       std::vector<GrowingClusters::Slot>& fresh,
                       std::unordered_map<GrowingClusters::Slot, std::size_t>& at) {
    const std::vector<EmbeddedFace>& faces = looked.picture.faces;
    std::vector<FaceMeasures> measures;
    for (const EmbeddedFace& f : faces) measures.push_back(measures_of(f.face, f.quality));
    std::vector<Fails> fails(faces.size(), Fails::none);
    if (!options_.aligned) fails = failed_limits(measures, options_.limits);
    std::vector<std::size_t> counted;
    for (std::size_t i = 0; i < faces.size(); ++i)
      if (fails[i] == Fails::none) counted.push_back(i);

    std::vector<GrowingClusters::Slot> known = of_picture_[sha256];
    if (!was.empty() && was != sha256 && places_.count(was) != 0 && places_[was] == 1) {
      const std::vector<GrowingClusters::Slot>& old = of_picture_[was];
      known.insert(known.end(), old.begin(), old.end());
    }
    const std::vector<int> same = matched(faces, counted, known);
    std::vector<GrowingClusters::Slot>& here = of_picture_[sha256];
    std::vector<GrowingClusters::Slot> now;
    for (std::size_t k = 0; k < counted.size(); ++k) {
      const EmbeddedFace& face = faces[counted[k]];
      ArchiveChange::Face row;
      row.face.image = as_utf8(looked.path);
      row.face.sha256 = sha256;
      row.face.face = static_cast<std::int64_t>(counted[k]);
      set_face(row.face, face.face);
      row.face.embedding = face.embedding;
      GrowingClusters::Slot slot = 0;
      if (same[k] >= 0) {
        slot = known[static_cast<std::size_t>(same[k])];
        row.id = ids_[slot];
        row.renewed = row.id != 0;
        require(clusters_->renew(slot, picture_number(sha256), face.embedding));
      } else {
        require(clusters_->add(0, picture_number(sha256), false, face.embedding, slot));
        ids_.push_back(0);
        keep_.push_back(false);
        fresh.push_back(slot);
      }
      now.push_back(slot);
      at.emplace(slot, change.faces.size());
      change.faces.push_back(std::move(row));
    }
    // What is not there any more goes, unless a person put it there.
    for (std::size_t k = 0; k < known.size(); ++k) {
      const GrowingClusters::Slot slot = known[k];
      if (std::find(now.begin(), now.end(), slot) != now.end()) continue;
      if (keep_[slot] || ids_[slot] == 0) {
        now.push_back(slot);
        continue;
      }
      change.removed.push_back(ids_[slot]);
      clusters_->remove(slot);
    }
    here = now;
    if (was != sha256 && known.size() > 0 && !was.empty()) {
      std::vector<GrowingClusters::Slot>& old = of_picture_[was];
      old.erase(std::remove_if(
                    old.begin(), old.end(),
                    [&](GrowingClusters::Slot s) { return std::find(known.begin(), known.end(), s) != known.end(); }),
                old.end());
    }
    return static_cast<std::int64_t>(counted.size());
  }

  /// For each face the known one that it is, or -1; the nearest pairs first.
  std::vector<int> matched(const std::vector<EmbeddedFace>& faces, const std::vector<std::size_t>& counted,
                           const std::vector<GrowingClusters::Slot>& known) {
    struct Pair {
      double distance;
      std::size_t face, known;
    };
    std::vector<Pair> pairs;
    std::vector<float> other(static_cast<std::size_t>(dim_));
    for (std::size_t k = 0; k < known.size(); ++k) {
      if (!clusters_->embedding(known[k], other)) continue;
      for (std::size_t i = 0; i < counted.size(); ++i) {
        const double distance = facenet::distance(faces[counted[i]].embedding, other);
        if (distance <= same_face * threshold_) pairs.push_back({distance, i, k});
      }
    }
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
      return std::tie(a.distance, a.face, a.known) < std::tie(b.distance, b.face, b.known);
    });
    std::vector<int> same(counted.size(), -1);
    std::vector<bool> taken(known.size());
    for (const Pair& p : pairs)
      if (same[p.face] < 0 && !taken[p.known]) same[p.face] = static_cast<int>(p.known), taken[p.known] = true;
    return same;
  }

  // ---- What is not there any more -----------------------------------------------------------------------------------

  /// Files of these folders that are nowhere. Those whose content lies elsewhere were moved; of the others everything
  /// is kept, unless --prune.
  bool forget_gone() {
    std::vector<std::string> gone;
    for (const auto& [path, known] : files_)
      if (below(path) && is_gone(path)) gone.push_back(path);
    if (gone.empty()) return true;
    ArchiveChange change;
    change.version = version_;
    std::unordered_set<std::string> lost;
    for (const std::string& path : gone) {
      const std::string sha256 = files_[path].sha256;
      if (sha256.empty()) {  // it was never read
        change.forgotten.push_back(path);
        continue;
      }
      const auto places = places_.find(sha256);
      if (places != places_.end() && places->second > 1) {
        --places->second;
        change.forgotten.push_back(path);
        continue;
      }
      ++counts_.gone;
      if (!options_.prune) continue;
      change.forgotten.push_back(path);
      lost.insert(sha256);
    }
    if (change.forgotten.empty()) return true;
    if (!lost.empty()) {
      if (!clusters_) load_faces();
      for (const std::string& sha256 : lost)
        for (const GrowingClusters::Slot slot : of_picture_[sha256]) change.removed.push_back(ids_[slot]);
    }
    counts_.pruned = change.removed.size();
    if (store_.apply(model_, change).done) {
      if (!change.removed.empty()) store_.erase_traces();
      return true;
    }
    note(options_.gallery +
         ": another process changed it meanwhile; files that are gone are counted again by the next "
         "run.");
    return true;
  }

  bool below(const std::string& path) const {
    for (const std::string& folder : options_.folders) {
      std::string whole = absolute(folder);
      if (whole.back() != '/') whole += '/';
      if (path.rfind(whole, 0) == 0) return true;
    }
    return false;
  }

  // ---- The end ------------------------------------------------------------------------------------------------------

  int summary() {
    std::int64_t persons = 0, named = 0, faces = 0;
    if (store_.exists()) {
      persons = store_.number("SELECT count(*) FROM person");
      named = store_.number("SELECT count(*) FROM person WHERE named");
      faces = store_.number("SELECT count(*) FROM template");
    }
    Output out;
    bool printed;
    if (options_.json) {
      Json j;
      j["pictures"] = pictures_.size();
      j["unchanged"] = counts_.unchanged;
      j["new"] = counts_.fresh;
      j["changed"] = counts_.changed;
      j["moved"] = counts_.moved;
      j["without_face"] = counts_.faceless;
      j["failed"] = failures_.pictures();
      j["errors"] = failures_.json();
      j["gone"] = counts_.gone;
      j["pruned_faces"] = counts_.pruned;
      j["new_faces"] = counts_.faces;
      j["faces"] = faces;
      j["persons"] = persons;
      j["named"] = named;
      j["left_out"] = tree_.left_out.json();
      j["threshold"] = static_cast<float>(threshold_);
      j["model"] = bulk_.info().digest;
      j["trained"] = bulk_.info().trained;
      printed = out.line(line(j));
    } else {
      const auto n = [](std::size_t count) { return std::to_string(count); };
      std::string text = n(pictures_.size()) + " pictures: " + n(counts_.unchanged) + " unchanged, " +
                         n(counts_.fresh) + " new, " + n(counts_.changed) + " changed, " + n(counts_.moved) +
                         " moved or copied, " + n(failures_.pictures().size()) + " failed; " + n(counts_.faceless) +
                         " without a face";
      if (counts_.gone != 0)
        text += "; " + n(counts_.gone) +
                (options_.prune ? " gone, " + n(counts_.pruned) + " faces with them"
                                : " gone, whose faces are kept (--prune removes them)");
      printed = out.row({text}) &&
                out.row({std::to_string(persons) + " persons, " + std::to_string(named) + " of them named, with " +
                         std::to_string(faces) + " faces, " + n(counts_.faces) + " of them new"});
    }
    if (!printed || !out.finish() || !all_read_ || !failures_.none()) return failed;
    return faces == 0 ? no : done;
  }

  using Clock = std::chrono::steady_clock;

  const ArchiveOptions& options_;
  GalleryStore store_;
  GalleryModel model_;
  BulkEmbedder bulk_;
  Tree tree_{options_.exclude};
  Failures failures_;
  std::string settings_;
  double threshold_ = 0;
  int dim_ = 0;  // bulk_ lends its embedder to its only thread
  bool all_read_ = true;
  std::vector<std::string> pictures_, work_;
  std::vector<FileState> states_;  // of work_

  std::int64_t version_ = 0;
  std::map<std::string, Known> files_;                   // by path
  std::unordered_map<std::string, std::size_t> places_;  // how many files have a content
  LookedAt looked_;                                      // contents that were looked at with these settings
  std::mutex looking_;

  std::optional<GrowingClusters> clusters_;
  std::vector<std::int64_t> ids_;  // of each slot; 0: not on the disk yet
  std::vector<bool> keep_;         // of each slot: a person decided, or named it
  std::unordered_map<std::int64_t, GrowingClusters::Slot> slots_;
  std::unordered_map<std::string, std::vector<GrowingClusters::Slot>> of_picture_;
  std::vector<GrowingClusters::Slot> refused_again_;

  std::vector<Looked> waiting_;
  std::size_t waiting_faces_ = 0;
  std::exception_ptr error_;
  Clock::time_point committed_{};
  Counts counts_;
};

}  // namespace

int scan_archive(const ArchiveOptions& options) { return ArchiveScan(options).run(); }

}  // namespace command
