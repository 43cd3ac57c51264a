// An archive's people: found and sorted by program, named and corrected by hand.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "command/cli/sub_command.hpp"
#include "command/engine/archive_pages.hpp"
#include "command/engine/archive_scan.hpp"
#include "command/engine/gallery_json.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"
#include "store/gallery_store.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

struct Options {
  int (*run)(const Options&) = nullptr;  // of the action that was given
  ArchiveOptions archive;
  std::vector<std::string> names, faces;
  std::string who, to, out = "-", format = "csv";
  bool collages = false, json = false;
};

int scan(const Options& options) {
  ArchiveOptions archive = options.archive;
  archive.json = options.json;
  archive.collages = options.collages;
  if (archive.folders.empty() && archive.list.empty()) {
    say("it is not said where the pictures are; give a folder, or --files-from LIST.");
    return failed;
  }
  return scan_archive(archive);
}

int list(const Options& options) {
  GalleryStore store(options.archive.gallery, Access::read);
  std::vector<Person> persons = store.persons();
  std::stable_sort(persons.begin(), persons.end(),
                   [](const Person& a, const Person& b) { return a.templates > b.templates; });
  Output out;
  for (const Person& p : persons) {
    Json j;
    j["name"] = p.name;
    j["person"] = p.id;
    j["faces"] = p.templates;
    j["named"] = p.named;
    if (!(options.json ? out.line(line(j)) : out.row({p.name, std::to_string(p.templates)}))) return failed;
  }
  return out.finish() ? done : failed;
}

int show(const Options& options) {
  GalleryStore store(options.archive.gallery, Access::read);
  std::map<std::string, std::string> said;  // by the face's UUID, of its person
  for (const Decision& d : store.decisions()) said[d.uuid + d.name] = d.is ? "is" : "is not";
  Output out;
  for (const Template& t : store.templates_of(options.names)) {
    const auto decision = said.find(t.uuid + t.name);
    const std::string by_hand = decision == said.end() ? "" : decision->second;
    Json j;
    j["template"] = t.id;
    j.update(as_json(t));
    j["decided"] = by_hand == "is";
    const std::vector<std::string> fields{std::to_string(t.id), t.name, t.image, std::to_string(t.face),
                                          by_hand == "is" ? "decided" : ""};
    if (!(options.json ? out.line(line(j)) : out.row(fields))) return failed;
  }
  return out.finish() ? done : failed;
}

/// {"name":…, …} or a sentence, and the end.
int print(const Options& options, const Json& j, const std::string& text) {
  Output out;
  return (options.json ? out.line(line(j)) : out.row({text})) && out.finish() ? done : failed;
}

int name(const Options& options) {
  const std::string &who = options.names[0], &called = options.names[1];
  const std::string wrong = wrong_name(called);
  if (!wrong.empty()) {
    say(wrong + "; give one of 1 to 255 bytes of UTF-8 without control characters.");
    return failed;
  }
  GalleryStore store(options.archive.gallery, Access::change);
  store.rename(who, called);
  store.erase_traces();  // of the old name
  Json j;
  j["name"] = called;
  j["was"] = who;
  return print(options, j, who + " is " + called + " now");
}

int merge(const Options& options) {
  const std::string &from = options.names[0], &to = options.names[1];
  GalleryStore store(options.archive.gallery, Access::change);
  const std::int64_t moved = store.join_persons(from, to, options.collages);
  store.erase_traces();  // of the old name
  Json j;
  j["name"] = to;
  j["was"] = from;
  j["faces"] = moved;
  return print(options, j, from + " is " + to + " now: " + std::to_string(moved) + " face(s)");
}

/// The faces that words name: numbers of templates, or pictures with a face of that person. Throws what is wrong.
std::vector<std::int64_t> faces_of(GalleryStore& store, const std::string& person,
                                   const std::vector<std::string>& words) {
  const std::vector<Template> all = store.templates_of({person});
  std::vector<std::int64_t> ids;
  std::map<std::string, std::string> contents;  // of files, by path
  for (const std::string& word : words) {
    char* end = nullptr;
    errno = 0;
    const std::int64_t number = std::strtoll(word.c_str(), &end, 10);
    if (!word.empty() && *end == 0 && errno == 0) {
      ids.push_back(number);
      continue;
    }
    if (contents.empty())
      store.each_file([&](const SeenFile& f) {
        contents.emplace(f.path, f.sha256);
        return true;
      });
    std::error_code error;
    const std::string path = fs::absolute(word, error).lexically_normal().string();
    const auto content = contents.find(path);
    std::size_t found = 0;
    for (const Template& t : all)
      if (t.image == as_utf8(word) || t.image == as_utf8(path) ||
          (content != contents.end() && t.sha256 == content->second))
        ids.push_back(t.id), ++found;
    if (found == 0)
      throw DatabaseError(store.path() + ": no face of '" + person + "' is known in " + word +
                          "; 'facenet people show' lists the pictures.");
  }
  return ids;
}

int split(const Options& options) {
  const std::string& from = options.who;
  GalleryStore store(options.archive.gallery, Access::change);
  const std::vector<std::int64_t> ids = faces_of(store, from, options.faces);
  Json j;
  j["was"] = from;
  j["name"] = store.split_person(from, ids, options.to);
  j["faces"] = ids.size();
  return print(options, j,
               std::to_string(ids.size()) + " face(s) of " + from + " are " + j["name"].get<std::string>() + " now");
}

int is_not(const Options& options) {
  const std::string& who = options.who;
  GalleryStore store(options.archive.gallery, Access::change);
  const std::vector<std::string> owners = store.refuse_faces(who, faces_of(store, who, options.faces));
  Json j;
  j["not"] = who;
  j["names"] = owners;
  std::string text = std::to_string(owners.size()) + " face(s) are not " + who + "; until the next run they are ";
  for (std::size_t i = 0; i < owners.size(); ++i) text += (i == 0 ? "" : ", ") + owners[i];
  return print(options, j, text);
}

std::string quoted(const std::string& field) {
  std::string all = "\"";
  for (const char c : field) all += c == '"' ? std::string("\"\"") : std::string(1, c);
  return all + "\"";
}

/// A line for each face in each file that holds it.
int export_faces(const Options& options) {
  GalleryStore store(options.archive.gallery, Access::read);
  store.detach();
  Output out;
  if (!out.open(options.out)) return failed;
  std::multimap<std::string, std::string> places;  // by content
  store.each_file([&](const SeenFile& f) {
    if (!f.sha256.empty()) places.emplace(f.sha256, f.path);
    return true;
  });
  std::set<std::string> named;
  std::vector<std::string> persons;
  for (const Person& p : store.persons()) {
    persons.push_back(p.name);
    if (p.named) named.insert(p.name);
  }
  const bool csv = options.format == "csv";
  bool printed = !csv || out.verbatim("file,name,named,face,x1,y1,x2,y2,score,uuid,sha256");
  for (const Template& t : store.templates_of(persons)) {
    auto [from, end] = places.equal_range(t.sha256);
    std::vector<std::string> files;
    for (; from != end; ++from) files.push_back(from->second);
    if (files.empty()) files.push_back(t.image);
    for (const std::string& file : files) {
      if (csv) {
        char numbers[160];
        std::snprintf(numbers, sizeof numbers, "%lld,%.2f,%.2f,%.2f,%.2f,%.4f", static_cast<long long>(t.face),
                      t.box[0], t.box[1], t.box[2], t.box[3], t.score);
        printed =
            printed && out.verbatim(quoted(file) + "," + quoted(t.name) + "," +
                                    (named.count(t.name) != 0 ? "1," : "0,") + numbers + "," + t.uuid + "," + t.sha256);
      } else {
        Json j;
        j["file"] = file;
        j["name"] = t.name;
        j["named"] = named.count(t.name) != 0;
        j["face"] = t.face;
        j["box"] = {t.box[0], t.box[1], t.box[2], t.box[3]};
        j["score"] = t.score;
        j["uuid"] = t.uuid;
        j["sha256"] = t.sha256;
        printed = printed && out.line(line(j));
      }
    }
  }
  return printed && out.finish() ? done : failed;
}

int pages(const Options& options) {
  ArchivePages pages;
  pages.gallery = options.archive.gallery;
  pages.folder = options.out;
  pages.threads = options.archive.model.threads;
  pages.json = options.json;
  return write_archive_pages(pages);
}

}  // namespace

SubCommand people_command() {
  const auto o = std::make_shared<Options>();
  // clang-format off
  return {
      "people", "Keep a gallery of the people in an archive of pictures",
      // clang-format on
      "'facenet people DIR' is short for 'facenet people scan DIR'. It looks at new and changed pictures only. Faces "
      "that nobody\n"
      "has named are sorted into persons called 'person 17', whose numbers stay. What is said by 'name', 'merge', "
      "'split' and\n"
      "'not' is kept, and no later run overrides it. A face is named by a picture that holds it, or by the number that "
      "'show'\n"
      "prints.\n\n"
      "Examples:\n"
      "  facenet people photographs/ --gallery family.gallery\n"
      "  facenet people list -g family.gallery\n"
      "  facenet people name -g family.gallery 'person 17' 'Ada Lovelace'\n"
      "  facenet people merge -g family.gallery 'person 23' 'Ada Lovelace'\n"
      "  facenet people not -g family.gallery 'Ada Lovelace' photographs/party.jpg\n"
      "  facenet people split -g family.gallery 'Ada Lovelace' party.jpg --to 'Anne Byron'\n"
      "  facenet people pages -g family.gallery browse/\n"
      "  find . -print0 | facenet people scan -g family.gallery -0 --files-from -\n\n",
      [o](OptionSet& options) {
        const auto action = [&](const char* word, const char* summary, int (*run)(const Options&)) {
          OptionSet of_action = options.action(word, summary, [o, run] { o->run = run; });
          of_action.option("-g,--gallery", "FILE", o->archive.gallery, "The gallery").required();
          return of_action;
        };
        OptionSet of_scan = action("scan", "Look at what is new or changed, and sort its faces", scan);
        of_scan.positional("DIR", o->archive.folders, "Folders with pictures");
        of_scan.files_from(o->archive.list, o->archive.zero);
        of_scan.exclude(o->archive.exclude);
        of_scan.threshold(o->archive.threshold);
        of_scan
            .option("--margin", "X", o->archive.margin,
                    "A face between two named persons, the one less than X farther away, gets no name (default 0.05)")
            .number(0, 10, "0 to 10");
        of_scan.flag("--collages", o->collages, "Faces of one picture may be one person's");
        of_scan.min_score(o->archive.limits, "Leave out faces whose score is below X (default 0.9)");
        of_scan.min_quality(o->archive.limits);
        of_scan.flag("--prune", o->archive.prune, "Remove the faces of pictures that are gone from DIR");
        of_scan.aligned(o->archive.aligned);
        of_scan.faces(o->archive.faces);
        of_scan.model(o->archive.model);
        action("list", "The persons, those with most faces first", list);
        action("show", "The faces of persons", show).positional("NAME", o->names, "Persons").required();
        action("name", "Say who a person is: PERSON NAME", name)
            .positional("NAME", o->names, "The person, such as 'person 17', and the name")
            .required()
            .expected(2);
        OptionSet of_merge = action("merge", "Say that two persons are one: FROM TO, who keeps the name", merge);
        of_merge.positional("NAME", o->names, "The person who becomes the other one, and that one")
            .required()
            .expected(2);
        of_merge.flag("--collages", o->collages, "Though both are in one picture");
        const auto of_faces = [&](OptionSet& set) {
          set.positional("NAME", o->who, "The person").required();
          set.positional("FACE", o->faces, "Pictures with a face of the person, or numbers of faces").required();
        };
        OptionSet of_split = action("split", "Say that some faces of a person are another one's", split);
        of_faces(of_split);
        of_split.option("--to", "NAME", o->to, "Whose they are (default: a new person without a name)");
        OptionSet of_not = action("not", "Say that faces are not that person's", is_not);
        of_faces(of_not);
        OptionSet of_export = action("export", "Write a line for each face and file", export_faces);
        of_export.positional("OUT", o->out, "Where to (default -, standard output)");
        of_export.option("--format", "WORD", o->format, "csv (default) or jsonl").one_of({"csv", "jsonl"});
        OptionSet of_pages = action("pages", "Write pages to look at the people in a browser", pages);
        of_pages.positional("OUT", o->out, "The folder for them, made if need be").required();
        of_pages.threads(o->archive.model.threads);
      },
      [o](bool json) {
        o->json = json;
        return o->run(*o);
      },
      "scan"};
}

}  // namespace command
