// What the JSON of every command says of a picture and of a face: docs/command-json.md.
#pragma once

#include <string>

#include "command/engine/quality.hpp"
#include "command/io/json.hpp"
#include "facenet/detector/boxes.hpp"

namespace command {

/// "box", "score", "landmarks" and the quality. `aligned`: the picture is the face, so there is a box alone.
Json face_json(const facenet::Face& face, const FaceQuality& quality, bool aligned);

/// A face of `face_json` that does not count: {…, "face":…, "reason":…}
Json ignored_face(Json face, std::size_t index, const std::string& reason);

/// {"image":…, "error":…}, the sentence that is reported too.
Json failed_picture(const std::string& picture, const std::string& sentence);
/// {"image":…, "faces":[]}
Json faceless_picture(const std::string& picture);

}  // namespace command
