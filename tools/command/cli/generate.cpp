#include "command/cli/generate.hpp"

#include <algorithm>

#include "dispatch/isas.hpp"
#include "facenet/base/config.hpp"

namespace command {

namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}
/// Options, or positionals; hidden ones (of no group) left out.
std::vector<const CLI::Option*> options_of(const CLI::App& app, bool positional) {
  return app.get_options(
      [=](const CLI::Option* o) { return !o->get_group().empty() && o->get_positional() == positional; });
}

/// "-w", "--weights"
std::vector<std::string> names_of(const CLI::Option& o) {
  std::vector<std::string> names;
  for (const std::string& name : o.get_snames()) names.push_back("-" + name);
  for (const std::string& name : o.get_lnames()) names.push_back("--" + name);
  return names;
}
std::string join(const std::vector<std::string>& words, const char* between) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : between) + word;
  return all;
}

bool takes_value(const CLI::Option& o) { return o.get_expected_max() > 0; }

/// What may follow an option, or for a positional.
enum class Value { none, anything, words, file, folder };
struct Completion {
  Value value = Value::none;
  std::string words;  // "largest probability …"
};
Completion completion_of(const CLI::Option& o) {
  if (!o.get_positional() && !takes_value(o)) return {};
  // common.hpp's one_of() puts its words into the validator's name, where --help does not show them.
  std::string words;
  try {
    words = const_cast<CLI::Option&>(o).get_validator(0)->get_name();
  } catch (const CLI::OptionNotFound&) {
    // an option without a validator
  }
  if (!words.empty()) return {Value::words, words};
  const std::string kind = o.get_positional() ? o.get_name() : o.get_type_name();
  if (kind.find("DIR") != std::string::npos) return {Value::folder, {}};
  for (const char* file : {"FILE", "IMAGE", "OUT", "A", "B"})
    if (kind == file) return {Value::file, {}};
  return {Value::anything, {}};
}

std::string replaced(const std::string& text, const std::string& what, const std::string& with) {
  std::string out;
  std::size_t from = 0;
  for (std::size_t at; (at = text.find(what, from)) != std::string::npos; from = at + what.size())
    out += text.substr(from, at - from) + with;
  return out + text.substr(from);
}

// ---- The manual page ------------------------------------------------------------------------------------------------

std::string roff(const std::string& text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    line_begins = c == '\n';
    out += c == '\\' ? "\\e" : c == '-' ? "\\-" : std::string(1, c);
  }
  return out;
}

/// Examples as they stand; every other paragraph is filled.
std::string roff_footer(const std::string& footer) {
  const std::size_t examples = footer.find("Examples:\n");
  std::string out;
  if (examples != 0) out += ".PP\n" + roff(replaced(footer.substr(0, examples), "\n\n", "\n"));
  if (examples == std::string::npos) return out;
  return out + ".PP\nExamples:\n.PP\n.nf\n" + roff(footer.substr(examples + 10)) + ".fi\n";
}

std::string man_options(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* o : options_of(app, true))
    out += ".TP\n\\fI" + roff(o->get_name()) + "\\fR\n" + roff(o->get_description()) + "\n";
  for (const CLI::Option* o : options_of(app, false)) {
    std::vector<std::string> names;
    for (const std::string& name : names_of(*o)) names.push_back("\\fB" + roff(name) + "\\fR");
    out += ".TP\n" + join(names, ", ");
    if (takes_value(*o)) out += " \\fI" + roff(o->get_type_name()) + "\\fR";
    out += "\n" + roff(o->get_description()) + "\n";
  }
  return out;
}

std::string usage_of(const CLI::App& command) {
  std::string out = "\\fBfacenet " + command.get_name() + "\\fR [\\fIOPTIONS\\fR]";
  for (const CLI::Option* o : options_of(command, true)) {
    const std::string name = "\\fI" + o->get_name() + "\\fR" + (o->get_expected_max() > 1 ? "..." : "");
    out += o->get_required() ? " " + name : " [" + name + "]";
  }
  return out;
}

std::string man(const CLI::App& app, const std::string& common) {
  const auto without_common = [&](std::string footer) {
    return footer.substr(0, footer.size() - std::min(footer.size(), common.size()));
  };
  std::string out =
      std::string(".TH FACENET 1 \"\" \"facenet ") + facenet::version +
      "\" \"User Commands\"\n.SH NAME\nfacenet \\- face detection and face embeddings on the CPU\n.SH SYNOPSIS\n"
      "\\fBfacenet\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] ...\n";
  out += ".SH DESCRIPTION\n" + roff(app.get_description()) + "\n" + roff_footer(without_common(app.get_footer()));
  out += ".PP\n" + replaced(roff(common), "\n\n", "\n.PP\n") + "\n.SH OPTIONS\n" + man_options(app) + ".SH COMMANDS\n";
  for (const CLI::App* c : commands_of(app))
    out += ".SS " + c->get_name() + "\n" + usage_of(*c) + "\n.PP\n" + roff(c->get_description()) + ".\n" +
           man_options(*c) + roff_footer(without_common(c->get_footer()));
  out +=
      ".SH ENVIRONMENT\n.TP\n\\fBFACENET_WEIGHTS\\fR\nThe weight file where \\fB\\-\\-weights\\fR is not given.\n"
      ".TP\n\\fBFACENET_DETECTOR\\fR\nThe detector's weight file where \\fB\\-\\-detector\\fR is not given.\n"
      ".TP\n\\fBXDG_DATA_HOME\\fR\nIts folder facenet is looked through for weights that nobody named.\n";
  if (*FACENET_ISA_NAMES != 0)
    out +=
        ".TP\n\\fBFACENET_FORCE_ISA\\fR\nIn a build for several instruction sets (see "
        "\\fB\\-\\-version\\fR): " FACENET_ISA_NAMES " instead of the best that this CPU has.\n";
  out += ".SH SEE ALSO\nfacenet\\-convert\\-weights \\-\\-help\n";
  return out;
}

// ---- Completions ----------------------------------------------------------------------------------------------------

std::string all_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* o : options_of(app, false))
    for (const std::string& name : names_of(*o)) names.push_back(name);
  return join(names, " ");
}

std::string bash(const CLI::App& app) {
  std::vector<std::string> commands;
  std::string options, values;
  for (const CLI::App* c : commands_of(app)) {
    const std::string name = c->get_name();
    commands.push_back(name);
    options += "    " + name + ") options=\"" + all_names(*c) + "\" ;;\n";
    for (const CLI::Option* o : options_of(*c, false)) {
      const Completion completion = completion_of(*o);
      if (completion.value == Value::none) continue;
      std::vector<std::string> patterns;
      for (const std::string& option : names_of(*o)) patterns.push_back(name + ":" + option);
      values += "    " + join(patterns, " | ") + ") ";
      if (completion.value == Value::words)
        values += "COMPREPLY=($(compgen -W \"" + completion.words + "\" -- \"$cur\")); ";
      if (completion.value == Value::folder) values += "COMPREPLY=($(compgen -d -- \"$cur\")); ";
      if (completion.value == Value::file) values += "COMPREPLY=($(compgen -f -- \"$cur\")); ";
      values += "return ;;\n";
    }
  }
  return R"(# bash completion for facenet
_facenet() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= options= i
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi   # --option=value
  for ((i = 1; i < COMP_CWORD; ++i)); do
    [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }
  done
  COMPREPLY=()
  case $command:$prev in
)" + values +
         R"(  esac
  case $command in
    "") options=")" +
         all_names(app) + R"("; [[ $cur == -* ]] || options=")" + join(commands, " ") + "\" ;;\n" + options +
         R"(  esac
  if [[ -z $command || $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _facenet facenet
)";
}

/// In single quotes of zsh, within [] of _arguments or after a colon.
std::string zsh_text(std::string text) {
  for (const char* c : {"\\", ":", "[", "]"}) text = replaced(text, c, std::string("\\") + c);
  return replaced(text, "'", "'\\''");
}
std::string zsh_action(const CLI::Option& o) {
  const Completion completion = completion_of(o);
  switch (completion.value) {
    case Value::none:
      return "";
    case Value::words:
      return ":" + o.get_type_name() + ":(" + completion.words + ")";
    case Value::folder:
      return ":folder:_files -/";
    case Value::file:
      return ":file:_files";
    case Value::anything:
      break;
  }
  return ":" + zsh_text(o.get_type_name()) + ": ";
}
std::string zsh_options(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* o : options_of(app, false)) {
    const auto names = names_of(*o);
    for (const std::string& name : names)
      out += " \\\n        '(" + join(names, " ") + ")" + name + "[" + zsh_text(o->get_description()) + "]" +
             zsh_action(*o) + "'";
  }
  int place = 0;
  for (const CLI::Option* o : options_of(app, true)) {
    const bool several = o->get_expected_max() > 1;
    out += " \\\n        '" + (several ? "*" : std::to_string(++place)) + ":" + o->get_name() +
           (completion_of(*o).value == Value::folder ? ":_files -/'" : ":_files'");
  }
  return out;
}
std::string zsh(const CLI::App& app) {
  std::string commands, options;
  for (const CLI::App* c : commands_of(app)) {
    commands += " \\\n        '" + c->get_name() + ":" + zsh_text(c->get_description()) + "'";
    options += "    " + c->get_name() + ")\n      _arguments" + zsh_options(*c) + " ;;\n";
  }
  return R"(#compdef facenet
_facenet() {
  local -a commands line
  local state
  commands=()" +
         commands + R"()
  _arguments -C)" +
         zsh_options(app) + R"( \
        '1:command:{_describe command commands}' \
        '*:: :->rest'
  [[ $state == rest ]] || return 0
  case $line[1] in
)" + options +
         R"(  esac
}
if [ "$funcstack[1]" = _facenet ]; then _facenet "$@"; else compdef _facenet facenet; fi
)";
}

std::string fish_line(const CLI::Option& o, const std::string& condition) {
  const auto quoted = [](const std::string& text) {
    return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
  };
  std::string line = "complete -c facenet -n " + quoted(condition);
  for (const std::string& name : o.get_snames()) line += " -s " + name;
  for (const std::string& name : o.get_lnames()) line += " -l " + name;
  const Completion completion = completion_of(o);
  if (completion.value == Value::words) line += " -x -a " + quoted(completion.words);
  if (completion.value == Value::folder) line += " -x -a '(__fish_complete_directories)'";
  if (completion.value == Value::file) line += " -r -F";
  if (completion.value == Value::anything) line += " -x";
  return line + " -d " + quoted(o.get_description()) + "\n";
}
std::string fish(const CLI::App& app) {
  std::string out = "# fish completion for facenet\n";
  for (const CLI::Option* o : options_of(app, false)) out += fish_line(*o, "__fish_use_subcommand");
  for (const CLI::App* c : commands_of(app)) {
    const std::string description = replaced(c->get_description(), "'", "\\'");
    out += "complete -c facenet -f -n __fish_use_subcommand -a " + c->get_name() + " -d '" + description + "'\n";
    for (const CLI::Option* o : options_of(*c, false))
      out += fish_line(*o, "__fish_seen_subcommand_from " + c->get_name());
  }
  return out;
}

}  // namespace

std::string generate(const CLI::App& app, const std::string& kind, const std::string& common) {
  if (kind == "man") return man(app, common);
  if (kind == "complete-bash") return bash(app);
  if (kind == "complete-zsh") return zsh(app);
  return fish(app);
}

}  // namespace command
