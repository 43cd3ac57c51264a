// All of the engine but the embedder's own page: weights, plan, kernels, threads, pixels.
#include <facenet/detector.hpp>

extern "C" int FIND_FACES(const char* weights, const unsigned char* pixels, int width, int height, long stride, const char** isa) {
  *isa = facenet::isa_name;
  auto detector = facenet::Detector::load(weights);
  facenet::Faces faces;
  const facenet::ImageView picture(pixels, width, height, stride, facenet::ChannelOrder::rgb);
  return detector && detector->detect(picture, faces) ? faces.size() : -1;
}
