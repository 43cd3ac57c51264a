// The table of sub-commands, from which help, completions, the manual page, errors and the choice of what runs follow.
#pragma once

#include <vector>

#include "command/cli/sub_command.hpp"

namespace command {

const std::vector<SubCommand>& sub_commands();

}  // namespace command
