// The interface of CompreFace, /api/v1, which cameras' and homes' systems speak. docs/rest.md has the table of calls
// and what differs.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "command/service/handlers.hpp"

namespace command::service {

namespace {

/// What `face_plugins` asked for.
struct Plugins {
  bool landmarks = false, calculator = false;
  std::vector<std::string> missing;  // that this service has not
};

Plugins parse_plugins(const std::string& list) {
  Plugins p;
  std::string word;
  for (std::size_t at = 0; at <= list.size(); ++at) {
    if (at < list.size() && list[at] != ',') {
      if (list[at] != ' ') word += list[at];
      continue;
    }
    if (word == "landmarks")
      p.landmarks = true;
    else if (word == "calculator")
      p.calculator = true;
    else if (word == "age" || word == "gender" || word == "mask" || word == "pose" || word == "landmarks2d106")
      p.missing.push_back(word);
    else if (!word.empty())
      throw HttpError{400, "face_plugins may name landmarks, calculator, age, gender, mask and pose."};
    word.clear();
  }
  return p;
}

int rounded(float v, int most) {
  const float r = std::round(v);
  return r < 0 ? 0 : r > static_cast<float>(most) ? most : static_cast<int>(r);
}

/// A result of /api/v1 in the making: what each face shows, and what stands beside the faces.
class Answer {
 public:
  Answer(const Handlers& handlers, const Call& call, const Request& request)
      : handlers_(handlers),
        plugins_(parse_plugins(text(call, request, "face_plugins"))),
        status_(boolean(call, request, "status")) {
    options_.limit = static_cast<int>(integer(call, request, "limit"));
    options_.min_score = number(call, request, "det_prob_threshold");
  }

  /// `embed`: whether the call itself needs embeddings.
  PictureResult look(std::string_view picture, bool embed) {
    AnalyseOptions options = options_;
    options.embed = embed || plugins_.calculator;
    PictureResult result = handlers_.service.engine.analyse(picture, options);
    if (result.faces.empty()) throw HttpError{400, "No face is found in the given image", no_face};
    return result;
  }

  Json face(const PictureResult& picture, const FaceResult& face) const {
    Json j, box;
    box["probability"] = face.face.score;
    box["x_max"] = rounded(face.face.box.x1, picture.width);
    box["y_max"] = rounded(face.face.box.y1, picture.height);
    box["x_min"] = rounded(face.face.box.x0, picture.width);
    box["y_min"] = rounded(face.face.box.y0, picture.height);
    j["box"] = std::move(box);
    if (plugins_.landmarks) {
      j["landmarks"] = Json::array();
      for (const facenet::Point p : face.face.landmarks)
        j["landmarks"].push_back({rounded(p.x, picture.width), rounded(p.y, picture.height)});
    }
    if (plugins_.calculator) j["embedding"] = face.embedding;
    if (status_) {
      j["execution_time"] = {{"detector", milliseconds(picture.times.detect)}};
      if (!face.embedding.empty()) j["execution_time"]["calculator"] = milliseconds(picture.times.embed);
    }
    return j;
  }

  /// The whole body.
  Response finish(Json result) const {
    Json j;
    j["result"] = std::move(result);
    add_plugins(j);
    return answer(j);
  }
  /// "plugins_versions", and a note about what was asked for and is not there.
  void add_plugins(Json& j) const {
    if (!status_ && plugins_.missing.empty()) return;
    Json versions = Json::object();
    if (status_) {
      versions["detector"] = "facenet.mtcnn " + handlers_.service.engine.detector();
      versions["calculator"] = std::string("facenet.") + handlers_.info().architecture + " " + handlers_.info().digest;
      versions["similarity"] = handlers_.scale.text();
    }
    for (const std::string& name : plugins_.missing) versions[name] = "not available";
    j["plugins_versions"] = std::move(versions);
    if (plugins_.missing.empty()) return;
    std::string names;
    for (const std::string& name : plugins_.missing) names += (names.empty() ? "" : ", ") + name;
    j["note"] = "this service has no plugin for: " + names + ".";
  }

 private:
  static float milliseconds(double seconds) { return static_cast<float>(std::round(seconds * 1e4) / 10); }

  const Handlers& handlers_;
  Plugins plugins_;
  AnalyseOptions options_;
  bool status_;
};

Json subject_list(const Handlers& handlers, const std::vector<FoundPerson>& found) {
  Json list = Json::array();
  for (const FoundPerson& p : found)
    list.push_back({{"subject", p.name}, {"similarity", static_cast<float>(handlers.scale.of(p.distance))}});
  return list;
}

Json example(const Template& t) { return {{"image_id", t.uuid}, {"subject", t.name}}; }

/// The example that the address names, with its embedding.
Template known_example(const Handlers& handlers, const Request& request) {
  std::optional<Template> t = handlers.gallery().find(request.parameters.at("image_id"));
  if (!t) throw HttpError{404, "there is no example with this image_id.", unknown_template};
  return std::move(*t);
}

double similarity(const Handlers& handlers, facenet::Span<const float> a, facenet::Span<const float> b) {
  return handlers.scale.of(facenet::distance(a, b));
}

/// {"result": [{"embedding", "similarity"}]} of each embedding beside one.
Response compare(const Handlers& handlers, facenet::Span<const float> source, const std::vector<float>& targets) {
  const auto dim = static_cast<std::size_t>(handlers.dim());
  Json result = Json::array();
  for (std::size_t at = 0; at < targets.size(); at += dim) {
    const facenet::Span<const float> target(targets.data() + at, dim);
    result.push_back({{"embedding", std::vector<float>(target.begin(), target.end())},
                      {"similarity", static_cast<float>(similarity(handlers, source, target))}});
  }
  return answer({{"result", std::move(result)}});
}

const Json& member(const Json& body, const char* name) {
  const auto at = body.is_object() ? body.find(name) : body.end();
  if (!body.is_object() || at == body.end())
    throw HttpError{400, "the JSON of the body must be an object with '" + std::string(name) + "'."};
  return *at;
}

Response picture_of(const Handlers& handlers, const Template& t) {
  Response r;
  r.body = handlers.gallery().picture(t.uuid);
  if (r.body.empty())
    throw HttpError{404,
                    handlers.service.options.keep_pictures
                        ? "this example was enrolled without its picture."
                        : "pictures of examples are not kept: start the service with --keep-pictures to change that.",
                    no_picture_kept};
  r.type = r.body.compare(0, 3, "\xff\xd8\xff") == 0 ? "image/jpeg" : "image/png";
  return r;
}

// ---- the parameters that several calls have
// --------------------------------------------------------------------------

using Type = Parameter::Type;

std::vector<Parameter> of_pictures(bool predictions = false) {
  std::vector<Parameter> list{
      {"limit", Type::integer, 0, 10000, 0, "the most faces, the largest first; 0: all"},
      {"det_prob_threshold", Type::number, 0, 1, 0.0f, "faces with a lower score are left out"},
      {"face_plugins", Type::text, 0, 200, "", "landmarks, calculator or both, with a comma between"},
      {"status", Type::boolean, 0, 0, false, "adds execution_time and plugins_versions"}};
  if (predictions) list.push_back({"prediction_count", Type::integer, 1, 1000, 1, "the most subjects of a face"});
  return list;
}

Parameter subject_parameter(const char* help, bool required) {
  return {"subject", Type::text, required ? 1.0 : 0.0, 255, nullptr, help, required};
}

Body one_picture() { return {Body::Kind::pictures, {"file"}}; }

}  // namespace

std::vector<Call> rest_calls(Handlers& h) {
  std::vector<Call> calls;
  /// A row of the table. Its handler gets the row, which says what parameters mean.
  const auto add = [&](Call call, std::function<Response(const Call&, const Request&)> run) {
    const auto row = std::make_shared<Call>(call);
    call.handler = [row, run = std::move(run)](const Request& request) { return run(*row, request); };
    calls.push_back(std::move(call));
  };
  const std::string base = "/api/v1/recognition";

  // A row is the call as a table has it; clang-format would give each of its fields a line.
  // clang-format off
  // Subjects.
  add({"POST", base + "/subjects", Right::enroll, "add_subject", "Adds a subject without examples", {},
       {Body::Kind::json, {}, false, "subject"}, "subject", 201, {400, 409}},
      [&h](const Call&, const Request& request) {
        const std::string name = person_name(text_of(parse_json(request), "subject"));
        h.gallery().add_person(name);
        return answer({{"subject", name}}, 201);
      });
  add({"GET", base + "/subjects", Right::read, "list_subjects", "The names of all subjects", {}, {}, "subjects", 200,
       {}},
      [&h](const Call&, const Request&) {
        Json names = Json::array();
        for (const Person& p : h.gallery().persons()) names.push_back(p.name);
        return answer({{"subjects", std::move(names)}});
      });
  add({"PUT", base + "/subjects/{subject}", Right::admin, "rename_subject",
       "Renames a subject; where the new name is known, both become one", {},
       {Body::Kind::json, {}, false, "subject"}, "updated", 200, {400, 404}},
      [&h](const Call&, const Request& request) {
        const std::string to = person_name(text_of(parse_json(request), "subject"));
        h.gallery().rename(request.parameters.at("subject"), to, true);
        return answer({{"updated", true}});
      });
  add({"DELETE", base + "/subjects/{subject}", Right::admin, "delete_subject", "Deletes a subject and its examples", {},
       {}, "subject", 200, {404}},
      [&h](const Call&, const Request& request) {
        const std::string& name = request.parameters.at("subject");
        h.gallery().remove_person(name);
        return answer({{"subject", name}});
      });
  add({"DELETE", base + "/subjects", Right::admin, "delete_subjects", "Deletes all subjects", {}, {}, "deleted", 200,
       {}},
      [&h](const Call&, const Request&) { return answer({{"deleted", h.gallery().remove_everybody()}}); });

  // Examples.
  std::vector<Parameter> of_example{
      {"subject", Type::text, 0, 255, nullptr, "whose face it is; may be a field of the body instead"},
      {"det_prob_threshold", Type::number, 0, 1, 0.0f, "faces with a lower score are left out"}};
  add({"POST", base + "/faces", Right::enroll, "add_example", "Adds an example of a subject: a picture of one face",
       of_example, one_picture(), "example", 201, {400, 409}},
      [&h](const Call& call, const Request& request) {
        const Pictures pictures(call, request);
        const std::string name =
            person_name(given(request, "subject") ? text(call, request, "subject")
                                                  : pictures.text("subject").value_or(""));
        AnalyseOptions options;
        options.min_score = number(call, request, "det_prob_threshold");
        const Picture& picture = pictures.of("file");
        Template t = h.make_template(h.one_face(h.service.engine.analyse(picture.bytes, options)), picture);
        t.name = name;
        return answer({{"image_id", h.gallery().enroll(std::move(t), picture.bytes).uuid}, {"subject", name}}, 201);
      });
  add({"GET", base + "/faces", Right::read, "list_examples", "Examples, a page at a time",
       {{"page", Type::integer, 0, 1e9, 0, "counts from 0"},
        {"size", Type::integer, 1, 1000, 20, "examples of a page"},
        subject_parameter("of this subject alone", false)},
       {}, "examples", 200, {400, 404}},
      [&h](const Call& call, const Request& request) {
        const std::int64_t page = integer(call, request, "page"), size = integer(call, request, "size");
        const GalleryStore::Page found = h.gallery().templates(page * size, size, text(call, request, "subject"));
        const std::int64_t total = found.total;
        Json faces = Json::array();
        for (const Template& t : found.templates) faces.push_back(example(t));
        return answer({{"faces", std::move(faces)},
                       {"page_number", page},
                       {"page_size", size},
                       {"total_pages", (total + size - 1) / size},
                       {"total_elements", total}});
      });
  add({"DELETE", base + "/faces", Right::admin, "delete_examples", "Deletes a subject's examples, or all",
       {subject_parameter("of this subject alone", false)}, {}, "deleted", 200, {404}},
      [&h](const Call& call, const Request& request) {
        return answer({{"deleted", h.gallery().remove_templates_of(text(call, request, "subject"))}});
      });
  add({"DELETE", base + "/faces/{image_id}", Right::admin, "delete_example", "Deletes an example", {}, {}, "example",
       200, {404}},
      [&h](const Call&, const Request& request) {
        const Template t = known_example(h, request);
        if (h.gallery().remove_templates({t.uuid}).empty())
          throw HttpError{404, "there is no example with this image_id.", unknown_template};
        return answer(example(t));
      });
  add({"POST", base + "/faces/delete", Right::admin, "delete_several_examples",
       "Deletes examples; ids that are not known are left out of the answer", {},
       {Body::Kind::json, {}, false, "ids"}, "deleted examples", 200, {400}},
      [&h](const Call&, const Request& request) {
        const Json ids = parse_json(request);
        if (!ids.is_array()) throw HttpError{400, "the JSON of the body must be an array of image_ids."};
        std::vector<std::string> uuids;
        for (const Json& id : ids) {
          if (!id.is_string()) throw HttpError{400, "the JSON of the body must be an array of image_ids."};
          uuids.push_back(id.get<std::string>());
        }
        Json gone = Json::array();
        for (const Template& t : h.gallery().remove_templates(uuids)) gone.push_back(example(t));
        return answer(gone);
      });
  add({"GET", base + "/faces/{image_id}/img", Right::read, "example_picture",
       "The picture of an example, if it was kept", {}, {}, "picture", 200, {404}},
      [&h](const Call&, const Request& request) { return picture_of(h, known_example(h, request)); });
  add({"GET", "/api/v1/static/{key}/images/{image_id}", Right::read, "static_picture",
       "The same for a page's <img>, with the key in its address", {}, {}, "picture", 200, {404}},
      [&h](const Call&, const Request& request) { return picture_of(h, known_example(h, request)); });
  calls.back().key_parameter = "key";

  // Recognition.
  add({"POST", base + "/recognize", Right::read, "recognize", "Who each face of a picture is", of_pictures(true),
       one_picture(), "recognition", 200, {400}},
      [&h](const Call& call, const Request& request) {
        const Pictures pictures(call, request);
        Answer a(h, call, request);
        const PictureResult found = a.look(pictures.of("file").bytes, true);
        const auto persons = h.nearest(h.gallery(), embeddings(found.faces),
                                       static_cast<int>(integer(call, request, "prediction_count")), DBL_MAX);
        Json result = Json::array();
        for (std::size_t i = 0; i < found.faces.size(); ++i) {
          Json face = a.face(found, found.faces[i]);
          face["subjects"] = subject_list(h, persons[i]);
          result.push_back(std::move(face));
        }
        return a.finish(std::move(result));
      });
  add({"POST", base + "/embeddings/recognize", Right::read, "recognize_embeddings", "Whose each embedding is",
       {{"prediction_count", Type::integer, 1, 1000, 1, "the most subjects of an embedding"}},
       {Body::Kind::json, {}, false, "embeddings"}, "embedding recognition", 200, {400}},
      [&h](const Call& call, const Request& request) {
        const auto dim = static_cast<std::size_t>(h.dim());
        const std::vector<float> all = embeddings_of(member(parse_json(request), "embeddings"), h.dim());
        const auto persons =
            h.nearest(h.gallery(), all, static_cast<int>(integer(call, request, "prediction_count")), DBL_MAX);
        Json result = Json::array();
        for (std::size_t i = 0; i < persons.size(); ++i) {
          const float* const e = all.data() + i * dim;
          result.push_back({{"embedding", std::vector<float>(e, e + dim)},
                            {"similarities", subject_list(h, persons[i])}});
        }
        return answer({{"result", std::move(result)}});
      });
  add({"POST", base + "/faces/{image_id}/verify", Right::read, "verify_example", "How alike each face is to an example",
       of_pictures(), one_picture(), "face verification", 200, {400, 404}},
      [&h](const Call& call, const Request& request) {
        const std::vector<float> known = known_example(h, request).embedding;
        const Pictures pictures(call, request);
        Answer a(h, call, request);
        const PictureResult found = a.look(pictures.of("file").bytes, true);
        Json result = Json::array();
        for (const FaceResult& f : found.faces) {
          Json face = a.face(found, f);
          face["similarity"] = static_cast<float>(similarity(h, f.embedding, known));
          result.push_back(std::move(face));
        }
        return a.finish(std::move(result));
      });
  add({"POST", base + "/embeddings/faces/{image_id}/verify", Right::read, "verify_example_embeddings",
       "How alike each embedding is to an example", {}, {Body::Kind::json, {}, false, "embeddings"},
       "embedding verification", 200, {400, 404}},
      [&h](const Call&, const Request& request) {
        const std::vector<float> known = known_example(h, request).embedding;
        return compare(h, known, embeddings_of(member(parse_json(request), "embeddings"), h.dim()));
      });

  // Detection and verification.
  add({"POST", "/api/v1/detection/detect", Right::read, "detect_faces", "The faces of a picture", of_pictures(),
       one_picture(), "detection", 200, {400}},
      [&h](const Call& call, const Request& request) {
        const Pictures pictures(call, request);
        Answer a(h, call, request);
        const PictureResult found = a.look(pictures.of("file").bytes, false);
        Json result = Json::array();
        for (const FaceResult& f : found.faces) result.push_back(a.face(found, f));
        return a.finish(std::move(result));
      });
  add({"POST", "/api/v1/verification/verify", Right::read, "verify_pictures",
       "How alike each face of a picture is to the largest face of another", of_pictures(),
       {Body::Kind::pictures, {"source_image", "target_image"}}, "verification", 200, {400}},
      [&h](const Call& call, const Request& request) {
        const Pictures pictures(call, request);
        Answer a(h, call, request);
        const PictureResult source = a.look(pictures.of("source_image").bytes, true);
        const PictureResult target = a.look(pictures.of("target_image").bytes, true);
        Json result, matches = Json::array();
        std::vector<std::pair<double, const FaceResult*>> order;
        for (const FaceResult& f : target.faces)
          order.emplace_back(similarity(h, source.faces[0].embedding, f.embedding), &f);
        std::stable_sort(order.begin(), order.end(), [](const auto& x, const auto& y) { return x.first > y.first; });
        for (const auto& [alike, f] : order) {
          Json face = a.face(target, *f);
          face["similarity"] = static_cast<float>(alike);
          matches.push_back(std::move(face));
        }
        result["source_image_face"] = a.face(source, source.faces[0]);
        result["face_matches"] = std::move(matches);
        a.add_plugins(result);
        return answer({{"result", Json::array({std::move(result)})}});
      });
  add({"POST", "/api/v1/verification/embeddings/verify", Right::read, "verify_embeddings",
       "How alike each embedding is to another", {}, {Body::Kind::json, {}, false, "two kinds of embeddings"},
       "embedding verification", 200, {400}},
      [&h](const Call&, const Request& request) {
        const Json body = parse_json(request);
        return compare(h, embeddings_of(member(body, "source"), h.dim(), true),
                       embeddings_of(member(body, "targets"), h.dim()));
      });
  // clang-format on
  return calls;
}

}  // namespace command::service
