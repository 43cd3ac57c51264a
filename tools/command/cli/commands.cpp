// The table of sub-commands, in the order of --help. A new one is a file of subcommands/, which defines NAME_command(),
// and a line here.
#include "command/cli/commands.hpp"

// clang-format off
#define SUB_COMMANDS(row) \
  row(detect) \
  row(align) \
  row(embed) \
  row(verify) \
  row(enroll) \
  row(identify) \
  row(watch) \
  row(people) \
  row(tag) \
  row(gallery) \
  row(serve) \
  row(evaluate) \
  row(calibrate) \
  row(cluster) \
  row(info) \
  row(selftest) \
  row(bench) \
  row(weights) \
  row(config)
// clang-format on

namespace command {

#define DECLARED(name) SubCommand name##_command();
SUB_COMMANDS(DECLARED)
#undef DECLARED

const std::vector<SubCommand>& sub_commands() {
#define MADE(name) name##_command(),
  static const std::vector<SubCommand> all{SUB_COMMANDS(MADE)};
#undef MADE
  return all;
}

}  // namespace command
