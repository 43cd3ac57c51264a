// The engine as a WebAssembly module: a C interface of plain numbers and pointers for the package's JavaScript.
// One module holds one embedder, one detector and one picture; an instance is thrown away to free them.
#include <cstdlib>
#include <new>

#if defined(__wasi__)
#  include "heap.hpp"
#else
namespace heap {  // Emscripten's own is as small

inline void* allocate(std::size_t bytes) noexcept { return std::malloc(bytes); }
inline void* resize(void* memory, std::size_t bytes) noexcept { return std::realloc(memory, bytes); }
inline void release(void* memory) noexcept { std::free(memory); }

}  // namespace heap
#endif
#if defined(FACENET_PARALLEL_HOST)
#  include <atomic>

// The heap knows of no threads, and each thread of the detector has lists that grow.
static std::atomic_flag allocating = ATOMIC_FLAG_INIT;
struct Turn {
  Turn() noexcept {
    while (allocating.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Turn() { allocating.clear(std::memory_order_release); }
};
#else
struct Turn {};
#endif
static void* allocate_in_turn(std::size_t bytes) noexcept {
  [[maybe_unused]] const Turn turn;
  return heap::allocate(bytes);
}
static void release_in_turn(void* memory) noexcept {
  [[maybe_unused]] const Turn turn;
  heap::release(memory);
}
#define FACENET_MALLOC(bytes) allocate_in_turn(bytes)
#define FACENET_FREE(pointer) release_in_turn(pointer)

// Kernels and the picture's pyramid are compiled as the target says; all else, which runs once a step, a picture or a
// file, for size. (Clang makes no vectors of loops that are compiled for size.)
#if defined(__clang__)
#  define FOR_SIZE _Pragma("clang attribute push(__attribute__((minsize)), apply_to = function)")
#  define AS_SAID _Pragma("clang attribute pop")
#else
#  define FOR_SIZE
#  define AS_SAID
#endif
FOR_SIZE
#include "facenet/base/owned.hpp"
#include "facenet/base/parallel.hpp"
#include "facenet/base/preprocessing.hpp"
#include "facenet/base/rounding.hpp"
#include "facenet/base/simd.hpp"
#include "facenet/base/tensor.hpp"
AS_SAID
#include "facenet/image.hpp"
FOR_SIZE
#include "facenet/detector/boxes.hpp"
AS_SAID
#include "facenet/detector/area_resize.hpp"
#include "facenet/detector/small_levels.hpp"
#include "facenet/kernels/integer_conv.hpp"
#include "facenet/kernels/score.hpp"
#include "facenet/kernels/stem.hpp"
#include "facenet/kernels/winograd.hpp"
FOR_SIZE
#include "facenet/align.hpp"
#include "facenet/detector.hpp"
#include "facenet/image/scan.hpp"

#define FACENET_EXPORT(name) extern "C" __attribute__((export_name(#name), visibility("default")))

namespace {

using facenet::Errc, facenet::Status;

// One Face as it crosses the border: box, score, five landmarks.
constexpr int face_floats = 4 + 1 + 10;
static_assert(sizeof(facenet::Face) == face_floats * sizeof(float), "faces are copied as floats");

struct Module {
  facenet::Embedder embedder;
  facenet::Detector detector;
  facenet::Faces faces;
  std::uint8_t* bytes = nullptr;  // the weight file while it arrives, later the picture
  std::size_t capacity = 0;
  int width = 0, height = 0;
  bool has_detector = false;
  float face[face_floats];
  facenet::Buffer<float> embedding;  // on the heap: zeros of static memory would lie in the module
  char text[512] = "";
  Errc code = Errc::ok;
};

/// Never destroyed, and made without a guard, whose failure would bring printf along.
Module& module() noexcept {
  alignas(Module) static unsigned char room[sizeof(Module)];
  static Module* m = nullptr;
  if (m == nullptr) m = ::new (room) Module;
  return *m;
}

/// Keeps the sentence for facenet_text(); 0 for ok, -1 for an error.
int keep(const Status& status) noexcept {
  Module& m = module();
  m.code = status.code();
  status.print(m.text, sizeof m.text);
  return status.ok() ? 0 : -1;
}

/// Whether `number` is an int, and that int.
bool is_int(double number, int& out) noexcept {
  if (!(number >= -2147483648.0 && number <= 2147483647.0)) return false;
  out = static_cast<int>(number);
  return static_cast<double>(out) == number;
}

facenet::ImageView picture() noexcept {
  const Module& m = module();
  return {m.bytes, m.width, m.height, std::ptrdiff_t{3} * m.width, facenet::ChannelOrder::rgb};
}

Status load(std::size_t bytes, int threads, facenet::Arithmetic arithmetic, const char* sha256) noexcept {
  Module& m = module();
  facenet::ReadOptions read;
  read.expected_sha256 = *sha256 != 0 ? sha256 : nullptr;
  auto reader = facenet::WeightsReader::from_memory({m.bytes, bytes}, read);
  if (!reader) return reader.status();

  // Memory that grows in a hundred steps takes 80 ms: once is enough for 4.4 bytes a weight (1.1 in integers),
  // activations and detector.
  std::int64_t weights = 0;
  for (int i = 0; i < reader->size(); ++i) weights += facenet::elements(reader->tensor(i));
  const std::size_t eighths = arithmetic == facenet::Arithmetic::int8 ? 9 : 36;
  heap::release(heap::allocate(static_cast<std::size_t>(weights) * eighths / 8 + (std::size_t{12} << 20)));

  facenet::EmbedderOptions options;
  options.threads = threads;
  options.arithmetic = arithmetic;
  auto embedder = facenet::Embedder::load(*reader, options);
  if (!embedder) return embedder.status();
  m.embedder = std::move(*embedder);
  auto embedding = facenet::Buffer<float>::make(static_cast<std::size_t>(m.embedder.dim()));
  if (!embedding) return embedding.status();
  m.embedding = std::move(*embedding);

  if (!reader->holds("mtcnn.")) return {};
  facenet::DetectorOptions detector_options;
  detector_options.threads = threads;
  auto detector = facenet::Detector::load(*reader, detector_options);
  if (!detector) return detector.status();
  m.detector = std::move(*detector);
  m.has_detector = true;
  return {};
}

Status embed(bool whole) noexcept {
  Module& m = module();
  if (m.width == 0) return {Errc::invalid_argument, "there is no picture"};
  if (whole) return m.embedder.embed(picture(), m.embedding);
  facenet::Face found;
  std::memcpy(static_cast<void*>(&found), m.face, sizeof found);
  auto crop = facenet::crop_face(picture(), found, m.embedder.info());
  if (!crop) return crop.status();
  return m.embedder.embed(*crop, m.embedding);
}

}  // namespace

#if defined(FACENET_PARALLEL_HOST)
/// Says how many threads there are, the caller included: before all else.
FACENET_EXPORT(facenet_threads) void facenet_threads(int threads) { facenet::HostThreads::get().expect(threads); }
/// The end of a stack for another thread, which grows downwards; null when there is no memory.
FACENET_EXPORT(facenet_stack) void* facenet_stack() {
  constexpr std::size_t bytes = 256 << 10;  // a convolution's chunk takes 3 KB, the most of all
  void* memory = facenet::detail::allocate(bytes);
  return memory == nullptr ? nullptr : static_cast<char*>(memory) + bytes;
}
/// What that thread does until facenet_stop(), after which there are no threads any more. Members are numbered from 1.
FACENET_EXPORT(facenet_serve) void facenet_serve(int member) { facenet::HostThreads::get().serve(member); }
FACENET_EXPORT(facenet_stop) void facenet_stop() { facenet::HostThreads::get().stop(); }
#endif

/// `bytes` of memory for a weight file; what it held stays, as far as it fits. Null when there is no memory.
FACENET_EXPORT(facenet_reserve) void* facenet_reserve(std::size_t bytes) {
  Module& m = module();
  if (bytes <= m.capacity) return m.bytes;
  void* grown = heap::resize(m.bytes, bytes);
  if (grown == nullptr) {
    keep({Errc::out_of_memory, "there is not enough memory"});
    return nullptr;
  }
  m.bytes = static_cast<std::uint8_t*>(grown);
  m.capacity = bytes;
  return grown;
}

/// Frees the memory of facenet_reserve().
FACENET_EXPORT(facenet_release) void facenet_release() {
  Module& m = module();
  heap::release(m.bytes);
  m.bytes = nullptr;
  m.capacity = 0;
  m.width = m.height = 0;
}

/// Loads the weight file in the first `bytes` of facenet_reserve()'s memory, whose SHA-256 must be that in
/// facenet_text() unless that is "". `integers`: int8 arithmetic, for modules that have it. 0, or -1 with the sentence
/// in facenet_text().
FACENET_EXPORT(facenet_load) int facenet_load(std::size_t bytes, int threads, int integers) {
  if (bytes == 0 || bytes > module().capacity)
    return keep({Errc::invalid_argument, "the weights do not fit the memory that was reserved for them"});
  char sha256[80];
  std::memcpy(sha256, module().text, sizeof sha256);
  sha256[sizeof sha256 - 1] = 0;
  return keep(load(bytes, threads, integers != 0 ? facenet::Arithmetic::int8 : facenet::Arithmetic::floats, sha256));
}

/// Memory for width x height RGBA pixels, to be followed by facenet_opaque(). Null with the sentence in facenet_text().
/// The sizes are JavaScript's numbers: as ints 2^32 + 5 would come as 5, 1.5 as 1 and NaN as 0.
FACENET_EXPORT(facenet_picture) void* facenet_picture(double wide, double high) {
  Module& m = module();
  m.width = m.height = 0;
  int width = 0, height = 0;
  if (!is_int(wide, width) || !is_int(high, height)) {
    keep({Errc::invalid_argument, "a picture's width and height must be whole numbers"});
    return nullptr;
  }
  if (keep(facenet::detail::check_size(width, height)) != 0) return nullptr;
  const std::int64_t pixels = std::int64_t{width} * height;
  if (pixels > facenet::max_image_pixels) {
    keep({Errc::limit_exceeded, "a picture may have at most 33,554,432 pixels: make it smaller"});
    return nullptr;
  }
  void* memory = facenet_reserve(static_cast<std::size_t>(pixels) * 4);
  if (memory != nullptr) {
    m.width = width;
    m.height = height;
  }
  return memory;
}

/// Puts the pixels over white, as facenet::decode_image does, and keeps three bytes of each, in place.
FACENET_EXPORT(facenet_opaque) void facenet_opaque() {
  const Module& m = module();
  if (m.width == 0) return;
  const std::uint8_t* from = m.bytes;
  std::uint8_t* to = m.bytes;
  for (std::int64_t i = std::int64_t{m.width} * m.height; i > 0; --i, from += 4, to += 3) {
    const int alpha = from[3];
    for (int c = 0; c < 3; ++c)
      to[c] = alpha == 255 ? from[c] : static_cast<std::uint8_t>((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
}

/// Faces of the picture, -1 with the sentence in facenet_text().
FACENET_EXPORT(facenet_detect) int facenet_detect(int min_face, int max_faces) {
  Module& m = module();
  if (!m.has_detector)
    return keep({Errc::not_found, "the weight file holds no detector: make it with convert_weights.py --with-mtcnn"});
  facenet::DetectorOptions options = m.detector.options();
  options.min_face = min_face;
  options.max_faces = max_faces;
  Status status = m.detector.set_options(options);
  if (status.ok()) status = m.detector.detect(picture(), m.faces);
  return keep(status) == 0 ? m.faces.size() : -1;
}
/// The 15 floats of face `index` of the last facenet_detect(); with -1 those that facenet_embed() cuts out. Null where
/// there is no such face.
FACENET_EXPORT(facenet_face) float* facenet_face(int index) {
  Module& m = module();
  if (index >= m.faces.size()) return nullptr;
  if (index >= 0) std::memcpy(m.face, &m.faces[index], sizeof m.face);
  return m.face;
}

/// Embeds the face whose floats are in facenet_face(-1), or the `whole` picture as one crop. The embedding, or null
/// with the sentence in facenet_text().
FACENET_EXPORT(facenet_embed) float* facenet_embed(int whole) {
  return keep(embed(whole != 0)) == 0 ? module().embedding.data() : nullptr;
}

/// 512 bytes: the last sentence, and where an argument that is text is put.
FACENET_EXPORT(facenet_text) char* facenet_text() { return module().text; }
/// The Errc of that sentence.
FACENET_EXPORT(facenet_code) int facenet_code() { return static_cast<int>(module().code); }

/// What the package's `info` shows, in the order in which it asks.
FACENET_EXPORT(facenet_number) double facenet_number(int which) {
  const Module& m = module();
  const facenet::ModelInfo& i = m.embedder.info();
  const double numbers[] = {static_cast<double>(i.embedding_dim),
                            static_cast<double>(i.image_size),
                            i.trained ? 1.0 : 0.0,
                            i.threshold,
                            m.has_detector ? 1.0 : 0.0,
                            static_cast<double>(m.embedder.plan().weight_bytes())};
  return which >= 0 && which < static_cast<int>(sizeof numbers / sizeof *numbers) ? numbers[which] : 0;
}
FACENET_EXPORT(facenet_word) const char* facenet_word(int which) {
  const facenet::ModelInfo& i = module().embedder.info();
  const char* words[] = {i.architecture,        i.dataset, i.source, i.licence, i.digest, facenet::isa_name,
                         facenet::parallel_name};
  return which >= 0 && which < static_cast<int>(sizeof words / sizeof *words) ? words[which] : "";
}

AS_SAID
