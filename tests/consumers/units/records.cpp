// All that can be done with the records that units share, compiled without optimisation: what is emitted is then no
// one's alone.
#include "units.hpp"

int use_records(facenet::ImageView picture, facenet::Status& out, char* text) {
  facenet::Status status, copy = status;
  copy = facenet::Status(facenet::Errc::corrupt, facenet::name(facenet::Errc::corrupt)).at(7).in("outer", 3).in("file");
  out = copy;
  facenet::Rect all = picture.bounds(), none, part{1, 2, 3, 4};
  facenet::Box box, other{1, 2, 3, 4};
  facenet::Point point, mouth{1, 2};
  facenet::Face face, faces[3];
  facenet::ImageView empty, crop = picture.holds(part) ? picture.crop(part) : empty;
  face.box = box = other;
  face.landmarks[0] = point = mouth;
  faces[0] = face;
  faces[1] = {};
  copy.print(text, 10);
  return static_cast<int>(all.width() + none.height()) + (all == part) + crop.row(0)[0] + (copy.ok() && copy ? 1 : 0) +
         static_cast<int>(copy.code()) + copy.text()[0] + copy.place()[0] + static_cast<int>(copy.offset()) +
         (faces[0].score > 0) + static_cast<int>(picture.order);
}
