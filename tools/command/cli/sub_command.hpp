// What the file of a sub-command is made of: its row of the table, and its options. CLI11 stays out of this header: it
// has global objects, and takes 5 s to compile, while the files of subcommands/ are compiled once for each ISA.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "command/options.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace command {

/// What every command takes.
struct CommonFlags {
  bool json = false, quiet = false;
};

/// An option or a positional that has been added, for the rest of its declaration.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required();
  Option expected(int words);
  Option whole_number(int low, int high);
  Option number(double low, double high, const char* range);  // range: "0.01 to 0.99"
  Option one_of(const std::vector<std::string>& words);
  bool given() const;  // once the command line has been read

 private:
  CLI::Option* option_;
};

/// The options of a sub-command, or of one of its actions. Values are written where the references say.
class OptionSet {
 public:
  /// `chosen`, if any, is called where the line names this action.
  OptionSet(CLI::App* app, CommonFlags& flags, std::function<void()> chosen = {});

  Option positional(const char* name, std::string& value, const char* help);
  Option positional(const char* name, std::vector<std::string>& values, const char* help);
  Option flag(const char* names, bool& value, const char* help);  // names: "-t,--threads"; so below
  Option option(const char* names, const char* value_name, std::string& value, const std::string& help);
  Option option(const char* names, const char* value_name, int& value, const char* help);
  Option option(const char* names, const char* value_name, double& value, const char* help);
  Option option(const char* names, const char* value_name, std::vector<std::string>& values, const char* help);

  // Options that several sub-commands have.
  void pictures(std::vector<std::string>& pictures);
  void exclude(std::vector<std::string>& patterns);
  void threads(int& threads);
  void files_from(std::string& list, bool& zero);
  void model(ModelOptions& model);
  void expected_sha256(std::string& sha256);
  void cache(std::string& cache, const char* otherwise);
  void threshold(std::string& threshold);
  void aligned(bool& aligned);
  Option min_score(FaceLimits& limits, const char* help);
  Option min_quality(FaceLimits& limits);
  Option faces(FaceOptions& faces);     // --select
  Option one_face(FaceOptions& faces);  // the same without --max-faces
  void crop(CropOptions& crop);
  void folder(FolderOptions& images);            // one face of each picture counts
  void folder_of_groups(FolderOptions& images);  // all faces do

  /// An action, such as `list` of `gallery list`: exactly one must follow then. chosen() is called where it does.
  OptionSet action(const char* name, const char* summary, std::function<void()> chosen);
  /// Called once the line has been read; returns what is wrong with it, "" for nothing.
  void check(std::function<std::string()> wrong);

 private:
  CLI::App* app_;
  CommonFlags* flags_;
  std::function<void()> chosen_;  // check() must call it too: an app has one callback
};

struct SubCommand {
  const char *name, *summary, *examples;
  std::function<void(OptionSet& options)> add_options;
  std::function<int(bool json)> run;
  const char* usual_action = nullptr;  // the action that is meant where a line names none
};

}  // namespace command
