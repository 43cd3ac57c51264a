#include "command/service/live_gallery.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include "command/io/output.hpp"
#include "command/service/call.hpp"

namespace command::service {

namespace {

constexpr auto look_every = std::chrono::seconds(1);
// Erasing rewrites the file, so that removing one person after the other does it once in so long, and at the end.
constexpr auto erase_after = std::chrono::seconds(10);

[[noreturn]] void unknown_name() { throw HttpError{404, "there is no person of this name.", unknown_person}; }

HttpError unavailable(const std::string& why) { return {503, why, -1, {{"Retry-After", "5"}}}; }

}  // namespace

class LiveGallery::Reading {
 public:
  explicit Reading(const LiveGallery& of) {
    const std::lock_guard<std::mutex> pass(of.turnstile_);
    lock_ = std::shared_lock<std::shared_mutex>(of.memory_);
  }

 private:
  std::shared_lock<std::shared_mutex> lock_;
};

class LiveGallery::Writing {
 public:
  explicit Writing(const LiveGallery& of) : turn_(of.turnstile_), lock_(of.memory_) {}

 private:
  std::lock_guard<std::mutex> turn_;
  std::unique_lock<std::shared_mutex> lock_;
};

const LiveGallery::Row* LiveGallery::Contents::row(std::int64_t id) const {
  const auto at = std::lower_bound(rows.begin(), rows.end(), id, [](const Row& r, std::int64_t i) { return r.id < i; });
  return at != rows.end() && at->id == id ? &*at : nullptr;
}

void LiveGallery::Contents::add_person(std::int64_t id, const std::string& name, bool named) {
  persons[id].name = name;
  persons[id].named = named;
  ids[name] = id;
}

void LiveGallery::Contents::add_row(std::int64_t id, std::int64_t person, const std::string& image) {
  rows.push_back({id, person, image});
  ++persons[person].templates;
}

void LiveGallery::Contents::remove_rows(const std::function<bool(const Row&)>& goes) {
  const auto end = std::remove_if(rows.begin(), rows.end(), [&](const Row& r) {
    if (!goes(r)) return false;
    (void)index.remove(static_cast<std::uint64_t>(r.id));  // it is there: rows and index change together
    --persons[r.person].templates;
    return true;
  });
  rows.erase(end, rows.end());
}

LiveGallery::LiveGallery(const std::string& file, const GalleryModel& model, const Options& options)
    : file_(file), name_(std::filesystem::path(file).stem().string()), model_(model), options_(options) {
  store_ = std::make_unique<GalleryStore>(file_, Access::create);
  contents_ = load(*store_);
  watcher_ = std::thread([this] { watch(); });
}

LiveGallery::~LiveGallery() {
  {
    const std::lock_guard<std::mutex> lock(stop_mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  watcher_.join();
}

LiveGallery::Contents LiveGallery::load(GalleryStore& store) const {
  Contents c;
  facenet::GalleryOptions options;
  options.threads = options_.threads;
  if (options_.half) options.storage = facenet::TemplateStorage::f16;
  auto index = facenet::Gallery::make(static_cast<int>(model_.embedding_dim), options);
  if (!index) throw DatabaseError(file_ + ": " + index.status().text() + ".");
  c.index = std::move(*index);
  if (!store.exists()) return c;
  store.require(model_);
  const ReadTransaction reading = store.reading();
  c.version = store.version();
  for (const Person& p : store.persons()) c.add_person(p.id, p.name, p.named);
  const auto count = static_cast<std::size_t>(store.number("SELECT count(*) FROM template"));
  facenet::Status status = c.index.reserve(count);
  c.rows.reserve(count);
  store.each_embedding([&](std::int64_t id, std::int64_t person, const std::string& image, const float* embedding) {
    if (!status.ok()) return;
    status =
        c.index.add(static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(person), {embedding, c.index.dim()});
    c.add_row(id, person, image);
  });
  if (!status.ok()) throw DatabaseError(file_ + ": " + status.text() + ".");
  return c;
}

// ---- from memory
// -----------------------------------------------------------------------------------------------------

std::vector<std::vector<FoundPerson>> LiveGallery::nearest(facenet::Span<const float> queries, int k,
                                                           double threshold) const {
  const auto dim = static_cast<std::size_t>(model_.embedding_dim);
  const std::size_t count = queries.size() / dim;
  std::vector<std::vector<FoundPerson>> all(count);
  if (count == 0) return all;
  const Reading reading(*this);
  // Room for k of each query is made, so no more is asked for than there are.
  const auto most =
      static_cast<int>(std::min(static_cast<std::size_t>(k), std::max<std::size_t>(contents_.persons.size(), 1)));
  std::vector<facenet::Match> matches(count * static_cast<std::size_t>(most));
  std::vector<int> found(count);
  const facenet::Status status = contents_.index.identify(queries, most, threshold, matches, found);
  if (!status.ok()) {
    if (status.code() == facenet::Errc::out_of_memory) throw unavailable("there is not enough memory to search.");
    throw HttpError{400, std::string(status.text()) + ".", other_model};
  }
  for (std::size_t q = 0; q < count; ++q)
    for (int i = 0; i < found[q]; ++i) {
      const facenet::Match& m = matches[q * static_cast<std::size_t>(most) + static_cast<std::size_t>(i)];
      FoundPerson p;
      const auto person = contents_.persons.find(static_cast<std::int64_t>(m.person));
      if (person != contents_.persons.end()) p.name = person->second.name;
      p.id = static_cast<std::int64_t>(m.id);
      if (const Row* const row = contents_.row(p.id)) p.image = row->image;
      p.distance = m.distance;
      p.similarity = m.similarity;
      all[q].push_back(std::move(p));
    }
  return all;
}

std::vector<Person> LiveGallery::persons() const {
  std::vector<Person> all;
  {
    const Reading reading(*this);
    for (const auto& [id, person] : contents_.persons) all.push_back({id, person.name, person.templates, person.named});
  }
  std::sort(all.begin(), all.end(), [](const Person& a, const Person& b) { return a.name < b.name; });
  return all;
}

std::size_t LiveGallery::persons_count() const {
  const Reading reading(*this);
  return contents_.persons.size();
}

std::size_t LiveGallery::known_persons() const {
  const Reading reading(*this);
  std::size_t count = 0;
  for (const auto& [id, person] : contents_.persons) count += person.templates > 0;
  return count;
}

std::size_t LiveGallery::size() const {
  const Reading reading(*this);
  return contents_.rows.size();
}

// ---- changes
// ---------------------------------------------------------------------------------------------------------

template <class Action>
auto LiveGallery::with_file(Action&& action) {
  const std::lock_guard<std::mutex> lock(file_mutex_);
  try {
    return action();
  } catch (const DiskFull& e) {
    say(e.what());
    throw HttpError{507, "the disk of the gallery is full: nothing was changed."};
  } catch (const FileMoved& e) {
    say(e.what());
    throw unavailable("the gallery's file was moved or replaced: nothing was changed.");
  } catch (const DatabaseError& e) {
    say(e.what());
    throw unavailable("the gallery's file cannot be used: nothing was changed, and the service's messages say why.");
  }
}

template <class OnDisk, class InMemory>
void LiveGallery::change(OnDisk&& on_disk, InMemory&& in_memory) {
  with_file([&] {
    on_disk();
    // From here on the change is made, and the client is told so. Where memory cannot follow, its version stays behind
    // the file's, and the watcher reads the file again within a second.
    try {
      const std::int64_t version = store_->exists() ? store_->version() : 0;
      // The upper half counts what others changed. They may have done so just before this change.
      if (version >> 32 != contents_.version >> 32) {
        replace(load(*store_));
        return;
      }
      bool followed = false;
      {
        const Writing writing(*this);
        followed = in_memory(contents_);
        if (followed) contents_.version = version;
      }
      if (!followed) replace(load(*store_));
    } catch (const DatabaseError& e) {
      say(e.what());
    }
  });
}

void LiveGallery::replace(Contents contents) {
  const Writing writing(*this);
  std::swap(contents_, contents);
}

std::int64_t LiveGallery::known(const std::string& name) const {
  const Reading reading(*this);
  const auto at = contents_.ids.find(name);
  return at == contents_.ids.end() ? 0 : at->second;
}

void LiveGallery::add_person(const std::string& name) {
  std::int64_t id = 0;
  change(
      [&] {
        if (!store_->add_person(model_, name))
          throw HttpError{409, "there is a person of this name already.", person_exists};
        id = store_->number("SELECT max(id) FROM person");
      },
      [&](Contents& c) {
        c.add_person(id, name);
        return true;
      });
}

LiveGallery::Enrolled LiveGallery::enroll(Template face, std::string_view picture) {
  if (options_.keep_pictures) face.picture.assign(picture.begin(), picture.end());
  Enrolled done{};
  std::int64_t person = 0;
  change(
      [&] {
        const GalleryStore::Addition added = store_->add(model_, face);
        if (added.added == GalleryStore::Added::another_person)
          throw HttpError{409, "this face of this picture is enrolled under another name already.", another_person};
        done = {added.added == GalleryStore::Added::yes, added.id, added.uuid};
        person = store_->number(("SELECT person FROM template WHERE id = " + std::to_string(added.id)).c_str());
      },
      [&](Contents& c) {
        if (!done.is_new || c.row(done.id) != nullptr) return true;
        const facenet::Status status =
            c.index.add(static_cast<std::uint64_t>(done.id), static_cast<std::uint64_t>(person), face.embedding);
        if (!status.ok()) return false;
        c.add_person(person, face.name);
        c.add_row(done.id, person, face.image);
        return true;
      });
  return done;
}

void LiveGallery::rename(const std::string& from, const std::string& to, bool merge) {
  bool merged = false;
  std::int64_t id = 0;
  change(
      [&] {
        id = known(from);
        if (id == 0) unknown_name();
        if (from == to) return;
        merged = known(to) != 0;
        if (merged && !merge) throw HttpError{409, "there is a person of this name already.", person_exists};
        if (merged)
          store_->merge(from, to);
        else
          store_->rename(from, to);
        traces_ = true;
      },
      [&](Contents& c) {
        if (from == to) return true;
        if (merged) return false;  // of a picture that both had, one template went: which one is in the file
        c.ids.erase(from);
        c.add_person(id, to);
        return true;
      });
}

std::int64_t LiveGallery::remove_person(const std::string& name) {
  std::int64_t id = 0, gone = 0;
  change(
      [&] {
        id = known(name);
        if (id == 0) unknown_name();
        gone = store_->remove(std::vector<std::string>{name});
        traces_ = true;
      },
      [&](Contents& c) {
        c.remove_rows([&](const Row& r) { return r.person == id; });
        c.persons.erase(id);
        c.ids.erase(name);
        return true;
      });
  return gone;
}

std::int64_t LiveGallery::remove_everybody() {
  std::int64_t gone = 0;
  change(
      [&] {
        gone = store_->exists() ? store_->remove_all() : 0;
        traces_ = gone > 0;
      },
      [](Contents& c) {
        c.remove_rows([](const Row&) { return true; });
        c.persons.clear();
        c.ids.clear();
        return true;
      });
  return gone;
}

std::int64_t LiveGallery::remove_templates_of(const std::string& name) {
  std::int64_t id = 0, gone = 0;
  change(
      [&] {
        if (!name.empty() && (id = known(name)) == 0) unknown_name();
        if (!store_->exists()) return;
        gone = store_->remove_templates_of(name.empty() ? std::nullopt : std::optional<std::string>(name));
        traces_ = true;
      },
      [&](Contents& c) {
        c.remove_rows([&](const Row& r) { return id == 0 || r.person == id; });
        return true;
      });
  return gone;
}

std::vector<Template> LiveGallery::remove_templates(const std::vector<std::string>& uuids) {
  std::vector<Template> gone;
  change(
      [&] {
        if (!store_->exists()) return;
        gone = store_->remove_templates(uuids);
        traces_ = traces_ || !gone.empty();
      },
      [&](Contents& c) {
        std::unordered_set<std::int64_t> ids;
        for (const Template& t : gone) ids.insert(t.id);
        if (!ids.empty()) c.remove_rows([&](const Row& r) { return ids.count(r.id) != 0; });
        return true;
      });
  return gone;
}

LiveGallery::Imported LiveGallery::import(const GalleryModel& model, std::vector<Template> faces,
                                          const std::vector<std::string>& persons) {
  Imported done{};
  std::size_t at = 0;
  with_file([&] {
    store_->add_all(
        model,
        [&](Template& t) {
          if (at == faces.size()) return false;
          t = std::move(faces[at++]);
          return true;
        },
        [&](const Template&, const GalleryStore::Addition& added) {
          if (added.added == GalleryStore::Added::another_person)
            throw HttpError{409,
                            "line " + std::to_string(at + 1) +
                                ": this face is enrolled under another name already; "
                                "nothing was imported.",
                            another_person};
          ++(added.added == GalleryStore::Added::yes ? done.enrolled : done.there);
        },
        persons);
    replace(load(*store_));
  });
  return done;
}

// ---- from the file
// ---------------------------------------------------------------------------------------------------

std::optional<Template> LiveGallery::find(const std::string& uuid) {
  return with_file([&]() -> std::optional<Template> {
    if (!store_->exists()) return std::nullopt;
    return store_->find_template(uuid);
  });
}

std::string LiveGallery::picture(const std::string& uuid) {
  return with_file([&]() -> std::string {
    if (!store_->exists()) return {};
    const std::vector<std::uint8_t> bytes = store_->picture(uuid);
    return {bytes.begin(), bytes.end()};
  });
}

GalleryStore::Page LiveGallery::templates(std::int64_t offset, std::int64_t count, const std::string& name) {
  return with_file([&]() -> GalleryStore::Page {
    if (!name.empty() && known(name) == 0) unknown_name();
    if (!store_->exists()) return {};
    return store_->templates(offset, count, name.empty() ? std::nullopt : std::optional<std::string>(name));
  });
}

void LiveGallery::each_template(const std::function<void(const Template&)>& visit) {
  with_file([&] {
    if (!store_->exists()) return;
    store_->each_template([&](const Template& t) {
      visit(t);
      return true;
    });
  });
}

// ---- other processes
// -------------------------------------------------------------------------------------------------

void LiveGallery::watch() {
  auto erase_at = std::chrono::steady_clock::now() + erase_after;
  bool last = false;
  while (!last) {
    {
      std::unique_lock<std::mutex> lock(stop_mutex_);
      last = stop_.wait_for(lock, look_every, [this] { return stopping_; });
    }
    const std::lock_guard<std::mutex> lock(file_mutex_);
    try {
      if (!last) look_at_file();
      const auto now = std::chrono::steady_clock::now();
      if (traces_ && (last || now >= erase_at)) {
        traces_ = false;
        store_->erase_traces();
        erase_at = now + erase_after;
      }
    } catch (const std::exception& e) {
      say(e.what());
    }
  }
}

void LiveGallery::look_at_file() {
  const bool there = ::access(file_.c_str(), F_OK) == 0;
  if (store_->exists() ? store_->was_moved() : there) {
    if (store_->exists() && !std::exchange(moved_said_, true))
      say(file_ + ": the gallery was moved or replaced; the service searches what it had" +
          (there ? " until the new file is read." : ", and changes nothing."));
    if (!there) return;
    auto store = std::make_unique<GalleryStore>(file_, Access::create);
    replace(load(*store));
    store_ = std::move(store);
    moved_said_ = false;
    traces_ = false;
    return;
  }
  if (store_->exists() && store_->version() != contents_.version) replace(load(*store_));
}

}  // namespace command::service
