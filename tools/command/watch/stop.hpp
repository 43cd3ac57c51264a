// Ending on a signal in good order.
#pragma once

namespace command {

/// From here on the first SIGINT, SIGTERM, SIGHUP or SIGQUIT asks to stop, and the second ends the process as if none
/// of this were here. One that the caller ignores stays ignored.
void stop_on_signals();
/// Whether one has come.
bool stopping();

}  // namespace command
