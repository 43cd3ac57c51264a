#include "command/engine/picture_json.hpp"

namespace command {

Json face_json(const facenet::Face& face, const FaceQuality& quality, bool aligned) {
  Json j;
  j["box"] = {face.box.x0, face.box.y0, face.box.x1, face.box.y1};
  if (aligned) return j;  // nothing was measured
  j["score"] = face.score;
  j["landmarks"] = Json::array();
  for (const facenet::Point p : face.landmarks) j["landmarks"].push_back({p.x, p.y});
  add_quality(j, quality);
  return j;
}

Json ignored_face(Json face, std::size_t index, const std::string& reason) {
  face["face"] = index;
  face["reason"] = reason;
  return face;
}

Json failed_picture(const std::string& picture, const std::string& sentence) {
  Json j;
  j["image"] = picture;
  j["error"] = sentence;
  return j;
}

Json faceless_picture(const std::string& picture) {
  Json j;
  j["image"] = picture;
  j["faces"] = Json::array();
  return j;
}

}  // namespace command
