// Detection and alignment for the Python tests and the benchmark: a line of text, then W * H * 3 RGB bytes.
//
//   detect W H           -> "ok N", then N * 15 floats: box, score, landmarks x0 y0 … x4 y4
//   repeat W H N         detects N times, one time after the other: "ok N", then N doubles, seconds each
//   extract W H S M      a box (4 floats after the pixels) cut out: "ok N", then S * S * 3 bytes; M: margin
//   align W H S          five landmarks (10 floats after the pixels) to ArcFace's places: "ok N", then S * S * 3
//                        bytes and the matrix (4 doubles: a, b, tx, ty)
//
// Any error: "error CODE TEXT". Arguments: the weight file, threads, and options as name=value.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "facenet/align.hpp"
#include "facenet/detector.hpp"

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int refuse(const facenet::Status& status) {
  char text[1024];
  std::printf("error %s %s\n", facenet::name(status.code()), status.print(text, sizeof text));
  std::fflush(stdout);
  return 2;
}

void answer(const void* data, std::size_t item, std::size_t count) {
  std::printf("ok %zu\n", count);
  std::fwrite(data, item, count, stdout);
}

bool set(facenet::DetectorOptions& o, const std::string& argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos) return false;
  const std::string name = argument.substr(0, equals), value = argument.substr(equals + 1);
  if (name == "min_face")
    o.min_face = std::atoi(value.c_str());
  else if (name == "factor")
    o.factor = std::atof(value.c_str());
  else if (name == "max_faces")
    o.max_faces = std::atoi(value.c_str());
  else if (name == "selection")
    o.selection = static_cast<facenet::Selection>(std::atoi(value.c_str()));
  else if (name == "threshold0")
    o.thresholds[0] = static_cast<float>(std::atof(value.c_str()));
  else if (name == "threshold1")
    o.thresholds[1] = static_cast<float>(std::atof(value.c_str()));
  else if (name == "threshold2")
    o.thresholds[2] = static_cast<float>(std::atof(value.c_str()));
  else
    return false;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  facenet::DetectorOptions options;
  options.threads = std::atoi(argv[2]);
  for (int i = 3; i < argc; ++i)
    if (!set(options, argv[i])) return 2;
  auto detector = facenet::Detector::load(argv[1], options);
  if (!detector) return refuse(detector.status());
  facenet::Faces faces;
  std::vector<std::uint8_t> pixels;
  char word[16];
  int w = 0, h = 0;
  while (std::scanf("%15s %d %d", word, &w, &h) == 3) {
    const std::string request = word;
    int number[2] = {0, 0};
    const int numbers = request == "extract" ? 2 : request == "detect" ? 0 : 1;
    for (int i = 0; i < numbers; ++i)
      if (std::scanf("%d", &number[i]) != 1) return 2;
    if (std::getchar() != '\n') return 2;
    pixels.resize(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3);
    if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 2;
    float given[10] = {};
    const std::size_t floats = request == "extract" ? 4 : request == "align" ? 10 : 0;
    if (std::fread(given, sizeof(float), floats, stdin) != floats) return 2;
    const facenet::ImageView view(pixels.data(), w, h, std::ptrdiff_t{3} * w, facenet::ChannelOrder::rgb);
    facenet::Status status;
    if (request == "detect") {
      status = detector->detect(view, faces);
      if (status.ok()) answer(faces.begin(), sizeof(facenet::Face), static_cast<std::size_t>(faces.size()));
    } else if (request == "repeat") {
      std::vector<double> seconds;
      for (int i = 0; i < number[0] && status.ok(); ++i) {
        const double start = now();
        status = detector->detect(view, faces);
        seconds.push_back(now() - start);
      }
      if (status.ok()) answer(seconds.data(), sizeof(double), seconds.size());
    } else if (request == "extract") {
      const auto face = facenet::extract_face(view, {given[0], given[1], given[2], given[3]}, number[0], number[1]);
      status = face.status();
      if (face) answer(face->data(), 1, face->bytes());
    } else if (request == "align") {
      facenet::Point points[5];
      std::memcpy(points, given, sizeof points);
      const auto s = facenet::estimate_similarity(points, facenet::arcface_points(number[0]).at, 5);
      const auto face = facenet::align_face(view, points, number[0]);
      status = face.status();
      if (face) {
        answer(face->data(), 1, face->bytes());
        std::fwrite(&*s, sizeof(double), 4, stdout);
      }
    } else {
      return 2;
    }
    if (!status.ok()) refuse(status);
    std::fflush(stdout);
  }
  return 0;
}
