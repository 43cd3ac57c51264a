// What app.cpp and sub_command.cpp share of CLI11.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

#include "command/cli/sub_command.hpp"

namespace command {

void add_common(CLI::App& a, CommonFlags& flags);
/// Whether the word is one of the common flags: they may stand before the name of a command.
bool is_common(const std::string& word);

/// The words are the validator's name too, for generate().
CLI::Validator one_of(std::vector<std::string> words);

}  // namespace command
