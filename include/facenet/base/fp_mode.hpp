// The floating-point mode that everything here computes in, whatever the caller's is.
#pragma once

#include <cstdint>

#include "facenet/base/config.hpp"

FACENET_BEGIN

namespace simd {

/// Denormals are flushed to zero on this thread while it lives: arithmetic on them is up to 100 times slower on some
/// CPUs, and speed must not depend on the data. Rounding is to nearest and nothing traps, whatever the caller chose, so
/// that all threads compute the same bits. The caller's mode and exception flags come back at the end.
/// Other ISAs have no such mode (WebAssembly, RISC-V, s390x) or none that is set here (32-bit ARM): denormals count
/// there.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
  // The clobbers keep loads and stores, and so what is between them, on their side.
#if defined(__SSE2__)
  FlushDenormals() noexcept {
    const std::uint32_t mode = 0x9fc0;  // FTZ, DAZ, all exceptions masked
    __asm__ __volatile__("stmxcsr %0" : "=m"(saved_) : : "memory");
    __asm__ __volatile__("ldmxcsr %0" : : "m"(mode) : "memory");
  }
  ~FlushDenormals() { __asm__ __volatile__("ldmxcsr %0" : : "m"(saved_) : "memory"); }

 private:
  std::uint32_t saved_;
#elif defined(__aarch64__)
  FlushDenormals() noexcept {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    __asm__ __volatile__("msr fpcr, %0"
                         :
                         : "r"(std::uint64_t{1} << 24)
                         : "memory");  // FZ; every other bit is a default
  }
  ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_) : "memory"); }

 private:
  std::uint64_t saved_ = 0;
#else
  FlushDenormals() noexcept {}
  ~FlushDenormals() {}
#endif
};

}  // namespace simd

FACENET_END
