// Trained weights: which there are, and getting them.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/io/default_files.hpp"
#include "command/io/download.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

namespace fs = std::filesystem;

struct File {
  const char *name, *sha256;
  std::int64_t bytes;
};
struct Checkpoint {
  const char *name, *what;
  int dim;
  const char* source;    // an address, to which a file's name is added
  const char* variable;  // that holds another one
  File files[2];
  const char* licence;
};

constexpr const char* research =
    "The code is MIT. No licence is stated for the weights. The pictures were collected from the web and given out for "
    "research only. Whether weights inherit such terms is not settled: get legal advice before you ship a product on "
    "them.";

// What weights/README.md knows of them.
constexpr Checkpoint checkpoints[] = {
    {"vggface2",
     "FaceNet, trained on VGGFace2",
     512,
     "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/",
     "FACENET_PRETRAINED_URL",
     {{"20180402-114759-vggface2.pt", "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b", 111898327},
      {}},
     research},
    {"casia-webface",
     "FaceNet, trained on CASIA-WebFace",
     512,
     "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/",
     "FACENET_PRETRAINED_URL",
     {{"20180408-102900-casia-webface.pt", "", 0}, {}},
     research},
    {"small",
     "dlib's face ResNet, rounded to bytes: 6 MB",
     128,
     "https://raw.githubusercontent.com/vladmandic/face-api/1.7.15/model/",
     "FACENET_SMALL_URL",
     {{"face_recognition_model-weights_manifest.json",
       "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b", 19615},
      {"face_recognition_model.bin", "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589", 6444032}},
     "The weights are CC0 (davisking/dlib-models), their rounding is MIT (face-api). They were trained on pictures of "
     "the data sets FaceScrub and VGG and of the web."},
};

struct Options {
  int (*run)(const Options&) = nullptr;
  std::string name, out;
  bool accepted = false, json = false;
};

/// Where weights of the user are kept; "": nowhere.
std::string data_folder() {
  const std::vector<std::string> folders = weight_folders();
  return folders.size() > 2 ? folders[1] : "";
}

std::string output_of(const std::string& given) {
  if (!given.empty()) return given;
  return data_folder() + "/facenet.safetensors";
}

std::string folder_of(const Checkpoint& c) {
  return data_folder() + "/checkpoints" + (c.files[1].name == nullptr ? "" : std::string("/") + c.name);
}

bool is_there(const std::string& path, int mode = R_OK) { return ::access(path.c_str(), mode) == 0; }

int list(const Options& options) {
  Output out;
  for (const Checkpoint& c : checkpoints) {
    std::int64_t bytes = 0;
    bool there = !data_folder().empty();
    for (const File& f : c.files) {
      if (f.name == nullptr) continue;
      bytes += f.bytes;
      there = there && is_there(folder_of(c) + "/" + f.name);
    }
    Json j;
    j["name"] = c.name;
    j["what"] = c.what;
    j["embedding_dim"] = c.dim;
    j["bytes"] = bytes;
    j["licence"] = c.licence;
    j["downloaded"] = there;
    const std::string size = bytes == 0 ? "" : std::to_string((bytes + 500000) / 1000000) + " MB";
    if (!(options.json ? out.line(line(j))
                       : out.row({c.name, c.what, std::to_string(c.dim) + "-d", size, there ? "downloaded" : ""})))
      return failed;
  }
  return out.finish() ? done : failed;
}

/// A program and its words; 0 where it ran and was content, else its status, or -1 where it cannot be run.
int run_program(const std::vector<std::string>& words) {
  const pid_t child = ::fork();
  if (child < 0) return -1;
  if (child == 0) {
    ::dup2(STDERR_FILENO, STDOUT_FILENO);  // results on stdout are ours
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  if (!WIFEXITED(status)) return 1;
  return WEXITSTATUS(status) == 127 ? -1 : WEXITSTATUS(status);
}

bool is_quietly_done(const std::string& shell) { return std::system((shell + " >/dev/null 2>&1").c_str()) == 0; }

/// The words that call a converter which is installed here; none where there is none.
std::vector<std::string> installed_converter() {
  if (is_there("tools/convert_weights.py", X_OK)) return {"tools/convert_weights.py"};
  if (is_quietly_done("command -v facenet-convert-weights")) return {"facenet-convert-weights"};
  if (is_quietly_done("python3 -c 'import facenet.convert'")) return {"python3", "-m", "facenet.convert"};
  return {};
}

std::string shell_word(const std::string& word) {
  if (!word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=") ==
                           std::string::npos)
    return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::vector<std::string> conversion(const Checkpoint& c, const std::string& out) {
  if (c.files[1].name != nullptr) return {"--face-api", folder_of(c), "-o", out};
  return {folder_of(c) + "/" + c.files[0].name, "-o", out};
}

int get(const Options& options) {
  const Checkpoint* c = nullptr;
  for (const Checkpoint& known : checkpoints)
    if (options.name == known.name) c = &known;
  if (data_folder().empty()) {
    say("there is no folder for weights; set HOME or XDG_DATA_HOME.");
    return failed;
  }
  const std::string out = output_of(options.out);
  if (is_there(out)) {
    say(out + ": this file is there already; remove it, or give another one with --output.");
    return failed;
  }
  note(std::string(c->name) + ": " + c->what + ". " + c->licence);
  if (!options.accepted) {
    say(std::string(c->name) + ": nothing was downloaded; give --accept-licence if you accept that.");
    return failed;
  }
  const char* other = std::getenv(c->variable);
  std::string source = other != nullptr && *other != 0 ? other : c->source;
  if (source.back() != '/') source += '/';
  std::error_code error;
  for (const File& f : c->files) {
    if (f.name == nullptr) continue;
    if (!download({source + f.name, f.bytes, f.sha256}, folder_of(*c) + "/" + f.name)) return failed;
  }
  if (!make_folder(fs::absolute(out, error).parent_path().string())) return failed;
  std::vector<std::string> words = installed_converter();
  const bool can_convert = !words.empty();
  std::string command;
  if (!can_convert) words = {"python3", "-m", "facenet.convert"};
  for (const std::string& word : conversion(*c, out)) words.push_back(word);
  for (const std::string& word : words) command += (command.empty() ? "" : " ") + shell_word(word);
  const int status = can_convert ? run_program(words) : -1;
  const bool converted = status == 0 && is_there(out);
  if (can_convert && !converted) {
    say(folder_of(*c) + ": it was downloaded, but could not be converted; see above, then run: " + command + ".");
  } else if (!converted) {
    say(folder_of(*c) +
        ": it was downloaded, and the Python package converts it, which is not installed here; run: "
        "python3 -m pip install facenet-engine torch facenet-pytorch && " +
        command + ".");
  }
  Output output;
  Json j;
  j["name"] = c->name;
  j["checkpoint"] = folder_of(*c);
  j["file"] = out;
  j["converted"] = converted;
  if (options.json && !output.line(line(j))) return failed;
  if (!options.json && converted && !output.row({out})) return failed;
  return output.finish() && converted ? done : failed;
}

}  // namespace

SubCommand weights_command() {
  const auto o = std::make_shared<Options>();
  return {
      "weights", "Get trained weights, and see which there are",
      "'get' downloads a checkpoint, compares its SHA-256 where one is known, and converts it to "
      "facenet.safetensors in\n"
      "$XDG_DATA_HOME/facenet (~/.local/share/facenet), where every command finds it. A download that was cut short "
      "goes on\n"
      "where it ended. Embeddings of two models cannot be compared.\n\n"
      "Examples:\n"
      "  facenet weights list\n"
      "  facenet weights get vggface2 --accept-licence\n"
      "  facenet weights get small --accept-licence --output small.safetensors\n\n",
      [o](OptionSet& options) {
        OptionSet of_list = options.action("list", "The checkpoints that can be had", [o] { o->run = list; });
        (void)of_list;
        OptionSet of_get = options.action("get", "Download one and convert it", [o] { o->run = get; });
        std::vector<std::string> names;
        for (const Checkpoint& c : checkpoints) names.emplace_back(c.name);
        of_get.positional("NAME", o->name, "vggface2, casia-webface or small").required().one_of(names);
        of_get.flag("--accept-licence", o->accepted, "You have read the terms that it prints, and accept them");
        of_get.option("-o,--output", "FILE", o->out, "The weight file (default: facenet.safetensors there)");
      },
      [o](bool json) {
        o->json = json;
        return o->run(*o);
      }};
}

}  // namespace command
