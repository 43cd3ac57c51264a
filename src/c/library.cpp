// What belongs to no object: the version, errors as text, hashes, flags; and what unloading needs.
#include "facenet/dispatch.hpp"
#include "facenet/base/hash.hpp"
#include "support.hpp"

#if defined(FACENET_C_OPENMP)
#  include <dlfcn.h>
extern "C" int omp_get_num_procs(void);
#endif

using namespace facenet_c;

#if defined(FACENET_C_OPENMP)
namespace {

// OpenMP's threads outlive this library and wait inside their own: that one must stay where they are when both are
// unloaded.
__attribute__((constructor)) void keep_openmp() {
  Dl_info about;
  if (dladdr(reinterpret_cast<void*>(&omp_get_num_procs), &about) == 0) return;
  if (void* const library = dlopen(about.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE)) dlclose(library);
}

}  // namespace
#endif

extern "C" {

const char* facenet_code_name(facenet_code code) {
  if (code == FACENET_INTERNAL) return "internal";
  return code >= FACENET_OK && code < FACENET_INTERNAL ? facenet::name(static_cast<Errc>(code)) : "unknown";
}

size_t facenet_error_message(const facenet_error* error, char* out, size_t size) {
  std::size_t used = 0;
  const auto put = [&](const char* text, std::size_t most) {
    for (std::size_t i = 0; i < most && text[i] != 0; ++i, ++used)
      if (out != nullptr && used + 1 < size) out[used] = text[i];
  };
  facenet_error known;
  if (error != nullptr && can_report(error) && read_options(error, "error", known).ok() && known.code != FACENET_OK) {
    if (known.place[0] != 0) {
      put(known.place, sizeof known.place);
      put(": ", 2);
    }
    put(known.sentence, sizeof known.sentence);
    const bool has_offset = error->struct_size >= offsetof(facenet_error, sentence) && known.offset >= 0;
    if (has_offset) {
      char digits[24];
      std::size_t n = sizeof digits;
      digits[--n] = 0;
      std::int64_t rest = known.offset;
      do {
        digits[--n] = static_cast<char>('0' + rest % 10);
        rest /= 10;
      } while (rest != 0);
      put(" (byte ", 7);
      put(digits + n, sizeof digits - n);
      put(")", 1);
    }
  }
  if (out != nullptr && size > 0) out[used < size ? used : size - 1] = 0;
  return used;
}

const char* facenet_version(void) { return FACENET_VERSION; }

facenet_code facenet_isa(char* out, size_t size, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    if (out == nullptr) return null_argument("out");
    const auto isa = facenet::dispatch::isa();
    if (!isa) return isa.status();
    if (std::strlen(*isa) >= size)
      return Status(Errc::invalid_argument, "the buffer is too small for the name: 32 bytes are always enough")
          .in("size");
    copy_text(*isa, out, size);
    return {};
  });
}

void facenet_wipe(void* buffer, size_t size) { wipe(buffer, size); }

facenet_code facenet_sha256(const void* bytes, size_t size, char* out, size_t out_size, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    if (bytes == nullptr && size > 0) return null_argument("bytes");
    if (out == nullptr) return null_argument("out");
    if (out_size < 65) return Status(Errc::invalid_argument, "the digest takes 65 bytes").in("out_size");
    facenet::Sha256 hash;
    if (size > 0) hash.update(bytes, size);
    std::uint8_t digest[facenet::Sha256::digest_size];
    hash.digest(digest);
    for (std::size_t i = 0; i < sizeof digest; ++i) {
      out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
      out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[64] = 0;
    return {};
  });
}

facenet_code facenet_cancel_make(facenet_cancel** cancel, facenet_error* error) {
  return make_object<Cancel>(cancel, "cancel", error, [](Cancel&) { return Status(); });
}

facenet_code facenet_cancel_set(facenet_cancel* cancel, int32_t set, facenet_error* error) {
  return guarded(error, [&]() -> Status {
    std::shared_ptr<Cancel> object;
    FACENET_TRY(find(cancel, object));
    if (set != 0 && set != 1) return Status(Errc::invalid_argument, "a flag is set to 0 or 1").in("set");
    object->flag.store(set != 0, std::memory_order_relaxed);
    return {};
  });
}

facenet_code facenet_cancel_free(facenet_cancel* cancel) { return free_handle(cancel, Kind::cancel); }

}  // extern "C"
