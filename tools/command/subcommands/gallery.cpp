// What there is to do with a gallery beside enrolling and identifying: look at it, change it, carry it elsewhere.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "store/gallery_store.hpp"
#include "command/cli/sub_command.hpp"
#include "command/engine/compreface_import.hpp"
#include "command/engine/gallery_json.hpp"
#include "command/engine/gallery_migration.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

struct Options {
  int (*run)(const Options&) = nullptr;  // of the action that was given
  std::string gallery, file;
  std::vector<std::string> names;
  std::vector<std::string> templates;  // ids
  ComprefaceImport compreface;
  GalleryMigration migration;
  bool json = false;
};

int list(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  Output out;
  for (const Person& p : store.persons()) {
    Json j;
    j["name"] = p.name;
    j["person"] = p.id;
    j["templates"] = p.templates;
    j["named"] = p.named;
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

int merge(const Options& options) {
  const std::string &from = options.names[0], &to = options.names[1];
  GalleryStore store(options.gallery, Access::change);
  const GalleryStore::Merged merged = store.merge(from, to);
  store.erase_traces();  // of the old name, and of what was dropped
  Output out;
  Json j;
  j["name"] = to;
  j["was"] = from;
  j["moved"] = merged.moved;
  j["dropped"] = merged.dropped;
  const std::string text = from + " is " + to + " now: " + std::to_string(merged.moved) + " template(s) moved, " +
                           std::to_string(merged.dropped) + " of the same pictures dropped";
  return (options.json ? out.line(line(j)) : out.row({text})) && out.finish() ? done : failed;
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

Json as_json(const Damage& d) {
  Json j;
  j["table"] = d.table;
  j["id"] = d.id;
  j["what"] = d.what;
  j["name"] = d.name;
  j["image"] = d.image;
  return j;
}

Json as_json(const std::vector<Damage>& all) {
  Json j = Json::array();
  for (const Damage& d : all) j.push_back(as_json(d));
  return j;
}

bool print(Output& out, const std::vector<Damage>& all) {
  return std::all_of(all.begin(), all.end(), [&](const Damage& d) {
    const std::string row = d.table.empty() ? "file" : d.table + (d.id != 0 ? " " + std::to_string(d.id) : "");
    return out.row({row, d.what, d.name, d.image});
  });
}

int check(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  const std::vector<Damage> damage = store.check();
  Output out;
  Json j;
  j["sound"] = damage.empty();
  j["damage"] = as_json(damage);
  const bool printed = options.json ? out.line(line(j)) : damage.empty() ? out.line("sound") : print(out, damage);
  if (!printed || !out.finish()) return failed;
  return damage.empty() ? done : no;
}

int repair(const Options& options) {
  const GalleryStore::Repair repaired = GalleryStore::repair(options.gallery);
  Output out;
  Json j;
  j["damage"] = as_json(repaired.damage);
  j["lost"] = as_json(repaired.lost);
  j["persons"] = repaired.persons;
  j["templates"] = repaired.templates;
  j["original"] = repaired.original;
  const bool untouched = repaired.damage.empty();
  const std::string text = untouched ? "sound, so nothing was changed"
                                     : std::to_string(repaired.persons) + " person(s) and " +
                                           std::to_string(repaired.templates) + " template(s) kept, " +
                                           std::to_string(repaired.lost.size()) + " row(s) lost; the damaged file is " +
                                           repaired.original;
  if (!(options.json ? out.line(line(j)) : print(out, repaired.lost) && out.row({text})) || !out.finish())
    return failed;
  return done;
}

int backup(const Options& options) {
  GalleryStore store(options.gallery, Access::read);
  store.backup(options.file);
  Output out;
  Json j;
  j["backup"] = options.file;
  std::error_code error;
  const auto bytes = std::filesystem::file_size(options.file, error);
  j["bytes"] = error ? std::uintmax_t{0} : bytes;
  return (options.json ? out.line(line(j)) : out.row({options.file})) && out.finish() ? done : failed;
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
  bool printed = out.line(export_head(store.model()));
  store.each_template([&](const Template& t) { return printed = printed && out.line(export_line(t)); });
  for (const Person& p : store.persons())
    if (p.templates == 0) printed = printed && out.line(export_line(p));
  return printed && out.finish() ? done : failed;
}

int import_all(const Options& options) {
  if (!options.compreface.instance.empty()) {
    ComprefaceImport all = options.compreface;
    all.gallery = options.gallery;
    all.json = options.json;
    return import_compreface(all);
  }
  GalleryStore store(options.gallery, Access::create);
  const bool is_stdin = options.file.empty() || options.file == "-";
  GalleryLines from(is_stdin ? "" : options.file);
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
        if (addition.added == GalleryStore::Added::another_person)
          from.refuse(from.line_of(at - 1),
                      "this face of '" + t.name + "' is enrolled as '" + addition.owner + "' already");
        ++(addition.added == GalleryStore::Added::yes ? added : there);
      },
      from.persons());
  Output out;
  Json j;
  j["enrolled"] = added;
  j["there"] = there;
  const std::string text = std::to_string(added) + " template(s) enrolled, " + std::to_string(there) + " were there";
  return out.line(options.json ? line(j) : text) && out.finish() ? done : failed;
}

int migrate(const Options& options) {
  GalleryMigration all = options.migration;
  all.gallery = options.gallery;
  all.json = options.json;
  return migrate_gallery(all);
}

}  // namespace

SubCommand gallery_command() {
  const auto o = std::make_shared<Options>();
  return {"gallery", "Look at a gallery, change it, carry it elsewhere",
          "A gallery is an SQLite file; docs/galleries.md has its schema. 'remove' and 'rename' leave no trace of what "
          "went in the file\n"
          "or beside it. 'export' writes JSON lines, 'import' adds them to a gallery of the same model, all or none. "
          "'check' "
          "exits\n"
          "with 1 where something is damaged, and names it.\n\n"
          "Examples:\n"
          "  facenet gallery list staff.gallery\n"
          "  facenet gallery rename staff.gallery 'Ada Byron' 'Ada Lovelace'\n"
          "  facenet gallery remove staff.gallery 'Ada Lovelace'\n"
          "  facenet gallery export staff.gallery - | ssh other facenet gallery import staff.gallery -\n"
          "  facenet gallery import staff.gallery --compreface http://localhost:8000 KEY\n\n",
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
            action("merge", "Make one person of two: FROM TO, who keeps the name", merge)
                .positional("NAME", o->names, "The person who becomes the other one, and that one")
                .required()
                .expected(2);
            OptionSet of_remove = action("remove", "Remove persons, or single templates, without a trace", remove);
            of_remove.positional("NAME", o->names, "Persons");
            of_remove.option("--template", "ID", o->templates, "Remove this template only; again for more");
            action("export", "Write all as JSON lines", export_all)
                .positional("FILE", o->file, "Where to (default -, standard output)");
            OptionSet of_import = action("import", "Add what export wrote to a gallery, made if need be", import_all);
            const Option file = of_import.positional("FILE", o->file, "Where from (default -, standard input)");
            const Option instance =
                of_import
                    .option(
                        "--compreface", "URL KEY", o->compreface.instance,
                        "Take subjects and pictures over from this instance of CompreFace instead; KEY may be @FILE")
                    .expected(2);
            of_import.flag("--keep-pictures", o->compreface.keep_pictures, "And store its pictures in the gallery");
            of_import.faces(o->compreface.faces);
            of_import.model(o->compreface.model);
            of_import.check([=]() -> std::string {
              if (instance.given() && file.given()) return "--compreface says where from: FILE does not go with it";
              return o->compreface.keep_pictures && !instance.given() ? "--keep-pictures goes with --compreface" : "";
            });
            action("check", "Whether every row is as it was written", check);
            action("repair", "Save what is sound of a damaged gallery; the damaged file is kept", repair);
            action("backup", "Copy a gallery that is in use to FILE", backup)
                .positional("FILE", o->file, "The copy")
                .required();
            OptionSet of_migrate =
                action("migrate", "Embed all faces anew from their pictures, for another model", migrate);
            of_migrate.flag("--drop-missing", o->migration.drop_missing,
                            "Leave faces out whose picture is gone; else the gallery stays as it is");
            of_migrate.one_face(o->migration.faces);
            of_migrate.model(o->migration.model);
            action("stats", "Numbers, the model, and whether the file is sound", stats);
            action("vacuum", "Give free space back, and erase what it held", vacuum);
          },
          [o](bool json) {
            o->json = json;
            return o->run(*o);
          }};
}

}  // namespace command
