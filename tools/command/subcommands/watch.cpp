// Who comes and who goes, from a camera's frames: tracks, the best frames of each, one decision a visit.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/engine/faces.hpp"
#include "command/engine/gallery_index.hpp"
#include "command/engine/gallery_model.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/engine/quality.hpp"
#include "command/engine/threshold.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "command/watch/delivery.hpp"
#include "command/watch/sources.hpp"
#include "command/watch/stop.hpp"
#include "command/watch/visits.hpp"
#include "facenet/distance.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t most_embedded = 2;  // faces of one frame: more would hold up the frames behind it
constexpr double same_visit = 0.8;        // of the threshold: who is so near to someone just lost has come back
constexpr double margin_share = 0.05;     // --margin, where it is not given, of the threshold
constexpr auto look_at_gallery = std::chrono::seconds(1);  // whether its file has changed

struct Options {
  ModelOptions model;
  FaceOptions faces;
  SourceOptions sources;
  DeliveryOptions deliveries;
  ConsensusOptions consensus;
  VisitOptions visits;
  TrackerOptions tracker;
  std::vector<std::string> names;
  std::string gallery, raw, threshold;
  bool each_face = false, json = false;
  Options() {
    faces.min_face_share = 0.08;  // 58 pixels of 720: a face whose quality can pass
    consensus.margin = -1;        // not given
  }
};

enum Stage { decode_stage, detect_stage, quality_stage, embed_stage, stages };
constexpr const char* stage_names[stages] = {"decode", "detect", "quality", "embed"};

/// A source's frames so far.
struct Watched {
  Watched(const SourceName& n, const Options& o) : name(n), tracker(o.tracker), visits(o.visits, o.consensus) {}

  SourceName name;
  Tracker tracker;
  Visits visits;
  std::map<std::uint64_t, std::vector<float>> faces;  // of a track, the embedding of its best frame
  std::map<std::uint64_t, double> best;               // that frame's quality
  std::map<std::uint64_t, MeanFace> means;
  std::map<std::uint64_t, std::string> decided;  // names: the gallery may change before they leave
  std::uint64_t frames = 0, undecodable = 0, found = 0, embedded = 0;
  double spent[stages] = {};                    // seconds
  std::chrono::system_clock::time_point began;  // the frame of second 0
  double seconds = 0;                           // of the last frame
};

/// A face in the frame at hand.
struct Seen {
  std::uint64_t track = Tracker::none;
  FaceQuality quality;
  bool wanted = false;
  std::vector<float> embedding;  // where it was needed already
};

std::string utc(std::chrono::system_clock::time_point at) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(at.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[40], end[16];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(end, sizeof end, ".%03dZ", static_cast<int>(ms % 1000));
  return std::string(text) + end;
}

/// What changes when a file is written or replaced.
struct FileState {
  bool there = false;
  std::int64_t device = 0, inode = 0, size = 0, s = 0, ns = 0;

  explicit FileState(const std::string& path = {}) {
    struct stat about {};
    if (path.empty() || ::stat(path.c_str(), &about) != 0) return;
    there = true;
    device = static_cast<std::int64_t>(about.st_dev);
    inode = static_cast<std::int64_t>(about.st_ino);
    size = static_cast<std::int64_t>(about.st_size);
#if defined(__APPLE__)
    s = about.st_mtimespec.tv_sec;
    ns = about.st_mtimespec.tv_nsec;
#else
    s = about.st_mtim.tv_sec;
    ns = about.st_mtim.tv_nsec;
#endif
  }
  bool operator==(const FileState& o) const {
    return there == o.there && device == o.device && inode == o.inode && size == o.size && s == o.s && ns == o.ns;
  }
};

class Watch {
 public:
  explicit Watch(Options& options) : options_(options), deliveries_(options.deliveries) {}

  int run() {
    if (!prepare()) return failed;
    stop_on_signals();
    FrameQueue queue(names_.size());
    SourceReaders readers(names_, options_.sources, queue);
    bool printed = true;
    for (std::size_t open = names_.size(); open > 0 && printed && !stopping();) {
      std::size_t source = 0;
      Frame frame;
      switch (queue.pop(source, frame)) {
        case FrameQueue::Popped::frame:
          refresh_gallery();
          printed = look(watched_[source], frame);
          break;
        case FrameQueue::Popped::closed:
          --open;
          printed = end(watched_[source], readers.counts(source), queue.dropped(source));
          ended_.push_back(source);
          break;
        case FrameQueue::Popped::nothing:
          printed = pass_time();
          break;
      }
    }
    queue.stop();
    bool any_failed = false, any_came = false;
    for (std::size_t i = 0; i < watched_.size(); ++i) {
      if (printed && std::find(ended_.begin(), ended_.end(), i) == ended_.end())
        printed = end(watched_[i], readers.counts(i), queue.dropped(i));
      any_failed = any_failed || readers.counts(i).failed;
      any_came = any_came || watched_[i].visits.arrived() > 0;
    }
    if (!printed || !out_.finish() || any_failed) return failed;
    return any_came || stopping() ? done : no;
  }

 private:
  bool prepare() {
    for (const std::string& text : options_.names) {
      SourceName name;
      if (!parse_source(text, name)) return false;
      names_.push_back(name);
    }
    if (!options_.deliveries.webhook.empty() && !has_urls()) {
      say("this program was built without libcurl, so there is no --webhook; give --exec a program that posts.");
      return false;
    }
    facenet::ModelInfo info{};
    if (!options_.gallery.empty()) {
      auto embedder = load(options_.model);
      if (!embedder) return false;
      embedder_ = std::move(*embedder);
      info = embedder_.info();
      if (!resolve_threshold(options_.threshold, info, options_.consensus.threshold)) return false;
      if (!(options_.consensus.threshold > 0)) {
        say("--threshold 0 finds nobody; give the largest distance of one person's faces.");
        return false;
      }
      if (options_.consensus.margin < 0) options_.consensus.margin = margin_share * options_.consensus.threshold;
      // Where faces can be compared, a place alone does not make a visit go on.
      options_.tracker.overlap_s = options_.tracker.fresh_s;
      gallery_file_ = FileState(options_.gallery);
      load_gallery();
      warn_untrained(info);
    }
    options_.visits.decides = !options_.gallery.empty();
    set_picture_options(options_.faces, 1);
    auto detector = load_detector(options_.faces, options_.model.threads, weights_file(options_.model.weights));
    if (!detector) return false;
    detector_ = std::move(*detector);
    for (const SourceName& name : names_) watched_.emplace_back(name, options_);
    char text[32];
    std::snprintf(text, sizeof text, "%llx",
                  static_cast<unsigned long long>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                                      std::chrono::system_clock::now().time_since_epoch())
                                                      .count()));
    run_id_ = text;
    return true;
  }

  // ---- the gallery --------------------------------------------------------------------------------------------------

  /// Throws DatabaseError.
  void load_gallery() {
    GalleryStore store(options_.gallery, Access::read);
    store.require(gallery_model(embedder_.info(), ""));
    GalleryIndex index;
    const facenet::Status status = index.load(store, embedder_.dim(), options_.model.threads);
    if (!status.ok()) throw DatabaseError(options_.gallery + ": " + status.text() + ".");
    gallery_ = std::move(index);
  }

  /// Reads it again where its file has changed. One that cannot be read leaves the one before in use.
  void refresh_gallery() {
    const auto now = Clock::now();
    if (options_.gallery.empty() || now < look_again_) return;
    look_again_ = now + look_at_gallery;
    const FileState state(options_.gallery);
    if (state == gallery_file_) return;
    gallery_file_ = state;
    try {
      load_gallery();
      for (Watched& w : watched_) w.visits.forget_ballots(options_.consensus);
      note(options_.gallery + ": it has changed and was read again.");
    } catch (const DatabaseError& e) {
      note(std::string(e.what()) + " The gallery of before stays in use.");
      gallery_file_ = FileState();  // it may be right a second later
    }
  }

  facenet::Status look_up(const std::vector<float>& embedding, const facenet::Box& box, Ballot& ballot) {
    ballot.area = static_cast<double>(box.x1 - box.x0) * static_cast<double>(box.y1 - box.y0);
    FACENET_TRY(gallery_.nearest(embedding, 2, far_, matches_));
    if (!matches_.empty()) {
      ballot.person = matches_[0].person;
      ballot.distance = matches_[0].distance;
    }
    if (matches_.size() > 1) ballot.runner_up = matches_[1].distance;
    return {};
  }

  // ---- a frame ------------------------------------------------------------------------------------------------------

  /// Adds to a stage's time while it lives.
  class Timed {
   public:
    Timed(Watched& w, Stage stage) : spent_(w.spent[stage]), began_(Clock::now()) {}
    ~Timed() { spent_ += std::chrono::duration<double>(Clock::now() - began_).count(); }

   private:
    double& spent_;
    Clock::time_point began_;
  };

  facenet::Status decode_frame(Watched& w, const Frame& frame) {
    const Timed timed(w, decode_stage);
    const bool raw = options_.sources.raw && w.name.kind != SourceKind::folder && w.name.kind != SourceKind::url;
    if (!raw) return decode(frame.bytes, w.name.shown, picture_);
    const RawFormat& f = options_.sources.format;
    FACENET_TRY(picture_.remake(f.width, f.height, facenet::ChannelOrder::rgb));
    picture_.given_width = f.width;
    picture_.given_height = f.height;
    raw_to_rgb(f, frame.bytes.data(), picture_.data());
    return {};
  }

  facenet::Status embed(Watched& w, const facenet::Face& face, Seen& seen) {
    if (!seen.embedding.empty()) return {};
    const Timed timed(w, embed_stage);
    auto crop = facenet::crop_face(picture_, face, embedder_.info());
    if (!crop) return crop.status();
    seen.embedding.resize(static_cast<std::size_t>(embedder_.dim()));
    ++w.embedded;
    return embed_crop(embedder_, *crop, seen.embedding);
  }

  /// False when stdout is lost.
  bool look(Watched& w, const Frame& frame) {
    if (w.frames++ == 0)
      w.began = std::chrono::system_clock::now() - std::chrono::duration_cast<std::chrono::system_clock::duration>(
                                                       std::chrono::duration<double>(frame.seconds));
    w.seconds = frame.seconds;
    events_.clear();
    facenet::Status status = decode_frame(w, frame);
    if (!status.ok()) {
      if (w.undecodable++ == 0)
        note(sentence(status, frame.name.empty() ? w.name.shown : frame.name, Subject::picture) +
             " Frames that cannot be decoded are left out and counted.");
      return true;
    }
    {
      const Timed timed(w, detect_stage);
      status = find_faces(detector_, picture_, found_);
    }
    if (status.ok()) status = follow(w, frame);
    if (!status.ok()) {
      say(sentence(status, w.name.shown, Subject::picture));
      return false;
    }
    expire(w, frame.seconds);
    return report(w, frame.name);
  }

  /// The faces that were found, as the tracks they belong to, and what the gallery says of the best of them.
  facenet::Status follow(Watched& w, const Frame& frame) {
    boxes_.clear();
    for (const facenet::Face& found : found_) {
      const facenet::Face f = picture_.to_given(found);
      boxes_.push_back({f.box.x0, f.box.y0, f.box.x1, f.box.y1});
    }
    w.found += boxes_.size();
    w.tracker.match(frame.seconds, boxes_, ids_);
    std::vector<Seen> seen(boxes_.size());
    std::vector<std::size_t> wanted;
    for (std::size_t i = 0; i < seen.size(); ++i) {
      {
        const Timed timed(w, quality_stage);
        auto quality = measure_quality(picture_, found_[static_cast<int>(i)]);
        if (!quality) return quality.status();
        seen[i].quality = *quality;
      }
      seen[i].track = ids_[i];
      if (ids_[i] == Tracker::none) FACENET_TRY(start_track(w, frame.seconds, i, seen[i]));
      if (seen[i].track == Tracker::none) continue;  // there are too many
      w.visits.seen(seen[i].track, frame.seconds, frame.number, boxes_[i], events_);
      if (w.visits.wants(seen[i].track, frame.number, static_cast<double>(seen[i].quality.value))) wanted.push_back(i);
    }
    std::stable_sort(wanted.begin(), wanted.end(), [&](std::size_t a, std::size_t b) {
      return w.visits.ballots(seen[a].track) < w.visits.ballots(seen[b].track);
    });
    if (wanted.size() > most_embedded) wanted.resize(most_embedded);
    for (const std::size_t i : wanted) FACENET_TRY(vote(w, frame, i, seen[i]));
    return {};
  }

  /// A face that goes on with no track: someone who was lost a moment ago, or someone new.
  facenet::Status start_track(Watched& w, double seconds, std::size_t i, Seen& seen) {
    w.tracker.lost(seconds, lost_);
    if (!lost_.empty() && options_.visits.decides &&
        static_cast<double>(seen.quality.value) >= options_.visits.least_quality) {
      FACENET_TRY(embed(w, found_[static_cast<int>(i)], seen));
      double least = same_visit * options_.consensus.threshold;
      for (const std::uint64_t id : lost_) {
        const auto face = w.faces.find(id);
        if (face == w.faces.end()) continue;
        const double d = facenet::distance(seen.embedding, face->second);
        if (!(d <= least)) continue;
        least = d;
        seen.track = id;
      }
      if (seen.track != Tracker::none && w.tracker.revive(seen.track, seconds, boxes_[i])) return {};
    }
    seen.track = w.tracker.begin(seconds, boxes_[i]);
    return {};
  }

  facenet::Status vote(Watched& w, const Frame& frame, std::size_t i, Seen& seen) {
    const facenet::Face& face = found_[static_cast<int>(i)];
    FACENET_TRY(embed(w, face, seen));
    Ballot ballot;
    if (options_.each_face) {
      FACENET_TRY(look_up(seen.embedding, face.box, ballot));
      report_face(w, frame, face, seen);
    }
    const auto quality = static_cast<double>(seen.quality.value);
    const bool normalised = embedder_.info().normalise == facenet::Normalise::l2;
    FACENET_TRY(look_up(w.means[seen.track].add(seen.embedding, quality, normalised), face.box, ballot));
    double& best = w.best[seen.track];
    if (quality >= best || w.faces.count(seen.track) == 0) {
      best = quality;
      w.faces[seen.track] = std::move(seen.embedding);
    }
    w.visits.vote(seen.track, frame.seconds, frame.number, ballot, events_);
    return {};
  }

  void forget(Watched& w, const std::vector<std::uint64_t>& tracks) {
    for (const std::uint64_t id : tracks) {
      w.visits.gone(id, events_);
      w.faces.erase(id);
      w.best.erase(id);
      w.means.erase(id);
    }
  }

  void expire(Watched& w, double seconds) {
    w.tracker.expire(seconds, lost_);
    forget(w, lost_);
  }

  /// Where no frame comes, people have left all the same.
  bool pass_time() {
    for (Watched& w : watched_) {
      if (w.tracker.size() == 0 || options_.sources.input_fps > 0) continue;
      const double now = std::chrono::duration<double>(std::chrono::system_clock::now() - w.began).count();
      if (now < w.seconds) continue;
      events_.clear();
      expire(w, now);
      if (!report(w, "")) return false;
    }
    return true;
  }

  /// The source has ended.
  bool end(Watched& w, const SourceReaders::Counts& counts, std::uint64_t dropped) {
    events_.clear();
    w.tracker.clear(lost_);
    forget(w, lost_);
    if (!report(w, "")) return false;
    const std::uint64_t damaged = counts.damaged + w.undecodable;
    if (!options_.json && counts.failed) return true;  // which was said
    if (!options_.json) {
      note(shown(w.name.shown) + ": " + std::to_string(w.frames) + " frames, " + std::to_string(w.visits.arrived()) +
           " visits; " + std::to_string(dropped) + " frames were dropped, " + std::to_string(counts.left_out) +
           " left out, " + std::to_string(damaged) + " damaged.");
      return true;
    }
    Json j;
    j["event"] = "end";
    j["source"] = w.name.shown;
    j["frames"] = w.frames;
    j["dropped"] = dropped;
    j["left_out"] = counts.left_out;
    j["damaged"] = damaged;
    j["reconnects"] = counts.reconnects;
    j["visits"] = w.visits.arrived();
    j["faces"] = w.found;
    j["embedded"] = w.embedded;
    Json& ms = j["ms"] = Json::object();
    for (int s = 0; s < stages; ++s)
      ms[stage_names[s]] = static_cast<float>(w.frames == 0 ? 0.0 : 1000 * w.spent[s] / static_cast<double>(w.frames));
    return out_.line(line(j));
  }

  // ---- what is said -------------------------------------------------------------------------------------------------

  std::string visit_id(const Watched& w, std::uint64_t track) const {
    return run_id_ + "-" + std::to_string(&w - watched_.data()) + "-" + std::to_string(track);
  }

  std::chrono::system_clock::time_point at(const Watched& w, double seconds) const {
    return w.began +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::duration<double>(seconds));
  }

  std::string name_of(std::uint64_t person) const {
    facenet::Match match{};
    match.person = person;
    return gallery_.name(match);
  }

  void report_face(const Watched& w, const Frame& frame, const facenet::Face& face, const Seen& seen) {
    Json j;
    j["event"] = "face";
    j["visit"] = visit_id(w, seen.track);
    j["source"] = w.name.shown;
    j["time"] = utc(at(w, frame.seconds));
    j["at_ms"] = static_cast<std::int64_t>(1000 * frame.seconds + 0.5);
    j["frame"] = frame.number;
    j["box"] = {face.box.x0, face.box.y0, face.box.x1, face.box.y1};
    add_quality(j, seen.quality);
    j["matches"] = Json::array();
    for (const facenet::Match& m : matches_) {
      Json match;
      match["name"] = gallery_.name(m);
      match["distance"] = static_cast<float>(m.distance);
      j["matches"].push_back(std::move(match));
    }
    j["threshold"] = static_cast<float>(options_.consensus.threshold);
    face_lines_.push_back(line(j));
  }

  Json as_json(const Watched& w, const VisitEvent& e, const std::string& name, const char* what) const {
    Json j;
    j["event"] = what;
    j["visit"] = visit_id(w, e.visit);
    j["source"] = w.name.shown;
    j["time"] = utc(at(w, e.seconds));
    j["at_ms"] = static_cast<std::int64_t>(1000 * e.seconds + 0.5);
    j["arrived_ms"] = static_cast<std::int64_t>(1000 * e.arrived + 0.5);
    j["frame"] = e.frame;
    j["box"] = {e.box.x0, e.box.y0, e.box.x1, e.box.y1};
    j["quality"] = static_cast<float>(e.quality);
    j["best_frame"] = e.best_frame;
    j["frames"] = e.frames;
    if (e.kind == VisitEvent::Kind::arrival) return j;
    j["known"] = e.standing.named;
    j["name"] = name;
    j["votes"] = e.standing.votes;
    j["of"] = e.standing.frames;
    if (e.standing.votes > 0) j["distance"] = static_cast<float>(e.standing.distance);
    if (!options_.gallery.empty()) {
      j["threshold"] = static_cast<float>(options_.consensus.threshold);
      if (const std::string by = measured_by(options_.threshold, embedder_.info()); !by.empty())
        j["threshold_source"] = by;
      j["model"] = embedder_.info().digest;
      j["trained"] = embedder_.info().trained;
    }
    return j;
  }

  /// Prints and delivers events_. `picture`: the folder's file at hand.
  bool report(Watched& w, const std::string& picture) {
    for (const std::string& text : face_lines_)
      if (options_.json && !out_.line(text)) return false;
    face_lines_.clear();
    for (const VisitEvent& e : events_) {
      const bool decision = e.kind == VisitEvent::Kind::decision, leaving = e.kind == VisitEvent::Kind::leaving;
      const char* const what = decision ? "decision" : leaving ? "leaving" : "arrival";
      if (decision && e.standing.named) w.decided[e.visit] = name_of(e.standing.person);
      const auto known = w.decided.find(e.visit);
      const std::string name = known != w.decided.end() ? known->second : decision || leaving ? "unknown" : "";
      Json j = as_json(w, e, name, what);
      if (!picture.empty()) j["image"] = picture;
      const std::string text = line(j);
      if (!(options_.json ? out_.line(text) : out_.row(as_fields(w, e, name, what)))) return false;
      char number[64];
      const auto with = [&](const char* format, double x) {
        std::snprintf(number, sizeof number, format, x);
        return std::string(number);
      };
      deliveries_.post({text,
                        {{"FACENET_EVENT", what},
                         {"FACENET_VISIT", visit_id(w, e.visit)},
                         {"FACENET_SOURCE", w.name.shown},
                         {"FACENET_TIME", utc(at(w, e.seconds))},
                         {"FACENET_NAME", name},
                         {"FACENET_KNOWN", known != w.decided.end() ? "1" : "0"},
                         {"FACENET_FRAME", std::to_string(e.frame)},
                         {"FACENET_QUALITY", with("%.4f", e.quality)}}});
      if (leaving) w.decided.erase(e.visit);
    }
    return true;
  }

  std::vector<std::string> as_fields(const Watched& w, const VisitEvent& e, const std::string& name,
                                     const char* what) const {
    char quality[64], box[200], votes[64];
    std::snprintf(quality, sizeof quality, "quality %.3f", e.quality);
    std::snprintf(votes, sizeof votes, "votes %d of %d", e.standing.votes, e.standing.frames);
    std::snprintf(box, sizeof box, "%.0f %.0f %.0f %.0f", static_cast<double>(e.box.x0), static_cast<double>(e.box.y0),
                  static_cast<double>(e.box.x1), static_cast<double>(e.box.y1));
    return {utc(at(w, e.seconds)), w.name.shown, visit_id(w, e.visit), what, name, votes, quality, box};
  }

  Options& options_;
  std::vector<SourceName> names_;
  std::vector<Watched> watched_;
  std::vector<std::size_t> ended_;
  facenet::Detector detector_;
  facenet::Embedder embedder_;
  GalleryIndex gallery_;
  FileState gallery_file_;
  Clock::time_point look_again_;
  const double far_ = 1e6;  // the runner-up counts beyond the threshold too
  std::string run_id_;

  // Of the frame at hand.
  Picture picture_;
  facenet::Faces found_;
  std::vector<TrackBox> boxes_;
  std::vector<std::uint64_t> ids_, lost_;
  std::vector<facenet::Match> matches_;
  std::vector<VisitEvent> events_;
  std::vector<std::string> face_lines_;

  Output out_;
  Deliveries deliveries_;  // last: it may wait for what was reported
};

std::string wrong(Options& o) {
  if (std::count(o.names.begin(), o.names.end(), "-") > 1) return "SOURCE: name '-' only once";
  if (!o.raw.empty() && !parse_raw_format(o.raw, o.sources.format))
    return "--rawvideo: '" + o.raw +
           "' is not WIDTHxHEIGHT:FORMAT, with rgb24, bgr24, gray, yuv420p or nv12 and even sides for the last two";
  o.sources.raw = !o.raw.empty();
  if (!o.deliveries.webhook.empty() && o.deliveries.webhook.compare(0, 7, "http://") != 0 &&
      o.deliveries.webhook.compare(0, 8, "https://") != 0)
    return "--webhook: give a URL that begins with http:// or https://";
  if (o.deliveries.program.empty() && !o.deliveries.arguments.empty())
    return "--exec-arg: there is no --exec that it could be an argument of";
  if (o.gallery.empty() && !o.threshold.empty()) return "--threshold: without --gallery nobody is looked up";
  if (o.gallery.empty() && o.each_face) return "--each-face: without --gallery no face is looked up";
  return {};
}

}  // namespace

SubCommand watch_command() {
  const auto o = std::make_shared<Options>();
  return {
      "watch", "Tell who comes and who goes, from a camera's frames",
      "Follows faces from frame to frame and prints a line for each arrival, for the decision who it is, and for each\n"
      "leaving: time (UTC), source, visit, event, name or 'unknown', votes, quality of the best frame, box; with "
      "--json\n"
      "one object an event. Nobody is named by a single frame: at least --votes of them must have been looked up.\n"
      "Nothing here tells a face from its photograph: whoever holds a picture before the camera passes for who is on "
      "it.\n\n"
      "SOURCE is - (JPEG files one behind the other), such a file, a folder that fills with JPEG or PNG files, or the\n"
      "http:// or https:// URL of an MJPEG stream or of a snapshot, which is asked for again and again. Faces below "
      "8%\n"
      "of the picture's shorter side are not looked for, unless --min-face says otherwise. Exit status 0: somebody "
      "came,\n"
      "or a signal ended it; 1: nobody came.\n\n"
      "Examples:\n"
      "  facenet watch --gallery staff.gallery http://camera.local/mjpeg\n"
      "  ffmpeg -loglevel error -i rtsp://camera/1 -f image2pipe -c:v mjpeg - | facenet watch --live --gallery "
      "staff.gallery -\n"
      "  facenet watch --json --gallery staff.gallery uploads/ | mosquitto_pub -h broker -t door/faces -l\n"
      "  facenet watch --gallery staff.gallery --webhook http://ha:8123/api/webhook/door "
      "http://camera.local/jpg\n"
      "  facenet watch --rawvideo 640x480:yuv420p --input-fps 10 - < video.yuv\n\n",
      [o](OptionSet& options) {
        options.positional("SOURCE", o->names, "-, a file, a folder or a URL; several are watched at once").required();
        options.option("-g,--gallery", "DB", o->gallery,
                       "Who is known; it is read again when it changes. Without it visits are reported, without names");
        options.option("--votes", "N", o->consensus.least_votes, "Frames that must name a person (default 3)")
            .whole_number(1, 100);
        options
            .option("--most-votes", "N", o->visits.most_frames,
                    "Frames that are looked up before a face that nobody was found for is unknown (default 12)")
            .whole_number(1, 1000);
        options
            .option("--margin", "X", o->consensus.margin,
                    "A frame names nobody where the next person's distance is less than X more (default: a twentieth "
                    "of the threshold)")
            .number(0, 10, "0 to 10");
        options
            .option("--min-quality", "X", o->visits.least_quality,
                    "Leave out frames where the face's quality (size, sharpness, pose, score: 0 to 1) is below X "
                    "(default 0.02)")
            .number(0, 1, "0 to 1");
        options
            .option("--leave", "S", o->tracker.lost_s,
                    "A visit ends when its face was not seen for S seconds (default 3)")
            .number(0.1, 3600, "0.1 to 3600");
        options
            .option("--fps", "N", o->sources.fps,
                    "Take at most N frames a second of a URL, and of a pipe with --live; the others are counted "
                    "(default 10)")
            .number(0.01, 1000, "0.01 to 1000");
        options.flag("--live", o->sources.live,
                     "The pipe or file comes from a camera: --fps holds, and frames for which there is no time are "
                     "dropped and counted");
        options
            .option("--input-fps", "N", o->sources.input_fps,
                    "The frames of a pipe or file are 1/N s apart; without it they are of when they arrive")
            .number(0.01, 1000, "0.01 to 1000");
        options.option("--rawvideo", "WxH:FORMAT", o->raw,
                       "A pipe or file holds frames of this size without headers: rgb24, bgr24, gray, yuv420p or nv12 "
                       "pixels, as ffmpeg's -f rawvideo -pix_fmt FORMAT writes them");
        options.flag("--existing", o->sources.existing, "Look at what lies in a folder already first");
        options.option("--webhook", "URL", o->deliveries.webhook,
                       "POST each event's JSON there; frames never wait for it");
        options.option("--exec", "PROGRAM", o->deliveries.program,
                       "Run it for each event, without a shell: the JSON is its standard input, FACENET_EVENT, "
                       "FACENET_NAME, FACENET_VISIT and others are in its environment; 4 at once, 60 s each");
        options.option("--exec-arg", "ARG", o->deliveries.arguments, "An argument of that program; again for more");
        options.flag("--each-face", o->each_face, "With --json: an object for each face that was looked up, too");
        options.threshold(o->threshold);
        options.one_face(o->faces);
        options.model(o->model);
        options.check([o] { return wrong(*o); });
      },
      [o](bool json) {
        o->json = json;
        return Watch(*o).run();
      }};
}

}  // namespace command
