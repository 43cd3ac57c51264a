// The command line: CLI11's parser, habits of git and GNU tools, every mistake one sentence and exit status 2.
#include <CLI/CLI.hpp>

#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <sstream>

#include "commands.hpp"
#include "cpu.hpp"
#include "database.hpp"
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
    "  facenet enroll staff.gallery 'Ada Lovelace' ada.jpg\n"
    "  facenet identify staff.gallery door.jpg\n"
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
    "of a picture are in the order of --select, cut out as the weight file wants them. Of a folder all JPEG and PNG files\n"
    "in it and below are taken, in the order of their names; stopped and run again, the command goes on where it was, and\n"
    "pictures that failed are listed at the end.\n\n"
    "Examples:\n"
    "  facenet embed group.jpg\n"
    "  facenet embed --max-faces 1 --json portraits/*.jpg\n"
    "  facenet embed --aligned --json crops/*.png --out embeddings.jsonl\n"
    "  facenet embed photographs/ --out faces.npy\n"
    "  facenet embed - < portrait.jpg         a picture from standard input\n\n";
constexpr const char* verify_examples =
    "The face that --select puts first is compared, with a note where a picture has several. Without a face in one of\n"
    "the pictures the status is 1 and nothing is printed.\n\n"
    "Same person: the Euclidean distance of the two embeddings is at most the threshold. Its default is the\n"
    "customary start for the model, 1.1 for FaceNet (2015, Fig. 1) and 0.6 for dlib's; 'facenet calibrate' measures your own.\n\n"
    "Examples:\n"
    "  facenet verify a.jpg b.jpg && echo same person\n"
    "  facenet verify --json --threshold 0.9 --aligned face1.png face2.png\n"
    "  facenet verify --threshold staff.threshold a.jpg b.jpg\n\n";
constexpr const char* enroll_examples =
    "Adds faces to the gallery DB, a file that is made if need be: of one person from pictures, or with --dir of a folder\n"
    "that holds a folder of pictures for each person, named as the person. A person may have any number of pictures. Each\n"
    "picture's line is printed when it is safely on the disk; what is enrolled already (by the content of the file) is\n"
    "left as it is, so that a call that was stopped goes on where it was. A picture with several faces is refused unless\n"
    "--select says which one is meant. Names are kept exactly as they are given, in UTF-8.\n\n"
    "Examples:\n"
    "  facenet enroll staff.gallery 'Ada Lovelace' ada1.jpg ada2.jpg\n"
    "  facenet enroll --select largest staff.gallery 'Ada Lovelace' party.jpg\n"
    "  facenet enroll staff.gallery --dir photographs/     photographs/NAME/*.jpg\n\n";
constexpr const char* identify_examples =
    "Prints a line for each face: picture, number of the face, the person whose template is nearest, distance\n"
    "(Euclidean) and similarity (cosine), or 'unknown' where nobody's is within the threshold; with --json one object a\n"
    "face. Exit status 0: somebody was identified, 1: nobody.\n\n"
    "Examples:\n"
    "  facenet identify staff.gallery door.jpg\n"
    "  facenet identify --top 3 --json staff.gallery *.jpg\n"
    "  facenet identify --threshold staff.threshold staff.gallery - < door.jpg\n\n";
constexpr const char* gallery_examples =
    "A gallery is an SQLite file; README.md has its schema. 'remove' and 'rename' leave no trace of what went in the file\n"
    "or beside it. 'export' writes JSON lines, 'import' adds them to a gallery of the same model, all or none.\n\n"
    "Examples:\n"
    "  facenet gallery list staff.gallery\n"
    "  facenet gallery rename staff.gallery 'Ada Byron' 'Ada Lovelace'\n"
    "  facenet gallery remove staff.gallery 'Ada Lovelace'\n"
    "  facenet gallery export staff.gallery - | ssh other facenet gallery import staff.gallery -\n\n";
constexpr const char* evaluate_examples =
    "The protocol of LFW (vis-www.cs.umass.edu/lfw): accuracy over the folds of pairs.txt, each with the threshold that is\n"
    "best on the others (squared distances, 0 to 4 by 0.01, as davidsandberg/facenet), ROC, AUC, equal error rate, and true\n"
    "accepts at false accept rates of 1e-1 to 1e-4, with 95% bootstrap intervals. A picture stands for the face that --select\n"
    "puts first. Pairs with a picture that is missing, fails or has no face are counted, and accuracy is given with and\n"
    "without them (as never accepted). Embeddings are kept: stopped and run again, the command goes on where it was.\n\n"
    "Examples:\n"
    "  facenet evaluate --pairs pairs.txt --images lfw/ --select centre_weighted --html lfw.html\n"
    "  facenet evaluate --pairs pairs.txt --images lfw_crops/ --aligned --json\n\n";
constexpr const char* calibrate_examples =
    "Compares each two pictures below DIR, whose folders are persons, and takes the largest threshold that accepts at most\n"
    "--far of the pairs of two persons. Few persons cannot support a small rate: by the rule of three (none of n seen, so\n"
    "below 3/n with 95% confidence) 3/far different pairs of persons are needed, 78 persons for 1e-3. Pairs that share a\n"
    "person are no independent trials, so the intervals count pairs of persons, and persons, not pictures.\n\n"
    "Examples:\n"
    "  facenet calibrate people/ --far 1e-2 -o people.threshold\n"
    "  facenet verify --threshold people.threshold a.jpg b.jpg\n\n";
constexpr const char* cluster_examples =
    "Prints a line for each group of faces, the largest first: number, TAB, number of faces, TAB, the pictures with the\n"
    "number of the face; with --json an object. chinese_whispers and average leave nobody out; dbscan calls faces without\n"
    "neighbours noise (number -1). The threshold is the distance up to which two faces are neighbours.\n\n"
    "Examples:\n"
    "  facenet cluster photographs/ --html people.html\n"
    "  facenet cluster photographs/ --out people/ --copy --threshold 0.5\n"
    "  facenet cluster crops/ --aligned --algorithm average --json\n\n";
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

CLI::Validator distance_or_file() {
  const auto check = [](const std::string& text) -> std::string {
    double distance;
    if (parse_distance(text, distance) || ::access(text.c_str(), F_OK) == 0) return {};
    return "'" + text + "' is neither a distance of 0 or more nor a file";
  };
  return CLI::Validator(check, "", "");
}

/// 64 hex digits, made lower case.
CLI::Validator sha256_digits() {
  const auto change = [](std::string& text) -> std::string {
    bool hex = text.size() == 64;
    for (char& c : text) {
      hex = hex && std::isxdigit(static_cast<unsigned char>(c)) != 0;
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return hex ? std::string() : "'" + text + "' is not the 64 hex digits of a SHA-256";
  };
  return CLI::Validator(change, "", "");
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
    add_enroll();
    add_identify();
    add_gallery();
    add_evaluate();
    add_calibrate();
    add_cluster();
    add_info();
    add_selftest();
    add_bench();
  }

  int run(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
      refuse_empty_words(app_);
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() != 0) {
        int first = 1;  // the word that should be a command
        while (first < argc && argv[first] == std::string("--json")) ++first;
        return refuse(e, first < argc ? argv[first] : "");
      }
      std::ostringstream text, errors;  // --help or --version
      app_.exit(e, text, errors);
      return print(text.str());
    } catch (const Generated& generated) {
      return print(generated.text);
    }
    info_.json = selftest_.json = detect_.json = align_.json = embed_.json = verify_.json = bench_.json = json_;
    enroll_.json = identify_.json = gallery_.json = json_;
    evaluate_.images.json = calibrate_.images.json = cluster_.images.json = json_;
    if (app_.got_subcommand("info")) return info(info_);
    if (app_.got_subcommand("selftest")) return selftest(selftest_);
    if (app_.got_subcommand("detect")) return detect(detect_);
    if (app_.got_subcommand("align")) return align(align_);
    if (app_.got_subcommand("embed")) return embed(embed_);
    if (app_.got_subcommand("verify")) return verify(verify_);
    if (app_.got_subcommand("enroll")) return enroll(enroll_);
    if (app_.got_subcommand("identify")) return identify(identify_);
    if (app_.got_subcommand("gallery")) return gallery(gallery_);
    if (app_.got_subcommand("evaluate")) return evaluate(evaluate_);
    if (app_.got_subcommand("calibrate")) return calibrate(calibrate_);
    if (app_.got_subcommand("cluster")) return cluster(cluster_);
    return bench(bench_);
  }

 private:
  struct Generated {
    std::string text;
  };
  /// A script's unset variable, which would pass for an option that was left out.
  static void refuse_empty_words(const CLI::App& a) {
    for (const CLI::Option* option : a.get_options())
      for (const std::string& word : option->results())
        if (word.empty()) throw CLI::ValidationError(option->get_name(), "the value is an empty word; give one or leave it out");
    for (const CLI::App* sub : a.get_subcommands()) refuse_empty_words(*sub);
  }

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
        ->transform(sha256_digits())
        ->type_name("HEX");
    add_threads(sub, model.threads);
    sub->add_flag("--half-weights", model.half_weights,
                  "Keep weights as 16-bit floats in memory: half of the memory, embeddings differ by about 1e-3");
    sub->add_flag("--int8-weights", model.int8_weights,
                  "Keep the weights of an int8 file as they are: 32 MB in all instead of 110, the same bits, twice the time")
        ->excludes("--half-weights");
  }
  static void add_cache(CLI::App* sub, std::string& cache, const std::string& otherwise) {
    sub->add_option("--cache", cache, "Keep embeddings in FILE and take those that are there; none: nowhere (default: " + otherwise + ")")
        ->type_name("FILE");
  }
  static void add_threshold(CLI::App* sub, std::string& threshold) {
    sub->add_option("--threshold", threshold,
                    "Largest distance of one person's faces: a number, or a file of facenet calibrate (default: the model's)")
        ->check(distance_or_file())
        ->type_name("FILE|X");
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
        ->transform(sha256_digits())
        ->type_name("HEX");
    sub->add_flag("--plan", info_.plan, "Also show how each layer is computed on this machine");
  }
  void add_selftest() {
    CLI::App* sub = add("selftest", "Check that a weight file computes what it was made to", selftest_examples);
    sub->add_option("FILE", selftest_.file, "The weight file (default: as for the other commands)")->type_name("");
  }
  void add_embed() {
    CLI::App* sub = add("embed", "Print the embeddings of the faces in pictures", embed_examples);
    sub->add_option("IMAGE", embed_.pictures, "JPEG or PNG files, and folders with such; - is standard input")
        ->required()
        ->type_name("")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    add_aligned(sub, embed_.aligned);
    add_faces(sub, embed_.faces);
    sub->add_option("-o,--out", embed_.out,
                    "Write to FILE, which appears only when it is complete: X.npy (with X.index.jsonl and X.model.json), "
                    "X.csv, X.jsonl, or lines as on standard output")
        ->type_name("FILE");
    add_cache(sub, embed_.cache, "a folder's are kept in FILE.partial until --out's FILE is complete");
    add_model(sub, embed_.model);
  }
  void add_verify() {
    CLI::App* sub = add("verify", "Tell whether two pictures show the same person", verify_examples);
    sub->add_option("A", verify_.a, "A JPEG or PNG file; - is standard input")->required()->type_name("");
    sub->add_option("B", verify_.b, "Another")->required()->type_name("");
    add_aligned(sub, verify_.aligned);
    add_faces(sub, verify_.faces);
    add_threshold(sub, verify_.threshold);
    add_model(sub, verify_.model);
  }
  void add_enroll() {
    CLI::App* sub = add("enroll", "Add a person's faces to a gallery", enroll_examples);
    sub->add_option("DB", enroll_.gallery, "The gallery")->required()->type_name("");
    CLI::Option* name = sub->add_option("NAME", enroll_.name, "The person")->type_name("");
    CLI::Option* pictures = sub->add_option("IMAGE", enroll_.pictures, "JPEG or PNG files; - is standard input")
                                ->type_name("")
                                ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    CLI::Option* folder = sub->add_option("--dir", enroll_.folder, "Enroll a folder of persons' folders instead")->type_name("DIR");
    add_aligned(sub, enroll_.aligned);
    add_faces(sub, enroll_.faces, false);
    add_model(sub, enroll_.model);
    sub->callback([=] {
      enroll_.chosen = sub->get_option("--select")->count() > 0;
      if (folder->count() > 0 && name->count() > 0)
        throw CLI::ValidationError("--dir names the persons by their folders: NAME and IMAGE do not go with it");
      if (folder->count() == 0 && pictures->count() == 0) throw CLI::ValidationError("NAME and IMAGE, or --dir, are required");
    });
  }
  void add_identify() {
    CLI::App* sub = add("identify", "Tell who of a gallery is in pictures", identify_examples);
    sub->add_option("DB", identify_.gallery, "The gallery")->required()->type_name("");
    sub->add_option("IMAGE", identify_.pictures, "JPEG or PNG files; - is standard input")
        ->required()
        ->type_name("")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("-k,--top", identify_.top, "Name up to N persons for each face (default 1)")
        ->check(whole_number(1, 1000))
        ->type_name("N");
    add_threshold(sub, identify_.threshold);
    add_aligned(sub, identify_.aligned);
    add_faces(sub, identify_.faces);
    add_model(sub, identify_.model);
  }
  void add_gallery() {
    CLI::App* sub = add("gallery", "Look at a gallery, change it, carry it elsewhere", gallery_examples);
    sub->require_subcommand(1);
    const auto action = [&](const char* name, const char* what) {
      CLI::App* a = sub->add_subcommand(name, what);
      help(*a);
      a->add_flag("--json", json_, "Print one JSON object a line");
      a->add_option("DB", gallery_.gallery, "The gallery")->required()->type_name("");
      a->callback([this, name] { gallery_.action = name; });
      return a;
    };
    const auto names = [&](CLI::App* a, const char* what) {
      return a->add_option("NAME", gallery_.names, what)->type_name("")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    };
    action("list", "The persons, and how many templates each has");
    names(action("show", "The templates of persons"), "Persons")->required();
    names(action("rename", "Give a person another name: OLD NEW"), "The old name and the new one")->required()->expected(2);
    CLI::App* remove = action("remove", "Remove persons, or single templates, without a trace");
    names(remove, "Persons");
    remove->add_option("--template", gallery_.templates, "Remove this template only; again for more")
        ->type_name("ID")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    for (const char* name : {"export", "import"})
      action(name, name[0] == 'e' ? "Write all as JSON lines" : "Add what export wrote to a gallery, made if need be")
          ->add_option("FILE", gallery_.file, name[0] == 'e' ? "Where to (default -, standard output)" : "Where from (default -, standard input)")
          ->type_name("");
    action("stats", "Numbers, the model, and whether the file is sound");
    action("vacuum", "Give free space back, and erase what it held");
  }
  void add_folder(CLI::App* sub, FolderOptions& images, bool several) {
    add_aligned(sub, images.aligned);
    add_faces(sub, images.faces, several);
    add_cache(sub, images.cache, "DIR.embeddings beside DIR");
    add_model(sub, images.model);
  }
  void add_evaluate() {
    CLI::App* sub = add("evaluate", "Measure how well distances tell persons apart", evaluate_examples);
    sub->add_option("--pairs", evaluate_.pairs, "LFW's pairs.txt, or a list like it")->required()->type_name("FILE");
    sub->add_option("--images", evaluate_.images.folder, "The folder with NAME/NAME_0001.jpg (or .png)")
        ->required()
        ->type_name("DIR");
    sub->add_option("--html", evaluate_.html, "Write a report: ROC, histograms, the ten worst pairs")->type_name("OUT");
    add_threshold(sub, evaluate_.threshold);
    add_folder(sub, evaluate_.images, false);
  }
  void add_calibrate() {
    CLI::App* sub = add("calibrate", "Choose a threshold for a false accept rate on your own pictures", calibrate_examples);
    sub->add_option("DIR", calibrate_.images.folder, "A folder with a folder for each person")->required()->type_name("");
    sub->add_option("--far", calibrate_.far, "The false accept rate, such as 1e-3 (default): of pairs of two persons, how many may "
                                             "pass for one")
        ->check(number_from_to(1e-9, 0.5, "1e-9 to 0.5"))
        ->type_name("X");
    sub->add_option("-o,--out", calibrate_.out, "The threshold file to write (default: standard output)")->type_name("FILE");
    add_folder(sub, calibrate_.images, false);
  }
  void add_cluster() {
    CLI::App* sub = add("cluster", "Sort the faces of a folder by person", cluster_examples);
    sub->add_option("DIR", cluster_.images.folder, "The folder with the pictures")->required()->type_name("");
    sub->add_option("--algorithm", cluster_.algorithm, "chinese_whispers (default), dbscan or average")
        ->check(one_of({"chinese_whispers", "dbscan", "average"}))
        ->type_name("WORD");
    sub->add_option("--min-samples", cluster_.min_samples, "Neighbours that dbscan asks of a face inside a group, itself counted "
                                                           "(default 2)")
        ->check(whole_number(1, 1000000))
        ->type_name("N");
    add_threshold(sub, cluster_.threshold);
    sub->add_option("--out", cluster_.out, "Make this folder, with a folder of links to pictures for each person")->type_name("DIR2");
    sub->add_flag("--copy", cluster_.copy, "Copy pictures there instead of linking to them");
    sub->add_option("--html", cluster_.html, "Write a contact sheet")->type_name("OUT");
    add_folder(sub, cluster_.images, true);
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
    if (chosen.empty() && dynamic_cast<const CLI::ValidationError*>(&e) == nullptr) {
      const char* what = !first.empty() && first[0] == '-' ? "an option of facenet itself" : "a command";
      say((first.empty() ? "no command was given" : "'" + first + "' is not " + what) +
          "; give detect, align, embed, verify, enroll, identify, gallery, evaluate, calibrate, cluster, info, selftest or bench, see 'facenet --help'.");
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
  EnrollOptions enroll_;
  IdentifyOptions identify_;
  GalleryOptions gallery_;
  EvaluateOptions evaluate_;
  CalibrateOptions calibrate_;
  ClusterOptions cluster_;
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
  } catch (const DatabaseError& e) {
    say(e.what());
  } catch (const std::exception& e) {
    say(std::string("an unexpected error: ") + e.what() + "; please report it.");
  }
  return failed;
}

}  // namespace command
