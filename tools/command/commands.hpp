// The sub-commands: options in, exit status out. Every failure has been said when they return.
#pragma once

#include <vector>

#include "model.hpp"

namespace command {

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
