#include "command/engine/picture_times.hpp"

#include <sys/resource.h>
#include <time.h>

#include <atomic>

#include "command/engine/faces.hpp"
#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "facenet/base/parallel.hpp"

namespace command {

namespace {

constexpr int fewest_runs = 3;

double read_clock(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Adds up what passes between its calls. The detector calls it on all of its threads: wall time and bytes are those
/// between the calls of the first, which is there from the beginning to the end.
class Stopwatch {
 public:
  Stopwatch() { facenet::detail::allocation_meter = &allocated_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { facenet::detail::allocation_meter = nullptr; }

  static constexpr std::size_t nowhere = picture_part_count;

  /// The thread is in this part from now on.
  void enter(int thread, std::size_t part) {
    Thread& t = threads_[static_cast<std::size_t>(thread)];
    const double cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
    if (t.part != nowhere) t.cpu[t.part] += cpu - t.since;
    if (thread == 0) {
      const double wall = read_clock(CLOCK_MONOTONIC);
      const std::uint64_t allocated = allocated_.load(std::memory_order_relaxed);
      if (t.part != nowhere) {
        parts_[t.part].wall += wall - wall_;
        parts_[t.part].allocated += allocated - bytes_;
      }
      wall_ = wall;
      bytes_ = allocated;
    }
    t.part = part;
    t.since = cpu;
  }

  void begin() {
    for (Thread& t : threads_) t = {};
    for (PartTime& p : parts_) p = {};
    start_ = now();
  }
  PictureTime end() {
    enter(0, nowhere);
    PictureTime picture = now();
    picture.wall -= start_.wall;
    picture.cpu -= start_.cpu;
    picture.system -= start_.system;
    picture.page_faults -= start_.page_faults;
    for (std::size_t i = 0; i < picture_part_count; ++i) {
      picture.parts[i] = parts_[i];
      for (const Thread& t : threads_) picture.parts[i].cpu += t.cpu[i];
    }
    return picture;
  }
  /// For parts whose threads do not call.
  void add_cpu(std::size_t part, double seconds) { threads_[0].cpu[part] += seconds; }

 private:
  struct Thread {
    std::size_t part = nowhere;
    double since = 0, cpu[picture_part_count] = {};
  };

  static PictureTime now() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    PictureTime t;
    t.wall = read_clock(CLOCK_MONOTONIC);
    t.cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    t.system = static_cast<double>(usage.ru_stime.tv_sec) + 1e-6 * static_cast<double>(usage.ru_stime.tv_usec);
    t.page_faults = usage.ru_minflt + usage.ru_majflt;
    return t;
  }

  std::atomic<std::uint64_t> allocated_{0};
  std::uint64_t bytes_ = 0;
  double wall_ = 0;
  PartTime parts_[picture_part_count];
  std::vector<Thread> threads_ = std::vector<Thread>(facenet::max_threads);
  PictureTime start_;
};

enum Part : std::size_t { decoding, pyramid, pnet, rnet, onet, cropping, embedding };

void begins(void* context, int thread, facenet::DetectorPart part) {
  constexpr std::size_t parts[] = {pyramid, pnet, rnet, onet, Stopwatch::nowhere};
  static_cast<Stopwatch*>(context)->enter(thread, parts[static_cast<std::size_t>(part)]);
}

/// One picture's way.
class Way {
 public:
  explicit Way(facenet::Embedder& embedder) : embedder_(embedder), numbers_(static_cast<std::size_t>(embedder.dim())) {}

  bool load(const FaceOptions& faces, const ModelOptions& model) {
    set_picture_options(faces, 1);
    auto detector = load_detector(faces, model.threads, weights_file(model.weights), &observer_);
    if (detector) detector_ = std::move(*detector);
    return detector.ok();
  }

  facenet::Status run(const std::string& name) {
    watch_.enter(0, decoding);
    FACENET_TRY(read_picture(name, picture_));
    FACENET_TRY(find_faces(detector_, picture_, faces_));
    for (const facenet::Face& face : faces_) {
      watch_.enter(0, cropping);
      const auto crop = facenet::crop_face(picture_, face, embedder_.info());
      if (!crop) return crop.status();
      watch_.enter(0, embedding);
      const double others = others_cpu();
      FACENET_TRY(embed_crop(embedder_, *crop, numbers_));
      watch_.add_cpu(embedding, others_cpu() - others);
    }
    return {};
  }

  Stopwatch& watch() { return watch_; }
  void describe(PictureTimes& times) const {
    times.width = picture_.width();
    times.height = picture_.height();
    times.faces = faces_.size();
    times.detector = detector_.digest();
  }

 private:
  static double others_cpu() { return read_clock(CLOCK_PROCESS_CPUTIME_ID) - read_clock(CLOCK_THREAD_CPUTIME_ID); }

  facenet::Embedder& embedder_;
  std::vector<float> numbers_;
  Stopwatch watch_;
  facenet::DetectorObserver observer_{&watch_, begins};
  facenet::Detector detector_;
  Picture picture_;
  facenet::Faces faces_;
};

}  // namespace

bool time_picture(const std::string& name, double seconds, const FaceOptions& faces, const ModelOptions& model,
                  facenet::Embedder& embedder, PictureTimes& times) {
  Way way(embedder);
  if (!way.load(faces, model)) return false;
  const double began = read_clock(CLOCK_MONOTONIC);
  for (int run = -1; run < fewest_runs || read_clock(CLOCK_MONOTONIC) - began < seconds; ++run) {  // run -1 warms up
    way.watch().begin();
    const facenet::Status status = way.run(name);
    if (!status.ok()) {
      say(status, name, Subject::picture);
      return false;
    }
    const PictureTime time = way.watch().end();
    if (run >= 0) times.runs.push_back(time);
  }
  way.describe(times);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  times.peak_bytes = std::int64_t{usage.ru_maxrss} * 1024;
  return true;
}

}  // namespace command
