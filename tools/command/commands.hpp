// The sub-commands: options in, exit status out. Every failure has been said when they return. No engine in here, so that
// the parser of the command line compiles without it.
#pragma once

#include <string>
#include <vector>

namespace command {

/// Options that every sub-command with a network has.
struct ModelOptions {
  std::string weights;  // "": $FACENET_WEIGHTS, else the default file
  std::string sha256;   // "": not checked
  int threads = 0;      // 0: one for each CPU this process may use
  bool half_weights = false;
};

struct InfoOptions {
  std::string file;  // "": as ModelOptions::weights
  std::string sha256;
  bool plan = false, json = false;
};
int info(const InfoOptions& options);

struct EmbedOptions {
  ModelOptions model;
  std::vector<std::string> pictures;
  std::string out;
  bool aligned = false, json = false;
};
int embed(const EmbedOptions& options);

struct VerifyOptions {
  ModelOptions model;
  std::string a, b;
  double threshold = -1;  // below 0: the model's
  bool aligned = false, json = false;
};
int verify(const VerifyOptions& options);

struct BenchOptions {
  ModelOptions model;
  int batch = 1;
  double seconds = 3;
  bool layers = false, json = false;
};
int bench(const BenchOptions& options);

}  // namespace command
