// All of the engine, so that whatever two ISAs have alike is in both units; two_isas runs the detector alone.
#include <facenet/detector.hpp>
#include <facenet/facenet.hpp>

static int everything(facenet::Span<const float> embeddings, facenet::Span<const double> distances,
                      facenet::Span<const std::uint8_t> same) {
  auto embedder = facenet::Embedder::load("weights");
  auto gallery = facenet::Gallery::make(8, {});
  facenet::Match match[2];
  int found = 0, labels[2], fold[2] = {0, 1};
  if (!embedder || !gallery || !gallery->search(embeddings, 1, match, found)) return -1;
  const auto roc = facenet::Comparisons::make(distances, same);
  const auto folds = facenet::fold_accuracies(distances, same, fold, 2, {});
  const auto threshold = facenet::choose_threshold(distances, 0.1);
  const bool clustered = facenet::chinese_whispers(embeddings, 8, {}, 1, 1, labels).ok() &&
                         facenet::dbscan(embeddings, 8, {}, 2, labels).ok() &&
                         facenet::average_link(embeddings, 8, {}, labels).ok();
  return roc && roc->bootstrap(0.1, 2, 1) && folds && threshold && clustered;
}

extern "C" int FIND_FACES(const char* weights, const unsigned char* pixels, int width, int height, long stride,
                          const char** isa) {
  *isa = facenet::isa_name;
  if (weights == nullptr) return everything({}, {}, {});
  auto detector = facenet::Detector::load(weights);
  facenet::Faces faces;
  const facenet::ImageView picture(pixels, width, height, stride, facenet::ChannelOrder::rgb);
  return detector && detector->detect(picture, faces) ? faces.size() : -1;
}
