#include <cstdio>
#include <set>

#include "json.hpp"
#include "model.hpp"
#include "output.hpp"

namespace command {

namespace {

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
    for (end = i; end < layers.size() && layers[end].dtype == layers[i].dtype; ++end) bytes += layers[end].weight->bytes;
    const std::string count = end - i == 1 ? "" : " to " + layers[end - 1].name + ", " + std::to_string(end - i) + " layers";
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
Json describe(const facenet::WeightsReader& reader, const facenet::Network& network,
              const std::vector<StoredLayer>& layers) {
  const facenet::Metadata& m = reader.metadata();
  Json j;
  j["architecture"] = m.architecture;
  j["embedding_dim"] = m.embedding_dim;
  j["parameters"] = facenet::parameters(network);  // before folding: gamma and beta count
  j["trained"] = m.trained;
  j["dtype"] = dtype_of(layers);
  if (m.assumed) {
    j["normalise"] = m.normalise == facenet::Normalise::l2 ? "l2" : "none";
    j["image_size"] = m.image_size;
    j["channel_order"] = "rgb";
    j["scaling"] = "fixed";
    j["crop"] = "box";
    j["margin"] = m.margin;
    j["resize"] = m.resize;
  }
  for (const facenet::MetadataEntry& e : reader.entries())
    if (!j.contains(e.key)) j[e.key] = m.assumed ? Json(e.value) : typed(e.key, e.value);
  j["preprocessing"] = m.assumed ? "assumed: facenet-pytorch's" : "stated";
  return j;
}

}  // namespace

int info(const InfoOptions& options) {
  const std::string file = weights_file(options.file);
  facenet::ReadOptions read;
  if (!options.sha256.empty()) read.expected_sha256 = options.sha256.c_str();
  auto reader = facenet::WeightsReader::open(file.c_str(), read);
  if (!reader) {
    say(reader.status(), file, Subject::weights);
    return failed;
  }
  // Loading reads and checks every tensor and both hashes: what info describes is known to work.
  ModelOptions model;
  model.weights = file;
  model.threads = 1;
  auto embedder = load(model);
  if (!embedder) return failed;
  warn_untrained(embedder->info());

  const std::vector<StoredLayer> layers = layers_of(*reader, embedder->plan().network());
  Json j = describe(*reader, embedder->plan().network(), layers);
  j["threshold"] = static_cast<float>(embedder->info().threshold);
  j["digest"] = embedder->info().digest;
  j["file_bytes"] = reader->file_bytes();
  if (reader->metadata().assumed)
    say(file + ": a plain state_dict without metadata: preprocessing is assumed to be facenet-pytorch's.");

  Output out;
  std::vector<std::string> plan;
  if (options.plan) embedder->plan().describe([&](const char* text) { plan.emplace_back(text); });
  if (options.json) {
    for (const StoredLayer& layer : layers) j["layers"].push_back(as_json(layer));
    if (options.plan) j["plan"] = plan;
    if (!out.line(line(j))) return failed;
  } else {
    for (const auto& [key, value] : j.items()) {
      char text[32];
      std::snprintf(text, sizeof text, "%-16s ", key.c_str());
      if (!out.line(text + (value.is_string() ? value.get<std::string>() : value.dump()))) return failed;
    }
    for (const std::string& text : as_text(layers))
      if (!out.line("layers           " + text)) return failed;
    if (options.plan && !out.line("")) return failed;
    for (const std::string& text : plan)
      if (!out.line(text)) return failed;
  }
  return out.finish() ? done : failed;
}

}  // namespace command
