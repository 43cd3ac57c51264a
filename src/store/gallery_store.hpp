// A gallery on disk: persons and the templates (embeddings of their faces) that identify them. docs/galleries.md has
// the schema.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "store/database.hpp"

namespace command {

/// What the embeddings of a gallery were made with.
struct GalleryModel {
  std::string digest, architecture, normalise, crop;
  std::string detector;  // its weights' digest; "": pictures were face crops
  std::int64_t embedding_dim = 0, image_size = 0;
  double margin = 0;
  bool trained = false;
};
constexpr std::int64_t most_dims = 1 << 16;  // as many as a weight file may declare

/// A face that stands for a person.
struct Template {
  std::int64_t id = 0;
  std::string name;    // the person's
  std::string image;   // the picture's name when it was enrolled, for people
  std::string sha256;  // of the picture's file, 64 hex digits
  std::int64_t face = 0;
  double box[4] = {}, score = 0;
  std::string enrolled;  // UTC, such as 2026-11-28T07:18:32Z
  std::vector<float> embedding;
};

struct Person {
  std::int64_t id;
  std::string name;
  std::int64_t templates;
};

/// "" for a name that a person may have, else what is wrong: names are UTF-8, of 1 to 255 bytes, without control
/// characters.
std::string wrong_name(const std::string& name);
/// This moment as Template::enrolled has it.
std::string time_now();
/// Bytes that are not UTF-8, as a file's name may have, become U+FFFD.
std::string as_utf8(const std::string& text);
/// The same of all that a gallery says of its model, and of a template: the member that is wrong and why. A template's
/// embedding is not zero, nor does it hold an infinity or NaN: it would be equal to every other one like it. Nothing
/// else is stored, and nothing else is read from a file, whoever wrote that.
std::string wrong_model(const GalleryModel& model);
std::string wrong_template(const GalleryModel& model, const Template& face);

/// Each function is one transaction, those that only read too. Errors are DatabaseErrors.
class GalleryStore {
 public:
  /// Access::create: the file is made with the first template. Refuses what is not a gallery, or a newer one.
  GalleryStore(const std::string& path, Access access);
  /// Erases the journal of its changes, unless another process reads for too long: then the next one does.
  ~GalleryStore();

  const std::string& path() const { return path_; }
  /// False for a gallery that is still to be made.
  bool exists() const { return database_ != nullptr; }
  /// Whether another file, or none, has the name of the one that exists.
  bool was_moved() const { return database_ != nullptr && database_->was_moved(); }
  /// From here to the end of what is returned, all that is read is of one state of the file.
  ReadTransaction reading() { return ReadTransaction(*database_); }
  /// What is read from here on is the gallery as it is now, and holds no lock: for who takes long. In memory.
  void detach();
  const GalleryModel& model() const { return model_; }
  /// Refuses embeddings of another model than the gallery's.
  void require(const GalleryModel& model) const;

  enum class Added { yes, there, another_person };
  struct Addition {
    Added added;
    std::int64_t id = 0;  // the template's, unless it is another person's
    std::string owner;    // the other person
  };
  /// Adds a template, and the person and the gallery where they are new. there: this person has one of the same
  /// picture. another_person: this very face of the same picture is enrolled under another name.
  Addition add(const GalleryModel& model, const Template& face);
  /// All of them, or nothing where one throws. `next` returns false after the last; the file is locked meanwhile.
  void add_all(const GalleryModel& model, const std::function<bool(Template&)>& next,
               const std::function<void(const Template&, const Addition&)>& added);
  /// The template of that picture which the person has, or 0.
  std::int64_t find(const std::string& name, const std::string& sha256);

  std::vector<Person> persons();
  /// Without embeddings, in the order of the names and of enrolling.
  std::vector<Template> templates_of(const std::vector<std::string>& names);
  /// All, in the order of their persons and of enrolling, until `visit` returns false. The file is locked meanwhile,
  /// unless it was detached.
  void each_template(const std::function<bool(const Template&)>& visit);
  /// Template's id, person's id, picture and embedding of all, in the order of the file: the fast way to load them.
  void each_embedding(const std::function<void(std::int64_t, std::int64_t, const std::string&, const float*)>& visit);

  void rename(const std::string& from, const std::string& to);
  /// Persons with all they have; returns how many templates went. All names must be known.
  std::int64_t remove(const std::vector<std::string>& names);
  /// Templates; a person without any goes too. Returns the names of the persons that went.
  std::vector<std::string> remove(const std::vector<std::int64_t>& ids);

  /// After a removal or a renaming: no trace of what was there stays in the file or its journal. Throws TracesLeft,
  /// whose sentence says that the change was made all the same.
  void erase_traces();
  /// The same by itself. The file shrinks.
  void vacuum();
  std::int64_t number(const char* sql) { return database_->number(sql); }
  /// "ok", or the first thing that is wrong with the file.
  std::string integrity();
  /// The same of each template's embedding too, which a search would refuse.
  std::string soundness();

 private:
  void create(const GalleryModel& model);
  /// False for a file without tables.
  bool read_model();
  /// After a first change that failed: nothing is left of the file, or what counts as empty.
  void forget();
  void read_templates(std::int64_t person, bool embeddings, const std::function<bool(const Template&)>& visit);
  std::int64_t person(const std::string& name);
  std::int64_t known_person(const std::string& name);
  Addition insert(const Template& face);
  [[noreturn]] void refuse(const std::string& why) const;
  [[noreturn]] void refuse_template(std::int64_t id, const std::string& why) const;

  std::string path_;
  Access access_;
  std::unique_ptr<Database> database_;
  GalleryModel model_;
};

}  // namespace command
