// The text of --help, as wide as the terminal.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace command {

/// $COLUMNS where it is a number, else the width of the terminal that is standard output, else 80; 40 at least.
std::size_t terminal_width();

/// What the command is for, its usage, positionals, options, sub-commands and its footer. Each paragraph of the footer
/// is filled; a line that begins with spaces is an example, which is broken by a backslash, so that a shell still takes
/// it. `name`: "facenet embed".
std::string help_text(const CLI::App& app, const std::string& name, std::size_t width);

}  // namespace command
