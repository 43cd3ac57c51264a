// A gallery that is searched while it changes: the file is what counts, and memory follows it. A change is on the disk
// before memory has it, so what was acknowledged is never lost. Whoever searches sees the gallery before or after a
// change, and never waits for the disk.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "facenet/gallery.hpp"
#include "store/gallery_store.hpp"

namespace command::service {

/// A person beside a face, by the nearest of the person's templates.
struct FoundPerson {
  std::string name, image;              // image: the template's, as it was called when it was enrolled
  std::int64_t id = 0;                  // the template's
  double distance = 0, similarity = 0;  // Euclidean; cosine
};

class LiveGallery {
 public:
  struct Options {
    bool half = false;           // embeddings in memory as halves
    bool keep_pictures = false;  // store the picture of each example
    int threads = 0;             // of one search
  };

  /// Reads the file, or notes that it is still to be made. Throws DatabaseError.
  LiveGallery(const std::string& file, const GalleryModel& model, const Options& options);
  LiveGallery(const LiveGallery&) = delete;
  LiveGallery& operator=(const LiveGallery&) = delete;
  ~LiveGallery();

  /// The file's name without its folder and its ending.
  const std::string& name() const { return name_; }
  const GalleryModel& model() const { return model_; }

  // From memory.
  /// The nearest persons of each query, at most k and none beyond the threshold. Throws HttpError for embeddings that
  /// cannot be compared.
  std::vector<std::vector<FoundPerson>> nearest(facenet::Span<const float> queries, int k, double threshold) const;
  std::vector<Person> persons() const;  // by name
  std::size_t persons_count() const;
  std::size_t known_persons() const;  // of whom there is a template
  std::size_t size() const;           // templates

  // Changes. Each throws HttpError: 404 for a person or template that is not there, 409 for one that is, 503 where the
  // file cannot be changed, 507 where the disk is full. Nothing is changed then.
  void add_person(const std::string& name);
  struct Enrolled {
    bool is_new;
    std::int64_t id;
    std::string uuid;
  };
  /// `picture`: kept where the options say so. The person is made where it is new.
  Enrolled enroll(Template face, std::string_view picture);
  /// `merge`: where the new name is known, both become one person; without it that is HttpError 409.
  void rename(const std::string& from, const std::string& to, bool merge);
  /// Returns how many templates went.
  std::int64_t remove_person(const std::string& name);
  /// Returns how many persons went.
  std::int64_t remove_everybody();
  /// All templates of a person, who stays; "": of everybody. Returns how many went.
  std::int64_t remove_templates_of(const std::string& name);
  /// Those that are there; their persons stay. Returns id, uuid and name of each.
  std::vector<Template> remove_templates(const std::vector<std::string>& uuids);
  struct Imported {
    std::int64_t enrolled, there;
  };
  /// All, or nothing. `persons`: those without templates.
  Imported import(const GalleryModel& model, std::vector<Template> faces, const std::vector<std::string>& persons);

  // From the file. Each throws HttpError.
  /// With its embedding.
  std::optional<Template> find(const std::string& uuid);
  /// Empty where no picture was kept.
  std::string picture(const std::string& uuid);
  /// Of a person, or of all where `name` is "".
  GalleryStore::Page templates(std::int64_t offset, std::int64_t count, const std::string& name);
  void each_template(const std::function<void(const Template&)>& visit);

 private:
  struct Row {
    std::int64_t id, person;
    std::string image;
  };
  struct KnownPerson {
    std::string name;
    std::int64_t templates = 0;
    bool named = true;
  };
  /// What is in memory of one state of the file.
  struct Contents {
    facenet::Gallery index;
    std::vector<Row> rows;  // by id: the file's numbers only grow
    std::unordered_map<std::int64_t, KnownPerson> persons;
    std::unordered_map<std::string, std::int64_t> ids;  // of persons, by name
    std::int64_t version = 0;                           // GalleryStore::version()

    const Row* row(std::int64_t id) const;
    void add_person(std::int64_t id, const std::string& name, bool named = true);
    void add_row(std::int64_t id, std::int64_t person, const std::string& image);
    /// Templates that `goes` chooses.
    void remove_rows(const std::function<bool(const Row&)>& goes);
  };

  Contents load(GalleryStore& store) const;
  /// The file's failures as HttpErrors.
  template <class Action>
  auto with_file(Action&& action);
  /// Changes the file by `on_disk`; then memory by `in_memory`, or by reading the file again where that returns false
  /// or another process has changed the file too.
  template <class OnDisk, class InMemory>
  void change(OnDisk&& on_disk, InMemory&& in_memory);
  void replace(Contents contents);
  std::int64_t known(const std::string& name) const;
  /// Follows other processes' changes, and erases the traces of what was removed.
  void watch();
  void look_at_file();

  const std::string file_;
  std::string name_;
  GalleryModel model_;
  Options options_;

  std::mutex file_mutex_;  // the file, by one thread at a time; taken before those of memory
  std::unique_ptr<GalleryStore> store_;
  bool traces_ = false;  // something was removed whose traces are still in the file
  bool moved_said_ = false;

  /// Of memory, held for as long as it is read or changed, and never while the disk is waited for. A reader passes the
  /// turnstile, at which a writer waits: a stream of readers would keep writers out for ever.
  class Reading;
  class Writing;
  mutable std::mutex turnstile_;
  mutable std::shared_mutex memory_;
  Contents contents_;

  std::mutex stop_mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread watcher_;
};

}  // namespace command::service
