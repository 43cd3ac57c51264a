// What there is to do with a gallery beside enrolling and identifying: look at it, change it, carry it elsewhere.
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>

#include "store/gallery_store.hpp"
#include "command/cli/sub_command.hpp"
#include "command/io/escape.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

struct Options {
  int (*run)(const Options&) = nullptr;  // of the action that was given
  std::string gallery, file;
  std::vector<std::string> names;
  std::vector<std::string> templates;  // ids
  bool json = false;
};

constexpr const char* export_format = "facenet-gallery";
constexpr int export_version = 1;

Json as_json(const GalleryModel& m) {
  Json j;
  j["model"] = m.digest;
  j["architecture"] = m.architecture;
  j["embedding_dim"] = m.embedding_dim;
  j["trained"] = m.trained;
  j["normalise"] = m.normalise;
  j["image_size"] = m.image_size;
  j["crop"] = m.crop;
  j["margin"] = static_cast<float>(m.margin);
  j["detector"] = m.detector;
  return j;
}

Json as_json(const Template& t) {
  Json j;
  j["name"] = t.name;
  j["image"] = t.image;
  j["sha256"] = t.sha256;
  j["face"] = t.face;
  j["box"] = Json::array();
  for (const double side : t.box) j["box"].push_back(static_cast<float>(side));
  j["score"] = static_cast<float>(t.score);
  j["enrolled"] = t.enrolled;
  return j;
}

int list(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  Output out;
  for (const Person& p : store.persons()) {
    Json j;
    j["name"] = p.name;
    j["person"] = p.id;
    j["templates"] = p.templates;
    if (!(options.json ? out.line(line(j)) : out.row({p.name, std::to_string(p.templates)}))) return failed;
  }
  return out.finish() ? done : failed;
}

int show(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  Output out;
  for (const Template& t : store.templates_of(options.names)) {
    Json j;
    j["template"] = t.id;
    j.update(as_json(t));
    char box[200];
    std::snprintf(box, sizeof box, "%.1f %.1f %.1f %.1f", t.box[0], t.box[1], t.box[2], t.box[3]);
    const std::vector<std::string> fields{std::to_string(t.id),   t.name, t.image,
                                          std::to_string(t.face), box,    t.enrolled};
    if (!(options.json ? out.line(line(j)) : out.row(fields))) return failed;
  }
  return out.finish() ? done : failed;
}

int rename(const Options& options) {
  const std::string &from = options.names[0], &to = options.names[1];
  const std::string wrong = wrong_name(to);
  if (!wrong.empty()) {
    say(wrong + "; give a new one of 1 to 255 bytes of UTF-8 without control characters.");
    return failed;
  }
  GalleryStore store(options.gallery, Access::change);
  store.rename(from, to);
  store.erase_traces();  // of the old name
  Output out;
  Json j;
  j["name"] = to;
  j["was"] = from;
  return (options.json ? out.line(line(j)) : out.row({from + " is " + to + " now"})) && out.finish() ? done : failed;
}

/// The ids after --template; false when one is none, which has been reported.
bool parse_ids(const std::vector<std::string>& texts, std::vector<std::int64_t>& ids) {
  for (const std::string& text : texts) {
    char* end = nullptr;
    errno = 0;
    ids.push_back(std::strtoll(text.c_str(), &end, 10));
    if (errno == 0 && !text.empty() && *end == 0 && ids.back() > 0) continue;
    say("'" + text + "' is not the number of a template; 'facenet gallery show' lists them.");
    return false;
  }
  return true;
}

int remove(const Options& options) {
  std::vector<std::int64_t> ids;
  if (options.names.empty() == options.templates.empty()) {
    say("it is not said what to remove; give names, or templates with --template.");
    return failed;
  }
  if (!parse_ids(options.templates, ids)) return failed;
  GalleryStore store(options.gallery, Access::change);
  std::vector<std::string> gone = options.names;
  std::int64_t templates = static_cast<std::int64_t>(ids.size());
  if (ids.empty())
    templates = store.remove(gone);
  else
    gone = store.remove(ids);
  store.erase_traces();
  Output out;
  Json j;
  j["persons"] = gone;
  j["templates"] = templates;
  const std::string text =
      std::to_string(gone.size()) + " person(s) and " + std::to_string(templates) + " template(s) removed";
  return out.line(options.json ? line(j) : text) && out.finish() ? done : failed;
}

Json measured(GalleryStore& store) {
  const ReadTransaction reading = store.reading();
  Json j;
  j["persons"] = store.number("SELECT count(*) FROM person");
  j["templates"] = store.number("SELECT count(*) FROM template");
  j.update(as_json(store.model()));
  const std::int64_t page = store.number("PRAGMA page_size");
  j["schema"] = store.number("PRAGMA user_version");
  j["bytes"] = page * store.number("PRAGMA page_count");
  j["free_bytes"] = page * store.number("PRAGMA freelist_count");
  j["integrity"] = store.soundness();
  return j;
}

int stats(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  const Json j = measured(store);
  Output out;
  if (options.json && !out.line(line(j))) return failed;
  if (!options.json)
    for (const auto& [key, value] : j.items()) {
      char text[32];
      std::snprintf(text, sizeof text, "%-16s ", key.c_str());
      if (!out.row({text + (value.is_string() ? value.get<std::string>() : value.dump())})) return failed;
    }
  if (!out.finish()) return failed;
  const std::string integrity = j["integrity"].get<std::string>();
  if (integrity == "ok") return done;
  say(options.gallery + ": the file is damaged (" + integrity + "); put a copy of it in its place.");
  return failed;
}

int vacuum(const Options& options) {
  GalleryStore store(options.gallery, Access::change);
  const std::string integrity = store.integrity();
  if (integrity != "ok") {
    say(options.gallery + ": the file is damaged (" + integrity + "); put a copy of it in its place.");
    return failed;
  }
  const auto bytes = [&] { return store.number("PRAGMA page_size") * store.number("PRAGMA page_count"); };
  Json j;
  j["bytes_before"] = bytes();
  store.vacuum();
  j["bytes"] = bytes();
  Output out;
  const std::string text = j["bytes_before"].dump() + " bytes before, " + j["bytes"].dump() + " now";
  return out.line(options.json ? line(j) : text) && out.finish() ? done : failed;
}

int export_all(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  Output out;
  if (!out.open(options.file)) return failed;
  // Whoever reads the lines may take an hour: the gallery is not locked meanwhile, and the lines are of this moment.
  store.detach();
  store.each_template([](const Template&) { return true; });  // what is damaged is known before the first line
  Json head;
  head["format"] = export_format;
  head["version"] = export_version;
  head.update(as_json(store.model()));
  bool printed = out.line(line(head));
  store.each_template([&](const Template& t) {
    Json j = as_json(t);
    j["embedding"] = t.embedding;
    return printed = printed && out.line(line(j));
  });
  return printed && out.finish() ? done : failed;
}

/// The lines of an exported gallery, all read before the first is used and each checked completely. What is wrong is a
/// DatabaseError that names the line.
class Import {
 public:
  explicit Import(const std::string& file) : shown_(file.empty() || file == "-" ? "standard input" : file) {
    const bool is_stdin = file.empty() || file == "-";
    file_.reset(is_stdin ? stdin : std::fopen(file.c_str(), "rb"));
    std::error_code error;
    if (file_ == nullptr) refuse_file(std::strerror(errno));
    if (!is_stdin && std::filesystem::is_directory(file, error)) refuse_file("it is a folder");
    read_head();
  }

  const GalleryModel& model() const { return model_; }

  std::vector<Template> templates() {
    std::vector<Template> all;
    for (Template t; next(t);) all.push_back(t);
    return all;
  }
  [[noreturn]] void refuse(std::size_t number, const std::string& why) const {
    throw DatabaseError(shown_ + ": line " + std::to_string(number) + ": " + why +
                        "; nothing was imported, give a file that 'facenet gallery export' wrote.");
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const {
      if (file != stdin) std::fclose(file);
    }
  };

  bool next(Template& t) {
    Json j;
    if (!parse(j)) return false;
    t.name = text(j, "name");
    t.image = text(j, "image");
    t.sha256 = text(j, "sha256");
    t.enrolled = text(j, "enrolled");
    t.face = integer(j, "face", 0);
    t.score = number(member(j, "score"), "score");
    const std::vector<float> box = numbers(j, "box", 4);
    for (std::size_t i = 0; i < 4; ++i) t.box[i] = static_cast<double>(box[i]);
    t.embedding = numbers(j, "embedding", static_cast<std::size_t>(model_.embedding_dim));
    const std::string wrong = wrong_template(model_, t);
    if (!wrong.empty()) refuse(wrong);
    return true;
  }

  void read_head() {
    Json j;
    number_ = 0;
    if (!parse(j)) {
      number_ = 1;
      refuse("there is nothing in it");
    }
    if (!j.contains("format") || j["format"] != export_format) refuse("this is no exported gallery");
    if (integer(j, "version", 1) != export_version) refuse("this is another version of the format than 1");
    model_.digest = text(j, "model");
    model_.architecture = text(j, "architecture");
    model_.embedding_dim = integer(j, "embedding_dim", 1);
    model_.trained = member(j, "trained") == Json(true);
    model_.normalise = text(j, "normalise");
    model_.image_size = integer(j, "image_size", 1);
    model_.crop = text(j, "crop");
    model_.margin = number(member(j, "margin"), "margin");
    model_.detector = text(j, "detector");
    if (!j["trained"].is_boolean()) refuse_key("trained");
    const std::string wrong = wrong_model(model_);
    if (!wrong.empty()) refuse(wrong);
  }

  /// One line as an object; false at the end.
  bool parse(Json& j) {
    constexpr std::size_t most = 4 << 20;  // 65536 numbers of 14 characters and the rest are under a million
    std::string bytes;
    int c;
    ++number_;
    while ((c = getc_unlocked(file_.get())) != EOF && c != '\n') {
      bytes += static_cast<char>(c);
      if (bytes.size() > most) refuse("it is longer than 4 MiB");
    }
    if (std::ferror(file_.get())) refuse_file(std::strerror(errno));
    if (c == EOF && bytes.empty()) return false;
    if (line_not_utf8(bytes) != 0) refuse("it is not UTF-8");
    j = Json::parse(bytes, nullptr, false);
    if (!j.is_object()) refuse("this is no JSON object, or a number in it is too large for a float");
    return true;
  }

  const Json& member(const Json& j, const char* key) const {
    const auto at = j.find(key);
    if (at == j.end()) refuse_key(key);
    return *at;
  }
  std::string text(const Json& j, const char* key) const {
    const Json& value = member(j, key);
    if (!value.is_string()) refuse_key(key);
    return value.get<std::string>();
  }
  std::int64_t integer(const Json& j, const char* key, std::int64_t least) const {
    const Json& value = member(j, key);
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (!value.is_number_integer() || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most)
      refuse_key(key);
    return value.get<std::int64_t>();
  }
  double number(const Json& value, const char* key) const {
    if (!value.is_number() || !std::isfinite(value.get<float>())) refuse_key(key);
    return static_cast<double>(value.get<float>());
  }
  std::vector<float> numbers(const Json& j, const char* key, std::size_t count) const {
    const Json& list = member(j, key);
    if (!list.is_array() || list.size() != count)
      refuse("'" + std::string(key) + "' is not an array of " + std::to_string(count) + " numbers");
    std::vector<float> all;
    for (const Json& value : list) all.push_back(static_cast<float>(number(value, key)));
    return all;
  }

  [[noreturn]] void refuse(const std::string& why) const { refuse(number_, why); }
  [[noreturn]] void refuse_key(const char* key) const {
    refuse("'" + std::string(key) + "' is missing or not what it should be");
  }
  [[noreturn]] void refuse_file(const std::string& why) const {
    throw DatabaseError(shown_ + ": this file cannot be read (" + why + "); check its name and permissions.");
  }

  std::string shown_;
  std::unique_ptr<std::FILE, Close> file_;
  std::size_t number_ = 0;
  GalleryModel model_;
};

int import_all(const Options& options) {
  GalleryStore store(options.gallery, Access::create);
  Import from(options.file);
  store.require(from.model());
  std::vector<Template> all = from.templates();  // whoever writes the lines may take an hour: the gallery is not locked
  std::size_t at = 0, added = 0, there = 0;
  store.add_all(
      from.model(),
      [&](Template& t) {
        if (at == all.size()) return false;
        t = std::move(all[at++]);
        return true;
      },
      [&](const Template& t, const GalleryStore::Addition& addition) {
        if (addition.added == GalleryStore::Added::another_person)  // the first line is the model's
          from.refuse(at + 1, "this face of '" + t.name + "' is enrolled as '" + addition.owner + "' already");
        ++(addition.added == GalleryStore::Added::yes ? added : there);
      });
  Output out;
  Json j;
  j["enrolled"] = added;
  j["there"] = there;
  const std::string text = std::to_string(added) + " template(s) enrolled, " + std::to_string(there) + " were there";
  return out.line(options.json ? line(j) : text) && out.finish() ? done : failed;
}

}  // namespace

SubCommand gallery_command() {
  const auto o = std::make_shared<Options>();
  return {
      "gallery", "Look at a gallery, change it, carry it elsewhere",
      "A gallery is an SQLite file; docs/galleries.md has its schema. 'remove' and 'rename' leave no trace of what "
      "went in the file\n"
      "or beside it. 'export' writes JSON lines, 'import' adds them to a gallery of the same model, all or none.\n\n"
      "Examples:\n"
      "  facenet gallery list staff.gallery\n"
      "  facenet gallery rename staff.gallery 'Ada Byron' 'Ada Lovelace'\n"
      "  facenet gallery remove staff.gallery 'Ada Lovelace'\n"
      "  facenet gallery export staff.gallery - | ssh other facenet gallery import staff.gallery -\n\n",
      [o](OptionSet& options) {
        const auto action = [&](const char* name, const char* summary, int (*run)(const Options&)) {
          OptionSet of_action = options.action(name, summary, [o, run] { o->run = run; });
          of_action.positional("DB", o->gallery, "The gallery").required();
          return of_action;
        };
        action("list", "The persons, and how many templates each has", list);
        action("show", "The templates of persons", show).positional("NAME", o->names, "Persons").required();
        action("rename", "Give a person another name: OLD NEW", rename)
            .positional("NAME", o->names, "The old name and the new one")
            .required()
            .expected(2);
        OptionSet of_remove = action("remove", "Remove persons, or single templates, without a trace", remove);
        of_remove.positional("NAME", o->names, "Persons");
        of_remove.option("--template", "ID", o->templates, "Remove this template only; again for more");
        action("export", "Write all as JSON lines", export_all)
            .positional("FILE", o->file, "Where to (default -, standard output)");
        action("import", "Add what export wrote to a gallery, made if need be", import_all)
            .positional("FILE", o->file, "Where from (default -, standard input)");
        action("stats", "Numbers, the model, and whether the file is sound", stats);
        action("vacuum", "Give free space back, and erase what it held", vacuum);
      },
      [o](bool json) {
        o->json = json;
        return o->run(*o);
      }};
}

}  // namespace command
