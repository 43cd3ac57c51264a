// The program of the decoders, facenet-decode. It is one of its own, since its libraries are fifty: they would take 10
// MB and 15 ms of each command that reads JPEG and PNG alone.
#pragma once

#include <string>

#include "command/formats/kinds.hpp"

namespace command {

/// Its path: beside this program, or in ../libexec/facenet as it is installed. "" where it is not there.
const std::string& decoder_program();
/// Whether it is there and decodes this kind.
bool has_decoder(Kind kind);
/// "libwebp 1.2.4", as the program says; "" where it says nothing.
std::string decoder_library(Kind kind);

}  // namespace command
