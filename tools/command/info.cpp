#include <cstdio>
#include <cstring>
#include <set>

#include "json.hpp"
#include "model.hpp"
#include "output.hpp"

namespace command {

namespace {

/// The dtype of the weights: "F32", "F16", "I8", or several joined by '+'.
std::string dtype_of(const facenet::WeightsReader& reader) {
  std::set<std::string> found;
  for (int i = 0; i < reader.size(); ++i) {
    const facenet::TensorInfo& t = reader.tensor(i);
    if (t.rank >= 2 && std::strncmp(t.name, "selftest.", 9) != 0) found.insert(facenet::name(t.dtype));
  }
  std::string all;
  for (const std::string& d : found) all += (all.empty() ? "" : "+") + d;
  return all;
}

/// A value as the JSON line shows it: numbers and truths as such where every file has them so.
Json typed(const std::string& key, const std::string& value) {
  if (key == "trained") return value == "true";
  if (key == "embedding_dim" || key == "image_size") return std::stoi(value);
  if (key == "width" || key == "margin") return std::stof(value);
  return value;
}

/// What the file says, or for a plain state_dict what is assumed about it.
Json describe(const facenet::WeightsReader& reader, const facenet::Network& network) {
  const facenet::Metadata& m = reader.metadata();
  Json j;
  j["architecture"] = m.architecture;
  j["embedding_dim"] = m.embedding_dim;
  j["parameters"] = facenet::parameters(network);  // before folding: gamma and beta count
  j["trained"] = m.trained;
  j["dtype"] = dtype_of(reader);
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

  Json j = describe(*reader, embedder->plan().network());
  j["digest"] = embedder->info().digest;
  j["file_bytes"] = reader->file_bytes();
  if (reader->metadata().assumed)
    say(file + ": a plain state_dict without metadata: preprocessing is assumed to be facenet-pytorch's.");

  Output out;
  std::vector<std::string> plan;
  if (options.plan) embedder->plan().describe([&](const char* text) { plan.emplace_back(text); });
  if (options.json) {
    if (options.plan) j["plan"] = plan;
    if (!out.line(line(j))) return failed;
  } else {
    for (const auto& [key, value] : j.items()) {
      char text[32];
      std::snprintf(text, sizeof text, "%-16s ", key.c_str());
      if (!out.line(text + (value.is_string() ? value.get<std::string>() : value.dump()))) return failed;
    }
    if (options.plan && !out.line("")) return failed;
    for (const std::string& text : plan)
      if (!out.line(text)) return failed;
  }
  return out.finish() ? done : failed;
}

}  // namespace command
