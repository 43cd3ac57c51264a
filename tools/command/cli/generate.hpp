// The manual page and the shells' completions, made from the parser's own tree so that they cannot drift from it.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace command {

constexpr const char* generated_kinds[] = {"man", "complete-bash", "complete-zsh", "complete-fish"};

/// `kind`: one of generated_kinds. `common`: how every footer ends.
std::string generate(const CLI::App& app, const std::string& kind, const std::string& common);

}  // namespace command
