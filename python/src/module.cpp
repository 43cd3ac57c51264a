// facenet._engine: the engine as the package's Python sees it. The classes that users hold are in python/facenet/.
#include "arrays.hpp"
#include "facenet/distance.hpp"
#include "facenet/image_io.hpp"
#include "interrupt.hpp"
#include "parts.hpp"
#include "pool.hpp"

#include <new>
#include <stdexcept>

namespace python {

namespace {

namespace dispatch = facenet::dispatch;

constexpr const char* closed = "this object is closed: make another.";

int threads_of(std::optional<int> threads) {
  if (!threads) return facenet::default_threads();
  if (*threads < 1 || *threads > facenet::max_threads)
    raise("invalid_argument",
          "threads: " + std::to_string(*threads) + " is not 1 to " + std::to_string(facenet::max_threads) + ".");
  return *threads;
}

/// How many callers can have `threads` each before all CPUs are busy.
int callers(int threads) {
  const int cpus = facenet::default_threads();
  return cpus <= threads ? 1 : (cpus + threads - 1) / threads;
}

// ---- embedding ------------------------------------------------------------------------------------------------------

class Embedder {
  using Forks = Pool<dispatch::Embedder>;

 public:
  Embedder(const nb::bytes& path, const std::string& arithmetic, std::optional<int> threads, int batch) {
    facenet::EmbedderOptions options;
    options.threads = threads_ = threads_of(threads);
    options.batch = batch_ = batch;
    if (arithmetic == "int8")
      options.arithmetic = facenet::Arithmetic::int8;
    else if (arithmetic != "float")
      raise("invalid_argument", "arithmetic: \"" + arithmetic + "\" is not known: give \"float\" or \"int8\".");
    auto first = std::make_unique<Fork<dispatch::Embedder>>();
    options.cancel = &first->cancel;
    first->engine = unlocked([&] { return dispatch::Embedder::load(path.c_str(), options); });
    info_ = first->engine.info();
    dim_ = first->engine.dim();
    const int threads_each = threads_, batch_each = batch_;
    forks_ = std::make_shared<Forks>(std::move(first), callers(threads_),
                                     [=](const Fork<dispatch::Embedder>& one, Fork<dispatch::Embedder>& another) {
                                       auto made = one.engine.fork(threads_each, batch_each);
                                       if (!made) return made.status();
                                       another.engine = std::move(*made);
                                       another.engine.cancel_when(&another.cancel);
                                       return Status();
                                     });
  }

  Array<float> embed(nb::handle images, const std::string& channels) const {
    const ChannelOrder order = channel_order(channels);
    const auto forks = open();
    Pictures pictures;
    bool one = false;
    if (nb::isinstance<nb::list>(images))
      for (nb::handle image : images) pictures.add(image, order);
    else
      one = pictures.add(images, order) == 3;
    const std::size_t n = pictures.views().size(), dim = static_cast<std::size_t>(dim_);
    std::unique_ptr<float[]> out(new float[n * dim]);
    if (n != 0) forks->run([&](dispatch::Embedder& e) { return e.embed(pictures.span(), {out.get(), n * dim}); });
    if (one) return owned<float>(std::move(out), {dim});
    return owned<float>(std::move(out), {n, dim});
  }

  Array<float> embed_nhwc(nb::handle array) const {
    const auto forks = open();
    const View view(array);
    const Py_buffer& b = *view;
    const Py_ssize_t side = info_.image_size;
    if (!is_float(b) || b.ndim != 4 || b.shape[1] != side || b.shape[2] != side || b.shape[3] != 3)
      raise("invalid_argument", "embed_nhwc() takes float32 [n, " + std::to_string(side) + ", " + std::to_string(side) +
                                    ", 3], not " + description(b) + ".");
    if (PyBuffer_IsContiguous(&b, 'C') == 0)
      raise("invalid_argument", "the array has gaps or is transposed: give numpy.ascontiguousarray() of it.");
    const std::size_t n = static_cast<std::size_t>(b.shape[0]), dim = static_cast<std::size_t>(dim_);
    std::unique_ptr<float[]> out(new float[n * dim]);
    const std::size_t floats = n * static_cast<std::size_t>(side * side * 3);
    if (n != 0)
      forks->run([&](dispatch::Embedder& e) {
        return e.embed_nhwc({static_cast<const float*>(b.buf), floats}, {out.get(), n * dim});
      });
    return owned<float>(std::move(out), {n, dim});
  }

  Array<std::uint8_t> crop(nb::handle picture, Box box, std::optional<Landmarks> landmarks, std::optional<int> size,
                           std::optional<double> margin, const std::string& channels) const {
    (void)open();
    return crop_of(picture, box, landmarks, size, margin, channels, info_);
  }

  void close() { forks_.reset(); }
  bool is_closed() const { return forks_ == nullptr; }
  int dim() const { return dim_; }
  int batch() const { return batch_; }
  int threads() const { return threads_; }
  nb::dict info() const {
    namespace words = facenet::detail;
    nb::dict d = described(info_, words::normalise_words[static_cast<int>(info_.normalise)],
                           words::crop_words[static_cast<int>(info_.crop)]);
    d["threshold"] = info_.threshold;
    d["threshold_source"] = info_.threshold_source;
    d["dataset"] = info_.dataset;
    d["source"] = info_.source;
    d["licence"] = info_.licence;
    d["assumed"] = info_.assumed;
    d["channel_order"] = words::channel_order_words[static_cast<int>(info_.channel_order)];
    d["scaling"] = words::scaling_words[static_cast<int>(info_.scaling)];
    return d;
  }

 private:
  std::shared_ptr<Forks> open() const {
    if (!forks_) raise("invalid_argument", closed);
    return forks_;
  }

  std::shared_ptr<Forks> forks_;
  facenet::ModelInfo info_{};
  int threads_ = 0, batch_ = 0, dim_ = 0;
};

// ---- faces ----------------------------------------------------------------------------------------------------------

facenet::Selection selection_of(const std::string& word) {
  static constexpr struct {
    const char* word;
    facenet::Selection selection;
  } words[] = {{"largest", facenet::Selection::largest},
               {"probability", facenet::Selection::probability},
               {"largest_over_threshold", facenet::Selection::largest_over_threshold},
               {"centre_weighted", facenet::Selection::centre_weighted}};
  for (const auto& w : words)
    if (word == w.word) return w.selection;
  raise("invalid_argument", "selection: \"" + word +
                                "\" is not known: give \"largest\", \"probability\", \"largest_over_threshold\" or "
                                "\"centre_weighted\".");
}

class Detector {
  using Forks = Pool<dispatch::Detector>;

 public:
  Detector(const nb::bytes& path, int min_face, std::tuple<float, float, float> thresholds, double factor,
           std::optional<int> threads, int max_faces, const std::string& selection) {
    facenet::DetectorOptions options;
    options.min_face = min_face;
    std::tie(options.thresholds[0], options.thresholds[1], options.thresholds[2]) = thresholds;
    options.factor = factor;
    options.max_faces = max_faces;
    options.selection = selection_of(selection);
    options.threads = threads_ = threads_of(threads);
    auto first = std::make_unique<Fork<dispatch::Detector>>();
    options.cancel = &first->cancel;
    first->engine = unlocked([&] { return dispatch::Detector::load(path.c_str(), options); });
    digest_ = first->engine.digest();
    forks_ = std::make_shared<Forks>(std::move(first), callers(threads_),
                                     [options](const Fork<dispatch::Detector>& one, Fork<dispatch::Detector>& another) {
                                       facenet::DetectorOptions its = options;
                                       its.cancel = &another.cancel;
                                       auto made = one.engine.fork(its);
                                       if (!made) return made.status();
                                       another.engine = std::move(*made);
                                       return Status();
                                     });
  }

  /// [(box, score, landmarks [5, 2])]
  nb::list detect(nb::handle image, const std::string& channels) const {
    if (!forks_) raise("invalid_argument", closed);
    const auto forks = forks_;
    Pictures pictures;
    if (pictures.add(image, channel_order(channels)) != 3)
      raise("invalid_argument", "detect() takes one picture, uint8 [height, width, 3]: call it for each.");
    std::vector<facenet::Face> found;
    forks->run([&](dispatch::Detector& d) {
      Span<const facenet::Face> faces;
      Status status = d.detect(pictures.views()[0], faces);
      found.assign(faces.begin(), faces.end());
      return status;
    });
    nb::list out;
    for (const facenet::Face& f : found) {
      std::unique_ptr<float[]> points(new float[10]);
      for (int i = 0; i < 5; ++i) points[2 * i] = f.landmarks[i].x, points[2 * i + 1] = f.landmarks[i].y;
      out.append(nb::make_tuple(nb::make_tuple(f.box.x0, f.box.y0, f.box.x1, f.box.y1), f.score,
                                owned<float>(std::move(points), {5, 2})));
    }
    return out;
  }

  void close() { forks_.reset(); }
  bool is_closed() const { return forks_ == nullptr; }
  int threads() const { return threads_; }
  const std::string& digest() const { return digest_; }

 private:
  std::shared_ptr<Forks> forks_;
  std::string digest_;
  int threads_ = 0;
};

// ---- pictures -------------------------------------------------------------------------------------------------------

Array<std::uint8_t> read_image(const nb::bytes& path) {
  return array_of(unlocked([&] { return facenet::read_image(path.c_str()); }));
}

Array<std::uint8_t> decode_image(nb::handle file) {
  const View view(file);
  if (PyBuffer_IsContiguous(&*view, 'C') == 0)
    raise("invalid_argument", "the picture's bytes have gaps: give bytes or a contiguous buffer.");
  const Span<const std::uint8_t> bytes(static_cast<const std::uint8_t*>(view->buf),
                                       static_cast<std::size_t>(view->len));
  return array_of(unlocked([&] { return facenet::decode_image(bytes); }));
}

template <class F>
double compare(nb::handle a, nb::handle b, F&& f) {
  const Rows x = rows_of(a, "a"), y = rows_of(b, "b");
  if (x.rows != 1 || y.rows != 1 || x.dim != y.dim || x.dim == 0)
    raise("invalid_argument", "two embeddings of one length can be compared: these have " +
                                  std::to_string(x.rows * x.dim) + " and " + std::to_string(y.rows * y.dim) +
                                  " numbers.");
  check(facenet::detail::check_embeddings(x.floats(), static_cast<int>(x.dim)));
  check(facenet::detail::check_embeddings(y.floats(), static_cast<int>(y.dim)));
  return f(x.floats(), y.floats());
}

}  // namespace

Array<std::uint8_t> crop_of(nb::handle array, Box box, std::optional<Landmarks> landmarks, std::optional<int> size,
                            std::optional<double> margin, const std::string& channels,
                            const facenet::ModelInfo& model) {
  Pictures pictures;
  if (pictures.add(array, channel_order(channels)) != 3)
    raise("invalid_argument", "align() takes one picture, uint8 [height, width, 3]: call it for each.");
  facenet::ModelInfo wanted = model;
  if (size) wanted.image_size = *size;
  if (margin) wanted.margin = *margin;
  if (wanted.image_size < 1 || wanted.image_size > facenet::max_image_side)
    raise("invalid_argument", "size: " + std::to_string(wanted.image_size) + " is not 1 to " +
                                  std::to_string(facenet::max_image_side) + " pixels.");
  if (!(wanted.margin >= 0 && wanted.margin < wanted.image_size))
    raise("invalid_argument", "margin: it must be 0 or above and below the size.");
  facenet::Face face;
  std::tie(face.box.x0, face.box.y0, face.box.x1, face.box.y1) = box;
  if (landmarks) {
    for (std::size_t i = 0; i < 5; ++i) face.landmarks[i] = {(*landmarks)[2 * i], (*landmarks)[2 * i + 1]};
  } else if (wanted.crop == facenet::Crop::five_point) {
    raise("invalid_argument", "this embedder's crop follows the five landmarks: give a Face, not only its box.");
  }
  return array_of(unlocked([&] { return facenet::crop_face(pictures.views()[0], face, wanted); }));
}

}  // namespace python

NB_MODULE(_engine, m) {
  using namespace python;
  if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0)
    throw nb::import_error("facenet: sub-interpreters are not supported: import it in the main interpreter.");
  watch_forks();
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::bad_alloc&) {
      set_error("out_of_memory", "there is not enough memory for this: give less at a time.");
    } catch (const std::length_error&) {
      set_error("out_of_memory", "there is not enough memory for this: give less at a time.");
    }
  });
  nb::set_leak_warnings(false);  // a daemon thread that is in a call when the interpreter ends keeps what it holds

  nb::class_<Embedder>(m, "Embedder")
      .def(nb::init<const nb::bytes&, const std::string&, std::optional<int>, int>())
      .def("embed", &Embedder::embed, nb::arg("images").none(), nb::arg("channels"))
      .def("embed_nhwc", &Embedder::embed_nhwc, nb::arg("pixels").none())
      .def("crop", &Embedder::crop, nb::arg("picture").none(), nb::arg("box"), nb::arg("landmarks").none(),
           nb::arg("size").none(), nb::arg("margin").none(), nb::arg("channels"))
      .def("close", &Embedder::close)
      .def_prop_ro("closed", &Embedder::is_closed)
      .def_prop_ro("dim", &Embedder::dim)
      .def_prop_ro("batch", &Embedder::batch)
      .def_prop_ro("threads", &Embedder::threads)
      .def_prop_ro("info", &Embedder::info);
  nb::class_<Detector>(m, "Detector")
      .def(nb::init<const nb::bytes&, int, std::tuple<float, float, float>, double, std::optional<int>, int,
                    const std::string&>())
      .def("detect", &Detector::detect, nb::arg("image").none(), nb::arg("channels"))
      .def("close", &Detector::close)
      .def_prop_ro("closed", &Detector::is_closed)
      .def_prop_ro("threads", &Detector::threads)
      .def_prop_ro("digest", &Detector::digest);
  m.def("read_image", &read_image);
  m.def("decode_image", &decode_image, nb::arg("file").none());
  m.def(
      "crop",
      [](nb::handle picture, Box box, std::optional<int> size, std::optional<double> margin,
         const std::string& channels) {
        facenet::ModelInfo usual{};
        usual.image_size = 160;
        return crop_of(picture, box, std::nullopt, size, margin, channels, usual);
      },
      nb::arg("picture").none(), nb::arg("box"), nb::arg("size").none(), nb::arg("margin").none(), nb::arg("channels"));
  m.def(
      "distance",
      [](nb::handle a, nb::handle b) {
        return compare(a, b, [](Span<const float> x, Span<const float> y) { return facenet::distance(x, y); });
      },
      nb::arg("a").none(), nb::arg("b").none());
  m.def(
      "similarity",
      [](nb::handle a, nb::handle b) {
        return compare(a, b, [](Span<const float> x, Span<const float> y) { return facenet::similarity(x, y); });
      },
      nb::arg("a").none(), nb::arg("b").none());
  define_recognition(m);
#if defined(FACENET_PYTHON_GALLERIES)
  define_gallery(m);
#endif
  m.def("check_channels", [](std::string_view word) { (void)channel_order(word); });
  m.def("isa", [] { return std::string(value(dispatch::isa())); });
  m.def("keep_threads_away", &keep_threads_away);
  m.attr("version") = facenet::version;
}
