#include "command/service/openapi.hpp"

#include <algorithm>
#include <map>
#include <string_view>

#include "command/service/embedded_files.hpp"

namespace command::service {

namespace {

constexpr const char* version =
#if defined(FACENET_COMMAND_VERSION)
    FACENET_COMMAND_VERSION;
#else
    "0";
#endif

constexpr std::string_view command_schema = "urn:facenet:command:1";

/// Names of components have no blanks.
std::string component(std::string name) {
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

Json reference(const std::string& schema) { return {{"$ref", "#/components/schemas/" + component(schema)}}; }

/// "#/$defs/NAME" and "urn:facenet:command:1#/$defs/NAME" become references to components.
void point_at_components(Json& j) {
  if (j.is_array())
    for (Json& each : j) point_at_components(each);
  if (!j.is_object()) return;
  for (auto& [key, value] : j.items()) {
    if (key != "$ref" || !value.is_string()) {
      point_at_components(value);
      continue;
    }
    std::string to = value.get<std::string>();
    if (to.compare(0, command_schema.size(), command_schema) == 0) to.erase(0, command_schema.size());
    constexpr std::string_view inside = "#/$defs/";
    if (to.compare(0, inside.size(), inside) == 0)
      value = "#/components/schemas/" + component(to.substr(inside.size()));
  }
}

void add_schemas(const char* file, Json& components) {
  Json schema = Json::parse(embedded_file(file));
  for (auto& [name, value] : schema["$defs"].items()) {
    point_at_components(value);
    components[component(name)] = value;
  }
}

Json parameter(const Parameter& p) {
  Json schema;
  switch (p.type) {
    case Parameter::Type::integer:
      schema = {{"type", "integer"},
                {"minimum", static_cast<std::int64_t>(p.low)},
                {"maximum", static_cast<std::int64_t>(p.high)}};
      break;
    case Parameter::Type::number:
      schema = {{"type", "number"}, {"minimum", static_cast<float>(p.low)}, {"maximum", static_cast<float>(p.high)}};
      break;
    case Parameter::Type::boolean:
      schema = {{"type", "boolean"}};
      break;
    case Parameter::Type::text:
      schema = {{"type", "string"},
                {"minLength", static_cast<std::int64_t>(p.low)},
                {"maxLength", static_cast<std::int64_t>(p.high)}};
      break;
  }
  if (!p.otherwise.is_null()) schema["default"] = p.otherwise;
  return {{"name", p.name}, {"in", "query"}, {"required", p.required}, {"description", p.help}, {"schema", schema}};
}

Json path_parameter(const std::string& name) {
  return {{"name", name},
          {"in", "path"},
          {"required", true},
          {"schema", {{"type", "string"}, {"minLength", 1}, {"maxLength", 255}}}};
}

Json pictures_body(const Body& body) {
  Json parts{{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}}, texts = parts;
  for (const std::string& field : body.fields) {
    const Json binary{{"type", "string"}, {"contentMediaType", "image/*"}};
    const Json base64{{"type", "string"}, {"contentEncoding", "base64"}};
    parts["properties"][field] = body.several ? Json{{"type", "array"}, {"items", binary}, {"minItems", 1}} : binary;
    texts["properties"][field] =
        body.several ? Json{{"anyOf", {base64, {{"type", "array"}, {"items", base64}, {"minItems", 1}}}}} : base64;
    parts["required"].push_back(field);
    texts["required"].push_back(field);
  }
  return {{"multipart/form-data", {{"schema", parts}}}, {"application/json", {{"schema", texts}}}};
}

Json content(const std::string& schema) { return {{"application/json", {{"schema", reference(schema)}}}}; }

Json answer_content(const Call& call) {
  const Json text{{"schema", {{"type", "string"}}}};
  if (call.answer == "picture") return {{"image/jpeg", Json::object()}, {"image/png", Json::object()}};
  if (call.answer == "lines") return {{"application/x-ndjson", text}};
  return content(call.answer);
}

const char* reason(int status) {
  switch (status) {
    case 200:
      return "Done";
    case 201:
      return "Made";
    case 400:
      return "The body or a parameter is not what this call takes, or the picture shows no face";
    case 401:
      return "A key is missing or unknown";
    case 403:
      return "The key does not allow this";
    case 404:
      return "There is no such thing";
    case 409:
      return "It is there already";
    case 413:
      return "The body or the picture is too large";
    case 415:
      return "The body has another type than this call takes";
    case 429:
      return "Too many requests of this key";
    case 503:
      return "The service is busy, or the gallery's file cannot be used";
    default:
      return "The disk is full";
  }
}

Json operation(const Call& call) {
  Json o{{"operationId", call.id}, {"summary", call.summary}};
  o["tags"] = Json::array({call.pattern.compare(0, 4, "/api") == 0 ? "api" : "v1"});
  Json parameters = Json::array();
  for (std::size_t at = call.pattern.find('{'); at != std::string::npos; at = call.pattern.find('{', at + 1))
    parameters.push_back(path_parameter(call.pattern.substr(at + 1, call.pattern.find('}', at) - at - 1)));
  for (const Parameter& p : call.query) parameters.push_back(parameter(p));
  if (!parameters.empty()) o["parameters"] = std::move(parameters);
  Json body;
  if (call.body.kind == Body::Kind::pictures) body = pictures_body(call.body);
  if (call.body.kind == Body::Kind::json) body = content(call.body.schema);
  if (call.body.kind == Body::Kind::lines) body = {{"application/x-ndjson", {{"schema", {{"type", "string"}}}}}};
  if (!body.is_null()) o["requestBody"] = {{"required", true}, {"content", std::move(body)}};
  Json responses = Json::object();
  const auto add = [&](int status, Json what) {
    responses[std::to_string(status)] = {{"description", reason(status)}, {"content", std::move(what)}};
  };
  add(call.status, answer_content(call));
  if (call.id == "enroll") add(200, answer_content(call));  // where every picture was enrolled already
  std::vector<int> errors = call.errors;
  for (const int each : {400, 401, 403, 413, 429, 503}) errors.push_back(each);
  if (call.body.kind != Body::Kind::none) errors.push_back(415);
  if (call.right == Right::enroll || call.right == Right::admin) errors.push_back(507);
  std::sort(errors.begin(), errors.end());
  errors.erase(std::unique(errors.begin(), errors.end()), errors.end());
  for (const int status : errors) add(status, content("error"));
  o["responses"] = std::move(responses);
  o["security"] = call.key_parameter.empty() ? Json::array({{{"key", Json::array()}}}) : Json::array();
  return o;
}

}  // namespace

std::string openapi_document(const std::vector<Call>& calls) {
  Json j;
  j["openapi"] = "3.1.0";
  j["info"] = {{"title", "facenet serve"},
               {"version", version},
               {"description", "Face recognition: /v1 is this project's own interface, /api/v1 that of CompreFace."},
               {"license", {{"name", "MIT"}, {"identifier", "MIT"}}}};
  Json paths = Json::object();
  for (const Call& call : calls) {
    std::string method = call.method;
    std::transform(method.begin(), method.end(), method.begin(),
                   [](char c) { return static_cast<char>(c - 'A' + 'a'); });
    paths[call.pattern][method] = operation(call);
  }
  j["paths"] = std::move(paths);
  Json schemas = Json::object();
  add_schemas("facenet-command-1.json", schemas);
  add_schemas("facenet-service-1.json", schemas);
  j["components"]["schemas"] = std::move(schemas);
  j["components"]["securitySchemes"]["key"] = {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}};
  return j.dump();
}

}  // namespace command::service
