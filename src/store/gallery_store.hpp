// A gallery on disk: persons and the templates (embeddings of their faces) that identify them. docs/galleries.md has
// the schema.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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
  std::string uuid;    // "": one is drawn; of a gallery of schema 1, read only, there is none
  std::string name;    // the person's
  std::string image;   // the picture's name when it was enrolled, for people
  std::string sha256;  // of the picture's file, 64 hex digits
  std::int64_t face = 0;
  double box[4] = {}, score = 0;
  std::string enrolled;  // UTC, such as 2026-11-28T07:18:32Z
  std::vector<float> embedding;
  std::vector<std::uint8_t> picture;  // the file's bytes, to be kept with it; picture() reads them
};

struct Person {
  std::int64_t id;
  std::string name;
  std::int64_t templates;
  bool named = true;  // false: nobody has said who it is, and its name is "person <id>"
};

/// Something that is wrong with a gallery's file.
struct Damage {
  std::string table;        // "": the file itself
  std::int64_t id = 0;      // the row's; 0: many rows, or none
  std::string what;         // as a clause
  std::string name, image;  // the person's and the template's, where they can be read
};

/// What somebody said of a face, which no program may override.
struct Decision {
  std::string uuid, name;  // of the template and the person
  bool is = true;          // false: it is not that person
  std::string decided;     // as Template::enrolled
};

/// A picture of an archive that was looked at.
struct SeenFile {
  std::string path;                      // as the file system has it, whatever its encoding
  std::string sha256;                    // "": it could not be read
  std::int64_t bytes = 0, modified = 0;  // nanoseconds since 1970. A file that has both still need not be read again
  std::string settings;                  // that it was looked at with: with others it is looked at again
  std::int64_t faces = 0;
  std::string problem;  // "", or why it could not be read
  std::string looked;   // as Template::enrolled
};

/// A face of an archive, for who sorts them.
struct ArchiveFace {
  std::int64_t id = 0, person = 0;
  std::string sha256;
  bool settled = false;  // somebody said that it is this person
  bool named = false;    // somebody has named the person
  const float* embedding = nullptr;
};

/// What a look at some pictures of an archive changes in a gallery, all at once.
struct ArchiveChange {
  std::int64_t version = 0;  // GalleryStore::version() of the state that it was made for; 0: there was no gallery
  std::vector<SeenFile> files;
  std::vector<std::string> forgotten;  // paths
  struct Face {
    std::int64_t id = 0;      // 0: a new one; else a face that is there, of another picture or another person now
    std::int64_t person = 0;  // below 0 one who is to be made; equal numbers are one person
    bool renewed = false;     // `face` holds what it is now
    Template face;
  };
  std::vector<Face> faces;
  std::vector<std::int64_t> removed;  // templates
};
struct ArchiveChanged {
  bool done = false;              // false: the gallery is another one by now, and nothing was changed
  std::vector<std::int64_t> ids;  // of faces, in their order
  std::vector<std::pair<std::int64_t, std::int64_t>> persons;  // that were made: the number above, and theirs
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

/// Each function is one transaction, those that only read too. Errors are DatabaseErrors. One thread at a time uses an
/// object; several objects of one file, in one process or in many, see each other's changes (version()).
class GalleryStore {
 public:
  /// Access::create: the file is made with the first template. Refuses what is not a gallery, or a newer one. One of
  /// schema 1 becomes one of schema 2 unless it is opened for reading.
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
    std::int64_t id = 0;     // the template's, unless it is another person's
    std::string owner = {};  // the other person
    std::string uuid = {};   // as id
  };
  /// Adds a template, and the person and the gallery where they are new. there: this person has one of the same
  /// picture. another_person: this very face of the same picture is enrolled under another name.
  Addition add(const GalleryModel& model, const Template& face);
  /// All of them, or nothing where one throws. `next` returns false after the last; the file is locked meanwhile.
  /// `persons`, whose names are right, are added too, where they are new.
  void add_all(const GalleryModel& model, const std::function<bool(Template&)>& next,
               const std::function<void(const Template&, const Addition&)>& added,
               const std::vector<std::string>& persons = {});
  /// A person without templates, and the gallery where it is new. False where somebody has that name already.
  bool add_person(const GalleryModel& model, const std::string& name);
  /// A person whom nobody has named yet: "person 17", a number that is never used again. rename() names it.
  std::string add_unnamed_person(const GalleryModel& model);
  /// The template of that picture which the person has, or 0.
  std::int64_t find(const std::string& name, const std::string& sha256);

  std::vector<Person> persons();
  /// Without embeddings, in the order of the names and of enrolling.
  std::vector<Template> templates_of(const std::vector<std::string>& names);
  struct Page {
    std::vector<Template> templates;  // without embeddings
    std::int64_t total = 0;           // of the person, or of all
  };
  /// `count` of them from `offset` on, in an order that stays while nothing changes; of one person, who must be known,
  /// or of all.
  Page templates(std::int64_t offset, std::int64_t count, const std::optional<std::string>& name = {});
  /// With its embedding; nothing where there is none.
  std::optional<Template> find_template(const std::string& uuid);
  /// The bytes that were kept with it; none where there is no such template, or no picture was kept.
  std::vector<std::uint8_t> picture(const std::string& uuid);
  /// All, in the order of their persons and of enrolling, until `visit` returns false. The file is locked meanwhile,
  /// unless it was detached.
  void each_template(const std::function<bool(const Template&)>& visit);
  /// Template's id, person's id, picture and embedding of all, in the order of the file: the fast way to load them.
  void each_embedding(const std::function<void(std::int64_t, std::int64_t, const std::string&, const float*)>& visit);

  /// Another number when the gallery is not what it was, whoever changed it: for who holds it in memory. Costs one read
  /// of the file's first page. Compare it with this object's alone, and look at was_moved() too. Inside of reading() it
  /// is that state's.
  std::int64_t version();

  /// Refuses the name of another person: that is merge().
  void rename(const std::string& from, const std::string& to);
  struct Merged {
    std::int64_t moved = 0, dropped = 0;  // templates
  };
  /// All that `from` has is `to`'s then. Of a picture that both have, the template of `to` stays.
  Merged merge(const std::string& from, const std::string& to);
  /// Persons with all they have; returns how many templates went. All names must be known.
  std::int64_t remove(const std::vector<std::string>& names);
  /// Templates; a person without any goes too. Returns the names of the persons that went.
  std::vector<std::string> remove(const std::vector<std::int64_t>& ids);
  /// Templates; their persons stay. Returns id, uuid and name of those that were there.
  std::vector<Template> remove_templates(const std::vector<std::string>& uuids);
  /// All templates of a person, who must be known, or of everybody; the persons stay. Returns how many went.
  std::int64_t remove_templates_of(const std::optional<std::string>& name = {});
  /// Everybody and all they have; the model stays. Returns how many persons went.
  std::int64_t remove_all();

  /// A decision replaces an earlier one of the same face and person. They go with the template or the person.
  void decide(const std::string& uuid, const std::string& name, bool is);
  std::vector<Decision> decisions();
  /// Those of the same path are replaced.
  void remember(const std::vector<SeenFile>& files);
  void forget_files(const std::vector<std::string>& paths);
  /// In the order of their paths, until `visit` returns false.
  void each_file(const std::function<bool(const SeenFile&)>& visit);

  /// All faces, in the order of their numbers; the embedding is there until `visit` returns.
  void each_archive_face(const std::function<void(const ArchiveFace&)>& visit);
  /// Template and person of each "is not".
  std::vector<std::pair<std::int64_t, std::int64_t>> refusals();
  /// Applies a change unless another process has changed the gallery since; makes the gallery if need be. An unnamed
  /// person without faces goes.
  ArchiveChanged apply(const GalleryModel& model, const ArchiveChange& change);
  /// The faces of `from` are `to`'s from now on, by decision, as those of `to` are. Refuses two persons of one picture
  /// unless `collages`. Returns how many faces went over.
  std::int64_t join_persons(const std::string& from, const std::string& to, bool collages);
  /// The faces `ids` of `from` are another person's, by decision, and the rest is `from`'s. `to`: "" for a new one
  /// without a name, or a new name. Returns the name.
  std::string split_person(const std::string& from, const std::vector<std::int64_t>& ids, const std::string& to);
  /// The faces are not that person's. Those that were are nobody's yet: an unnamed person each. Returns whose they are.
  std::vector<std::string> refuse_faces(const std::string& name, const std::vector<std::int64_t>& ids);

  /// All templates get the embeddings of another model, which `embedding` finds by UUID, but for those of `dropped`,
  /// which go. Where one has none, nothing is changed, and the UUIDs of those are returned.
  std::vector<std::string> change_model(const GalleryModel& model,
                                        const std::function<bool(const std::string&, std::vector<float>&)>& embedding,
                                        const std::vector<std::string>& dropped);

  /// After a removal or a renaming: no trace of what was there stays in the file or its journal. Throws TracesLeft,
  /// whose sentence says that the change was made all the same.
  void erase_traces();
  /// The same by itself. The file shrinks.
  void vacuum();
  std::int64_t number(const char* sql) { return database_->number(sql); }
  /// "ok", or the first thing that is wrong with the file.
  std::string integrity();
  /// The first thing that check() finds, as a clause, or "ok".
  std::string soundness();
  /// All that is wrong: rows that do not fit their checksums or hold what no gallery holds, and what SQLite finds.
  std::vector<Damage> check();
  /// Writes the gallery as it is now to another file, which appears whole, with mode 0600, and replaces what has that
  /// name. Readers go on meanwhile, and who wants to change it waits.
  void backup(const std::string& to);

  struct Repair {
    std::vector<Damage> damage, lost;  // what check() found; rows that are not in the new file, or not as they were
    std::int64_t persons = 0, templates = 0;  // that are kept
    std::string original;                     // the damaged file's new name; "": nothing was wrong or changed
  };
  /// Writes all sound rows to a new file of that name, with their ids and UUIDs; the damaged one becomes
  /// `path`.damaged.
  static Repair repair(const std::string& path);

 private:
  struct AsItIs {};
  /// To be changed, but neither migrated nor checked before.
  GalleryStore(const std::string& path, AsItIs);
  void open();
  void check_rows(const std::string& table, std::vector<Damage>& found);
  void create(const GalleryModel& model);
  /// False for a file without tables.
  bool read_model();
  void migrate();
  /// A change, in a gallery that is made if need be.
  void change_or_make(const GalleryModel& model, const std::function<void()>& change);
  /// After a first change that failed: nothing is left of the file, or what counts as empty.
  void forget();
  /// `which`: a condition with two numbers in it, and the order.
  void read_templates(const std::string& which, std::int64_t first, std::int64_t second, bool embeddings,
                      const std::function<bool(const Template&)>& visit);
  /// Of a row of that table in SQL: whether it fits its checksum, or has none, as in schema 1.
  std::string sound(const std::string& table) const;
  void require_sound(const std::string& table, std::int64_t id);
  void require_fit(std::int64_t fits, const std::string& row, std::int64_t id) const;
  std::string wrong_stored_embedding(Blob blob, std::vector<float>& embedding) const;
  std::int64_t next_id(const std::string& table);
  /// "": one whom nobody has named. Returns the name.
  std::string insert_person(const std::string& name);
  /// 0 where there is none.
  std::int64_t template_with(const std::string& uuid);
  std::int64_t person(const std::string& name);
  std::int64_t known_person(const std::string& name);
  Addition insert(const Template& face);
  /// A new row, whatever else is there; returns its id.
  std::int64_t insert_row(const Template& face, std::int64_t owner);
  /// An existing row: all but its id, UUID, person and date.
  void renew_row(std::int64_t id, const Template& face);
  bool is_named(std::int64_t person);
  /// Refuses a face of `from` whose picture holds one of `to`.
  void require_apart(std::int64_t from, const std::vector<std::int64_t>& ids, std::int64_t to);
  void require_faces_of(const std::string& name, const std::vector<std::int64_t>& ids);
  void set_decision(std::int64_t face, std::int64_t owner, bool is);
  void set_owner(std::int64_t face, std::int64_t owner);
  void set_seen(const std::vector<SeenFile>& files);
  void drop_if_bare(std::int64_t person);
  std::vector<std::int64_t> faces_of(std::int64_t person);
  [[noreturn]] void refuse(const std::string& why) const;
  [[noreturn]] void refuse_template(std::int64_t id, const std::string& why) const;

  std::string path_;
  Access access_;
  std::unique_ptr<Database> database_;
  GalleryModel model_;
  std::int64_t schema_ = 0;
};

}  // namespace command
