// Work that should disturb nobody.
#pragma once

namespace command {

/// The lowest priority for the CPU, and for the disk where the system has one (Linux: idle). For this thread and those
/// that it starts, so call it first. What the system refuses is left as it is.
void go_to_background();

}  // namespace command
