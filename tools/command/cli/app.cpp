// The command line: CLI11's parser, habits of git and GNU tools, every mistake one sentence and exit status 2.
#include <algorithm>
#include <cstdlib>
#include <new>
#include <sstream>
#include <utility>

#include "command/cli/commands.hpp"
#include "command/cli/common.hpp"
#include "command/cli/generate.hpp"
#include "command/cli/help.hpp"
#include "command/cpu.hpp"
#include "command/formats/kinds.hpp"
#include "facenet/base/config.hpp"
#include "store/database.hpp"
#include "command/io/config_file.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

constexpr const char* common_footer =
    "Weights: --weights FILE, else $FACENET_WEIGHTS, else facenet.safetensors in ./weights, in $XDG_DATA_HOME/facenet\n"
    "(~/.local/share/facenet) or in /usr/share/facenet. The detector's: --detector FILE, else $FACENET_DETECTOR, else "
    "in\n"
    "the embedder's file or beside it, else mtcnn.safetensors in the same folders.\n\n"
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

/// The one of `known` that `word` was meant to be, by Levenshtein's distance; "" where none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t least = word.size() / 3 + 1;
  for (const std::string& other : known) {
    std::vector<std::size_t> row(other.size() + 1);
    for (std::size_t k = 0; k <= other.size(); ++k) row[k] = k;
    for (std::size_t i = 0; i < word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i + 1);
      for (std::size_t k = 0; k < other.size(); ++k) {
        const std::size_t changed = diagonal + (word[i] != other[k]);
        diagonal = row[k + 1];
        row[k + 1] = std::min({changed, diagonal + 1, row[k] + 1});
      }
    }
    if (row.back() > least || (row.back() == least && !best.empty())) continue;
    least = row.back();
    best = other;
  }
  return best;
}

class App {
 public:
  App() : app_("Face embeddings with FaceNet on the CPU.", "facenet") {
    app_.set_version_flag(
        "-V,--version",
        std::string("facenet ") + facenet::version + " (" + engine_name + ")\npictures: " + formats_built_in(),
        "Print the version, what it was built for and which pictures it reads, and exit");
    app_.footer(std::string(main_examples) + common_footer);
    app_.require_subcommand(1);
    app_.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    app_.formatter_fn([](const CLI::App* a, const std::string& parents, CLI::AppFormatMode) {
      return help_text(*a, parents, terminal_width());
    });
    add_common(app_, flags_);
    const auto generated = [this](const std::string& kind) { throw Generated{generate(app_, kind, common_footer)}; };
    app_.add_option_function<std::string>("--generate", generated, "What packages install: man, complete-bash, …")
        ->check(one_of({std::begin(generated_kinds), std::end(generated_kinds)}))
        ->type_name("KIND")
        ->group("");  // not in --help
    for (const SubCommand& row : sub_commands()) {
      CLI::App* sub = app_.add_subcommand(row.name, row.summary);
      sub->footer(std::string(row.examples) + common_footer);
      sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      add_common(*sub, flags_);
      OptionSet options(sub, flags_);
      row.add_options(options);
    }
  }

  int run(int argc, char** argv) {
    std::vector<std::string> words(argv + (argc > 0), argv + argc);
    std::size_t first = 0;  // the word that should be a command
    while (first < words.size() && is_common(words[first])) ++first;
    if (first < words.size() && words[first] == "help") {  // facenet help embed: facenet embed --help
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(first));
      words.push_back("--help");
    }
    // Before --help and other options that CLI11 obeys first: facenet detct --help is a mistake.
    const CLI::App* at = &app_;
    std::size_t after = first;  // the last word that names a command or an action
    for (std::size_t i = first; at != nullptr && i < words.size(); ++i) {
      if (is_common(words[i])) continue;
      if (words[i].empty() || words[i][0] == '-') break;
      const std::vector<std::string> known = names_of(*at);
      if (known.empty()) break;
      if (std::find(known.begin(), known.end(), words[i]) == known.end()) return refuse_word(*at, words[i], known);
      at = at->get_subcommand(words[i]);
      after = i + 1;
      add_usual_action(*at, words, after);
    }
    if (!add_settings(*at, words, after)) return failed;
    const std::string word = first < words.size() ? words[first] : "";
    try {
      std::reverse(words.begin(), words.end());  // as CLI11 wants a vector
      app_.parse(std::move(words));
      refuse_empty_words(app_);
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() != 0) return refuse(e, word);
      std::ostringstream text, errors;  // --help or --version
      app_.exit(e, text, errors);
      return print(text.str());
    } catch (const Generated& generated) {
      return print(generated.text);
    }
    if (flags_.quiet) be_quiet();
    for (const SubCommand& row : sub_commands())
      if (app_.got_subcommand(row.name)) return row.run(flags_.json);
    return failed;
  }

 private:
  struct Generated {
    std::string text;
  };
  /// The configuration's options that this command has and the line does not give. What no command has is a mistake.
  bool add_settings(const CLI::App& command, std::vector<std::string>& words, std::size_t after) const {
    const CLI::App* top = &command;
    while (top->get_parent() != nullptr && top->get_parent() != &app_) top = top->get_parent();
    if (top == &app_ || top->get_name() == "config") return true;
    const std::string file = config_file();
    std::vector<Setting> settings;
    if (!read_config(file, settings)) return false;
    std::vector<std::string> added;
    for (const Setting& s : settings) {
      const auto all = names_of(app_);
      const std::string at = file + ": line " + std::to_string(s.line) + ": ";
      if (!s.section.empty() && std::find(all.begin(), all.end(), s.section) == all.end()) {
        say(at + "facenet has no command '" + s.section + "'; see 'facenet --help'.");
        return false;
      }
      if (!has_option(s.section.empty() ? app_ : *app_.get_subcommand(s.section), s.key)) {
        say(at + "'" + s.key + "' is no option of " +
            (s.section.empty() ? std::string("any command") : "facenet " + s.section) +
            "; 'facenet config' shows the file.");
        return false;
      }
      if (!s.section.empty() && s.section != top->get_name()) continue;
      const CLI::Option* option = command.get_option_no_throw("--" + s.key);
      if (option == nullptr || is_given(*option, words, after) || variable_says(s.key)) continue;
      if (option->get_expected_max() > 0)
        added.push_back("--" + s.key + "=" + s.value);
      else if (s.value == "true")
        added.push_back("--" + s.key);
    }
    words.insert(words.begin() + static_cast<std::ptrdiff_t>(after), added.begin(), added.end());
    return true;
  }
  /// A variable is nearer than a file.
  static bool variable_says(const std::string& key) {
    const char* value = key == "weights"    ? std::getenv("FACENET_WEIGHTS")
                        : key == "detector" ? std::getenv("FACENET_DETECTOR")
                                            : nullptr;
    return value != nullptr && *value != 0;
  }
  /// Of the command or of one below it.
  static bool has_option(const CLI::App& a, const std::string& key) {
    if (a.get_option_no_throw("--" + key) != nullptr) return true;
    const auto below = a.get_subcommands([](const CLI::App*) { return true; });
    return std::any_of(below.begin(), below.end(), [&](const CLI::App* sub) { return has_option(*sub, key); });
  }
  static bool is_given(const CLI::Option& option, const std::vector<std::string>& words, std::size_t from) {
    for (std::size_t i = 0; i < words.size() && !(i >= from && words[i] == "--"); ++i) {
      for (const std::string& name : option.get_lnames())
        if (words[i] == "--" + name || words[i].rfind("--" + name + "=", 0) == 0) return true;
      for (const std::string& name : option.get_snames())
        if (words[i].rfind("-" + name, 0) == 0) return true;
    }
    return false;
  }
  /// facenet people DIR: facenet people scan DIR. Help is of the command itself.
  static void add_usual_action(const CLI::App& a, std::vector<std::string>& words, std::size_t from) {
    for (const SubCommand& row : sub_commands()) {
      if (row.usual_action == nullptr || a.get_name() != row.name || a.get_parent()->get_parent() != nullptr) continue;
      while (from < words.size() && is_common(words[from])) ++from;
      const std::vector<std::string> known = names_of(a);
      if (from == words.size() || words[from] == "-h" || words[from] == "--help" ||
          std::find(known.begin(), known.end(), words[from]) != known.end())
        return;
      words.insert(words.begin() + static_cast<std::ptrdiff_t>(from), row.usual_action);
    }
  }
  /// A script's unset variable, which would pass for an option that was left out.
  static void refuse_empty_words(const CLI::App& a) {
    for (const CLI::Option* option : a.get_options())
      for (const std::string& word : option->results())
        if (word.empty())
          throw CLI::ValidationError(option->get_name(), "the value is an empty word; give one or leave it out");
    for (const CLI::App* sub : a.get_subcommands()) refuse_empty_words(*sub);
  }

  static int print(std::string lines) {
    if (!lines.empty() && lines.back() == '\n') lines.pop_back();
    Output out;
    return out.verbatim(lines) && out.finish() ? done : failed;
  }

  static std::vector<std::string> names_of(const CLI::App& a) {
    std::vector<std::string> names;
    for (const CLI::App* sub : a.get_subcommands([](const CLI::App*) { return true; }))
      names.push_back(sub->get_name());
    return names;
  }
  /// "a, b or c"
  static std::string list(const std::vector<std::string>& names, const char* last = " or ") {
    std::string all;
    for (std::size_t i = 0; i < names.size(); ++i)
      all += (i == 0 ? "" : i + 1 == names.size() ? last : ", ") + names[i];
    return all;
  }

  static int refuse_word(const CLI::App& a, const std::string& word, const std::vector<std::string>& known) {
    const bool nested = a.get_name() != "facenet";
    const std::string meant = nearest(word, known), name = nested ? "facenet " + a.get_name() : "facenet";
    std::string remedy = meant.empty() ? "give " + list(known) : "did you mean " + meant + "?";
    if (nested && !meant.empty()) remedy += " There are " + list(known, " and ");  // few enough to name them all
    say("'" + word + "' is not " + (nested ? "an action" : "a command") + " of " + name + "; " + remedy +
        (remedy.back() == '?' ? " See '" : ", see '") + name + " --help'.");
    return failed;
  }

  int refuse(const CLI::ParseError& e, const std::string& first) const {
    const auto chosen = app_.get_subcommands();
    if (chosen.empty() && dynamic_cast<const CLI::ValidationError*>(&e) == nullptr) {
      say((first.empty() ? "no command was given" : "'" + first + "' is not an option of facenet itself") + "; give " +
          list(names_of(app_)) + ", see 'facenet --help'.");
      return failed;
    }
    if (!chosen.empty() && chosen.front()->get_subcommands().empty()) {
      const std::vector<std::string> actions = names_of(*chosen.front());
      if (!actions.empty() && dynamic_cast<const CLI::RequiredError*>(&e) != nullptr) {
        say("no action of facenet " + chosen.front()->get_name() + " was given; give " + list(actions) +
            ", see 'facenet " + chosen.front()->get_name() + " --help'.");
        return failed;
      }
    }
    const std::string name = chosen.empty() ? "facenet" : "facenet " + chosen.front()->get_name();
    std::string text = e.what();
    while (!text.empty() && (text.back() == '.' || text.back() == '\n')) text.pop_back();
    if (dynamic_cast<const CLI::ExtrasError*>(&e) != nullptr && !chosen.empty()) {
      std::vector<std::string> options;
      for (const CLI::Option* o : chosen.front()->get_options())
        for (const std::string& long_one : o->get_lnames()) options.push_back("--" + long_one);
      const std::string word = text.substr(text.rfind(' ') + 1),
                        meant = nearest(word.substr(0, word.find('=')), options);
      if (!meant.empty() && word.compare(0, 2, "--") == 0) text += "; did you mean " + meant + "?";
    }
    say(text + (text.back() == '?' ? " See '" : "; see '") + name + " --help'.");
    return failed;
  }

  CLI::App app_;
  CommonFlags flags_;
};

}  // namespace

}  // namespace command

extern "C" int facenet_command(int argc, char** argv) noexcept {
  using namespace command;
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
