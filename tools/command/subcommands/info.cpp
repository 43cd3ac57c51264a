#include <cstdio>
#include <cstring>
#include <memory>
#include <set>

#include "facenet/detector.hpp"
#include "command/cli/sub_command.hpp"
#include "command/io/json.hpp"
#include "command/engine/model.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

struct Options {
  std::string file;  // "": as ModelOptions::weights
  std::string sha256;
  bool plan = false, json = false;
};

constexpr const char* architecture_default = "the architecture's default";

/// The weights of one layer as they lie in the file.
struct StoredLayer {
  std::string name, dtype;
  const facenet::TensorInfo* weight;
};
std::vector<StoredLayer> layers_of(const facenet::WeightsReader& reader, const facenet::Network& network) {
  std::vector<StoredLayer> layers;
  for (int i = 0; i < network.size(); ++i)
    for (const char* suffix : {".weight", ".conv.weight"}) {
      const int t = reader.find((network[i].name.text + std::string(suffix)).c_str());
      if (t >= 0) layers.push_back({network[i].name.text, facenet::name(reader.tensor(t).dtype), &reader.tensor(t)});
    }
  return layers;
}

/// The dtype of the weights: "F32", "F16", "I8", or several joined by '+'.
std::string dtype_of(const std::vector<StoredLayer>& layers) {
  std::set<std::string> found;
  for (const StoredLayer& layer : layers) found.insert(layer.dtype);
  std::string all;
  for (const std::string& d : found) all += (all.empty() ? "" : "+") + d;
  return all;
}

Json as_json(const StoredLayer& layer) {
  Json j;
  j["name"] = layer.name;
  j["dtype"] = layer.dtype;
  for (int i = 0; i < layer.weight->rank; ++i) j["shape"].push_back(layer.weight->dims[i]);
  j["bytes"] = layer.weight->bytes;
  return j;
}

/// For people: neighbours of one dtype on one line.
std::vector<std::string> as_text(const std::vector<StoredLayer>& layers) {
  std::vector<std::string> text;
  for (std::size_t i = 0, end = 0; i < layers.size(); i = end) {
    std::int64_t bytes = 0;
    for (end = i; end < layers.size() && layers[end].dtype == layers[i].dtype; ++end)
      bytes += layers[end].weight->bytes;
    const std::string count =
        end - i == 1 ? "" : " to " + layers[end - 1].name + ", " + std::to_string(end - i) + " layers";
    text.push_back(layers[i].name + count + ": " + layers[i].dtype + ", " + std::to_string(bytes) + " bytes");
  }
  return text;
}

/// A value as the JSON line shows it: numbers and truths as such where every file has them so.
Json typed(const std::string& key, const std::string& value) {
  if (key == "trained") return value == "true";
  if (key == "embedding_dim" || key == "image_size") return std::stoi(value);
  if (key == "width" || key == "margin") return std::stof(value);
  return value;
}

/// What the file says, or for a plain state_dict what is assumed about it.
Json describe(const facenet::WeightsReader& reader, std::int64_t parameters, const std::vector<StoredLayer>& layers) {
  const facenet::Metadata& m = reader.metadata();
  Json j;
  j["architecture"] = m.architecture;
  j["embedding_dim"] = m.embedding_dim;
  j["parameters"] = parameters;  // before folding: gamma and beta count
  j["trained"] = m.trained;
  j["dtype"] = dtype_of(layers);
  if (m.assumed) {
    j["normalise"] = facenet::name(m.normalise);
    j["image_size"] = m.image_size;
    j["channel_order"] = facenet::name(m.channel_order);
    j["scaling"] = facenet::name(m.scaling);
    j["crop"] = facenet::name(m.crop);
    j["margin"] = m.margin;
    j["resize"] = m.resize;
  }
  for (const facenet::MetadataEntry& e : reader.entries())
    if (!j.contains(e.key)) j[e.key] = m.assumed ? Json(e.value) : typed(e.key, e.value);
  if (m.integer) j["same_bits_everywhere"] = *m.float_layers == 0;  // in integer arithmetic
  j["preprocessing"] = m.assumed ? "assumed: facenet-pytorch's" : "stated";
  if (m.assumed) j["training"] = m.trained ? "assumed: nothing in the file says" : "stated";
  return j;
}

/// What loading, which reads and checks every tensor and both hashes, found out about a file: it is known to work.
struct Checked {
  std::vector<StoredLayer> layers;
  Json about;
  std::vector<std::string> plan;

  void add_plan(const facenet::Plan& p) {
    p.describe([&](const char* text) { plan.emplace_back(text); });
  }
};

/// What is wrong with the file, which has been reported; so below.
facenet::Status check_embedder(const std::string& file, const facenet::WeightsReader& reader, Checked& found) {
  ModelOptions model;
  model.weights = file;
  model.threads = 1;
  auto embedder = load(model);
  if (!embedder) return embedder.status();
  warn_untrained(embedder->info());
  const facenet::Network& network = embedder->plan().network();
  found.layers = layers_of(reader, network);
  found.about = describe(reader, facenet::parameters(network), found.layers);
  const facenet::ModelInfo& info = embedder->info();
  found.about["threshold"] = static_cast<float>(info.threshold);
  if (info.threshold_source[0] == 0) found.about["threshold_source"] = architecture_default;
  found.about["digest"] = embedder->info().digest;
  found.add_plan(embedder->plan());
  return {};
}

/// The same for a file with a detector alone. P-Net's plan depends on the picture, so there are two.
facenet::Status check_detector(const std::string& file, const facenet::WeightsReader& reader, Checked& found) {
  facenet::DetectorOptions one;
  one.threads = 1;
  auto detector = facenet::Detector::load(file.c_str(), one);
  if (!detector) {
    say(detector.status(), file, Subject::detector);
    return detector.status();
  }
  const facenet::Network pnet = facenet::models::mtcnn_pnet(12, 12);
  std::int64_t parameters = 0;
  for (const facenet::Network* network : {&pnet, &detector->rnet().network(), &detector->onet().network()}) {
    parameters += facenet::parameters(*network);
    for (StoredLayer& layer : layers_of(reader, *network)) found.layers.push_back(std::move(layer));
  }
  found.about = describe(reader, parameters, found.layers);
  found.about["digest"] = detector->digest();
  found.add_plan(detector->rnet());
  found.add_plan(detector->onet());
  return {};
}

int info(const Options& options) {
  const std::string file = weights_file(options.file);
  facenet::ReadOptions read;
  if (!options.sha256.empty()) read.expected_sha256 = options.sha256.c_str();
  auto reader = facenet::WeightsReader::open(file.c_str(), read);
  const facenet::Status opened = reader ? reader->recognise(facenet::models::all()) : reader.status();
  if (!opened.ok()) {
    say(opened, file, Subject::weights);
    return print_failed(file, opened, Subject::weights, options.json);
  }
  Checked found;
  const bool detector = std::strcmp(reader->metadata().architecture, "mtcnn") == 0;
  const facenet::Status status = detector ? check_detector(file, *reader, found) : check_embedder(file, *reader, found);
  if (!status.ok()) return print_failed(file, status, detector ? Subject::detector : Subject::weights, options.json);
  Json& j = found.about;
  j["file_bytes"] = reader->file_bytes();
  if (reader->metadata().assumed)
    note(file + ": a plain state_dict without metadata: preprocessing is assumed to be facenet-pytorch's" +
         (reader->metadata().trained ? ", and that the weights are trained is assumed too." : "."));

  Output out;
  if (options.json) {
    for (const char* ours : {"file", "error", "layers", "plan"}) j.erase(ours);  // whatever the metadata calls so
    j["file"] = file;
    j["layers"] = Json::array();
    for (const StoredLayer& layer : found.layers) j["layers"].push_back(as_json(layer));
    if (options.plan) j["plan"] = found.plan;
    if (!out.line(line(j))) return failed;
  } else {
    for (const auto& [key, value] : j.items()) {
      std::string text = key;
      text.resize(text.size() < 16 ? 16 : text.size(), ' ');
      const bool guessed = key == "trained" && j.contains("training") && value == true;
      const std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
      const bool measured = key == "threshold" && !detector && j["threshold_source"] != architecture_default;
      const std::string by = measured ? ", measured by " + j["threshold_source"].get<std::string>() : "";
      if (!out.row({text + " " + (guessed ? "unknown" : shown) + by})) return failed;
    }
    for (const std::string& text : as_text(found.layers))
      if (!out.row({"layers           " + text})) return failed;
    if (options.plan) found.plan.insert(found.plan.begin(), "");
    for (const std::string& text : found.plan)
      if (options.plan && !out.row({text})) return failed;
  }
  return out.finish() ? done : failed;
}

}  // namespace

SubCommand info_command() {
  const auto o = std::make_shared<Options>();
  return {"info", "Check a weight file completely and show what it says",
          "Examples:\n"
          "  facenet info weights/facenet.safetensors\n"
          "  facenet info --json weights/facenet.safetensors\n"
          "  facenet info --plan | less -S          how each layer is computed on this machine\n\n",
          [o](OptionSet& options) {
            options.positional("FILE", o->file, "The weight file (default: as for the other commands)");
            options.expected_sha256(o->sha256);
            options.flag("--plan", o->plan, "Also show how each layer is computed on this machine");
          },
          [o](bool json) {
            o->json = json;
            return info(*o);
          }};
}

}  // namespace command
