#include "facenet/selftest.hpp"

#include <cmath>
#include <cstdio>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

struct Options {
  std::string file;  // "": as ModelOptions::weights
  bool json = false;
};

std::string as_json(const std::string& file, const std::vector<facenet::LayerError>& layers, bool passed) {
  Json j;
  j["layers"] = Json::array();
  for (const facenet::LayerError& e : layers) {
    Json layer;
    layer["name"] = e.name;
    layer["max_abs_error"] = static_cast<float>(e.max_abs_error);
    layer["of_bound"] = static_cast<float>(e.share);
    j["layers"].push_back(std::move(layer));
  }
  j["passed"] = passed;
  j["file"] = file;
  return line(j);
}

int selftest(const Options& options) {
  const std::string file = weights_file(options.file);
  auto reader = facenet::WeightsReader::open(file.c_str());
  if (!reader) {
    say(reader.status(), file, Subject::weights);
    return print_failed(file, reader.status(), Subject::weights, options.json);
  }
  ModelOptions model;
  model.weights = file;
  auto embedder = load(model);
  if (!embedder) return print_failed(file, embedder.status(), Subject::weights, options.json);

  std::vector<facenet::LayerError> layers;
  const facenet::Status status = facenet::selftest(embedder->plan(), embedder->workspace(), *reader,
                                                   [&](const facenet::LayerError& e) { layers.push_back(e); });
  if (!status.ok()) {
    say(status, file, Subject::weights);
    return print_failed(file, status, Subject::weights, options.json);
  }
  const facenet::LayerError* first = nullptr;
  const facenet::LayerError* largest = &layers.front();
  const facenet::LayerError* nearest = &layers.front();
  for (const facenet::LayerError& e : layers) {
    if (first == nullptr && !e.passed()) first = &e;
    if (e.max_abs_error > largest->max_abs_error) largest = &e;
    if (e.share > nearest->share) nearest = &e;
  }

  Output out;
  if (options.json) {
    if (!out.line(as_json(file, layers, first == nullptr))) return failed;
  } else {
    char text[256];
    std::snprintf(text, sizeof text, "%zu layers, largest error %.2e (%s), nearest to its bound: %s at %.1f %%",
                  layers.size(), largest->max_abs_error, largest->name, nearest->name, 100 * nearest->share);
    if (!out.row({text})) return failed;
    if (first == nullptr)
      std::snprintf(text, sizeof text, "passed: every layer is within its bound");
    else
      std::snprintf(text, sizeof text,
                    "FAILED: the first layer that leaves its bound is %s: error %.2e, %.3g times the bound",
                    first->name, first->max_abs_error, first->share);
    if (!out.row({text})) return failed;
  }
  if (!out.finish()) return failed;
  return first == nullptr ? done : no;
}

}  // namespace

SubCommand selftest_command() {
  const auto o = std::make_shared<Options>();
  return {"selftest", "Check that a weight file computes what it was made to",
          "Computes the golden activations that the converter stored in the file and compares them layer by layer; "
          "exit status\n"
          "1 names the first layer that leaves its bound. of_bound: a layer's largest error over its bound.\n\n"
          "Examples:\n"
          "  facenet selftest weights/facenet.safetensors\n"
          "  facenet selftest --json FILE | jq .passed\n\n",
          [o](OptionSet& options) {
            options.positional("FILE", o->file, "The weight file (default: as for the other commands)");
          },
          [o](bool json) {
            o->json = json;
            return selftest(*o);
          }};
}

}  // namespace command
