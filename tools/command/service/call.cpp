#include "command/service/call.hpp"

#include <cmath>
#include <cstdlib>

#include "command/http/multipart.hpp"
#include "facenet/distance.hpp"
#include "store/gallery_store.hpp"

namespace command::service {

namespace {

[[noreturn]] void bad(const std::string& sentence, int code = 400) { throw HttpError{400, sentence, code}; }

const Parameter& row_of(const Call& call, const char* name) {
  for (const Parameter& p : call.query)
    if (p.name == name) return p;
  throw HttpError{500, "this call's table lacks a parameter."};
}

/// The whole text as a number; false for anything else.
bool parse_number(const std::string& text, double& value) {
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return *end == 0 && std::isfinite(value);
}

std::string range(const Parameter& p) {
  const auto shown = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", v);
    return std::string(text);
  };
  return shown(p.low) + " to " + shown(p.high);
}

const std::string* value_of(const Request& request, const char* name) {
  const auto at = request.query.find(name);
  return at == request.query.end() ? nullptr : &at->second;
}

/// Media types without parameters, in lower case: "image/jpeg".
std::string media_type(const Request& request) {
  std::string type = header(request, "content-type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  for (char& c : type) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return type;
}

// Bounds of a JSON body. An embedding is 512 values, so a million are 2,000 of them. The Json type looks members up one
// after the other, so an object of very many would take time with its square.
constexpr std::size_t deepest = 8, most_values = 1'000'000, most_members = 64;

/// Counts brackets, commas and colons outside texts.
void check_bounds(const std::string& body) {
  std::size_t depth = 0, values = 1, members = 0;
  bool in_text = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_text) {
      if (c == '\\') ++i;
      in_text = c != '"' && in_text;
      continue;
    }
    in_text = c == '"';
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    values += c == ',';
    members += c == ':';
    if (depth > deepest) bad("the JSON of the body is nested more than 8 deep.");
    if (values > most_values) bad("the JSON of the body has more than a million values.");
    if (members > most_members) bad("the JSON of the body has more than 64 members.");
  }
}

/// The boundary of a multipart body whose header names none, as the JavaScript SDK of CompreFace sends from Node: its
/// first line.
std::string first_boundary(const std::string& body) {
  constexpr std::size_t longest = 70;  // RFC 2046
  if (body.compare(0, 2, "--") != 0) return {};
  const std::size_t end = body.find("\r\n");
  return end == std::string::npos || end > longest + 2 ? "" : body.substr(2, end - 2);
}

}  // namespace

std::optional<Request> with_parameters_apart(const Call& call, const Request& request) {
  std::optional<Request> apart;
  for (const auto& [key, value] : request.query)
    for (const Parameter& p : call.query) {
      const std::size_t at = value.find("?" + p.name + "=");
      if (at == std::string::npos) continue;
      if (!apart) apart = request;
      std::string& rest = apart->query[key];
      const std::size_t now = rest.find("?" + p.name + "=");
      if (now == std::string::npos) continue;
      const std::size_t from = now + p.name.size() + 2, end = rest.find('?', from);
      apart->query[p.name] = rest.substr(from, end == std::string::npos ? end : end - from);
      rest.erase(now, end == std::string::npos ? end : end - now);
    }
  return apart;
}

void check_query(const Call& call, const Request& request) {
  for (const Parameter& p : call.query) {
    const std::string* const value = value_of(request, p.name.c_str());
    if (value == nullptr) {
      if (p.required) bad("the parameter '" + p.name + "' is missing.");
      continue;
    }
    double v = 0;
    switch (p.type) {
      case Parameter::Type::integer:
      case Parameter::Type::number:
        if (!parse_number(*value, v) || v < p.low || v > p.high ||
            (p.type == Parameter::Type::integer && v != std::floor(v)))
          bad("the parameter '" + p.name + "' must be " +
              (p.type == Parameter::Type::integer ? "a whole number from " : "a number from ") + range(p) + ".");
        break;
      case Parameter::Type::boolean:
        if (*value != "true" && *value != "false" && *value != "True" && *value != "False" && *value != "1" &&
            *value != "0")
          bad("the parameter '" + p.name + "' must be true or false.");
        break;
      case Parameter::Type::text:
        if (static_cast<double>(value->size()) < p.low || static_cast<double>(value->size()) > p.high)
          bad("the parameter '" + p.name + "' must have " + range(p) + " bytes.");
        break;
    }
  }
}

std::int64_t integer(const Call& call, const Request& request, const char* name) {
  return static_cast<std::int64_t>(number(call, request, name));
}

double number(const Call& call, const Request& request, const char* name) {
  const std::string* const value = value_of(request, name);
  double v = 0;
  if (value == nullptr) return row_of(call, name).otherwise.get<double>();
  parse_number(*value, v);
  return v;
}

bool boolean(const Call& call, const Request& request, const char* name) {
  const std::string* const value = value_of(request, name);
  if (value == nullptr) return row_of(call, name).otherwise.get<bool>();
  return *value == "true" || *value == "True" || *value == "1";
}

std::string text(const Call& call, const Request& request, const char* name) {
  const std::string* const value = value_of(request, name);
  if (value != nullptr) return *value;
  const Json& otherwise = row_of(call, name).otherwise;
  return otherwise.is_string() ? otherwise.get<std::string>() : "";
}

bool given(const Request& request, const char* name) { return value_of(request, name) != nullptr; }

Pictures::Pictures(const Call& call, const Request& request) {
  const std::string type = media_type(request);
  std::string boundary = multipart_boundary(header(request, "content-type"));
  if (boundary.empty() && type == "multipart/form-data") boundary = first_boundary(request.body);
  if (!boundary.empty())
    read_parts(call, request, boundary);
  else if (type == "application/json")
    read_json(call, request);
  else if (call.body.fields.size() == 1 && (type.compare(0, 6, "image/") == 0 || type == "application/octet-stream"))
    pictures_.push_back({call.body.fields[0], call.body.fields[0], request.body});
  else
    throw HttpError{415, type == "multipart/form-data"
                             ? "the Content-Type multipart/form-data names no boundary: let the HTTP library write "
                               "this header."
                             : "the body must be multipart/form-data, or application/json with base64 values."};
  for (const std::string& field : call.body.fields) {
    std::size_t count = 0;
    for (const Picture& p : pictures_) count += p.field == field;
    if (count == 0) bad("the body has no picture in the field '" + field + "'.");
    if (count > 1 && !call.body.several) bad("the body has the field '" + field + "' more than once.");
  }
  for (const Picture& p : pictures_)
    if (p.bytes.empty()) bad("the picture in the field '" + p.field + "' is empty.");
}

void Pictures::read_parts(const Call& call, const Request& request, const std::string& boundary) {
  std::vector<Part> parts;
  const std::string wrong = parse_multipart(request.body, boundary, parts);
  if (!wrong.empty()) bad(wrong + ".");
  for (Part& part : parts) {
    bool picture = false;
    for (const std::string& field : call.body.fields) picture = picture || part.name == field;
    if (picture)
      pictures_.push_back({part.name, as_utf8(part.filename.empty() ? part.name : part.filename), part.data});
    else if (part.data.size() <= 4096)
      texts_.emplace_back(part.name, as_utf8(std::string(part.data)));
  }
}

void Pictures::read_json(const Call& call, const Request& request) {
  const Json body = parse_json(request);
  if (!body.is_object()) bad("the JSON of the body must be an object.");
  decoded_.reserve(most_members + most_parts);  // pictures_ points into its texts, which must not move
  const auto add = [&](const std::string& field, const Json& value) {
    std::string bytes;
    if (!value.is_string() || !decode_base64(value.get_ref<const std::string&>(), bytes))
      bad("'" + field + "' must be a picture's bytes in base64.");
    decoded_.push_back(std::move(bytes));
    pictures_.push_back({field, field, decoded_.back()});
  };
  for (const std::string& field : call.body.fields) {
    const auto at = body.find(field);
    if (at == body.end()) continue;
    if (!at->is_array()) {
      add(field, *at);
      continue;
    }
    if (at->size() > most_parts) bad("'" + field + "' has more than 32 pictures.");
    for (const Json& value : *at) add(field, value);
  }
  for (const auto& [key, value] : body.items())
    if (value.is_string() && value.get_ref<const std::string&>().size() <= 4096)
      texts_.emplace_back(key, value.get<std::string>());
}

const Picture& Pictures::of(const char* field) const {
  for (const Picture& p : pictures_)
    if (p.field == field) return p;
  bad("the body has no picture in the field '" + std::string(field) + "'.");
}

std::optional<std::string> Pictures::text(const char* name) const {
  for (const auto& [key, value] : texts_)
    if (key == name) return value;
  return std::nullopt;
}

Json parse_json(const Request& request) {
  const std::string type = media_type(request);
  if (type != "application/json") throw HttpError{415, "the body must be application/json."};
  check_bounds(request.body);
  Json j = Json::parse(request.body, nullptr, false);
  if (j.is_discarded()) bad("the body is no JSON in UTF-8, or a number in it is too large for a float.");
  return j;
}

std::string text_of(const Json& object, const char* name) {
  const auto at = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || at == object.end() || !at->is_string())
    bad("the JSON of the body must be an object with the text '" + std::string(name) + "'.");
  return at->get<std::string>();
}

std::string person_name(const std::string& name) {
  if (!wrong_name(name).empty()) bad("a person's name is UTF-8 of 1 to 255 bytes without control characters.");
  return name;
}

std::vector<float> embeddings_of(const Json& list, int dim, bool one) {
  const std::string shape = "embeddings must be arrays of " + std::to_string(dim) + " numbers, as this service's model";
  std::vector<float> all;
  const auto add = [&](const Json& embedding) {
    if (!embedding.is_array() || embedding.size() != static_cast<std::size_t>(dim)) bad(shape + " has.", other_model);
    for (const Json& value : embedding) {
      if (!value.is_number()) bad(shape + " has.", other_model);
      all.push_back(value.get<float>());
    }
  };
  if (!list.is_array() || list.empty()) bad(shape + " makes them.", other_model);
  if (one)
    add(list);
  else
    for (const Json& embedding : list) add(embedding);
  const facenet::Status status = facenet::detail::check_embeddings(all, dim);
  if (!status.ok()) bad(std::string(status.text()) + ".", other_model);
  return all;
}

Response answer(const Json& json, int status) {
  Response r;
  r.status = status;
  r.body = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return r;
}

}  // namespace command::service
