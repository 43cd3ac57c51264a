#include "command/service/engine_pool.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "command/engine/model.hpp"
#include "command/engine/pictures.hpp"
#include "command/io/output.hpp"
#include "facenet/base/parallel.hpp"

namespace command::service {

namespace {

/// Seconds since the last call.
class Lap {
 public:
  double operator()() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(since_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

/// The library's sentences on pictures name a place in the file, never a file.
[[noreturn]] void refuse(const facenet::Status& status) {
  using facenet::Errc;
  if (status.code() == Errc::out_of_memory) throw HttpError{503, "The server has not enough memory for this picture."};
  char text[768];
  const bool large = status.code() == Errc::limit_exceeded;
  throw HttpError{large ? 413 : 400,
                  std::string("The picture cannot be read: ") + status.print(text, sizeof text) + "."};
}

}  // namespace

struct EnginePool::State {
  struct Pair {
    facenet::Embedder embedder;
    FaceSource source;
    std::vector<CutFace> faces;
  };

  /// A pair that is nobody else's meanwhile.
  class Taken {
   public:
    explicit Taken(State& state) : state_(state) {
      std::unique_lock<std::mutex> lock(state.mutex);
      state.free_one.wait(lock, [&] { return !state.free.empty(); });
      pair_ = state.free.back();
      state.free.pop_back();
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    ~Taken() {
      {
        const std::lock_guard<std::mutex> lock(state_.mutex);
        state_.free.push_back(pair_);
      }
      state_.free_one.notify_one();
    }
    Pair* operator->() const { return pair_; }

   private:
    State& state_;
    Pair* pair_;
  };

  ModelOptions model;
  PoolLimits limits;
  Metrics* metrics = nullptr;
  facenet::ModelInfo info{};
  std::string detector;
  std::vector<std::unique_ptr<Pair>> pairs;
  std::mutex mutex;
  std::condition_variable free_one;
  std::vector<Pair*> free;  // the last one used first: its memory is warm
};

EnginePool::EnginePool() : state_(std::make_unique<State>()) {}
EnginePool::~EnginePool() = default;
EnginePool::EnginePool(EnginePool&&) noexcept = default;

bool EnginePool::load(const ModelOptions& model, const FaceOptions& faces, const PoolLimits& limits, Metrics* metrics) {
  State& s = *state_;
  s.model = model;
  s.limits = limits;
  s.metrics = metrics;
  if (s.limits.workers == 0) s.limits.workers = facenet::default_threads();
  ModelOptions one = model;  // a picture has one thread: as many pictures as threads go at once
  one.threads = 1;
  FaceOptions bounded = faces;
  if (bounded.max_faces == 0 || bounded.max_faces > limits.most_faces) bounded.max_faces = limits.most_faces;
  auto embedder = command::load(one);
  if (!embedder) return false;
  s.info = embedder->info();
  FaceSource source;
  if (!source.load(bounded, false, one, s.info)) return false;
  set_picture_options(bounded, s.limits.workers);
  s.detector = source.detector();
  for (int i = 0; i < s.limits.workers; ++i) {
    auto pair = std::make_unique<State::Pair>();
    if (i + 1 < s.limits.workers) {
      auto other_embedder = fork_embedder(*embedder);
      auto other_source = source.fork();
      const facenet::Status status = other_embedder ? other_source.status() : other_embedder.status();
      if (!status.ok()) {
        say(std::string("an engine for each of ") + std::to_string(s.limits.workers) + " threads: " + status.text() +
            "; lower --threads.");
        return false;
      }
      pair->embedder = std::move(*other_embedder);
      pair->source = std::move(*other_source);
    } else {
      pair->embedder = std::move(*embedder);
      pair->source = std::move(source);
    }
    s.free.push_back(pair.get());
    s.pairs.push_back(std::move(pair));
  }
  return true;
}

const facenet::ModelInfo& EnginePool::info() const { return state_->info; }
const ModelOptions& EnginePool::model_options() const { return state_->model; }
std::string EnginePool::detector() const { return state_->detector; }
int EnginePool::workers() const { return state_->limits.workers; }

PictureResult EnginePool::analyse(std::string_view bytes, const AnalyseOptions& options) {
  State& s = *state_;
  const facenet::Span<const std::uint8_t> file(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  State::Taken pair(s);
  PictureResult result;
  Lap lap;
  Picture& picture = pair->source.picture();
  facenet::Status status = decode(file, "-", picture, s.limits.most_pixels);
  if (!status.ok()) refuse(status);
  result.width = picture.given_width;
  result.height = picture.given_height;
  result.times.decode = lap();
  status = pair->source.cut(picture, pair->faces);
  if (!status.ok()) refuse(status);
  result.times.detect = lap();
  for (const CutFace& cut : pair->faces) {
    if (static_cast<double>(cut.face.score) < options.min_score) continue;
    if (options.limit > 0 && static_cast<int>(result.faces.size()) == options.limit) break;
    FaceResult& face = result.faces.emplace_back();
    face.face = cut.face;
    face.quality = cut.quality;
    if (!options.embed) continue;
    face.embedding.resize(static_cast<std::size_t>(s.info.embedding_dim));
    status = embed_crop(pair->embedder, cut.crop, face.embedding);
    if (!status.ok()) refuse(status);
  }
  result.times.embed = lap();
  if (s.metrics != nullptr) {
    s.metrics->add_time(Stage::decode, result.times.decode);
    s.metrics->add_time(Stage::detect, result.times.detect);
    if (options.embed) s.metrics->add_time(Stage::embed, result.times.embed);
  }
  return result;
}

}  // namespace command::service
