// Galleries: the store's files, or the same in memory, and an index of either for searching.
#include "facenet/gallery.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine.hpp"
#include "facenet/base/hash.hpp"
#include "store/gallery_store.hpp"

namespace facenet_c {

namespace {

using command::GalleryModel;
using command::GalleryStore;
using command::Person;
using command::Template;
using Added = GalleryStore::Added;

[[noreturn]] void fail(facenet_code code, std::string sentence, std::string place) {
  throw Failure{code, std::move(sentence), std::move(place)};
}

/// What the store throws begins with the name of `file` and ends with a full stop.
[[noreturn]] void fail(const command::DatabaseError& e, const std::string& file, std::string place) {
  std::string sentence = e.what();
  if (sentence.compare(0, file.size() + 2, file + ": ") == 0) sentence.erase(0, file.size() + 2);
  if (!sentence.empty() && sentence.back() == '.') sentence.pop_back();
  fail(FACENET_IO_ERROR, std::move(sentence), std::move(place));
}

/// So that it is the same file after chdir(). What is no name of a file stays as it is.
std::string full_name(const std::string& path) {
  std::error_code error;
  const auto full = path.empty() || path == "-" ? std::filesystem::path() : std::filesystem::absolute(path, error);
  return full.empty() || error ? path : full.string();
}

/// What a gallery is kept in. Functions throw Failure or command::DatabaseError.
class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;
  /// What errors name: as the caller called it.
  virtual const char* place() const = 0;
  /// As the store calls it in its errors.
  virtual const char* file() const { return place(); }
  /// Makes ready for a call; whether there is a model, and so whether anything but add() may be called.
  virtual bool exists() = 0;
  /// Another number when somebody else has changed it, or another file is in its place.
  virtual std::int64_t version() = 0;
  /// Whatever f() reads is of one state of the gallery.
  virtual void in_one_reading(const std::function<void()>& f) { f(); }
  virtual const GalleryModel& model() const = 0;
  virtual GalleryStore::Addition add(const GalleryModel& model, Template& face) = 0;
  virtual std::vector<Person> persons() = 0;
  /// Until `visit` returns false.
  virtual void each_template(const std::function<bool(const Template&)>& visit) = 0;
  virtual void each_embedding(const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) = 0;
  virtual std::int64_t remove(const std::string& name) = 0;
  virtual bool has_template(std::int64_t id) = 0;
  virtual void remove(std::int64_t id) = 0;
  virtual void rename(const std::string& from, const std::string& to) = 0;
  /// After these three, which have made their change already: an error says that.
  virtual Status erase_traces() noexcept { return {}; }
};

command::Access access_of(std::int32_t mode) {
  return mode == FACENET_GALLERY_READ     ? command::Access::read
         : mode == FACENET_GALLERY_CHANGE ? command::Access::change
                                          : command::Access::create;
}

class FileStore : public Store {
 public:
  FileStore(const char* path, std::int32_t mode) : path_(path), full_(full_name(path)), mode_(mode) {
    const NoFork here;
    open();
  }
  ~FileStore() override {
    const NoFork here;
    if (process_ == getpid())
      store_.reset();
    else
      abandon();
  }
  const char* place() const override { return path_.c_str(); }
  const char* file() const override { return full_.c_str(); }
  bool exists() override {
    const NoFork here;
    // SQLite forbids a child to use, or to close, what its parent opened. Where there was no file somebody may have
    // made one, and where there was one another may have been moved over it.
    if (process_ != getpid() || !store_->exists() || store_->was_moved()) open();
    return store_->exists();
  }
  std::int64_t version() override {
    const NoFork here;
    return opened_ << 32 | store_->number("PRAGMA data_version");
  }
  void in_one_reading(const std::function<void()>& f) override {
    const NoFork here;
    const command::ReadTransaction reading = store_->reading();
    f();
  }
  const GalleryModel& model() const override { return store_->model(); }
  GalleryStore::Addition add(const GalleryModel& model, Template& face) override {
    const NoFork here;
    return store_->add(model, face);
  }
  std::vector<Person> persons() override {
    const NoFork here;
    return store_->persons();
  }
  void each_template(const std::function<bool(const Template&)>& visit) override {
    const NoFork here;
    store_->each_template(visit);
  }
  void each_embedding(const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) override {
    const NoFork here;
    store_->each_embedding([&](std::int64_t id, std::int64_t person, const std::string&, const float* embedding) {
      visit(id, person, embedding);
    });
  }
  std::int64_t remove(const std::string& name) override {
    const NoFork here;
    return store_->remove(std::vector<std::string>{name});
  }
  bool has_template(std::int64_t id) override {
    const NoFork here;
    return store_->number(("SELECT count(*) FROM template WHERE id = " + std::to_string(id)).c_str()) != 0;
  }
  void remove(std::int64_t id) override {
    const NoFork here;
    store_->remove(std::vector<std::int64_t>{id});
  }
  void rename(const std::string& from, const std::string& to) override {
    const NoFork here;
    store_->rename(from, to);
  }
  Status erase_traces() noexcept override {
    const NoFork here;
    try {
      store_->erase_traces();
      return {};
    } catch (...) {  // maybe for want of memory: then there is none for the store's sentence either
      return Status(Errc::io_error,
                    "the change was made, but traces of what was there may be left in the file; run 'facenet gallery "
                    "vacuum' on it, which says why")
          .in(path_.c_str());
    }
  }

 private:
  /// What was open before stays so where it throws.
  void open() {
    // SQLite's table of locks would say what was true of the parent: a read might see half of a change.
    if (NoFork::was_missed())
      fail(FACENET_INVALID_ARGUMENT,
           "another thread of the parent process was reading or writing a gallery file at the fork, so this process "
           "can use none: start it with exec, or fork while no such call runs",
           path_);
    struct stat about {};
    if (mode_ != FACENET_GALLERY_CREATE && ::stat(full_.c_str(), &about) != 0 && (errno == ENOENT || errno == ENOTDIR))
      fail(FACENET_NOT_FOUND, "there is no such gallery: check the name, or open it with FACENET_GALLERY_CREATE",
           path_);
    auto made = std::make_unique<GalleryStore>(full_, access_of(mode_));
    if (process_ != getpid()) abandon();
    store_ = std::move(made);
    process_ = getpid();
    ++opened_;
  }
  void abandon() noexcept { (void)store_.release(); }

  const std::string path_, full_;
  const std::int32_t mode_;
  pid_t process_ = 0;        // that opened store_
  std::int64_t opened_ = 0;  // times
  std::unique_ptr<GalleryStore> store_;
};

/// The same rules without a file.
class MemoryStore : public Store {
 public:
  ~MemoryStore() override {
    for (Owned& t : templates_) wipe(t.face.embedding.data(), t.face.embedding.size() * sizeof(float));
  }
  const char* place() const override { return "gallery"; }
  bool exists() override { return !model_.digest.empty(); }
  std::int64_t version() override { return 0; }
  const GalleryModel& model() const override { return model_; }
  GalleryStore::Addition add(const GalleryModel& model, Template& face) override {
    if (face.enrolled.empty()) face.enrolled = command::time_now();
    std::string wrong = exists() ? "" : command::wrong_model(model);
    if (wrong.empty())
      wrong = face.embedding.size() != static_cast<std::size_t>(model.embedding_dim)
                  ? "its embedding has another length"
                  : wrong_template(model, face);
    if (!wrong.empty()) fail(FACENET_INVALID_ARGUMENT, "the template was not added: " + wrong, place());
    Person* owner = find(face.name);
    if (digests_.count(face.sha256) != 0) {
      for (const Owned& t : templates_)
        if (t.face.sha256 == face.sha256 && owner != nullptr && t.person == owner->id)
          return {Added::there, t.face.id, {}};
      for (const Owned& t : templates_)
        if (t.face.sha256 == face.sha256 && std::equal(t.face.box, t.face.box + 4, face.box))
          return {Added::another_person, 0, t.face.name};
    }
    // First what may throw: a gallery is changed whole or not at all.
    GalleryModel first = exists() ? GalleryModel() : model;
    Owned made{owner != nullptr ? owner->id : next_person_, face};
    made.face.id = next_template_;
    static_assert(std::is_nothrow_move_constructible_v<Owned>, "so a vector that grows is changed whole or not at all");
    constexpr std::size_t least = 16;
    if (templates_.size() == templates_.capacity()) templates_.reserve(std::max(least, 2 * templates_.capacity()));
    const auto digest = digests_.insert(face.sha256);
    if (owner == nullptr) {
      try {
        persons_.push_back({next_person_, face.name, 0});
      } catch (...) {
        digests_.erase(digest);
        throw;
      }
      ++next_person_;
      owner = &persons_.back();
    }
    if (!exists()) model_ = std::move(first);
    face.id = next_template_++;
    templates_.push_back(std::move(made));
    ++owner->templates;
    return {Added::yes, face.id, {}};
  }
  std::vector<Person> persons() override { return persons_; }
  void each_template(const std::function<bool(const Template&)>& visit) override {
    for (const Person& p : persons_)
      for (const Owned& t : templates_)
        if (t.person == p.id && !visit(t.face)) return;
  }
  void each_embedding(const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) override {
    for (const Owned& t : templates_) visit(t.face.id, t.person, t.face.embedding.data());
  }
  std::int64_t remove(const std::string& name) override {
    const std::int64_t id = find(name)->id;
    return erase([&](const Owned& t) { return t.person == id; });
  }
  bool has_template(std::int64_t id) override {
    return std::any_of(templates_.begin(), templates_.end(), [&](const Owned& t) { return t.face.id == id; });
  }
  void remove(std::int64_t id) override {
    erase([&](const Owned& t) { return t.face.id == id; });
  }
  void rename(const std::string& from, const std::string& to) override {
    Person* const person = find(from);
    // First what may throw; a name that fits is swapped without.
    std::vector<std::string> names(static_cast<std::size_t>(person->templates) + 1, to);
    for (Owned& t : templates_) {
      if (t.person != person->id) continue;
      t.face.name.swap(names.back());
      names.pop_back();
    }
    person->name.swap(names.back());
  }

 private:
  struct Owned {
    std::int64_t person;
    Template face;
  };
  Person* find(const std::string& name) {
    const auto at = std::find_if(persons_.begin(), persons_.end(), [&](const Person& p) { return p.name == name; });
    return at != persons_.end() ? &*at : nullptr;
  }
  template <class F>
  std::int64_t erase(F&& goes) {
    std::int64_t count = 0;
    for (Owned& t : templates_) {
      if (!goes(t)) continue;
      wipe(t.face.embedding.data(), t.face.embedding.size() * sizeof(float));
      if (const auto digest = digests_.find(t.face.sha256); digest != digests_.end()) digests_.erase(digest);
      for (Person& p : persons_) p.templates -= p.id == t.person;
      ++count;
    }
    templates_.erase(std::remove_if(templates_.begin(), templates_.end(), goes), templates_.end());
    persons_.erase(std::remove_if(persons_.begin(), persons_.end(), [](const Person& p) { return p.templates == 0; }),
                   persons_.end());
    return count;
  }

  GalleryModel model_;
  std::vector<Person> persons_;
  std::vector<Owned> templates_;
  std::unordered_multiset<std::string> digests_;  // of their pictures: most that are added are new
  std::int64_t next_person_ = 1, next_template_ = 1;
};

GalleryModel model_of(const facenet::ModelInfo& info, const std::string& detector) {
  GalleryModel m;
  m.digest = info.digest;
  m.architecture = info.architecture;
  m.embedding_dim = info.embedding_dim;
  m.trained = info.trained;
  m.normalise = facenet::name(info.normalise);
  m.image_size = info.image_size;
  m.crop = facenet::name(info.crop);
  m.margin = info.margin;
  m.detector = detector;
  return m;
}

class GalleryObject : public ObjectOf<Kind::gallery> {
 public:
  Status open(const char* path, std::int32_t mode, const facenet_gallery_options* given) {
    facenet_gallery_options o;
    FACENET_TRY(read_options(given, "facenet_gallery_options", o));
    const auto wrong = [](const char* text) {
      return Status(Errc::invalid_argument, text).in("facenet_gallery_options");
    };
    if (o.reserved != 0) return wrong("`reserved` must be 0");
    if (o.threads < 0 || o.threads > 256) return wrong("`threads` must be 1 to 256");
    if (o.metric < 0 || o.metric > FACENET_COSINE) return wrong("`metric` is none of FACENET_EUCLIDEAN and COSINE");
    options_.threads = o.threads;
    options_.metric = o.metric == FACENET_COSINE ? facenet::Metric::cosine : facenet::Metric::euclidean;
    read_only_ = mode == FACENET_GALLERY_READ;
    store_ = path != nullptr ? std::unique_ptr<Store>(new FileStore(path, mode)) : std::make_unique<MemoryStore>();
    return {};
  }
  /// What was being changed cannot be told, and SQLite's connection may be in the middle of a statement. Each call says
  /// so.
  Status recover() override {
    return Status(Errc::invalid_argument,
                  "another thread of the parent process was using this gallery at the fork: open another one here")
        .in(name);
  }

  Store& store() noexcept { return *store_; }
  Status check_writable() const noexcept {
    return read_only_ ? Status(Errc::invalid_argument, "this gallery was opened with FACENET_GALLERY_READ") : Status();
  }
  /// Nothing that was read before holds any more.
  void changed() noexcept { index_.reset(); }
  /// A template that is in the store: what goes wrong here is no failure of the call.
  void added(std::int64_t id, const Template& face) noexcept {
    try {
      if (index_ && index_->version == store_->version() && put(id, face)) return;
    } catch (...) {  // the next search reads all anew, and says it
    }
    changed();
  }

  struct Index {
    facenet::Gallery gallery;
    std::unordered_map<std::uint64_t, std::string> names;
    std::int64_t version = 0;
  };
  /// The gallery as it is now; the store must exist.
  Status index(const Index*& out) {
    if (index_ && index_->version == store_->version()) return out = &*index_, Status();
    index_.reset();
    auto made = facenet::Gallery::make(static_cast<int>(store_->model().embedding_dim), options_);
    if (!made) return made.status();
    Index index{std::move(*made), {}, 0};
    Status status;
    const auto dim = static_cast<std::size_t>(store_->model().embedding_dim);
    store_->in_one_reading([&] {
      index.version = store_->version();
      for (const Person& p : store_->persons()) index.names[static_cast<std::uint64_t>(p.id)] = p.name;
      store_->each_embedding([&](std::int64_t id, std::int64_t person, const float* embedding) {
        if (status.ok())
          status =
              index.gallery.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person), {embedding, dim});
      });
    });
    if (!status.ok()) return status;
    index_ = std::move(index);
    out = &*index_;
    return {};
  }

 private:
  /// Whether the index has it now.
  bool put(std::int64_t id, const Template& face) {
    std::uint64_t person = 0;
    for (const Person& p : store_->persons())
      if (p.name == face.name) index_->names[person = static_cast<std::uint64_t>(p.id)] = p.name;
    const facenet::Span<const float> embedding(face.embedding.data(), face.embedding.size());
    return person != 0 && index_->gallery.add(static_cast<std::uint64_t>(id), person, embedding).ok();
  }

  facenet::GalleryOptions options_;
  bool read_only_ = false;
  std::unique_ptr<Store> store_;
  std::optional<Index> index_;
};

/// guarded() for a gallery: what the store throws names its file. `Status f(GalleryObject&, Store&, bool exists)`.
/// `Status before()` asks other objects: none is locked while this one is, or a progress callback that searches would
/// wait for a thread that waits for its embedder.
template <class Before, class F>
facenet_code with_gallery(facenet_gallery* gallery, facenet_error* error, Before&& before, F&& f) noexcept {
  return guarded(error, [&]() -> Status {
    FACENET_TRY(before());
    Use<GalleryObject> use;
    FACENET_TRY(use.take(gallery));
    Store& store = use->store();
    try {
      const bool exists = store.exists();
      return f(*use, store, exists);
    } catch (const command::DatabaseError& e) {
      fail(e, store.file(), store.place());
    }
  });
}
template <class F>
facenet_code with_gallery(facenet_gallery* gallery, facenet_error* error, F&& f) noexcept {
  return with_gallery(
      gallery, error, [] { return Status(); }, std::forward<F>(f));
}

Status ask(facenet_embedder* embedder, facenet::ModelInfo& info) {
  Use<EmbedderObject> use;
  FACENET_TRY(use.take(embedder));
  info = use->embedder.info();
  return {};
}

Status wrong_name_of(const char* name, const char* argument) {
  if (name == nullptr) return null_argument(argument);
  const std::string wrong = command::wrong_name(name);
  if (!wrong.empty()) fail(FACENET_INVALID_ARGUMENT, wrong, argument);
  return {};
}

/// Its id. Throws FACENET_NOT_FOUND.
std::int64_t require_person(Store& store, bool exists, const char* name) {
  if (exists)
    for (const Person& p : store.persons())
      if (p.name == name) return p.id;
  fail(FACENET_NOT_FOUND, std::string("nobody in it is called '") + name + "': facenet_gallery_persons lists the names",
       store.place());
}

void require_model(Store& store, bool exists, const facenet::ModelInfo& info) {
  if (!exists || store.model().digest == info.digest) return;
  const GalleryModel& m = store.model();
  fail(FACENET_WEIGHTS_MISMATCH,
       "its templates were made with another model (" + m.digest + ", " + m.architecture + ", " +
           std::to_string(m.embedding_dim) + "-d) than " + info.digest + " (" + info.architecture + ", " +
           std::to_string(info.embedding_dim) + "-d): use that one's weights, or another gallery",
       store.place());
}

Status open(const char* path, std::int32_t mode, const facenet_gallery_options* options, GalleryObject& object) {
  if (mode < FACENET_GALLERY_READ || mode > FACENET_GALLERY_CREATE)
    return Status(Errc::invalid_argument, "the mode is none of FACENET_GALLERY_READ, CHANGE and CREATE").in("mode");
  try {
    return object.open(path, mode, options);
  } catch (const command::DatabaseError& e) {
    fail(e, full_name(path), path);
  }
}

facenet_code search(facenet_gallery* gallery, facenet_embedder* embedder, const float* queries,
                    std::size_t queries_size, std::size_t k, const double* threshold, facenet_match* matches,
                    std::size_t matches_size, std::size_t* found, std::size_t found_size,
                    facenet_error* error) noexcept {
  facenet::ModelInfo info;
  const auto before = [&] { return embedder != nullptr ? ask(embedder, info) : Status(); };
  return with_gallery(gallery, error, before, [&](GalleryObject& self, Store& store, bool exists) -> Status {
    if (queries == nullptr) return null_argument("queries");
    if (matches == nullptr) return null_argument("matches");
    if (found == nullptr) return null_argument("found");
    if (k < 1 || k > INT_MAX) return Status(Errc::invalid_argument, "k must be 1 or more").in("k");
    if (threshold != nullptr && !(*threshold >= 0))
      return Status(Errc::invalid_argument, "a threshold must be 0 or more").in("threshold");
    if (embedder != nullptr) require_model(store, exists, info);
    if (!exists) {  // nobody knows how long a query is
      std::fill(found, found + found_size, std::size_t{0});
      return {};
    }
    const auto dim = static_cast<std::size_t>(store.model().embedding_dim), n = queries_size / dim;
    if (n == 0 || queries_size % dim != 0)
      return Status(Errc::invalid_argument, "the queries are not whole embeddings of the gallery's model")
          .in("queries_size");
    if (found_size < n) return Status(Errc::invalid_argument, "each query takes one number").in("found_size");
    if (matches_size / k < n) return Status(Errc::invalid_argument, "each query takes k matches").in("matches_size");
    const GalleryObject::Index* index = nullptr;
    FACENET_TRY(self.index(index));
    // k may be INT_MAX for "all": no more than the gallery has are looked for.
    const std::size_t most = std::max<std::size_t>(1, std::min(k, index->gallery.size()));
    std::vector<facenet::Match> out(n * most);
    std::vector<int> counts(n);
    const facenet::Span<const float> all(queries, queries_size);
    const facenet::Span<facenet::Match> to(out.data(), out.size());
    const facenet::Span<int> count(counts.data(), counts.size());
    FACENET_TRY(threshold != nullptr ? index->gallery.identify(all, static_cast<int>(most), *threshold, to, count)
                                     : index->gallery.search(all, static_cast<int>(most), to, count));
    for (std::size_t q = 0; q < n; ++q) {
      found[q] = static_cast<std::size_t>(counts[q]);
      for (std::size_t i = 0; i < found[q]; ++i) {
        const facenet::Match& from = out[q * most + i];
        facenet_match& match = matches[q * k + i];
        match.id = from.id;
        match.person = from.person;
        match.distance = from.distance;
        match.similarity = from.similarity;
        const auto named = index->names.find(from.person);
        copy_text(named != index->names.end() ? named->second.c_str() : "", match.name);
      }
    }
    return {};
  });
}

}  // namespace

}  // namespace facenet_c

using namespace facenet_c;

extern "C" {

facenet_code facenet_gallery_open(const char* path, int32_t mode, const facenet_gallery_options* options,
                                  facenet_gallery** gallery, facenet_error* error) {
  return make_object<GalleryObject>(gallery, "gallery", error, [&](GalleryObject& object) {
    return path == nullptr ? null_argument("path") : open(path, mode, options, object);
  });
}

facenet_code facenet_gallery_make(const facenet_gallery_options* options, facenet_gallery** gallery,
                                  facenet_error* error) {
  return make_object<GalleryObject>(gallery, "gallery", error, [&](GalleryObject& object) {
    return object.open(nullptr, FACENET_GALLERY_CREATE, options);
  });
}

facenet_code facenet_gallery_add(facenet_gallery* gallery, facenet_embedder* embedder, facenet_detector* detector,
                                 const facenet_template* face, uint64_t* id, int32_t* added, facenet_error* error) {
  facenet::ModelInfo info;
  std::string digest;
  const auto before = [&]() -> Status {
    if (detector != nullptr) {
      Use<DetectorObject> use;
      FACENET_TRY(use.take(detector));
      digest = use->detector.digest();
    }
    return ask(embedder, info);
  };
  return with_gallery(gallery, error, before, [&](GalleryObject& self, Store& store, bool exists) -> Status {
    FACENET_TRY(self.check_writable());
    if (face == nullptr) return null_argument("face");
    facenet_template given;
    FACENET_TRY(read_options(face, "facenet_template", given));
    FACENET_TRY(wrong_name_of(given.name, "facenet_template: name"));
    if (given.embedding == nullptr) return null_argument("facenet_template: embedding");
    require_model(store, exists, info);
    const GalleryModel model = model_of(info, digest);
    if (given.embedding_size != static_cast<std::size_t>(model.embedding_dim))
      return Status(Errc::invalid_argument, "the embedding has another length than the embedder's")
          .in("facenet_template: embedding_size");
    Template t;
    t.name = given.name;
    t.image = given.image != nullptr ? command::as_utf8(given.image) : "-";
    if (given.enrolled != nullptr) t.enrolled = given.enrolled;
    t.face = given.face;
    std::copy(given.box, given.box + 4, t.box);
    t.score = given.score;
    t.embedding.assign(given.embedding, given.embedding + given.embedding_size);
    if (given.sha256 != nullptr) {
      t.sha256 = given.sha256;
    } else {
      char hex[65];
      if (facenet_sha256(given.embedding, given.embedding_size * sizeof(float), hex, sizeof hex, nullptr) != FACENET_OK)
        return {Errc::out_of_memory, "the embedding could not be hashed"};
      t.sha256 = hex;
    }
    // The store calls it a failure of the file.
    Template dated = t;
    if (dated.enrolled.empty()) dated.enrolled = command::time_now();
    if (const std::string wrong = wrong_template(model, dated); !wrong.empty())
      fail(FACENET_INVALID_ARGUMENT, "the template was not added: " + wrong, "facenet_template");
    const GalleryStore::Addition addition = store.add(model, t);
    if (addition.added == Added::yes) {
      if (exists)
        self.added(addition.id, t);
      else
        self.changed();
    }
    if (id != nullptr) *id = static_cast<std::uint64_t>(addition.id);
    if (added != nullptr)
      *added = addition.added == Added::yes     ? FACENET_ADDED
               : addition.added == Added::there ? FACENET_ALREADY_THERE
                                                : FACENET_ANOTHER_PERSON;
    return {};
  });
}

facenet_code facenet_gallery_remove_person(facenet_gallery* gallery, const char* name, uint64_t* templates,
                                           facenet_error* error) {
  if (templates != nullptr) *templates = 0;
  return with_gallery(gallery, error, [&](GalleryObject& self, Store& store, bool exists) -> Status {
    FACENET_TRY(self.check_writable());
    if (name == nullptr) return null_argument("name");
    require_person(store, exists, name);
    self.changed();
    const std::int64_t count = store.remove(std::string(name));
    if (templates != nullptr) *templates = static_cast<std::uint64_t>(count);
    return store.erase_traces();
  });
}

facenet_code facenet_gallery_remove_template(facenet_gallery* gallery, uint64_t id, facenet_error* error) {
  return with_gallery(gallery, error, [&](GalleryObject& self, Store& store, bool exists) -> Status {
    FACENET_TRY(self.check_writable());
    if (!exists || id > INT64_MAX || !store.has_template(static_cast<std::int64_t>(id)))
      fail(FACENET_NOT_FOUND, "it has no template " + std::to_string(id) + ": facenet_gallery_templates lists them",
           store.place());
    self.changed();
    store.remove(static_cast<std::int64_t>(id));
    return store.erase_traces();
  });
}

facenet_code facenet_gallery_rename(facenet_gallery* gallery, const char* from, const char* to, facenet_error* error) {
  return with_gallery(gallery, error, [&](GalleryObject& self, Store& store, bool exists) -> Status {
    FACENET_TRY(self.check_writable());
    if (from == nullptr) return null_argument("from");
    FACENET_TRY(wrong_name_of(to, "to"));
    const std::int64_t id = require_person(store, exists, from);
    for (const Person& p : store.persons())
      if (p.name == to && p.id != id)
        fail(FACENET_INVALID_ARGUMENT, std::string("somebody in it is called '") + to + "' already: give another name",
             store.place());
    self.changed();
    store.rename(from, to);
    return store.erase_traces();
  });
}

facenet_code facenet_gallery_get_info(facenet_gallery* gallery, facenet_gallery_info* info, facenet_error* error) {
  return with_gallery(gallery, error, [&](GalleryObject&, Store& store, bool exists) -> Status {
    FACENET_TRY(check_result(info, "info"));
    facenet_gallery_info made;
    std::memset(&made, 0, sizeof made);
    if (exists) {
      const GalleryModel& m = store.model();
      made.embedding_dim = static_cast<std::int32_t>(m.embedding_dim);
      made.trained = m.trained;
      made.image_size = static_cast<std::int32_t>(m.image_size);
      copy_text(m.digest.c_str(), made.digest);
      copy_text(m.detector.c_str(), made.detector);
      copy_text(m.architecture.c_str(), made.architecture);
      for (const Person& p : store.persons()) {
        ++made.persons;
        made.templates += static_cast<std::uint64_t>(p.templates);
      }
    }
    write_result(made, info);
    return {};
  });
}

facenet_code facenet_gallery_persons(facenet_gallery* gallery, facenet_person_visit visit, void* user,
                                     facenet_error* error) {
  return with_gallery(gallery, error, [&](GalleryObject&, Store& store, bool exists) -> Status {
    if (visit == nullptr) return null_argument("visit");
    if (!exists) return {};
    for (const Person& p : store.persons())
      if (visit(user, static_cast<std::uint64_t>(p.id), p.name.c_str(), static_cast<std::uint64_t>(p.templates)) == 0)
        break;
    return {};
  });
}

facenet_code facenet_gallery_templates(facenet_gallery* gallery, const char* name, facenet_template_visit visit,
                                       void* user, facenet_error* error) {
  return with_gallery(gallery, error, [&](GalleryObject&, Store& store, bool exists) -> Status {
    if (visit == nullptr) return null_argument("visit");
    if (!exists && name == nullptr) return {};
    if (!exists) require_person(store, exists, name);
    const auto tell = [&](const Template& t) {
      if (name != nullptr && t.name != name) return true;
      facenet_template face;
      std::memset(&face, 0, sizeof face);
      face.struct_size = sizeof face;
      face.face = static_cast<std::int32_t>(t.face);
      face.id = static_cast<std::uint64_t>(t.id);
      face.name = t.name.c_str();
      face.image = t.image.c_str();
      face.sha256 = t.sha256.c_str();
      face.enrolled = t.enrolled.c_str();
      std::copy(t.box, t.box + 4, face.box);
      face.score = t.score;
      face.embedding = t.embedding.data();
      face.embedding_size = t.embedding.size();
      return visit(user, &face) != 0;
    };
    store.in_one_reading([&] {
      if (name != nullptr) require_person(store, exists, name);
      store.each_template(tell);
    });
    return {};
  });
}

facenet_code facenet_gallery_search(facenet_gallery* gallery, facenet_embedder* embedder, const float* queries,
                                    size_t queries_size, size_t k, facenet_match* matches, size_t matches_size,
                                    size_t* found, size_t found_size, facenet_error* error) {
  return search(gallery, embedder, queries, queries_size, k, nullptr, matches, matches_size, found, found_size, error);
}

facenet_code facenet_gallery_identify(facenet_gallery* gallery, facenet_embedder* embedder, const float* queries,
                                      size_t queries_size, size_t k, double threshold, facenet_match* matches,
                                      size_t matches_size, size_t* found, size_t found_size, facenet_error* error) {
  return search(gallery, embedder, queries, queries_size, k, &threshold, matches, matches_size, found, found_size,
                error);
}

facenet_code facenet_gallery_free(facenet_gallery* gallery) { return free_handle(gallery, Kind::gallery); }

}  // extern "C"
