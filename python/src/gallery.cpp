// Galleries: the command's SQLite files, and an index of one in memory to search.
#include "facenet/gallery.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <unordered_map>
#include <utility>

#include "interrupt.hpp"
#include "parts.hpp"
#include "store/gallery_store.hpp"

namespace python {

namespace {

/// Which file a name stands for; all 0 where there is none, or an empty one, which counts as none.
using Identity = std::pair<dev_t, ino_t>;
Identity identity_of(const std::string& path) noexcept {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0 || (S_ISREG(about.st_mode) && about.st_size == 0)) return {};
  return {about.st_dev, about.st_ino};
}

/// Whether a journal lies beside the file that a name stands for, which may be a link.
bool has_journal(const std::string& path) {
  char* const real = ::realpath(path.c_str(), nullptr);
  const std::string journal = (real != nullptr ? std::string(real) : path) + "-journal";
  std::free(real);
  return ::access(journal.c_str(), F_OK) == 0;
}

std::string word(const nb::dict& info, const char* key) { return nb::cast<std::string>(info[key]); }

command::GalleryModel model_of(const nb::dict& info, const std::string& detector) {
  command::GalleryModel m;
  m.digest = word(info, "digest");
  m.architecture = word(info, "architecture");
  m.normalise = word(info, "normalise");
  m.crop = word(info, "crop");
  m.detector = detector;
  m.embedding_dim = nb::cast<int>(info["embedding_dim"]);
  m.image_size = nb::cast<int>(info["input_size"]);
  m.margin = nb::cast<double>(info["margin"]);
  m.trained = nb::cast<bool>(info["trained"]);
  return m;
}

command::Access access_of(const std::string& word) {
  return word == "read" ? command::Access::read : word == "change" ? command::Access::change : command::Access::create;
}

/// A file and its index. fork() waits for whoever is in SQLite: a child would take its locks for its own.
class Gallery {
  using Lock = std::lock_guard<ForkSafeMutex>;

 public:
  Gallery(const nb::bytes& path, const std::string& access)
      : path_(path.c_str(), path.size()), access_(access_of(access)) {
    in_file([](command::GalleryStore&) {});
  }
  ~Gallery() { drop(); }

  /// (outcome, template's id, the other person)
  nb::tuple add(const nb::dict& info, const std::string& detector, const std::string& name, nb::handle embedding,
                const std::string& image, const std::string& sha256, int face, Box box, double score) {
    const Rows rows = rows_of(embedding, "embedding");
    const command::GalleryModel model = model_of(info, detector);
    if (rows.rows != 1 || rows.dim != static_cast<std::size_t>(model.embedding_dim))
      raise("invalid_argument", "embedding: one embedding of the embedder's is float32 [" +
                                    std::to_string(model.embedding_dim) + "], not " + description(*rows.view) + ".");
    command::Template t;
    t.name = name;
    t.image = image;
    t.sha256 = sha256;
    t.face = face;
    std::tie(t.box[0], t.box[1], t.box[2], t.box[3]) = box;
    t.score = score;
    t.embedding.assign(rows.floats().begin(), rows.floats().end());
    command::GalleryStore::Addition done;
    in_file([&](command::GalleryStore& store) {
      store.require(model);
      known_version_ = -1;
      done = store.add(model, t);
    });
    static constexpr const char* words[] = {"yes", "there", "another_person"};
    return nb::make_tuple(words[static_cast<int>(done.added)], done.id, done.owner);
  }

  std::int64_t remove(const std::vector<std::string>& names) {
    return in_file([&](command::GalleryStore& store) {
      must_exist(store);
      known_version_ = -1;
      const std::int64_t gone = store.remove(names);
      store.erase_traces();
      return gone;
    });
  }
  std::vector<std::string> remove_templates(const std::vector<std::int64_t>& ids) {
    return in_file([&](command::GalleryStore& store) {
      must_exist(store);
      known_version_ = -1;
      auto gone = store.remove(ids);
      store.erase_traces();
      return gone;
    });
  }
  void rename(const std::string& from, const std::string& to) {
    in_file([&](command::GalleryStore& store) {
      must_exist(store);
      known_version_ = -1;
      store.rename(from, to);
      store.erase_traces();
    });
  }

  nb::list persons() {
    std::vector<command::Person> all;
    in_file([&](command::GalleryStore& store) {
      if (store.exists()) all = store.persons();
    });
    nb::list out;
    for (const command::Person& p : all) out.append(nb::make_tuple(p.name, p.templates));
    return out;
  }
  nb::list templates_of(const std::vector<std::string>& names) {
    std::vector<command::Template> all;
    in_file([&](command::GalleryStore& store) {
      if (store.exists()) all = store.templates_of(names);
    });
    nb::list out;
    for (const command::Template& t : all)
      out.append(nb::make_tuple(t.id, t.name, t.image, t.sha256, t.face,
                                nb::make_tuple(t.box[0], t.box[1], t.box[2], t.box[3]), t.score, t.enrolled));
    return out;
  }

  nb::object model() {
    command::GalleryModel m;
    const bool there = in_file([&](command::GalleryStore& store) {
      if (store.exists()) m = store.model();
      return store.exists();
    });
    if (!there) return nb::none();
    nb::dict d = described(m, m.normalise, m.crop);
    d["detector"] = m.detector;
    return d;
  }

  /// For each query the nearest persons: [(name, distance, similarity, template's id, picture)].
  nb::list search(nb::handle queries, int k, double threshold, int threads) {
    const Rows rows = rows_of(queries, "queries");
    if (k < 1 || k > 1000) raise("invalid_argument", "k: give 1 to 1000.");
    std::vector<facenet::Match> matches(rows.rows * static_cast<std::size_t>(k));
    std::vector<int> found(rows.rows);
    std::vector<std::string> names, images;
    std::atomic<bool> cancel{false};
    interruptible(cancel, [&]() -> Status {
      const Lock lock(mutex_);
      command::GalleryStore& store = open();
      must_exist(store);
      FACENET_TRY(load(store, threads, cancel));
      if (rows.rows == 0) return {};
      if (rows.dim != static_cast<std::size_t>(index_.dim()))
        return {Errc::invalid_argument, "the queries are not embeddings of this gallery's length"};
      index_.cancel_when(&cancel);
      const Status status =
          index_.identify(rows.floats(), k, threshold, {matches.data(), matches.size()}, {found.data(), found.size()});
      index_.cancel_when(nullptr);
      if (!status.ok()) return status;
      for (std::size_t q = 0; q < rows.rows; ++q)
        for (int i = 0; i < found[q]; ++i) {
          const facenet::Match& m = matches[q * static_cast<std::size_t>(k) + static_cast<std::size_t>(i)];
          names.push_back(names_[m.person]);
          images.push_back(images_[m.id]);
        }
      return {};
    });
    nb::list out;
    std::size_t at = 0;
    for (std::size_t q = 0; q < rows.rows; ++q) {
      nb::list of_one;
      for (int i = 0; i < found[q]; ++i, ++at) {
        const facenet::Match& m = matches[q * static_cast<std::size_t>(k) + static_cast<std::size_t>(i)];
        of_one.append(nb::make_tuple(names[at], m.distance, m.similarity, m.id, images[at]));
      }
      out.append(of_one);
    }
    return out;
  }

  void close() {
    unlocked([&] {
      const Lock lock(mutex_);
      closed_ = true;
      drop();
      known_version_ = -1;
      index_ = {};
      names_.clear();
      images_.clear();
    });
  }
  bool is_closed() const noexcept { return closed_; }

 private:
  template <class F>
  auto in_file(F&& f) -> decltype(f(std::declval<command::GalleryStore&>())) {
    return unlocked([&] {
      const Lock lock(mutex_);
      return f(open());
    });
  }

  /// The file as it is now: opened anew where another process made, replaced or removed it, and in a process that was
  /// forked, which may not use its parent's connection.
  command::GalleryStore& open() {
    if (closed_) throw command::DatabaseError("this gallery is closed: open it again.");
    const Identity there = identity_of(path_);
    if (pid_ != getpid() || there != opened_) drop();
    if (!store_) {
      known_version_ = -1;
      pid_ = getpid();
      opened_ = there;
      store_ = std::make_unique<command::GalleryStore>(path_, access_);
    }
    return *store_;
  }
  static void must_exist(const command::GalleryStore& store) {
    if (!store.exists()) throw command::DatabaseError(store.path() + ": there is no gallery yet: add a face first.");
  }
  /// Closes the file. Its end erases the journal that lies beside its name: where that is another file's by now, and in
  /// a forked process, the connection is left as it is.
  void drop() noexcept {
    const bool replaced = opened_ != Identity{} && identity_of(path_) != opened_;
    if (pid_ != getpid() || (replaced && has_journal(path_)))
      (void)store_.release();
    else
      store_.reset();
  }

  /// Brings the index up to date: another process, or this object, may have changed the file.
  Status load(command::GalleryStore& store, int threads, const std::atomic<bool>& cancel) {
    const std::int64_t version = store.number("PRAGMA data_version");
    if (version == known_version_ && threads == threads_) return {};
    const command::ReadTransaction reading = store.reading();
    facenet::GalleryOptions options;
    options.threads = threads;
    auto index = facenet::Gallery::make(static_cast<int>(store.model().embedding_dim), options);
    if (!index) return index.status();
    known_version_ = -1;  // what follows may end half-way
    names_.clear();
    images_.clear();
    index_ = std::move(*index);
    FACENET_TRY(index_.reserve(static_cast<std::size_t>(store.number("SELECT count(*) FROM template"))));
    struct Ended {  // thrown, so that no more of the file is read
      Status status;
    };
    try {
      store.each_embedding([&](std::int64_t id, std::int64_t person, const std::string& image, const float* embedding) {
        if (cancel.load(std::memory_order_relaxed)) throw Ended{facenet::detail::Stop::status()};
        const Status status = index_.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person),
                                         {embedding, static_cast<std::size_t>(index_.dim())});
        if (!status.ok()) throw Ended{status};
        images_.emplace(static_cast<std::uint64_t>(id), image);
      });
    } catch (const Ended& ended) {
      return ended.status;
    }
    for (const command::Person& p : store.persons()) names_.emplace(static_cast<std::uint64_t>(p.id), p.name);
    known_version_ = version, threads_ = threads;
    return {};
  }

  const std::string path_;
  const command::Access access_;
  ForkSafeMutex mutex_;
  std::atomic<bool> closed_{false};
  pid_t pid_ = getpid();  // whose store_ is
  Identity opened_{};     // what path_ was when store_ was made
  std::unique_ptr<command::GalleryStore> store_;
  facenet::Gallery index_;
  std::unordered_map<std::uint64_t, std::string> names_, images_;
  std::int64_t known_version_ = -1;
  int threads_ = 0;
};

}  // namespace

void define_gallery(nb::module_& m) {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const command::DatabaseError& error) {
      set_error("gallery", error.what());
    }
  });
  nb::class_<Gallery>(m, "Gallery")
      .def(nb::init<const nb::bytes&, const std::string&>())
      .def("add", &Gallery::add)
      .def("remove", &Gallery::remove)
      .def("remove_templates", &Gallery::remove_templates)
      .def("rename", &Gallery::rename)
      .def("persons", &Gallery::persons)
      .def("templates_of", &Gallery::templates_of)
      .def("model", &Gallery::model)
      .def("search", &Gallery::search)
      .def("close", &Gallery::close)
      .def_prop_ro("closed", &Gallery::is_closed);
}

}  // namespace python
