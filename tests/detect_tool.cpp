// Detection for the Python tests and the benchmark: a line of text, then W * H * 3 RGB bytes.
//
//   detect W H     -> "ok N SECONDS", then N * 15 floats: box, score, landmarks x0 y0 … x4 y4
//   repeat W H N   detects N times, one time after the other: "ok N", then N doubles, seconds each
//
// Any error: "error CODE TEXT". Arguments: the weight file, threads, and options as name=value.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "facenet/detector.hpp"

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int refuse(const facenet::Status& status) {
  char text[1024];
  std::printf("error %s %s\n", facenet::name(status.code()), status.print(text, sizeof text));
  std::fflush(stdout);
  return 2;
}

bool set(facenet::DetectorOptions& o, const std::string& argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos) return false;
  const std::string name = argument.substr(0, equals), value = argument.substr(equals + 1);
  if (name == "min_face") o.min_face = std::atoi(value.c_str());
  else if (name == "factor") o.factor = std::atof(value.c_str());
  else if (name == "max_faces") o.max_faces = std::atoi(value.c_str());
  else if (name == "selection") o.selection = static_cast<facenet::Selection>(std::atoi(value.c_str()));
  else if (name == "threshold0") o.thresholds[0] = static_cast<float>(std::atof(value.c_str()));
  else if (name == "threshold1") o.thresholds[1] = static_cast<float>(std::atof(value.c_str()));
  else if (name == "threshold2") o.thresholds[2] = static_cast<float>(std::atof(value.c_str()));
  else return false;
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
    const bool repeat = std::string(word) == "repeat";
    int times = 1;
    if (repeat && std::scanf("%d", &times) != 1) return 2;
    if (std::getchar() != '\n') return 2;
    pixels.resize(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3);
    if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 2;
    const facenet::ImageView view(pixels.data(), w, h, std::ptrdiff_t{3} * w, facenet::ChannelOrder::rgb);
    std::vector<double> seconds;
    facenet::Status status;
    for (int i = 0; i < times && status.ok(); ++i) {
      const double start = now();
      status = detector->detect(view, faces);
      seconds.push_back(now() - start);
    }
    if (!status.ok()) {
      refuse(status);
      continue;
    }
    if (repeat) {
      std::printf("ok %zu\n", seconds.size());
      std::fwrite(seconds.data(), sizeof(double), seconds.size(), stdout);
    } else {
      std::printf("ok %d %.6f\n", faces.size(), seconds[0]);
      std::fwrite(faces.begin(), sizeof(facenet::Face), static_cast<std::size_t>(faces.size()), stdout);
    }
    std::fflush(stdout);
  }
  return 0;
}
