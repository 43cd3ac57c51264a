// The command line: CLI11's parser, habits of git and GNU tools, every mistake one sentence and exit status 2.
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <sstream>

#include "commands.hpp"
#include "cpu.hpp"
#include "facenet/parallel.hpp"
#include "generate.hpp"
#include "output.hpp"

namespace command {

namespace {

constexpr const char* common_footer =
    "Weights: --weights FILE, else $FACENET_WEIGHTS, else weights/facenet.safetensors. The detector's: --detector\n"
    "FILE, else those beside the embedder's, else weights/mtcnn.safetensors.\n"
    "Exit status: 0 done or yes, 1 no (not the same person; none of the pictures has a face), 2 error (with\n"
    "several pictures: if any failed, after the rest was done).";

constexpr const char* main_examples =
    "Examples:\n"
    "  facenet detect --draw found.png group.jpg\n"
    "  facenet verify portrait1.jpg portrait2.jpg\n"
    "  facenet embed --json group.jpg > faces.jsonl\n"
    "  facenet align photographs/ crops/\n"
    "  facenet info weights/facenet.safetensors\n"
    "  facenet bench --threads 2 --seconds 5\n\n";
constexpr const char* info_examples =
    "Examples:\n"
    "  facenet info weights/facenet.safetensors\n"
    "  facenet info --json weights/facenet.safetensors\n"
    "  facenet info --plan | less -S          how each layer is computed on this machine\n\n";
constexpr const char* selftest_examples =
    "Computes the golden activations that the converter stored in the file and compares them layer by layer; exit status\n"
    "1 names the first layer that leaves its bound. of_bound: a layer's largest error over its bound.\n\n"
    "Examples:\n"
    "  facenet selftest weights/facenet.safetensors\n"
    "  facenet selftest --json FILE | jq .passed\n\n";
constexpr const char* detect_examples =
    "Prints a line for each face: picture, number of the face, score, box (x1 y1 x2 y2) and landmarks (eyes, nose,\n"
    "corners of the mouth), with TABs between; with --json one object a picture. Faces are in --select's order.\n\n"
    "Examples:\n"
    "  facenet detect group.jpg\n"
    "  facenet detect --json --min-face 60 --select probability *.jpg > faces.jsonl\n"
    "  facenet detect --draw found.png --crops crops/ group.jpg\n"
    "  facenet detect --draw found/ *.jpg     one picture each, found/NAME.png\n\n";
constexpr const char* align_examples =
    "Writes OUT/person/photo.png for DIR/person/photo.jpg: the face that --select puts first. JPEG and PNG files in\n"
    "DIR and all folders below it are taken, by the ends of their names. What is in OUT already is left as it is: run\n"
    "again after a stop, the command goes on where it was. The summary on standard output names the pictures\n"
    "without a face and those that failed.\n\n"
    "Examples:\n"
    "  facenet align photographs/ crops/\n"
    "  facenet align --crop box --margin 32 --size 182 --select centre_weighted lfw/ lfw_182/\n\n";
constexpr const char* embed_examples =
    "Prints a line for each face: picture, TAB, number of the face, TAB, the embedding; with --json an object. Faces\n"
    "of a picture are in the order of --select, cut out as the weight file wants them.\n\n"
    "Examples:\n"
    "  facenet embed group.jpg\n"
    "  facenet embed --max-faces 1 --json portraits/*.jpg\n"
    "  facenet embed --aligned --json crops/*.png --out embeddings.jsonl\n"
    "  facenet embed - < portrait.jpg         a picture from standard input\n\n";
constexpr const char* verify_examples =
    "The face that --select puts first is compared, with a note where a picture has several. Without a face in one of\n"
    "the pictures the status is 1 and nothing is printed.\n\n"
    "Same person: the Euclidean distance of the two embeddings is at most the threshold. Its default is the\n"
    "customary start for the model, 1.1 for FaceNet (2015, Fig. 1) and 0.6 for dlib's; measure your own on your own pictures.\n\n"
    "Examples:\n"
    "  facenet verify a.jpg b.jpg && echo same person\n"
    "  facenet verify --json --threshold 0.9 --aligned face1.png face2.png\n\n";
constexpr const char* bench_examples =
    "Times are for one image of the batch; gflops is 2 x multiply-adds of the network over the median.\n\n"
    "Examples:\n"
    "  facenet bench\n"
    "  facenet bench --threads 1 --batch 8 --seconds 10 --json\n"
    "  facenet bench --layers                 where the time goes\n\n";

/// Three numbers from 0 to 1 with commas between.
bool parse_thresholds(const std::string& text, std::vector<double>& out) {
  out.clear();
  for (const char* at = text.c_str();;) {
    char* end = nullptr;
    const double value = std::strtod(at, &end);
    if (end == at || !(value >= 0 && value <= 1)) return false;
    out.push_back(value);
    if (*end == 0) return out.size() == 3;
    if (*end != ',') return false;
    at = end + 1;
  }
}

/// The words are the validator's name too, for generate().
CLI::Validator one_of(std::vector<std::string> words) {
  std::string names;
  for (const std::string& word : words) names += (names.empty() ? "" : " ") + word;
  const auto check = [words](const std::string& text) -> std::string {
    std::string all;
    for (const std::string& word : words) {
      if (word == text) return {};
      all += (all.empty() ? "" : ", ") + word;
    }
    return "'" + text + "' is none of " + all;
  };
  return CLI::Validator(check, "", names);
}

/// A whole number in low ... high, as a CLI11 validator.
CLI::Validator whole_number(int low, int high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (!text.empty() && *end == 0 && errno == 0 && value >= low && value <= high) return {};
    return "'" + text + "' is not a whole number from " + std::to_string(low) + " to " + std::to_string(high);
  };
  return CLI::Validator(check, "", "");
}

CLI::Validator number_from_to(double low, double high, const char* range) {
  const auto check = [=](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == 0 && value >= low && value <= high) return {};
    return "'" + text + "' is not a number from " + range;
  };
  return CLI::Validator(check, "", "");
}

class App {
 public:
  App() : app_("Face embeddings with FaceNet on the CPU.", "facenet") {
    app_.set_version_flag("--version", std::string("facenet ") + facenet::version + " (" + engine_name + ")",
                          "Print the version, the instruction set and the threads it was built for, and exit");
    app_.footer(std::string(main_examples) + common_footer);
    app_.require_subcommand(1);
    app_.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    help(app_);
    app_.add_flag("--json", json_, "Print one JSON object a line");
    const auto generated = [this](const std::string& kind) { throw Generated{generate(app_, kind, common_footer)}; };
    app_.add_option_function<std::string>("--generate", generated, "What packages install: man, complete-bash, …")
        ->check(one_of({std::begin(generated_kinds), std::end(generated_kinds)}))
        ->type_name("KIND")
        ->group("");  // not in --help
    add_detect();
    add_align();
    add_embed();
    add_verify();
    add_info();
    add_selftest();
    add_bench();
  }

  int run(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() != 0) return refuse(e, argc > 1 ? argv[1] : "");
      std::ostringstream text, errors;  // --help or --version
      app_.exit(e, text, errors);
      return print(text.str());
    } catch (const Generated& generated) {
      return print(generated.text);
    }
    info_.json = selftest_.json = detect_.json = align_.json = embed_.json = verify_.json = bench_.json = json_;
    if (app_.got_subcommand("info")) return info(info_);
    if (app_.got_subcommand("selftest")) return selftest(selftest_);
    if (app_.got_subcommand("detect")) return detect(detect_);
    if (app_.got_subcommand("align")) return align(align_);
    if (app_.got_subcommand("embed")) return embed(embed_);
    if (app_.got_subcommand("verify")) return verify(verify_);
    return bench(bench_);
  }

 private:
  struct Generated {
    std::string text;
  };
  static int print(std::string lines) {
    if (!lines.empty() && lines.back() == '\n') lines.pop_back();
    Output out;
    return out.line(lines) && out.finish() ? done : failed;
  }

  CLI::App* add(const char* name, const char* what, const char* examples) {
    CLI::App* sub = app_.add_subcommand(name, what);
    sub->footer(std::string(examples) + common_footer);
    sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    help(*sub);
    sub->add_flag("--json", json_, "Print one JSON object a line");
    return sub;
  }
  static void help(CLI::App& a) { a.set_help_flag("-h,--help", "Print this text and exit"); }

  static void add_threads(CLI::App* sub, int& threads) {
    sub->add_option("-t,--threads", threads, "Threads, 1 to 256 (default: as many as this process has CPUs)")
        ->check(whole_number(1, facenet::max_threads))
        ->type_name("N");
  }
  static void add_model(CLI::App* sub, ModelOptions& model) {
    sub->add_option("-w,--weights", model.weights, "The weight file")->type_name("FILE");
    sub->add_option("--expected-sha256", model.sha256, "Refuse a weight file with another SHA-256 (64 hex digits)")
        ->type_name("HEX");
    add_threads(sub, model.threads);
    sub->add_flag("--half-weights", model.half_weights,
                  "Keep weights as 16-bit floats in memory: half of the memory, embeddings differ by about 1e-3");
  }
  static void add_aligned(CLI::App* sub, bool& aligned) {
    sub->add_flag("--aligned", aligned,
                  "Each picture is a face crop already: no face is looked for, all of it is taken");
  }
  static void add_faces(CLI::App* sub, FaceOptions& faces, bool several = true) {
    sub->add_option("-d,--detector", faces.detector, "The detector's weight file")->type_name("FILE");
    sub->add_option("--min-face", faces.min_face, "Smallest face to look for, in pixels (default 20)")
        ->check(whole_number(1, 16384))
        ->type_name("N");
    sub->add_option_function<std::string>(
           "--thresholds", [&faces](const std::string& text) { parse_thresholds(text, faces.thresholds); },
           "Scores that the detector's three networks ask for (default 0.6,0.7,0.7)")
        ->check(CLI::Validator(
            [](const std::string& text) -> std::string {
              std::vector<double> values;
              if (parse_thresholds(text, values)) return {};
              return "'" + text + "' is not three numbers from 0 to 1, such as 0.6,0.7,0.7";
            },
            "", ""))
        ->type_name("P,R,O");
    sub->add_option("--factor", faces.factor, "From one size at which faces are looked for to the next (default 0.709)")
        ->check(number_from_to(0.01, 0.99, "0.01 to 0.99"))
        ->type_name("X");
    sub->add_option("--select", faces.select,
                    "Which face comes first: largest (default), probability, largest_over_threshold (scores above 0.9 "
                    "only) or centre_weighted")
        ->check(one_of({"largest", "probability", "largest_over_threshold", "centre_weighted"}))
        ->type_name("WORD");
    if (several)
      sub->add_option("--max-faces", faces.max_faces, "Take the first N faces of a picture only")
          ->check(whole_number(1, 1000000))
          ->type_name("N");
  }
  static void add_crop(CLI::App* sub, CropOptions& crop) {
    sub->add_option("-w,--weights", crop.weights,
                    "Cut faces out as this embedder's weight file wants them; without any: box, 160, 0")
        ->type_name("FILE");
    sub->add_option("--crop", crop.kind, "box: the detector's box; five_point: eyes, nose and mouth at fixed places")
        ->check(one_of({"box", "five_point"}))
        ->type_name("KIND");
    sub->add_option("--margin", crop.margin,
                    "Around the box: pixels of the crop; around five points: a part of the face, such as 0.25")
        ->check(number_from_to(0, 4096, "0 to 4096"))
        ->type_name("X");
    sub->add_option("--size", crop.size, "Pixels of the square crop")->check(whole_number(16, 4096))->type_name("N");
  }

  void add_detect() {
    CLI::App* sub = add("detect", "Find the faces in pictures", detect_examples);
    sub->add_option("IMAGE", detect_.pictures, "JPEG or PNG files; - is standard input")
        ->required()
        ->type_name("")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option(
           "--draw", detect_.draw,
           "Write the picture with boxes, landmarks and scores to OUT (PNG); a folder, or several pictures: to "
           "OUT/NAME.png")
        ->type_name("OUT");
    sub->add_option("--crops", detect_.crops, "Write each face as the embedder would see it to DIR/NAME_FACE.png")
        ->type_name("DIR");
    add_faces(sub, detect_.faces);
    add_crop(sub, detect_.crop);
    add_threads(sub, detect_.threads);
  }
  void add_align() {
    CLI::App* sub = add("align", "Turn a folder of photographs into a folder of face crops", align_examples);
    sub->add_option("DIR", align_.from, "The folder with the pictures")->required()->type_name("");
    sub->add_option("OUT", align_.to, "The folder for the crops, made if need be")->required()->type_name("");
    add_faces(sub, align_.faces, false);
    add_crop(sub, align_.crop);
    add_threads(sub, align_.threads);
  }

  void add_info() {
    CLI::App* sub = add("info", "Check a weight file completely and show what it says", info_examples);
    sub->add_option("FILE", info_.file, "The weight file (default: as for the other commands)")->type_name("");
    sub->add_option("--expected-sha256", info_.sha256, "Refuse a file with another SHA-256 (64 hex digits)")
        ->type_name("HEX");
    sub->add_flag("--plan", info_.plan, "Also show how each layer is computed on this machine");
  }
  void add_selftest() {
    CLI::App* sub = add("selftest", "Check that a weight file computes what it was made to", selftest_examples);
    sub->add_option("FILE", selftest_.file, "The weight file (default: as for the other commands)")->type_name("");
  }
  void add_embed() {
    CLI::App* sub = add("embed", "Print the embeddings of the faces in pictures", embed_examples);
    sub->add_option("IMAGE", embed_.pictures, "JPEG or PNG files; - is standard input")
        ->required()
        ->type_name("")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    add_aligned(sub, embed_.aligned);
    add_faces(sub, embed_.faces);
    sub->add_option("-o,--out", embed_.out, "Write the lines to FILE, which appears only when it is complete")
        ->type_name("FILE");
    add_model(sub, embed_.model);
  }
  void add_verify() {
    CLI::App* sub = add("verify", "Tell whether two pictures show the same person", verify_examples);
    sub->add_option("A", verify_.a, "A JPEG or PNG file; - is standard input")->required()->type_name("");
    sub->add_option("B", verify_.b, "Another")->required()->type_name("");
    add_aligned(sub, verify_.aligned);
    add_faces(sub, verify_.faces);
    sub->add_option("--threshold", verify_.threshold,
                    "Largest distance of one person's faces (default: the model's)")
        ->check(number_from_to(0, 1e6, "0 on"))
        ->type_name("X");
    add_model(sub, verify_.model);
  }
  void add_bench() {
    CLI::App* sub = add("bench", "Measure how long an embedding takes", bench_examples);
    sub->add_option("-b,--batch", bench_.batch, "Images that are embedded together, 1 to 4096 (default 1)")
        ->check(whole_number(1, 4096))
        ->type_name("N");
    sub->add_option("-s,--seconds", bench_.seconds, "How long to measure (default 3)")
        ->check(number_from_to(0, 3600, "0 to 3600"))
        ->type_name("S");
    sub->add_flag("--layers", bench_.layers, "Also time each step of the network within the run");
    add_model(sub, bench_.model);
  }

  int refuse(const CLI::ParseError& e, const std::string& first) const {
    const auto chosen = app_.get_subcommands();
    if (chosen.empty() && (first.empty() || first[0] != '-')) {
      say((first.empty() ? "no command was given" : "'" + first + "' is not a command") +
          "; give detect, align, embed, verify, info, selftest or bench, see 'facenet --help'.");
      return failed;
    }
    const std::string name = chosen.empty() ? "facenet" : "facenet " + chosen.front()->get_name();
    std::string text = e.what();
    while (!text.empty() && (text.back() == '.' || text.back() == '\n')) text.pop_back();
    say(text + "; see '" + name + " --help'.");
    return failed;
  }

  CLI::App app_;
  DetectOptions detect_;
  AlignOptions align_;
  InfoOptions info_;
  SelftestOptions selftest_;
  EmbedOptions embed_;
  VerifyOptions verify_;
  BenchOptions bench_;
  bool json_ = false;
};

}  // namespace

int run(int argc, char** argv) noexcept {
  guard_standard_streams();
  try {
    return App().run(argc, argv);
  } catch (const std::bad_alloc&) {
    say("there is not enough memory; free some, or use smaller pictures or batches.");
  } catch (const std::exception& e) {
    say(std::string("an unexpected error: ") + e.what() + "; please report it.");
  }
  return failed;
}

}  // namespace command
