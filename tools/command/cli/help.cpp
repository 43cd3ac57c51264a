#include "command/cli/help.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <vector>

namespace command {

namespace {

constexpr std::size_t usual_width = 80, least_width = 40, most_width = 1000;

/// Characters of UTF-8, each taken for one column.
std::size_t columns(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// `text` from column `at` on, where the line is already that long, in lines of `width` that begin at column `indent`.
std::string filled(const std::string& text, std::size_t at, std::size_t indent, std::size_t width) {
  std::string out;
  bool line_begins = true;
  for (const std::string& word : words_of(text)) {
    if (!line_begins && at + 1 + columns(word) > width) {
      out += "\n" + std::string(indent, ' ');
      at = indent;
      line_begins = true;
    }
    if (!line_begins) out += " ";
    at += !line_begins + columns(word);
    out += word;
    line_begins = false;
  }
  return out + "\n";
}

/// A name, and what it is for, in two columns.
std::string row(const std::string& name, const std::string& text, std::size_t width) {
  const std::size_t left = width >= 70 ? 30 : 10;
  std::string out = "  " + name;
  const std::size_t end = columns(out);
  out += end + 2 <= left ? std::string(left - end, ' ') : "\n" + std::string(left, ' ');
  return out + filled(text, left, left, width);
}

/// The words of a shell's command line: what is in single quotes belongs together.
std::vector<std::string> shell_words(const std::string& text) {
  std::vector<std::string> words(1);
  bool quoted = false;
  for (const char c : text) {
    quoted = quoted != (c == '\'');
    if (c != ' ' || quoted)
      words.back() += c;
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

/// "  facenet …     what that is": the remark after three spaces or more gets its own line where there is no room.
std::string example(const std::string& line, std::size_t width) {
  if (columns(line) <= width) return line + "\n";
  const std::size_t begin = line.find_first_not_of(' '), gap = line.find("   ", begin);
  const std::string remark = gap == std::string::npos ? "" : line.substr(line.find_first_not_of(' ', gap));
  std::string out(begin, ' ');
  std::size_t at = begin;
  bool line_begins = true;
  for (const std::string& word : shell_words(line.substr(begin, gap == std::string::npos ? gap : gap - begin))) {
    if (!line_begins && at + 1 + columns(word) + 2 > width) {  // 2: " \\"
      out += " \\\n" + std::string(begin + 4, ' ');
      at = begin + 4;
      line_begins = true;
    }
    out += (line_begins ? "" : " ") + word;
    at += !line_begins + columns(word);
    line_begins = false;
  }
  out += "\n";
  if (!remark.empty()) out += std::string(begin + 4, ' ') + filled("(" + remark + ")", begin + 4, begin + 4, width);
  return out;
}

std::string footer(const std::string& text, std::size_t width) {
  std::istringstream in(text);
  std::string out, paragraph;
  const auto end_paragraph = [&] {
    if (!paragraph.empty()) out += filled(paragraph, 0, 0, width);
    paragraph.clear();
  };
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != ' ') {
      paragraph += line + " ";
      continue;
    }
    end_paragraph();
    out += line.empty() ? "\n" : example(line, width);
  }
  end_paragraph();
  return out;
}

bool hidden(const CLI::Option& o) { return o.get_group().empty(); }

std::string positionals_and_options(const CLI::App& app, bool positional, std::size_t width) {
  std::string out;
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_positional() != positional || hidden(*o)) continue;
    std::string name = o->get_name(positional, !positional), text = o->get_description();
    if (!positional && o->get_expected_max() > 0) name += " " + o->get_type_name();
    if (positional && o->get_expected_max() > 1) name += " ...";
    if (o->get_required()) name += " REQUIRED";
    for (const CLI::Option* other : o->get_excludes()) text += " (not with " + other->get_name() + ")";
    out += row(name, text, width);
  }
  return out;
}

}  // namespace

std::size_t terminal_width() {
  std::size_t width = 0;
  if (const char* columns = std::getenv("COLUMNS")) {
    char* end = nullptr;
    const unsigned long value = std::strtoul(columns, &end, 10);
    if (*columns >= '0' && *columns <= '9' && *end == 0) width = value;
  }
  struct winsize size {};
  if (width == 0 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) width = size.ws_col;
  return width == 0 ? usual_width : std::min(std::max(width, least_width), most_width);
}

std::string help_text(const CLI::App& app, const std::string& name, std::size_t width) {
  const std::vector<const CLI::App*> commands = app.get_subcommands([](const CLI::App*) { return true; });
  std::string usage = "Usage: " + name + " [OPTIONS]";
  for (const CLI::Option* o : app.get_options()) {
    if (!o->get_positional() || hidden(*o)) continue;
    const std::string word = o->get_name() + (o->get_expected_max() > 1 ? "..." : "");
    usage += o->get_required() ? " " + word : " [" + word + "]";
  }
  if (!commands.empty()) usage += " SUBCOMMAND";
  std::string out = filled(app.get_description(), 0, 0, width) + filled(usage, 0, 7, width);
  const auto section = [&](const char* title, const std::string& rows) {
    if (!rows.empty()) out += std::string("\n") + title + ":\n" + rows;
  };
  section("Positionals", positionals_and_options(app, true, width));
  section("Options", positionals_and_options(app, false, width));
  std::string rows;
  for (const CLI::App* c : commands) rows += row(c->get_name(), c->get_description(), width);
  section("Subcommands", rows);
  return out + "\n" + footer(app.get_footer(), width);
}

}  // namespace command
