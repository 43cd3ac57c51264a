// A program that is packed into one of a third of its size, for containers: this unpacks it into memory and runs it.
// The other unit of the two is made by the build (tools/CMakeLists.txt): the packed bytes, and how many they will be.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <initializer_list>

extern "C" const char facenet_packed[], facenet_packed_end[];

namespace {

int say(const char* what, const char* why) {
  for (const char* text : {"facenet: ", what, why, ".\n"})
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
  return 2;
}

}  // namespace

int main(int, char** argv, char** environment) {
  const auto packed = static_cast<std::size_t>(facenet_packed_end - facenet_packed);
  const auto size = static_cast<std::size_t>(ZSTD_getFrameContentSize(facenet_packed, packed));
  const int file = static_cast<int>(syscall(SYS_memfd_create, "facenet", 1 /* MFD_CLOEXEC */));
  if (file < 0) return say("this system makes no file in memory: ", std::strerror(errno));
  if (ftruncate(file, static_cast<off_t>(size)) != 0)
    return say("no memory to unpack the program: ", std::strerror(errno));
  void* const to = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (to == MAP_FAILED) return say("no memory to unpack the program: ", std::strerror(errno));
  const std::size_t made = ZSTD_decompress(to, size, facenet_packed, packed);
  if (made != size) return say("this file is damaged; copy it again", "");
  munmap(to, size);
  // Without /proc, which an empty container need not have.
  syscall(SYS_execveat, file, "", argv, environment, 0x1000 /* AT_EMPTY_PATH */);
  return say("this system runs no program from memory: ", std::strerror(errno));
}
