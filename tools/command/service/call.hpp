// A call of the service as its table of calls has it: the router, the check of its parameters and the OpenAPI document
// are all made from the same row.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "command/http/http.hpp"
#include "command/io/json.hpp"

namespace command::service {

/// The `code` of an error's JSON where a client should tell it from others with the same HTTP status; else the code is
/// the status. 28 is what clients of /api/v1 look for. docs/rest.md has the table.
enum Code : int {
  no_face = 28,             // 400
  several_faces = 1002,     // 400: an example shows one face
  other_model = 1004,       // 400: an embedding or a gallery of another model
  unknown_gallery = 1021,   // 404
  unknown_person = 1022,    // 404
  unknown_template = 1023,  // 404
  no_picture_kept = 1024,   // 404
  person_exists = 1040,     // 409
  another_person = 1041     // 409: this very face is enrolled under another name
};

/// A parameter of a query. In a client's hands it is text; check_query() has read it before a handler is called.
struct Parameter {
  enum class Type { integer, number, boolean, text };
  std::string name;
  Type type = Type::text;
  double low = 0, high = 0;  // of numbers; of texts the least and the most bytes
  Json otherwise;            // what it is where it is left out; null: nothing, and `required` says whether it may be
  std::string help;
  bool required = false;
};

/// What a call takes in its body.
struct Body {
  enum class Kind { none, pictures, json, lines };
  Kind kind = Kind::none;
  std::vector<std::string> fields = {};  // of pictures: "file"; or two
  bool several = false;                  // pictures: the field may come again
  std::string schema = {};               // of json: its name in docs/schema/facenet-service-1.json
};

struct Call {
  std::string method, pattern;
  Right right = Right::read;
  std::string id, summary;
  std::vector<Parameter> query;
  Body body;
  std::string answer;  // the schema's name; "picture", "lines", "page": no JSON
  int status = 200;
  std::vector<int> errors = {};
  Handler handler = {};
  std::size_t most_body = 0;       // bytes; 0: the server's limit
  std::string key_parameter = {};  // Route::key_parameter
};

/// The JavaScript SDK of CompreFace writes "?limit=0?status=true" where "&" belongs: the request with such parameters
/// apart, or nothing where there are none.
std::optional<Request> with_parameters_apart(const Call& call, const Request& request);

/// Throws HttpError 400 for a parameter of the query that is not what its row allows, or that is missing.
void check_query(const Call& call, const Request& request);

/// A parameter's value in a request that was checked; the row's default where it is left out.
std::int64_t integer(const Call& call, const Request& request, const char* name);
double number(const Call& call, const Request& request, const char* name);
bool boolean(const Call& call, const Request& request, const char* name);
std::string text(const Call& call, const Request& request, const char* name);
/// Whether the client gave it.
bool given(const Request& request, const char* name);

/// A picture of a body.
struct Picture {
  std::string field, name;  // name: its file's, or the field's where it has none
  std::string_view bytes;
};

/// The pictures of a body: parts of multipart/form-data, base64 in JSON, or with one field the body itself (image/…).
class Pictures {
 public:
  /// Throws HttpError for a body that is none of these, or that lacks a field or has one twice that comes once.
  Pictures(const Call& call, const Request& request);
  Pictures(const Pictures&) = delete;
  Pictures& operator=(const Pictures&) = delete;

  const std::vector<Picture>& all() const { return pictures_; }
  /// The first of the field.
  const Picture& of(const char* field) const;
  /// What the client said beside the pictures: other parts or other members that are texts.
  std::optional<std::string> text(const char* name) const;

 private:
  void read_parts(const Call& call, const Request& request, const std::string& boundary);
  void read_json(const Call& call, const Request& request);

  std::vector<Picture> pictures_;
  std::vector<std::pair<std::string, std::string>> texts_;
  std::vector<std::string> decoded_;  // what the pictures of a JSON body point into
};

/// A JSON body. Throws HttpError: 415 for another type, 400 for what is no JSON, deeper than 8 or longer than a million
/// values.
Json parse_json(const Request& request);

/// A member that is a text, of 1 to 255 bytes.
std::string text_of(const Json& object, const char* name);
/// A name that a person may have; HttpError 400 where it is none.
std::string person_name(const std::string& name);
/// Embeddings of `dim` numbers each, all finite and none zero. `list` is an array of arrays, or one array where `one`.
std::vector<float> embeddings_of(const Json& list, int dim, bool one = false);

Response answer(const Json& json, int status = 200);

}  // namespace command::service
