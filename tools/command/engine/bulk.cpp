#include "command/engine/bulk.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <new>

#include "facenet/base/hash.hpp"
#include "facenet/base/parallel.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"
#include "command/engine/pictures.hpp"

namespace command {

namespace {

constexpr std::size_t most_sentences = 100;  // that are reported

/// Results that members of a team finish in any order, handed on in the order of the pictures. No member is further
/// ahead than the window, so memory does not grow with the number of pictures. The member that has the oldest picture
/// never waits.
class InOrder {
 public:
  InOrder(std::size_t count, std::size_t window, const BulkEmbedder::Take& take)
      : take_(take), count_(count), slots_(window), ready_(window) {}

  /// The next picture's number; false when there is none or the run has ended.
  bool next(std::size_t& index) {
    std::unique_lock<std::mutex> lock(mutex_);
    room_.wait(lock, [&] { return stopped_ || given_ >= count_ || given_ < taken_ + slots_.size(); });
    if (stopped_ || given_ >= count_) return false;
    index = given_++;
    return true;
  }

  void finish(std::size_t index, EmbeddedPicture&& picture) {
    const std::lock_guard<std::mutex> lock(mutex_);
    slots_[index % slots_.size()] = std::move(picture);
    ready_[index % slots_.size()] = true;
    for (std::size_t slot; !stopped_ && ready_[slot = taken_ % slots_.size()]; ++taken_) {
      ready_[slot] = false;
      stopped_ = !hand_on(taken_, slots_[slot]);
      slots_[slot] = {};
    }
    room_.notify_all();
  }

  bool complete() const { return taken_ == count_ && !stopped_; }

 private:
  bool hand_on(std::size_t index, EmbeddedPicture& picture) {
    try {
      return take_(index, picture);
    } catch (const std::bad_alloc&) {
      say("there is not enough memory for the results; embed fewer pictures at once.");
      return false;
    }
  }

  const BulkEmbedder::Take& take_;
  std::size_t count_, given_ = 0, taken_ = 0;
  std::vector<EmbeddedPicture> slots_;
  std::vector<bool> ready_;
  bool stopped_ = false;
  std::mutex mutex_;
  std::condition_variable room_;
};

}  // namespace

std::string cache_file(const std::string& option, const std::string& folder) {
  if (option == "none") return {};
  if (!option.empty()) return option;
  const std::size_t end = folder.find_last_not_of('/');
  const std::string name = end == std::string::npos ? "." : folder.substr(0, end + 1);
  const std::string last = name.substr(name.rfind('/') + 1);
  const std::string file = last == "." || last == ".." ? name + "/.embeddings" : name + ".embeddings";
  if (!cache_fits(file)) return {};
  const std::string parent = std::filesystem::path(file).parent_path().string();
  if (::access(file.c_str(), F_OK) == 0 || ::access(parent.empty() ? "." : parent.c_str(), W_OK) == 0) return file;
  note(file + ": embeddings cannot be kept there, so a later run makes them again; give --cache FILE.");
  return {};
}

bool cache_fits(const std::string& file) {
  constexpr std::size_t longest = 255 - 8;  // "-journal"
  if (std::filesystem::path(file).filename().string().size() <= longest) return true;
  note(file +
       ": this name is too long for a file, so embeddings are not kept, and a later run makes them again; give --cache "
       "FILE.");
  return false;
}

bool BulkEmbedder::load(const ModelOptions& model, const FaceOptions& faces, bool aligned, const std::string& cache) {
  model_ = model;
  faces_ = faces;
  auto embedder = command::load(model);
  if (!embedder) return false;
  embedder_ = std::move(*embedder);
  if (!source_.load(faces, aligned, model, info())) return false;
  const std::string context = std::string(facenet::version) + " " + facenet::isa_name + " " + info().digest +
                              (model.half_weights ? " half " : " ") + source_.fingerprint();
  return cache.empty() || cache_.open(cache, dim(), info().normalise, context, aligned ? 0 : faces.max_faces);
}

// One thread a picture: 1.6 times as many pictures as all threads in each (dlib's network, crops and photographs, two
// cores). With fewer pictures than threads it is the other way.
bool BulkEmbedder::run(const std::vector<std::string>& pictures, const Take& take) {
  const auto threads = static_cast<std::size_t>(model_.threads == 0 ? facenet::default_threads() : model_.threads);
  std::vector<Worker> workers;
  if (!make_workers(pictures.size() < threads ? 1 : static_cast<int>(threads), workers)) return false;
  set_picture_options(faces_, static_cast<int>(workers.size()));
  facenet::Team team;
  const facenet::Status started = team.start(static_cast<int>(workers.size()));
  if (!started.ok()) {
    say(std::string(started.text()) + "; give fewer --threads.");
    return false;
  }
  InOrder results(pictures.size(), 8 * workers.size(), take);
  team.run([&](int member, int) noexcept {
    for (std::size_t i; results.next(i);) {
      EmbeddedPicture picture;
      try {
        picture = embed(workers[static_cast<std::size_t>(member)], pictures[i]);
      } catch (const std::bad_alloc&) {
        picture.faces.clear();
        picture.failure = "there is not enough memory for a picture; give fewer --threads.";
      }
      results.finish(i, std::move(picture));
    }
  });
  if (workers.size() == 1) {  // lent by make_workers()
    embedder_ = std::move(workers[0].embedder);
    source_ = std::move(workers[0].source);
  }
  return results.complete();
}

bool BulkEmbedder::make_workers(int count, std::vector<Worker>& workers) {
  if (count == 1) {
    workers.push_back({std::move(embedder_), std::move(source_)});
    return true;
  }
  facenet::Status status;
  while (status.ok() && workers.size() < static_cast<std::size_t>(count)) {
    auto embedder = fork_embedder(embedder_);
    auto source = source_.fork();
    if (!embedder) status = embedder.status();
    if (!source) status = source.status();
    if (status.ok()) workers.push_back({std::move(*embedder), std::move(*source)});
  }
  if (!status.ok()) say(std::string(status.text()) + "; give fewer --threads.");
  return status.ok();
}

EmbeddedPicture BulkEmbedder::embed(Worker& worker, const std::string& name) {
  EmbeddedPicture result;
  PictureDigest digest;
  std::vector<CutFace> faces;
  const bool cached = cache_.is_open() && name != "-";
  auto bytes = read_bytes(name);
  facenet::Status status = bytes.status();
  if (status.ok()) {
    if (keys_ || cached) {
      facenet::Sha256 hash;
      hash.update(bytes->data(), bytes->size());
      hash.digest(digest.data());
      result.key = digest;
    }
    result.known = known_ && known_(digest);
    if (result.known) return result;
    if (cached && cache_.find(name, digest, result.faces)) return result;
    Picture& picture = worker.source.picture();
    status = decode(std::move(*bytes), name, picture);
    if (status.ok()) status = worker.source.cut(picture, faces);
  }
  for (std::size_t i = 0; status.ok() && i < faces.size(); ++i) {
    std::vector<float> embedding(static_cast<std::size_t>(worker.embedder.dim()));
    status = embed_crop(worker.embedder, faces[i].crop, embedding);
    result.faces.push_back({faces[i].face, faces[i].quality, std::move(embedding)});
  }
  if (!status.ok()) {
    result.faces.clear();
    result.failure = sentence(status, name, Subject::picture);
  } else if (cached) {
    cache_.add(digest, result.faces);
  }
  return result;
}

void Failures::add(const std::string& picture, const std::string& sentence) {
  pictures_.push_back(picture);
  sentences_.push_back(sentence);
}

void EqualPictures::add(const std::string& picture, const std::string& person, const PictureDigest& key) {
  Group& group = groups_[key];
  group.pictures.push_back(pictures_.size());
  pictures_.push_back(picture);
  persons_.push_back(person);
  keys_.push_back(key);
  group.two_persons = group.two_persons || persons_[group.pictures[0]] != person;
}

bool EqualPictures::under_two(std::size_t index) const { return groups_.at(keys_[index]).two_persons; }

bool EqualPictures::again(std::size_t index) const {
  const Group& group = groups_.at(keys_[index]);
  return !group.two_persons && group.pictures[0] != index;
}

std::size_t EqualPictures::count_under_two() const {
  std::size_t n = 0;
  for (std::size_t i = 0; i < pictures_.size(); ++i) n += under_two(i);
  return n;
}

std::size_t EqualPictures::count_again() const {
  std::size_t n = 0;
  for (std::size_t i = 0; i < pictures_.size(); ++i) n += again(i);
  return n;
}

void EqualPictures::say_all() const {
  Failures notes;
  for (std::size_t i = 0; i < pictures_.size(); ++i) {
    const Group& group = groups_.at(keys_[i]);
    if (group.pictures[0] == i) continue;
    notes.add(pictures_[i], pictures_[i] + ": this is the same picture as " + pictures_[group.pictures[0]] +
                                (group.two_persons ? ", and stands under two persons; neither is compared."
                                                   : ", of the same person; the two are not compared."));
  }
  notes.note_all("pictures that are there twice");
}

void Failures::tell(void (*tell_one)(const std::string&), const char* of_these) const {
  const std::size_t shown = std::min(sentences_.size(), most_sentences);
  for (std::size_t i = 0; i < shown; ++i) tell_one(sentences_[i]);
  if (sentences_.size() > shown)
    tell_one("... and " + std::to_string(sentences_.size() - shown) + " more " + of_these + ".");
}

void Failures::say_all() const { tell(say, "pictures failed"); }
void Failures::note_all(const char* of_these) const { tell(note, of_these); }

Json Failures::json() const {
  Json all = Json::array();
  for (std::size_t i = 0; i < pictures_.size(); ++i) all.push_back(failed_picture(pictures_[i], sentences_[i]));
  return all;
}

}  // namespace command
