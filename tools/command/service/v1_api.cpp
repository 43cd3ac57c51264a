// This project's own interface, /v1. Its JSON is the command's: a line that `facenet NAME --json` prints for a picture
// is an element of `results` here, and both have one schema.
#include <algorithm>

#include "command/engine/decision.hpp"
#include "command/engine/gallery_json.hpp"
#include "command/engine/picture_json.hpp"
#include "command/engine/threshold.hpp"
#include "command/service/handlers.hpp"
#include "facenet/cluster.hpp"
#include "facenet/distance.hpp"

namespace command::service {

namespace {

using Type = Parameter::Type;

Json facenet_face(const FaceResult& face) { return face_json(face.face, face.quality, false); }

void add_model(const Handlers& h, Json& j) {
  j["model"] = h.info().digest;
  j["trained"] = h.info().trained;
}

void add_threshold(const Handlers& h, Json& j, double threshold, bool asked) {
  j["threshold"] = static_cast<float>(threshold);
  const std::string by = asked ? "" : measured_by(h.service.options.threshold, h.info());
  if (!by.empty()) j["threshold_source"] = by;
}

/// The line of a picture that failed. CompreFace's messages, which its clients compare, have no full stop; the
/// command's lines have.
Json failed(const Picture& p, const HttpError& failure) {
  return failed_picture(p.name, p.name + ": " + failure.message + (failure.message.back() == '.' ? "" : "."));
}

/// What a run over the pictures of a body gives: an object a picture or face, and whether any picture could be read.
class Results {
 public:
  /// Calls visit(picture, result) for each picture that can be read; the others have an object with `error`.
  template <class Visit>
  Results(const Handlers& h, const Pictures& pictures, const AnalyseOptions& options, Visit&& visit) {
    for (const Picture& p : pictures.all()) {
      PictureResult result;
      try {
        result = h.service.engine.analyse(p.bytes, options);
      } catch (const HttpError& failure) {
        if (pictures.all().size() == 1) throw;
        list.push_back(failed(p, failure));
        continue;
      }
      visit(p, result);
    }
  }
  Response finish(int status = 200) { return answer({{"results", std::move(list)}}, status); }

  Json list = Json::array();
};

std::vector<Parameter> of_faces() {
  return {{"limit", Type::integer, 0, 10000, 0, "the most faces of a picture, the largest first; 0: all"},
          {"min_score", Type::number, 0, 1, 0.0f, "faces with a lower score are left out"}};
}

Parameter threshold_parameter() {
  return {"threshold", Type::number,
          0,           1e6,
          nullptr,     "the largest distance of one person's faces; the service's own where it is left out"};
}

AnalyseOptions options_of(const Call& call, const Request& request, bool embed) {
  AnalyseOptions o;
  o.embed = embed;
  o.limit = static_cast<int>(integer(call, request, "limit"));
  o.min_score = number(call, request, "min_score");
  return o;
}

double threshold_of(const Handlers& h, const Call& call, const Request& request) {
  return given(request, "threshold") ? number(call, request, "threshold") : h.threshold;
}

LiveGallery& gallery_of(const Handlers& h, const Request& request) {
  return h.gallery(request.parameters.at("gallery"));
}

Json match_json(const FoundPerson& p) {
  return {{"name", p.name},
          {"distance", static_cast<float>(p.distance)},
          {"similarity", static_cast<float>(p.similarity)},
          {"template", p.id},
          {"image", p.image}};
}

// ---- pictures
// --------------------------------------------------------------------------------------------------------

Response detect(const Handlers& h, const Call& call, const Request& request) {
  const Pictures pictures(call, request);
  Results results(h, pictures, options_of(call, request, false), [&](const Picture& p, const PictureResult& found) {
    Json faces = Json::array();
    for (const FaceResult& f : found.faces) faces.push_back(facenet_face(f));
    results.list.push_back({{"image", p.name}, {"faces", std::move(faces)}});
  });
  return results.finish();
}

Response embed(const Handlers& h, const Call& call, const Request& request) {
  const Pictures pictures(call, request);
  Results results(h, pictures, options_of(call, request, true), [&](const Picture& p, const PictureResult& found) {
    if (found.faces.empty()) results.list.push_back(faceless_picture(p.name));
    for (std::size_t i = 0; i < found.faces.size(); ++i) {
      Json j{{"image", p.name}, {"face", i}};
      j.update(facenet_face(found.faces[i]));
      j["embedding"] = found.faces[i].embedding;
      add_model(h, j);
      results.list.push_back(std::move(j));
    }
  });
  return results.finish();
}

Response verify(const Handlers& h, const Call& call, const Request& request) {
  const Pictures pictures(call, request);
  AnalyseOptions options;
  options.limit = 1;
  options.min_score = number(call, request, "min_score");
  std::vector<FaceResult> pair;
  Json faces = Json::array();
  for (const char* const field : {"a", "b"}) {
    const Picture& p = pictures.of(field);
    PictureResult found = h.service.engine.analyse(p.bytes, options);
    if (found.faces.empty())
      throw HttpError{400, "no face was found in the picture '" + std::string(field) + "'.", no_face};
    pair.push_back(std::move(found.faces[0]));
    Json face{{"image", p.name}};
    face.update(facenet_face(pair.back()));
    faces.push_back(std::move(face));
  }
  const double distance = facenet::distance(pair[0].embedding, pair[1].embedding);
  const double threshold = threshold_of(h, call, request);
  Json j;
  j["distance"] = static_cast<float>(distance);
  j["similarity"] = static_cast<float>(facenet::similarity(pair[0].embedding, pair[1].embedding));
  add_threshold(h, j, threshold, given(request, "threshold"));
  j["same"] = distance <= threshold;
  j["faces"] = std::move(faces);
  add_model(h, j);
  return answer(j);
}

Json matches_json(const std::vector<FoundPerson>& persons, std::size_t most, double threshold) {
  Json list = Json::array();
  for (const FoundPerson& p : persons)
    if (list.size() < most && p.distance <= threshold) list.push_back(match_json(p));
  return list;
}

Response identify(const Handlers& h, const Call& call, const Request& request) {
  const LiveGallery& gallery = given(request, "gallery") ? h.gallery(text(call, request, "gallery")) : h.gallery();
  DecisionRules rules;
  rules.threshold = threshold_of(h, call, request);
  rules.margin = number(call, request, "margin");
  const auto top = static_cast<std::size_t>(integer(call, request, "top"));
  const int most = std::max(static_cast<int>(top), DecisionRules::persons);
  const std::size_t known = gallery.known_persons();
  // What was measured holds for the threshold it was measured with.
  const Calibrated::Rate fpir =
      given(request, "threshold") ? Calibrated::Rate{} : expected_fpir(h.calibrated, known, gallery.size());
  const Pictures pictures(call, request);
  Results results(h, pictures, options_of(call, request, true), [&](const Picture& p, const PictureResult& found) {
    if (found.faces.empty()) results.list.push_back(faceless_picture(p.name));
    const auto nearest = h.nearest(gallery, embeddings(found.faces), most, rules.reach());
    std::vector<Verdict> verdicts;
    std::vector<std::string> names;
    for (const std::vector<FoundPerson>& persons : nearest) {
      std::vector<double> distances;
      for (const FoundPerson& person : persons) distances.push_back(person.distance);
      verdicts.push_back(decide(distances, rules));
      names.push_back(verdicts.back() == Verdict::known ? persons[0].name : "");
    }
    const auto shared = same_names(names);
    for (std::size_t i = 0; i < found.faces.size(); ++i) {
      Json j{{"image", p.name}, {"face", i}};
      j.update(facenet_face(found.faces[i]));
      j["decision"] = word(verdicts[i]);
      if (!names[i].empty()) j["name"] = names[i];
      if (!shared[i].empty()) j["same_name"] = shared[i];
      const bool ambiguous = verdicts[i] == Verdict::ambiguous;
      if (ambiguous) j["reason"] = "two persons are about as near";
      j["matches"] = ambiguous ? Json::array() : matches_json(nearest[i], top, rules.threshold);
      // The runner-up is one though it may be beyond the threshold.
      if (ambiguous) j["candidates"] = matches_json(nearest[i], std::max<std::size_t>(top, 2), rules.reach());
      add_threshold(h, j, rules.threshold, given(request, "threshold"));
      j["margin"] = static_cast<float>(rules.margin);
      j["gallery_size"] = known;
      if (fpir.known) {
        j["fpir"] = static_cast<float>(fpir.value);
        j["fpir_interval"] = {static_cast<float>(fpir.interval.low), static_cast<float>(fpir.interval.high)};
      }
      add_model(h, j);
      results.list.push_back(std::move(j));
    }
  });
  return results.finish();
}

Response cluster(const Handlers& h, const Call& call, const Request& request) {
  struct Face {
    std::string image;
    std::size_t number;
    FaceResult face;
  };
  const Pictures pictures(call, request);
  std::vector<Face> faces;
  Json others = Json::array();
  Results results(h, pictures, options_of(call, request, true), [&](const Picture& p, PictureResult& found) {
    if (found.faces.empty()) others.push_back(faceless_picture(p.name));
    for (std::size_t i = 0; i < found.faces.size(); ++i) faces.push_back({p.name, i, std::move(found.faces[i])});
  });
  std::vector<float> all;
  for (const Face& f : faces) all.insert(all.end(), f.face.embedding.begin(), f.face.embedding.end());
  std::vector<int> labels(faces.size());
  facenet::ClusterOptions options;
  options.threshold = threshold_of(h, call, request);
  options.threads = 1;  // a thread of the service's has this request, and others have theirs
  constexpr int iterations = 100;
  constexpr std::uint64_t seed = 1;  // as `facenet cluster`
  if (!faces.empty()) {
    const facenet::Status status = facenet::chinese_whispers(all, h.dim(), options, iterations, seed, labels);
    if (!status.ok()) throw HttpError{400, std::string(status.text()) + "."};
  }
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    if (groups.size() <= label) groups.resize(label + 1);
    groups[label].push_back(i);
  }
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  Json list = Json::array();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    Json j{{"cluster", g}, {"size", groups[g].size()}, {"faces", Json::array()}};
    for (const std::size_t i : groups[g]) {
      Json face{{"image", faces[i].image}, {"face", faces[i].number}};
      face.update(facenet_face(faces[i].face));
      j["faces"].push_back(std::move(face));
    }
    j["algorithm"] = "chinese_whispers";
    add_threshold(h, j, options.threshold, given(request, "threshold"));
    add_model(h, j);
    list.push_back(std::move(j));
  }
  for (Json& other : others) list.push_back(std::move(other));
  for (Json& failure : results.list) list.push_back(std::move(failure));
  return answer({{"results", std::move(list)}});
}

// ---- galleries
// -------------------------------------------------------------------------------------------------------

Json gallery_json(const LiveGallery& gallery) {
  Json j;
  j["gallery"] = gallery.name();
  j["persons"] = gallery.persons_count();
  j["templates"] = gallery.size();
  j.update(as_json(gallery.model()));
  return j;
}

Response list_galleries(const Handlers& h, const Call&, const Request&) {
  Json list = Json::array();
  for (const auto& gallery : h.galleries) list.push_back(gallery_json(*gallery));
  return answer({{"galleries", std::move(list)},
                 {"threshold", static_cast<float>(h.threshold)},
                 {"keep_pictures", h.service.options.keep_pictures}});
}

Response list_persons(const Handlers& h, const Call& call, const Request& request) {
  const std::vector<Person> persons = gallery_of(h, request).persons();
  const auto page = static_cast<std::size_t>(integer(call, request, "page"));
  const auto size = static_cast<std::size_t>(integer(call, request, "size"));
  Json list = Json::array();
  for (std::size_t i = page * size; i < persons.size() && i < (page + 1) * size; ++i)
    list.push_back({{"name", persons[i].name},
                    {"person", persons[i].id},
                    {"templates", persons[i].templates},
                    {"named", persons[i].named}});
  return answer({{"persons", std::move(list)}, {"total", persons.size()}});
}

Response show_person(const Handlers& h, const Call& call, const Request& request) {
  Json list = Json::array();
  const std::int64_t page = integer(call, request, "page"), size = integer(call, request, "size");
  const std::string name = person_name(request.parameters.at("name"));
  const GalleryStore::Page found = gallery_of(h, request).templates(page * size, size, name);
  for (const Template& t : found.templates) {
    Json j{{"template", t.id}};
    j.update(as_json(t));
    list.push_back(std::move(j));
  }
  return answer({{"templates", std::move(list)}, {"total", found.total}});
}

Response enroll(const Handlers& h, const Call& call, const Request& request) {
  LiveGallery& gallery = gallery_of(h, request);
  const std::string name = person_name(request.parameters.at("name"));
  const Pictures pictures(call, request);
  Json list = Json::array();
  bool any_new = false;
  constexpr int most_duplicates = 5;
  for (const Picture& p : pictures.all()) {
    Json j;
    try {
      const PictureResult found = h.service.engine.analyse(p.bytes);
      std::vector<Ignored> ignored;
      const FaceResult face = h.one_face(found, &ignored);
      Template t = h.make_template(face, p);
      t.name = name;
      const std::vector<std::vector<FoundPerson>> nearest =
          h.nearest(gallery, t.embedding, most_duplicates, h.threshold);
      const LiveGallery::Enrolled done = gallery.enroll(std::move(t), p.bytes);
      j["image"] = p.name;
      j["name"] = name;
      j.update(facenet_face(face));
      j["template"] = done.id;
      j["uuid"] = done.uuid;
      j["enrolled"] = done.is_new;
      for (const Ignored& i : ignored)
        j["ignored"].push_back(ignored_face(facenet_face(found.faces[i.face]), i.face, i.reason));
      // One face under two names would be named by chance from now on.
      for (const FoundPerson& other : nearest[0])
        if (other.name != name && done.is_new) j["duplicates"].push_back(match_json(other));
      add_model(h, j);
      any_new = any_new || done.is_new;
    } catch (const HttpError& failure) {
      if (pictures.all().size() == 1) throw;
      j = failed(p, failure);
      j["name"] = name;
    }
    list.push_back(std::move(j));
  }
  return answer({{"results", std::move(list)}}, any_new ? 201 : 200);
}

Response rename(const Handlers& h, const Call& call, const Request& request) {
  const std::string& from = request.parameters.at("name");
  const std::string to = person_name(text_of(parse_json(request), "name"));
  gallery_of(h, request).rename(from, to, boolean(call, request, "merge"));
  return answer({{"name", to}, {"was", from}});
}

Response remove_person(const Handlers& h, const Call&, const Request& request) {
  const std::string& name = request.parameters.at("name");
  const std::int64_t gone = gallery_of(h, request).remove_person(name);
  return answer({{"persons", Json::array({name})}, {"templates", gone}});
}

Response remove_template(const Handlers& h, const Call&, const Request& request) {
  const auto gone = gallery_of(h, request).remove_templates({request.parameters.at("uuid")});
  if (gone.empty()) throw HttpError{404, "there is no template with this uuid.", unknown_template};
  return answer({{"persons", Json::array()}, {"templates", gone.size()}});
}

Response export_gallery(const Handlers& h, const Call&, const Request& request) {
  LiveGallery& gallery = gallery_of(h, request);
  Response r;
  r.type = "application/x-ndjson";
  r.body = export_head(gallery.model()) + "\n";
  gallery.each_template([&](const Template& t) { r.body += export_line(t) + "\n"; });
  for (const Person& p : gallery.persons())
    if (p.templates == 0) r.body += export_line(p) + "\n";
  return r;
}

Response import_gallery(const Handlers& h, const Call&, const Request& request) {
  LiveGallery& gallery = gallery_of(h, request);
  if (request.body.empty()) throw HttpError{400, "the body is empty: send what an export answered."};
  std::vector<Template> all;
  std::vector<std::string> persons;
  GalleryModel model;
  try {
    GalleryLines lines(request.body, "the body");
    model = lines.model();
    all = lines.templates();
    persons = lines.persons();
  } catch (const DatabaseError& wrong) {
    throw HttpError{400, wrong.what()};
  }
  if (model.digest != gallery.model().digest)
    throw HttpError{400, "these embeddings are of another model than this gallery's.", other_model};
  const LiveGallery::Imported done = gallery.import(model, std::move(all), persons);
  return answer({{"enrolled", done.enrolled}, {"there", done.there}});
}

Response log_after(const Handlers& h, const Call& call, const Request& request) {
  Json list = Json::array();
  for (const LoggedRequest& r : h.log.after(static_cast<std::uint64_t>(integer(call, request, "after"))))
    list.push_back({{"number", r.number},
                    {"time", r.time},
                    {"method", r.method},
                    {"route", r.route},
                    {"status", r.status},
                    {"ms", static_cast<float>(r.seconds * 1000)}});
  return answer({{"requests", std::move(list)}});
}

}  // namespace

std::vector<Call> v1_calls(Handlers& h) {
  std::vector<Call> calls;
  using Run = Response (*)(const Handlers&, const Call&, const Request&);
  const auto add = [&](Call call, Run run) {
    const auto row = std::make_shared<Call>(call);
    call.handler = [row, run, &h](const Request& request) { return run(h, *row, request); };
    calls.push_back(std::move(call));
  };
  const auto with = [](std::vector<Parameter> list, std::vector<Parameter> more) {
    list.insert(list.end(), more.begin(), more.end());
    return list;
  };
  const Body pictures{Body::Kind::pictures, {"file"}, true};
  const std::vector<Parameter> paged{{"page", Type::integer, 0, 1e9, 0, "counts from 0"},
                                     {"size", Type::integer, 1, 10000, 1000, "of a page"}};
  constexpr std::size_t most_import = std::size_t{1} << 30;

  // clang-format off
  add({"POST", "/v1/detect", Right::read, "detect", "The faces of pictures", of_faces(), pictures, "detect results",
       200, {400}}, detect);
  add({"POST", "/v1/embed", Right::read, "embed", "The embedding of each face", of_faces(), pictures, "embed results",
       200, {400}}, embed);
  add({"POST", "/v1/verify", Right::read, "verify", "Whether the largest faces of two pictures are one person's",
       {{"min_score", Type::number, 0, 1, 0.0f, "faces with a lower score are left out"}, threshold_parameter()},
       {Body::Kind::pictures, {"a", "b"}}, "verify result", 200, {400}}, verify);
  add({"POST", "/v1/identify", Right::read, "identify", "Whose each face is, of those that a gallery knows",
       with(of_faces(), {{"gallery", Type::text, 1, 255, nullptr, "the gallery's name; the first where it is left out"},
                         {"top", Type::integer, 1, 1000, 1, "the most persons of a face"},
                         threshold_parameter(),
                         {"margin", Type::number, 0, 1e6, 0.0f,
                          "a face is ambiguous where another person is less than this farther away than the nearest"}}),
       pictures, "identify results", 200, {400, 404}}, identify);
  add({"POST", "/v1/cluster", Right::read, "cluster", "The faces of pictures, sorted by person",
       with(of_faces(), {threshold_parameter()}), pictures, "cluster results", 200, {400}}, cluster);

  add({"GET", "/v1/galleries", Right::read, "galleries", "The galleries and their sizes", {}, {}, "galleries", 200, {}},
      list_galleries);
  add({"GET", "/v1/galleries/{gallery}/persons", Right::read, "persons", "The persons by name, a page at a time", paged,
       {}, "persons", 200, {400, 404}}, list_persons);
  add({"GET", "/v1/galleries/{gallery}/persons/{name}", Right::read, "person", "The templates of a person", paged, {},
       "templates", 200, {400, 404}}, show_person);
  add({"POST", "/v1/galleries/{gallery}/persons/{name}", Right::enroll, "enroll",
       "Enrolls a person from pictures of one face each", {}, pictures, "enroll results", 201, {400, 404, 409}},
      enroll);
  add({"PUT", "/v1/galleries/{gallery}/persons/{name}", Right::admin, "rename", "Renames a person",
       {{"merge", Type::boolean, 0, 0, false, "where the new name is known: makes both one person, instead of 409"}},
       {Body::Kind::json, {}, false, "name"}, "renamed", 200, {400, 404, 409}}, rename);
  add({"DELETE", "/v1/galleries/{gallery}/persons/{name}", Right::admin, "remove",
       "Removes a person with all templates",
       {}, {}, "removed", 200, {404}}, remove_person);
  add({"DELETE", "/v1/galleries/{gallery}/templates/{uuid}", Right::admin, "remove_template", "Removes a template", {},
       {}, "removed", 200, {404}}, remove_template);
  add({"GET", "/v1/galleries/{gallery}/export", Right::admin, "export",
       "Everything as JSON lines, as 'facenet gallery export' writes them", {}, {}, "lines", 200, {404}},
      export_gallery);
  add({"POST", "/v1/galleries/{gallery}/import", Right::admin, "import", "Adds what an export answered: all or nothing",
       {}, {Body::Kind::lines}, "imported", 200, {400, 404, 409}, {}, most_import}, import_gallery);
  add({"GET", "/v1/log", Right::read, "log", "The last 200 requests: routes, times and statuses, no names",
       {{"after", Type::integer, 0, 9e15, 0, "the number of the last one that is known"}}, {}, "log", 200, {400}},
      log_after);
  // clang-format on
  return calls;
}

}  // namespace command::service
