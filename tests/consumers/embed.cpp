// The usual consumer: weights from a file, or with CONSUMER_WEIGHTS from the program itself. One thread, so that times
// can be compared. The macros that choose are only this test's.
#include "consumer.h"

#if defined(CONSUMER_MACROS)
// What windows.h and its relatives leave behind. After the standard headers, some of which would take min and max away.
#  include <algorithm>
#  include <atomic>
#  include <cfloat>
#  include <cmath>
#  include <cstddef>
#  include <cstdint>
#  include <cstdio>
#  include <cstdlib>
#  include <cstring>
#  include <functional>
#  include <new>
#  include <stdexcept>
#  include <utility>
#  define min(a, b) (((a) < (b)) ? (a) : (b))
#  define max(a, b) (((a) > (b)) ? (a) : (b))
#  define near
#  define far
#  define small char
#  define interface struct
#  define ERROR 0
#  define OPTIONAL
#  define IN
#  define OUT
#  define CONST const
#  define VOID void
#  define TRUE 1
#  define FALSE 0
#  define DELETE 0x10000
#  define STRICT 1
#  define Yield()
#endif

#include CONSUMER_HEADER

#include "faces.hpp"

#if defined(CONSUMER_WEIGHTS)
extern "C" const unsigned char facenet_weights[];
extern "C" const unsigned long long facenet_weights_size;
#endif

namespace {

facenet::Embedder embedder;
char text[512];

const char* text_of(const facenet::Status& status) { return status ? nullptr : status.print(text, sizeof text); }

}  // namespace

extern "C" const char* consumer_open(const char* path) {
  facenet::EmbedderOptions options;
  options.threads = 1;
#if defined(CONSUMER_INT8)
  options.int8_weights = true;
#endif
#if defined(CONSUMER_WEIGHTS)
  (void)path;
  auto made = facenet::Embedder::load({facenet_weights, static_cast<std::size_t>(facenet_weights_size)}, options);
#else
  auto made = facenet::Embedder::load(path, options);
#endif
  if (!made) return text_of(made.status());
  embedder = static_cast<facenet::Embedder&&>(*made);
  return nullptr;
}
extern "C" const char* consumer_embed(const unsigned char* rgb, float* out) {
  return text_of(
      embedder.embed(facenet::ImageView(rgb, 160, 160, 480, facenet::ChannelOrder::rgb), {out, embedder.dim()}));
}
extern "C" const char* consumer_faces(const unsigned char* weights, unsigned long long size, const unsigned char* rgb,
                                      int width, int height, const float* embedding, int* count) {
#if defined(CONSUMER_FACES)
  return look_for_faces(weights, size, rgb, width, height, embedding, embedder.dim(), nullptr, count);
#else
  (void)weights, (void)size, (void)rgb, (void)width, (void)height, (void)embedding, (void)count;
  return "this consumer was compiled without CONSUMER_FACES";
#endif
}
extern "C" int consumer_dim() { return embedder.dim(); }
extern "C" const char* consumer_close() {
  embedder = facenet::Embedder();
  return facenet::isa_name;
}
