#include "engine.hpp"

#include "pictures.hpp"

namespace facenet_c {

namespace {

/// What a thread of the parent's was in the middle of stays as it is: nothing of it can be relied on, not even to be
/// destroyed.
template <class T>
void abandon(T&& object) {
  new std::remove_reference_t<T>(std::move(object));
}

Status wrong_option(const char* structure, const char* text) noexcept {
  return Status(Errc::invalid_argument, text).in(structure);
}

constexpr const char* embedder_options = "facenet_embedder_options";
constexpr const char* detector_options = "facenet_detector_options";

/// As the engine takes them. `cancel` keeps the flag alive.
Status read(const facenet_detector_options* given, facenet::DetectorOptions& options, std::shared_ptr<Cancel>& cancel) {
  facenet_detector_options o;
  FACENET_TRY(read_options(given, detector_options, o));
  FACENET_TRY(find_cancel(o.cancel, cancel));
  options.cancel = cancel != nullptr ? &cancel->flag : nullptr;
  options.threads = o.threads;
  options.max_faces = o.max_faces;
  if (o.min_face != 0) options.min_face = o.min_face;
  if (o.factor != 0) options.factor = o.factor;
  for (int i = 0; i < 3; ++i)
    if (o.thresholds[i] != 0) options.thresholds[i] = o.thresholds[i];
  switch (o.selection) {
    case 0:
    case FACENET_LARGEST:
      options.selection = facenet::Selection::largest;
      break;
    case FACENET_PROBABILITY:
      options.selection = facenet::Selection::probability;
      break;
    case FACENET_LARGEST_OVER_THRESHOLD:
      options.selection = facenet::Selection::largest_over_threshold;
      break;
    case FACENET_CENTRE_WEIGHTED:
      options.selection = facenet::Selection::centre_weighted;
      break;
    default:
      return wrong_option(detector_options, "`selection` is none of FACENET_LARGEST …");
  }
  return {};
}

}  // namespace

// ---- Embedder -------------------------------------------------------------------------------------------------------

Status EmbedderObject::take(const facenet_embedder_options& o) {
  if (o.reserved != 0) return wrong_option(embedder_options, "`reserved` must be 0");
  if (o.batch < 0 || o.batch > 1024) return wrong_option(embedder_options, "`batch` must be 1 to 1024");
  if (o.threads < 0 || o.threads > 256) return wrong_option(embedder_options, "`threads` must be 1 to 256");
  FACENET_TRY(find_cancel(o.cancel, cancel));
  threads_ = o.threads;
  batch = o.batch == 0 ? 1 : o.batch;
  progress = o.progress;
  progress_user = o.progress_user;
  return {};
}

Status EmbedderObject::load(const char* path, const void* bytes, std::size_t size,
                            const facenet_embedder_options* given) {
  facenet_embedder_options o;
  FACENET_TRY(read_options(given, embedder_options, o));
  FACENET_TRY(take(o));
  if (o.arithmetic < 0 || o.arithmetic > FACENET_ARITHMETIC_INT8)
    return wrong_option(embedder_options, "`arithmetic` is none of FACENET_ARITHMETIC_FLOAT and INT8");
  if (o.weights < 0 || o.weights > FACENET_WEIGHTS_INT8)
    return wrong_option(embedder_options, "`weights` is none of FACENET_WEIGHTS_FLOAT, HALF and INT8");
  if (o.arithmetic != 0) arithmetic_ = o.arithmetic;
  if (o.weights != 0) weights_ = o.weights;
  facenet::EmbedderOptions options;
  options.threads = threads_;
  options.batch = batch;
  options.half_weights = weights_ == FACENET_WEIGHTS_HALF;
  options.int8_weights = weights_ == FACENET_WEIGHTS_INT8;
  options.arithmetic = arithmetic_ == FACENET_ARITHMETIC_INT8 ? facenet::Arithmetic::int8 : facenet::Arithmetic::floats;
  options.cancel = cancel != nullptr ? &cancel->flag : nullptr;
  const auto* first = static_cast<const std::uint8_t*>(bytes);
  if (path == nullptr && options.int8_weights) {
    bytes_ = std::make_shared<const std::vector<std::uint8_t>>(first, first + size);
    first = bytes_->data();
  }
  auto loaded = path != nullptr ? facenet::dispatch::Embedder::load(path, options)
                                : facenet::dispatch::Embedder::load({first, size}, options);
  if (!loaded) return loaded.status();
  embedder = std::move(*loaded);
  return {};
}

Status EmbedderObject::fork(const EmbedderObject& from, const facenet_embedder_options* given) {
  facenet_embedder_options o;
  FACENET_TRY(read_options(given, embedder_options, o));
  FACENET_TRY(take(o));
  if ((o.arithmetic != 0 && o.arithmetic != from.arithmetic_) || (o.weights != 0 && o.weights != from.weights_))
    return wrong_option(embedder_options, "a fork shares the weights: `arithmetic` and `weights` stay what they were");
  arithmetic_ = from.arithmetic_;
  weights_ = from.weights_;
  bytes_ = from.bytes_;
  auto made = from.embedder.fork(threads_, batch);
  if (!made) return made.status();
  embedder = std::move(*made);
  embedder.cancel_when(cancel != nullptr ? &cancel->flag : nullptr);
  return {};
}

Status EmbedderObject::recover() {
  auto made = embedder.fork(threads_, batch);
  if (!made) return made.status();
  abandon(std::move(embedder));
  embedder = std::move(*made);
  embedder.cancel_when(cancel != nullptr ? &cancel->flag : nullptr);
  return {};
}

// ---- Detector -------------------------------------------------------------------------------------------------------

Status DetectorObject::load(const char* path, const void* bytes, std::size_t size,
                            const facenet_detector_options* given) {
  facenet::DetectorOptions options;
  FACENET_TRY(read(given, options, cancel_));
  auto loaded = path != nullptr
                    ? facenet::dispatch::Detector::load(path, options)
                    : facenet::dispatch::Detector::load({static_cast<const std::uint8_t*>(bytes), size}, options);
  if (!loaded) return loaded.status();
  detector = std::move(*loaded);
  return {};
}

Status DetectorObject::fork(const DetectorObject& from, const facenet_detector_options* given) {
  facenet::DetectorOptions options;
  FACENET_TRY(read(given, options, cancel_));
  auto made = from.detector.fork(options);
  if (!made) return made.status();
  detector = std::move(*made);
  return {};
}

Status DetectorObject::recover() {
  auto made = detector.fork(detector.options());
  if (!made) return made.status();
  abandon(std::move(detector));
  detector = std::move(*made);
  abandon(std::move(faces));
  faces.clear();
  return {};
}

namespace {

facenet_face to_c(const facenet::Face& face) noexcept {
  facenet_face f;
  const float box[4] = {face.box.x0, face.box.y0, face.box.x1, face.box.y1};
  std::memcpy(f.box, box, sizeof box);
  f.score = face.score;
  for (int i = 0; i < 5; ++i) {
    f.landmarks[i][0] = face.landmarks[i].x;
    f.landmarks[i][1] = face.landmarks[i].y;
  }
  return f;
}

facenet::Face from_c(const facenet_face& face) noexcept {
  facenet::Face f;
  f.box = {face.box[0], face.box[1], face.box[2], face.box[3]};
  f.score = face.score;
  for (int i = 0; i < 5; ++i) f.landmarks[i] = {face.landmarks[i][0], face.landmarks[i][1]};
  return f;
}

bool finite(const float* values, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i)
    if (!(values[i] > -1e9f && values[i] < 1e9f)) return false;
  return true;
}

Status give(const std::vector<facenet_face>& all, facenet_face* faces, std::size_t capacity, std::size_t* found) {
  *found = all.size();
  if (all.size() > capacity)
    return Status(Errc::invalid_argument,
                  "there is no room for all faces: facenet_detector_faces gives them without another search")
        .in("capacity");
  if (!all.empty()) std::memcpy(faces, all.data(), all.size() * sizeof(facenet_face));
  return {};
}

Status check_faces(const facenet_face* faces, std::size_t capacity, std::size_t* found) noexcept {
  if (found == nullptr) return null_argument("found");
  *found = 0;
  return faces == nullptr && capacity > 0 ? null_argument("faces") : Status();
}

/// `what` cuts from the engine's view of a picture.
template <class F>
facenet_code cut(const facenet_picture* picture, facenet_image** crop, facenet_error* error, F&& what) noexcept {
  return make_object<ImageObject>(crop, "crop", error, [&](ImageObject& object) -> Status {
    facenet::Image copy;
    facenet::ImageView view;
    FACENET_TRY(view_of(picture, "picture", copy, view));
    facenet::Result<facenet::Image> made = what(view);
    if (!made) return made.status();
    object.image = std::move(*made);
    return {};
  });
}

/// Calls run(first, count, output) for all pictures, in batches where somebody is told of them. There are pictures, and
/// room for their embeddings.
template <class F>
Status embed_all(EmbedderObject& self, std::size_t count, float* out, std::size_t out_size, F&& run) {
  if (self.progress == nullptr) return run(std::size_t{0}, count, facenet::Span<float>(out, out_size));
  const auto dim = static_cast<std::size_t>(self.embedder.dim()), batch = static_cast<std::size_t>(self.batch);
  for (std::size_t i = 0; i < count;) {
    const std::size_t n = std::min(batch, count - i);
    if (Status s = run(i, n, facenet::Span<float>(out + i * dim, n * dim)); !s.ok())
      return i == 0 ? s : s.in(("after " + std::to_string(i) + " pictures").c_str());
    i += n;
    if (self.progress(self.progress_user, i, count) == 0) return {Errc::cancelled, "the progress callback ended it"};
  }
  return {};
}

}  // namespace

}  // namespace facenet_c

using namespace facenet_c;

extern "C" {

facenet_code facenet_detector_load(const char* path, const facenet_detector_options* options,
                                   facenet_detector** detector, facenet_error* error) {
  return make_object<DetectorObject>(detector, "detector", error, [&](DetectorObject& object) {
    return path == nullptr ? null_argument("path") : object.load(path, nullptr, 0, options);
  });
}

facenet_code facenet_detector_load_memory(const void* bytes, size_t size, const facenet_detector_options* options,
                                          facenet_detector** detector, facenet_error* error) {
  return make_object<DetectorObject>(detector, "detector", error, [&](DetectorObject& object) {
    return bytes == nullptr ? null_argument("bytes") : object.load(nullptr, bytes, size, options);
  });
}

facenet_code facenet_detector_fork(facenet_detector* detector, const facenet_detector_options* options,
                                   facenet_detector** fork, facenet_error* error) {
  return make_object<DetectorObject>(fork, "fork", error, [&](DetectorObject& object) -> Status {
    Use<DetectorObject> from;
    FACENET_TRY(from.take(detector));
    return object.fork(*from, options);
  });
}

facenet_code facenet_detector_digest(facenet_detector* detector, char* out, size_t size, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    if (out == nullptr) return null_argument("out");
    Use<DetectorObject> use;
    FACENET_TRY(use.take(detector));
    if (size <= std::strlen(use->detector.digest()))
      return Status(Errc::invalid_argument, "the digest takes 17 bytes").in("size");
    copy_text(use->detector.digest(), out, size);
    return {};
  });
}

facenet_code facenet_detect(facenet_detector* detector, const facenet_picture* picture, facenet_face* faces,
                            size_t capacity, size_t* found, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    FACENET_TRY(check_faces(faces, capacity, found));
    Use<DetectorObject> use;
    FACENET_TRY(use.take(detector));
    facenet::Image copy;
    facenet::ImageView view;
    FACENET_TRY(view_of(picture, "picture", copy, view));
    use->faces.clear();  // whatever goes wrong from here on, those of another picture are not given for this one's
    facenet::Span<const facenet::Face> all;
    FACENET_TRY(use->detector.detect(view, all));
    std::vector<facenet_face> made;
    for (const facenet::Face& face : all) made.push_back(to_c(face));
    use->faces.swap(made);
    return give(use->faces, faces, capacity, found);
  });
}

facenet_code facenet_detector_faces(facenet_detector* detector, facenet_face* faces, size_t capacity, size_t* found,
                                    facenet_error* error) {
  return guarded(error, [&]() -> Status {
    FACENET_TRY(check_faces(faces, capacity, found));
    Use<DetectorObject> use;
    FACENET_TRY(use.take(detector));
    return give(use->faces, faces, capacity, found);
  });
}

facenet_code facenet_detector_free(facenet_detector* detector) { return free_handle(detector, Kind::detector); }

facenet_code facenet_embedder_load(const char* path, const facenet_embedder_options* options,
                                   facenet_embedder** embedder, facenet_error* error) {
  return make_object<EmbedderObject>(embedder, "embedder", error, [&](EmbedderObject& object) {
    return path == nullptr ? null_argument("path") : object.load(path, nullptr, 0, options);
  });
}

facenet_code facenet_embedder_load_memory(const void* bytes, size_t size, const facenet_embedder_options* options,
                                          facenet_embedder** embedder, facenet_error* error) {
  return make_object<EmbedderObject>(embedder, "embedder", error, [&](EmbedderObject& object) {
    return bytes == nullptr ? null_argument("bytes") : object.load(nullptr, bytes, size, options);
  });
}

facenet_code facenet_embedder_fork(facenet_embedder* embedder, const facenet_embedder_options* options,
                                   facenet_embedder** fork, facenet_error* error) {
  return make_object<EmbedderObject>(fork, "fork", error, [&](EmbedderObject& object) -> Status {
    Use<EmbedderObject> from;
    FACENET_TRY(from.take(embedder));
    return object.fork(*from, options);
  });
}

facenet_code facenet_embedder_info(facenet_embedder* embedder, facenet_model_info* info, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    FACENET_TRY(check_result(info, "info"));
    Use<EmbedderObject> use;
    FACENET_TRY(use.take(embedder));
    const facenet::ModelInfo& from = use->embedder.info();
    facenet_model_info made;
    std::memset(&made, 0, sizeof made);
    made.embedding_dim = from.embedding_dim;
    made.image_size = from.image_size;
    made.trained = from.trained;
    made.assumed = from.assumed;
    made.bgr = from.channel_order == facenet::ChannelOrder::bgr;
    made.margin = from.margin;
    made.threshold = from.threshold;
    copy_text(from.architecture, made.architecture);
    copy_text(from.digest, made.digest);
    copy_text(facenet::name(from.normalise), made.normalise);
    copy_text(facenet::name(from.scaling), made.scaling);
    copy_text(facenet::name(from.crop), made.crop);
    copy_text(from.threshold_source, made.threshold_source);
    copy_text(from.dataset, made.dataset);
    copy_text(from.source, made.source);
    copy_text(from.licence, made.licence);
    write_result(made, info);
    return {};
  });
}

facenet_code facenet_embed(facenet_embedder* embedder, const facenet_picture* faces, size_t count, float* out,
                           size_t out_size, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    Use<EmbedderObject> use;
    FACENET_TRY(use.take(embedder));
    if (faces == nullptr) return null_argument("faces");
    if (out == nullptr) return null_argument("out");
    const std::size_t dim = static_cast<std::size_t>(use->embedder.dim());
    if (count == 0) return Status(Errc::invalid_argument, "there must be at least one picture").in("count");
    if (out_size / dim < count)
      return Status(Errc::invalid_argument, "the output is too small: each picture takes embedding_dim floats")
          .in("out_size");
    std::vector<facenet::ImageView> views(count);
    std::vector<facenet::Image> copies;
    for (std::size_t i = 0; i < count; ++i) {
      facenet::Image copy;
      if (Status s = view_of(&faces[i], "faces", copy, views[i]); !s.ok())
        return count == 1 ? s : s.in(("picture " + std::to_string(i + 1) + " of " + std::to_string(count)).c_str());
      if (copy.width() > 0) copies.push_back(std::move(copy));
    }
    return embed_all(*use, count, out, out_size, [&](std::size_t first, std::size_t n, facenet::Span<float> to) {
      return use->embedder.embed(facenet::Span<const facenet::ImageView>(views.data() + first, n), to);
    });
  });
}

facenet_code facenet_embed_nhwc(facenet_embedder* embedder, const float* pixels, size_t pixels_size, float* out,
                                size_t out_size, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    Use<EmbedderObject> use;
    FACENET_TRY(use.take(embedder));
    if (pixels == nullptr) return null_argument("pixels");
    if (out == nullptr) return null_argument("out");
    const auto side = static_cast<std::size_t>(use->embedder.info().image_size), each = side * side * 3;
    const std::size_t count = pixels_size / each;
    if (count == 0 || pixels_size % each != 0 || out_size / static_cast<std::size_t>(use->embedder.dim()) < count)
      return use->embedder.embed_nhwc({pixels, pixels_size}, {out, out_size});  // says what is wrong
    return embed_all(*use, count, out, out_size, [&](std::size_t first, std::size_t n, facenet::Span<float> to) {
      return use->embedder.embed_nhwc({pixels + first * each, n * each}, to);
    });
  });
}

facenet_code facenet_embedder_free(facenet_embedder* embedder) { return free_handle(embedder, Kind::embedder); }

facenet_code facenet_crop_face(facenet_embedder* embedder, const facenet_picture* picture, const facenet_face* face,
                               facenet_image** crop, facenet_error* error) {
  return cut(picture, crop, error, [&](facenet::ImageView view) -> facenet::Result<facenet::Image> {
    if (face == nullptr) return null_argument("face");
    if (!finite(face->box, 4) || !finite(face->landmarks[0], 10))
      return Status(Errc::invalid_argument, "the face holds what is no place in a picture").in("face");
    Use<EmbedderObject> use;
    if (const Status s = use.take(embedder); !s.ok()) return s;
    return facenet::crop_face(view, from_c(*face), use->embedder.info());
  });
}

facenet_code facenet_crop_box(const facenet_picture* picture, const float box[4], int32_t size, int32_t margin,
                              facenet_image** crop, facenet_error* error) {
  return cut(picture, crop, error, [&](facenet::ImageView view) -> facenet::Result<facenet::Image> {
    if (box == nullptr) return null_argument("box");
    if (!finite(box, 4)) return Status(Errc::invalid_argument, "the box is no place in a picture").in("box");
    return facenet::extract_face(view, {box[0], box[1], box[2], box[3]}, size, margin);
  });
}

facenet_code facenet_align(const facenet_picture* picture, const float landmarks[10], int32_t size,
                           facenet_image** crop, facenet_error* error) {
  return cut(picture, crop, error, [&](facenet::ImageView view) -> facenet::Result<facenet::Image> {
    if (landmarks == nullptr) return null_argument("landmarks");
    if (size < 1 || size > FACENET_MAX_SIDE)
      return Status(Errc::invalid_argument, "a crop has 1 to 16384 pixels a side").in("size");
    facenet::Point points[5];
    for (int i = 0; i < 5; ++i) points[i] = {landmarks[2 * i], landmarks[2 * i + 1]};
    return facenet::align_face(view, points, size);
  });
}

}  // extern "C"
