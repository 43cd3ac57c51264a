// What the service and the archive ask of a gallery and no command shows: persons without templates, pages, pictures,
// decisions, files, and whether another process changed it.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "store/gallery_store.hpp"
#include "store/row_functions.hpp"

using namespace command;

namespace {

/// A folder that goes with the test.
struct Folder {
  Folder() { REQUIRE(::mkdtemp(name) != nullptr); }
  ~Folder() { std::filesystem::remove_all(name); }
  std::string operator/(const char* file) const { return std::string(name) + "/" + file; }
  char name[32] = "/tmp/gallery_store.XXXXXX";
};

GalleryModel made_up_model() {
  GalleryModel m;
  m.digest = "0123456789abcdef";
  m.architecture = "x";
  m.normalise = "none";
  m.crop = "box";
  m.embedding_dim = 4;
  m.image_size = 160;
  return m;
}

Template made_up(const std::string& name, int picture, int face = 0) {
  Template t;
  t.name = name;
  t.image = "a.jpg";
  t.sha256 = std::string(60, '0') + std::to_string(1000 + picture);
  t.face = face;
  t.box[2] = 10 + face;
  t.embedding = {1, 2, static_cast<float>(picture), static_cast<float>(face)};
  return t;
}

}  // namespace

TEST_CASE("UUIDs are of version 4 and differ") {
  std::set<std::string> all;
  for (int i = 0; i < 1000; ++i) {
    const std::string uuid = new_uuid();
    REQUIRE(uuid.size() == 36);
    CHECK(uuid[14] == '4');
    CHECK(std::string("89ab").find(uuid[19]) != std::string::npos);
    all.insert(uuid);
  }
  CHECK(all.size() == 1000);
}

TEST_CASE("persons may have no templates, and keep their numbers") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  const GalleryModel model = made_up_model();
  CHECK(store.add_person(model, "Ada"));
  CHECK_FALSE(store.add_person(model, "Ada"));
  CHECK_THROWS_AS(store.add_person(model, "a\nb"), DatabaseError);
  CHECK(store.add_unnamed_person(model) == "person 2");
  store.add(model, made_up("person 2", 1));
  CHECK_FALSE(store.persons()[1].named);
  store.rename("person 2", "Bob");
  CHECK(store.persons()[1].named);
  CHECK(store.remove(std::vector<std::string>{"Bob"}) == 1);
  CHECK(store.add_unnamed_person(model) == "person 3");  // 2 is never used again
  CHECK(store.persons().size() == 2);
  CHECK(store.remove_all() == 2);
  CHECK(store.add_unnamed_person(model) == "person 4");
  CHECK(store.soundness() == "ok");
}

TEST_CASE("templates by UUID, in pages, with their pictures") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  const GalleryModel model = made_up_model();
  CHECK_FALSE(store.find_template(new_uuid()));
  std::vector<std::string> uuids;
  for (int i = 0; i < 10; ++i) {
    Template t = made_up(i % 2 == 0 ? "even" : "odd", i);
    if (i == 3) t.picture = {1, 0, 2};
    uuids.push_back(store.add(model, t).uuid);
  }
  std::set<std::string> seen;
  for (int at = 0; at < 10; at += 4) {
    const GalleryStore::Page page = store.templates(at, 4);
    CHECK(page.total == 10);
    CHECK(page.templates.size() == (at == 8 ? 2 : 4));
    for (const Template& t : page.templates) seen.insert(t.uuid);
  }
  CHECK(seen == std::set<std::string>(uuids.begin(), uuids.end()));
  CHECK(store.templates(0, 100, std::string("odd")).templates.size() == 5);
  CHECK(store.templates(10, 4).templates.empty());
  CHECK_THROWS_AS(store.templates(0, 1, std::string("nobody")), DatabaseError);

  const auto found = store.find_template(uuids[3]);
  REQUIRE(found);
  CHECK(found->name == "odd");
  CHECK(found->embedding == std::vector<float>{1, 2, 3, 0});
  CHECK(store.picture(uuids[3]) == std::vector<std::uint8_t>{1, 0, 2});
  CHECK(store.picture(uuids[4]).empty());
  CHECK(store.number("SELECT count(*) FROM picture") == 1);

  const auto gone = store.remove_templates({uuids[3], new_uuid(), uuids[5]});
  REQUIRE(gone.size() == 2);
  CHECK(gone[0].uuid == uuids[3]);
  CHECK(gone[0].name == "odd");
  CHECK(store.number("SELECT count(*) FROM picture") == 0);
  CHECK(store.remove_templates_of(std::string("odd")) == 3);
  CHECK(store.persons().size() == 2);  // who stays, without templates
  CHECK(store.remove_templates_of() == 5);
  CHECK(store.persons().size() == 2);
  CHECK(store.soundness() == "ok");
}

TEST_CASE("a given UUID is kept, unless another template has it") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  Template t = made_up("Ada", 1);
  t.uuid = "0b7cbb26-5cdb-4e8e-a1d4-2a1c9d2f9f41";
  CHECK(store.add(made_up_model(), t).uuid == t.uuid);
  Template other = made_up("Bob", 2);
  other.uuid = t.uuid;
  const std::string drawn = store.add(made_up_model(), other).uuid;
  CHECK(drawn != t.uuid);
  CHECK(store.find_template(drawn)->name == "Bob");
  other = made_up("Bob", 3);
  other.uuid = "no UUID";
  CHECK_THROWS_AS(store.add(made_up_model(), other), DatabaseError);
}

TEST_CASE("two persons become one: a picture of both stays once, and what was said of either holds") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  const GalleryModel model = made_up_model();
  const std::string both = store.add(model, made_up("Ada", 1)).uuid;
  store.add(model, made_up("Ada B.", 1, 1));
  const std::string moved = store.add(model, made_up("Ada B.", 2)).uuid;
  const std::string other = store.add(model, made_up("Cy", 3)).uuid;
  store.decide(moved, "Ada", false);     // which the merging overrules
  store.decide(other, "Ada B.", false);  // which holds for Ada then
  store.decide(both, "Ada", true);
  CHECK_THROWS_AS(store.merge("Ada", "Ada"), DatabaseError);
  CHECK_THROWS_AS(store.merge("Ada", "nobody"), DatabaseError);
  const GalleryStore::Merged merged = store.merge("Ada B.", "Ada");
  CHECK(merged.moved == 1);
  CHECK(merged.dropped == 1);
  CHECK(store.persons().size() == 2);
  CHECK(store.find_template(both)->name == "Ada");
  CHECK(store.find_template(moved)->name == "Ada");
  const auto decisions = store.decisions();
  REQUIRE(decisions.size() == 2);
  for (const Decision& d : decisions) {
    CHECK(d.name == "Ada");
    CHECK(d.is == (d.uuid == both));
  }
  CHECK(store.soundness() == "ok");
  store.remove_templates({both, other});
  CHECK(store.decisions().empty());
}

TEST_CASE("a decision replaces the one before") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  const std::string uuid = store.add(made_up_model(), made_up("Ada", 1)).uuid;
  store.decide(uuid, "Ada", true);
  store.decide(uuid, "Ada", false);
  REQUIRE(store.decisions().size() == 1);
  CHECK_FALSE(store.decisions()[0].is);
  CHECK_THROWS_AS(store.decide(new_uuid(), "Ada", true), DatabaseError);
  CHECK_THROWS_AS(store.decide(uuid, "nobody", true), DatabaseError);
}

TEST_CASE("files that were looked at, whatever their names") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  store.add_person(made_up_model(), "Ada");
  SeenFile file;
  file.path = std::string("a\xff\0b", 4);
  file.sha256 = std::string(64, 'a');
  file.bytes = 1;
  file.modified = -5;
  SeenFile unreadable;
  unreadable.path = "b";
  unreadable.problem = "no picture";
  store.remember({file, unreadable});
  file.bytes = 2;
  store.remember({file});
  std::vector<SeenFile> all;
  const auto read = [&] {
    all.clear();
    store.each_file([&](const SeenFile& f) { return all.push_back(f), true; });
  };
  read();
  REQUIRE(all.size() == 2);
  CHECK(all[0].path == file.path);
  CHECK(all[0].bytes == 2);
  CHECK(all[0].modified == -5);
  CHECK(all[1].problem == "no picture");
  CHECK(store.soundness() == "ok");
  store.forget_files({file.path});
  read();
  CHECK(all.size() == 1);
}

TEST_CASE("whoever changes it, the version is another") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  store.add(made_up_model(), made_up("Ada", 1));
  const std::int64_t first = store.version();
  CHECK(store.version() == first);
  store.persons();
  CHECK(store.version() == first);
  store.add(made_up_model(), made_up("Ada", 2));
  const std::int64_t second = store.version();
  CHECK(second != first);
  {
    GalleryStore other(folder / "g", Access::change);
    CHECK(store.version() == second);
    other.rename("Ada", "Bob");
    CHECK(store.version() != second);
  }
  const ReadTransaction reading = store.reading();
  const std::int64_t inside = store.version();
  CHECK(store.persons()[0].name == "Bob");
  CHECK(store.version() == inside);
}

TEST_CASE("new galleries have pages that fit three templates of 512 dimensions") {
  const Folder folder;
  GalleryStore store(folder / "g", Access::create);
  store.add_person(made_up_model(), "Ada");
  CHECK(store.number("PRAGMA page_size") == 8192);
}
