// Which CPU features this build needs. Plain data: reading it runs no instruction that an old CPU lacks.
#pragma once

#include <cstdint>

namespace command {

/// facenet_cpu::Feature of what the units with the engine were compiled for; 0 where nothing need be checked.
extern const std::uint32_t needed_cpu_features;

/// "avx512, openmp": what the units with the engine were compiled for.
extern const char* const engine_name;

}  // namespace command

/// The command proper: parses, works, returns the exit status. Not C++'s name: cmake/FacenetIsa.cmake gives each ISA's
/// copy its own.
extern "C" int facenet_command(int argc, char** argv) noexcept;
