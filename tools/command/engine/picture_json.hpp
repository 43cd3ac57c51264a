// What the JSON of every command says of a picture and of a face: docs/command-json.md.
#pragma once

#include <string>

#include "command/io/json.hpp"
#include "facenet/detector/boxes.hpp"

namespace command {

/// "box", "score" and "landmarks". `aligned`: the picture is the face, so there is a box alone.
Json face_json(const facenet::Face& face, bool aligned);

/// {"image":…, "error":…}, the sentence that is reported too.
Json failed_picture(const std::string& picture, const std::string& sentence);
/// {"image":…, "faces":[]}
Json faceless_picture(const std::string& picture);

}  // namespace command
