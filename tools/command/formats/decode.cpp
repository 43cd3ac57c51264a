// facenet-decode: decodes one picture for the command, which starts it for each (sandbox.hpp).
#include <cstdio>
#include <cstring>

#include "command/formats/sandbox.hpp"

int main(int argc, char** argv) {
  using namespace command;
  if (is_decoder(argc, argv)) run_decoder(argv);
  if (argc == 2 && std::strcmp(argv[1], "--libraries") == 0) {
    for (int kind = 0; kind < kind_count; ++kind)
      if (const Decoder* decoder = find_decoder(static_cast<Kind>(kind)))
        std::printf("%s\t%s\n", name_of(decoder->kind), decoder->library().c_str());
    return std::fflush(stdout) == 0 ? 0 : 2;
  }
  std::fputs("facenet-decode: the command facenet starts it; use that one.\n", stderr);
  return 2;
}
