// A fixed piece of memory and the weights inside the program: required_bytes() first, then no malloc, to the last byte.
#include "consumer.h"

#include "facenet/facenet.hpp"

#include "faces.hpp"

extern "C" const unsigned char facenet_weights[];
extern "C" const unsigned long long facenet_weights_size;
extern "C" long allocations;  // count_malloc.c

namespace {

alignas(64) unsigned char memory[16 << 20];  // in a real program as much as required_bytes() has said on the desk
facenet::Arena arena(memory, sizeof memory);
alignas(facenet::Arena) unsigned char exact_place[sizeof(facenet::Arena)];
facenet::Arena* exact;
facenet::Embedder embedder;
char text[512];
long seen = 0;

/// What is allocated while one lives: main() has vectors of its own.
struct Watch {
  long before = allocations;
  ~Watch() { seen += allocations - before; }
};

const char* text_of(const facenet::Status& status) { return status ? nullptr : status.print(text, sizeof text); }
facenet::EmbedderOptions options_for(facenet::Arena* where) {
  facenet::EmbedderOptions options;
  options.int8_weights = true;
  options.arena = where;
  return options;
}

}  // namespace

extern "C" const char* consumer_open(const char*) {
  const Watch watch;
  const facenet::Span<const std::uint8_t> file(facenet_weights, static_cast<std::size_t>(facenet_weights_size));
  const auto need = facenet::Embedder::required_bytes(file, options_for(&arena));
  if (!need) return text_of(need.status());
  {
    facenet::Arena less(memory, *need - 1);
    const auto refused = facenet::Embedder::load(file, options_for(&less));
    if (refused.ok()) return "required_bytes() asks for more than is needed";
    if (refused.status().code() != facenet::Errc::out_of_memory) return text_of(refused.status());
  }
  exact = ::new (exact_place) facenet::Arena(memory, *need);
  auto made = facenet::Embedder::load(file, options_for(exact));
  if (!made) return text_of(made.status());
  embedder = static_cast<facenet::Embedder&&>(*made);
  return exact->peak() == *need ? nullptr : "required_bytes() is not what was used";
}
extern "C" const char* consumer_embed(const unsigned char* rgb, float* out) {
  const Watch watch;
  return text_of(
      embedder.embed(facenet::ImageView(rgb, 160, 160, 480, facenet::ChannelOrder::rgb), {out, embedder.dim()}));
}
extern "C" const char* consumer_faces(const unsigned char* weights, unsigned long long size, const unsigned char* rgb,
                                      int width, int height, const float* embedding, int* count) {
#if defined(CONSUMER_FACES)
  const Watch watch;
  alignas(64) static unsigned char room[12 << 20];
  facenet::Arena place(room, sizeof room);
  return look_for_faces(weights, size, rgb, width, height, embedding, embedder.dim(), &place, count);
#else
  (void)weights, (void)size, (void)rgb, (void)width, (void)height, (void)embedding, (void)count;
  return "this consumer was compiled without CONSUMER_FACES";
#endif
}
extern "C" int consumer_dim() { return embedder.dim(); }
extern "C" const char* consumer_close() {
  {
    const Watch watch;
    embedder = facenet::Embedder();
  }
  return seen == 0 ? "no malloc" : "error: the library has called malloc or operator new";
}
