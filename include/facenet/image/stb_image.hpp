// stb_image, compiled into facenet::detail::stb with limits of its own. It lives beside any other copy in the same
// source file, before or after, with or without STB_IMAGE_IMPLEMENTATION: its names are in a namespace, and every macro
// that it reads or defines is put away before and comes back after. tests/python/test_image.py looks for macros that
// remain.
#pragma once

#include "facenet/image/stored.hpp"

// What stb_image includes, here, so that none of it lands in the namespace.
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64) || defined(_M_IX86)
#  include <emmintrin.h>
#endif
#if defined(_MSC_VER)
#  include <intrin.h>
#endif

FACENET_BEGIN

namespace detail {

// The memory of the picture that is decoded, where stb_image's largest blocks lie: the finished pixels in front, the
// planes of a baseline JPEG after them, so that the pixels of each row end before what is left of the planes. Blocks of
// their own cost a copy of all pixels, and the kernel's clearing of 2.5 times as many pages.
struct DecodeFrame {
  static constexpr int most_planes = 4;
  std::uint8_t* data = nullptr;  // null: there is none
  std::size_t size = 0;
  std::size_t pixels = 0;  // bytes of the finished picture; 0: it is not finished here, but turned afterwards
  bool clear = false;      // the pixels, for decoders that may leave some unset
  std::size_t plane_at[most_planes] = {}, plane_bytes[most_planes] = {};
  int planes = 0, given = 0;
  bool pixels_given = false;

  bool holds(const void* p) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(p), begin = reinterpret_cast<std::uintptr_t>(data);
    return data != nullptr && at >= begin && at - begin < size;
  }
  // A block for stb_image, or nullptr: it is none of the large ones.
  void* take(std::size_t bytes) noexcept {
    if (data == nullptr) return nullptr;
    if (given < planes && bytes == plane_bytes[given]) {
      std::uint8_t* plane = data + plane_at[given++];
      std::memset(plane, 0, bytes);
      return plane;
    }
    // A JPEG's has a byte more, which its last pixel overwrites as if it had a fourth channel.
    if (pixels == 0 || pixels_given || given != planes || (bytes != pixels && bytes != pixels + 1) || bytes > size)
      return nullptr;
    pixels_given = true;
    if (clear) std::memset(data, 0, bytes);
    return data;
  }
  std::size_t size_of(const void* p) const noexcept {
    for (int i = 0; i < given; ++i)
      if (p == data + plane_at[i]) return plane_bytes[i];
    return pixels;
  }
};

// What stb_image may still take, one account a thread.
struct DecodeMemory {
  std::size_t left = 0;
  bool over_budget = false, out_of_memory = false;
  DecodeFrame frame;
};
FACENET_HIDDEN inline thread_local DecodeMemory decode_memory;  // else a plug-in could never be unloaded
constexpr std::size_t decode_prefix = 16;  // holds the size, and keeps the alignment that malloc promises

inline void* decode_allocate(std::size_t bytes) noexcept {
  DecodeMemory& memory = decode_memory;
  if (void* const framed = memory.frame.take(bytes)) return framed;
  const bool affordable = bytes <= memory.left;
  void* block = affordable ? allocate(bytes + decode_prefix) : nullptr;
  if (block == nullptr) {
    (affordable ? memory.out_of_memory : memory.over_budget) = true;
    return nullptr;
  }
  memory.left -= bytes;
  std::memset(block, 0, bytes + decode_prefix);
  std::memcpy(block, &bytes, sizeof bytes);
  return static_cast<char*>(block) + decode_prefix;
}

inline std::size_t decode_size(const void* pointer) noexcept {
  if (decode_memory.frame.holds(pointer)) return decode_memory.frame.size_of(pointer);
  std::size_t bytes;
  std::memcpy(&bytes, static_cast<const char*>(pointer) - decode_prefix, sizeof bytes);
  return bytes;
}

inline void decode_free(void* pointer) noexcept {
  if (pointer == nullptr || decode_memory.frame.holds(pointer)) return;
  decode_memory.left += decode_size(pointer);
  deallocate(static_cast<char*>(pointer) - decode_prefix);
}

inline void* decode_reallocate(void* pointer, std::size_t bytes) noexcept {
  void* larger = decode_allocate(bytes);
  if (larger == nullptr || pointer == nullptr) return larger;
  const std::size_t old = decode_size(pointer);
  std::memcpy(larger, pointer, old < bytes ? old : bytes);
  decode_free(pointer);
  return larger;
}

}  // namespace detail

FACENET_END

// What a user may set or have, and what stb_image 2.27 to 2.30 only define for themselves (from STBI_EXTERN on).
#if defined(_MSC_VER)
#  pragma warning(push, 0)
#endif
#pragma push_macro("STB_IMAGE_IMPLEMENTATION")
#undef STB_IMAGE_IMPLEMENTATION
#pragma push_macro("STB_IMAGE_STATIC")
#undef STB_IMAGE_STATIC
#pragma push_macro("STBIDEF")
#undef STBIDEF
#pragma push_macro("STBI_INCLUDE_STB_IMAGE_H")
#undef STBI_INCLUDE_STB_IMAGE_H
#pragma push_macro("STBI_VERSION")
#undef STBI_VERSION
#pragma push_macro("STBI_ASSERT")
#undef STBI_ASSERT
#pragma push_macro("STBI_MALLOC")
#undef STBI_MALLOC
#pragma push_macro("STBI_REALLOC")
#undef STBI_REALLOC
#pragma push_macro("STBI_REALLOC_SIZED")
#undef STBI_REALLOC_SIZED
#pragma push_macro("STBI_FREE")
#undef STBI_FREE
#pragma push_macro("STBI_MAX_DIMENSIONS")
#undef STBI_MAX_DIMENSIONS
#pragma push_macro("STBI_NO_STDIO")
#undef STBI_NO_STDIO
#pragma push_macro("STBI_NO_LINEAR")
#undef STBI_NO_LINEAR
#pragma push_macro("STBI_NO_FAILURE_STRINGS")
#undef STBI_NO_FAILURE_STRINGS
#pragma push_macro("STBI_NO_THREAD_LOCALS")
#undef STBI_NO_THREAD_LOCALS
#pragma push_macro("STBI_NO_SIMD")  // whoever sets it means ours too
#pragma push_macro("STBI_NO_JPEG")
#undef STBI_NO_JPEG
#pragma push_macro("STBI_NO_PNG")
#undef STBI_NO_PNG
#pragma push_macro("STBI_NO_BMP")
#undef STBI_NO_BMP
#pragma push_macro("STBI_NO_PSD")
#undef STBI_NO_PSD
#pragma push_macro("STBI_NO_TGA")
#undef STBI_NO_TGA
#pragma push_macro("STBI_NO_GIF")
#undef STBI_NO_GIF
#pragma push_macro("STBI_NO_HDR")
#undef STBI_NO_HDR
#pragma push_macro("STBI_NO_PIC")
#undef STBI_NO_PIC
#pragma push_macro("STBI_NO_PNM")
#undef STBI_NO_PNM
#pragma push_macro("STBI_NO_ZLIB")
#undef STBI_NO_ZLIB
#pragma push_macro("STBI_ONLY_JPEG")
#undef STBI_ONLY_JPEG
#pragma push_macro("STBI_ONLY_PNG")
#undef STBI_ONLY_PNG
#pragma push_macro("STBI_ONLY_BMP")
#undef STBI_ONLY_BMP
#pragma push_macro("STBI_ONLY_PSD")
#undef STBI_ONLY_PSD
#pragma push_macro("STBI_ONLY_TGA")
#undef STBI_ONLY_TGA
#pragma push_macro("STBI_ONLY_GIF")
#undef STBI_ONLY_GIF
#pragma push_macro("STBI_ONLY_HDR")
#undef STBI_ONLY_HDR
#pragma push_macro("STBI_ONLY_PIC")
#undef STBI_ONLY_PIC
#pragma push_macro("STBI_ONLY_PNM")
#undef STBI_ONLY_PNM
#pragma push_macro("STBI_ONLY_ZLIB")
#undef STBI_ONLY_ZLIB
#pragma push_macro("STBI_SUPPORT_ZLIB")
#undef STBI_SUPPORT_ZLIB
#pragma push_macro("STBI_FAILURE_USERMSG")
#undef STBI_FAILURE_USERMSG
#pragma push_macro("STBI_MINGW_ENABLE_SSE2")
#undef STBI_MINGW_ENABLE_SSE2
#pragma push_macro("STBI_NEON")
#undef STBI_NEON
#pragma push_macro("STBI_WINDOWS_UTF8")
#undef STBI_WINDOWS_UTF8
#pragma push_macro("FAST_BITS")
#undef FAST_BITS
#undef STBI_EXTERN
#undef STBI_HAS_LROTL
#undef STBI_NOTUSED
#undef STBI_SIMD_ALIGN
#undef STBI_SSE2
#undef STBI_THREAD_LOCAL
#undef STBI__BYTECAST
#undef STBI__CASE
#undef STBI__COMBO
#undef STBI__HDR_BUFLEN
#undef STBI__IDCT_1D
#undef STBI__MARKER_none
#undef STBI__PNG_TYPE
#undef STBI__RESTART
#undef STBI__X64_TARGET
#undef STBI__X86_TARGET
#undef STBI__ZFAST_BITS
#undef STBI__ZFAST_MASK
#undef STBI__ZNSYMS
#undef stbi__DNL
#undef stbi__EOI
#undef stbi__SOF
#undef stbi__SOF_progressive
#undef stbi__SOI
#undef stbi__SOS
#undef stbi__de_iphone_flag
#undef stbi__div16
#undef stbi__div4
#undef stbi__err
#undef stbi__errpf
#undef stbi__errpuc
#undef stbi__f2f
#undef stbi__float2fixed
#undef stbi__float2int
#undef stbi__fsh
#undef stbi__unpremultiply_on_load
#undef stbi__vertically_flip_on_load
#undef stbi_inline
#undef stbi_lrot
// Functions of C have their plain names in the assembler's file, static and in a namespace or not.
#define stbi__unpremultiply_on_load_thread facenet_stbi__unpremultiply_on_load_thread
#define stbi_convert_iphone_png_to_rgb facenet_stbi_convert_iphone_png_to_rgb
#define stbi_convert_iphone_png_to_rgb_thread facenet_stbi_convert_iphone_png_to_rgb_thread
#define stbi_failure_reason facenet_stbi_failure_reason
#define stbi_hdr_to_ldr_gamma facenet_stbi_hdr_to_ldr_gamma
#define stbi_hdr_to_ldr_scale facenet_stbi_hdr_to_ldr_scale
#define stbi_image_free facenet_stbi_image_free
#define stbi_info_from_callbacks facenet_stbi_info_from_callbacks
#define stbi_info_from_memory facenet_stbi_info_from_memory
#define stbi_is_16_bit_from_callbacks facenet_stbi_is_16_bit_from_callbacks
#define stbi_is_16_bit_from_memory facenet_stbi_is_16_bit_from_memory
#define stbi_is_hdr_from_callbacks facenet_stbi_is_hdr_from_callbacks
#define stbi_is_hdr_from_memory facenet_stbi_is_hdr_from_memory
#define stbi_ldr_to_hdr_gamma facenet_stbi_ldr_to_hdr_gamma
#define stbi_ldr_to_hdr_scale facenet_stbi_ldr_to_hdr_scale
#define stbi_load_16_from_callbacks facenet_stbi_load_16_from_callbacks
#define stbi_load_16_from_memory facenet_stbi_load_16_from_memory
#define stbi_load_from_callbacks facenet_stbi_load_from_callbacks
#define stbi_load_from_memory facenet_stbi_load_from_memory
#define stbi_set_flip_vertically_on_load facenet_stbi_set_flip_vertically_on_load
#define stbi_set_flip_vertically_on_load_thread facenet_stbi_set_flip_vertically_on_load_thread
#define stbi_set_unpremultiply_on_load facenet_stbi_set_unpremultiply_on_load
#define stbi_set_unpremultiply_on_load_thread facenet_stbi_set_unpremultiply_on_load_thread
#define stbi_zlib_decode_buffer facenet_stbi_zlib_decode_buffer
#define stbi_zlib_decode_malloc facenet_stbi_zlib_decode_malloc
#define stbi_zlib_decode_malloc_guesssize facenet_stbi_zlib_decode_malloc_guesssize
#define stbi_zlib_decode_malloc_guesssize_headerflag facenet_stbi_zlib_decode_malloc_guesssize_headerflag
#define stbi_zlib_decode_noheader_buffer facenet_stbi_zlib_decode_noheader_buffer
#define stbi_zlib_decode_noheader_malloc facenet_stbi_zlib_decode_noheader_malloc
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS 16384
#define STBI_ASSERT(condition) ((void)0)
#define STBI_MALLOC(bytes) ::facenet::detail::decode_allocate(bytes)
#define STBI_REALLOC(pointer, bytes) ::facenet::detail::decode_reallocate(pointer, bytes)
#define STBI_FREE(pointer) ::facenet::detail::decode_free(pointer)
#if defined(__clang__)
#  pragma clang diagnostic push
#  pragma clang diagnostic ignored "-Weverything"
// On damaged data 2.27 shifts by 32 and more and lets its DC sums wrap: wrong pixels, which such data has anyway.
// Everything that touches memory stays under the sanitizers.
#  pragma clang attribute push(__attribute__((no_sanitize("shift", "signed-integer-overflow"))), apply_to = function)
#elif defined(__GNUC__)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wall"
#  pragma GCC diagnostic ignored "-Wextra"
#  pragma GCC diagnostic ignored "-Wunused-function"
#  pragma GCC diagnostic ignored "-Wconversion"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#  pragma GCC diagnostic ignored "-Wshadow"
#  pragma GCC diagnostic ignored "-Wold-style-cast"
#endif
FACENET_BEGIN
namespace detail {
namespace stb {
#if __has_include(<stb/stb_image.h>)
#  include <stb/stb_image.h>
#elif __has_include(<stb_image.h>)
#  include <stb_image.h>
#else
#  error "facenet/image_io.hpp needs stb_image.h: install libstb-dev, or decode pictures elsewhere"
#endif
}  // namespace stb
}  // namespace detail
FACENET_END
#if defined(__clang__)
#  pragma clang attribute pop
#  pragma clang diagnostic pop
#elif defined(__GNUC__)
#  pragma GCC diagnostic pop
#elif defined(_MSC_VER)
#  pragma warning(pop)
#endif
#undef stbi__unpremultiply_on_load_thread
#undef stbi_convert_iphone_png_to_rgb
#undef stbi_convert_iphone_png_to_rgb_thread
#undef stbi_failure_reason
#undef stbi_hdr_to_ldr_gamma
#undef stbi_hdr_to_ldr_scale
#undef stbi_image_free
#undef stbi_info_from_callbacks
#undef stbi_info_from_memory
#undef stbi_is_16_bit_from_callbacks
#undef stbi_is_16_bit_from_memory
#undef stbi_is_hdr_from_callbacks
#undef stbi_is_hdr_from_memory
#undef stbi_ldr_to_hdr_gamma
#undef stbi_ldr_to_hdr_scale
#undef stbi_load_16_from_callbacks
#undef stbi_load_16_from_memory
#undef stbi_load_from_callbacks
#undef stbi_load_from_memory
#undef stbi_set_flip_vertically_on_load
#undef stbi_set_flip_vertically_on_load_thread
#undef stbi_set_unpremultiply_on_load
#undef stbi_set_unpremultiply_on_load_thread
#undef stbi_zlib_decode_buffer
#undef stbi_zlib_decode_malloc
#undef stbi_zlib_decode_malloc_guesssize
#undef stbi_zlib_decode_malloc_guesssize_headerflag
#undef stbi_zlib_decode_noheader_buffer
#undef stbi_zlib_decode_noheader_malloc
#undef STBI_EXTERN
#undef STBI_HAS_LROTL
#undef STBI_NOTUSED
#undef STBI_SIMD_ALIGN
#undef STBI_SSE2
#undef STBI_THREAD_LOCAL
#undef STBI__BYTECAST
#undef STBI__CASE
#undef STBI__COMBO
#undef STBI__HDR_BUFLEN
#undef STBI__IDCT_1D
#undef STBI__MARKER_none
#undef STBI__PNG_TYPE
#undef STBI__RESTART
#undef STBI__X64_TARGET
#undef STBI__X86_TARGET
#undef STBI__ZFAST_BITS
#undef STBI__ZFAST_MASK
#undef STBI__ZNSYMS
#undef stbi__DNL
#undef stbi__EOI
#undef stbi__SOF
#undef stbi__SOF_progressive
#undef stbi__SOI
#undef stbi__SOS
#undef stbi__de_iphone_flag
#undef stbi__div16
#undef stbi__div4
#undef stbi__err
#undef stbi__errpf
#undef stbi__errpuc
#undef stbi__f2f
#undef stbi__float2fixed
#undef stbi__float2int
#undef stbi__fsh
#undef stbi__unpremultiply_on_load
#undef stbi__vertically_flip_on_load
#undef stbi_inline
#undef stbi_lrot
#undef STB_IMAGE_IMPLEMENTATION
#pragma pop_macro("STB_IMAGE_IMPLEMENTATION")
#undef STB_IMAGE_STATIC
#pragma pop_macro("STB_IMAGE_STATIC")
#undef STBIDEF
#pragma pop_macro("STBIDEF")
#undef STBI_INCLUDE_STB_IMAGE_H
#pragma pop_macro("STBI_INCLUDE_STB_IMAGE_H")
#undef STBI_VERSION
#pragma pop_macro("STBI_VERSION")
#undef STBI_ASSERT
#pragma pop_macro("STBI_ASSERT")
#undef STBI_MALLOC
#pragma pop_macro("STBI_MALLOC")
#undef STBI_REALLOC
#pragma pop_macro("STBI_REALLOC")
#undef STBI_REALLOC_SIZED
#pragma pop_macro("STBI_REALLOC_SIZED")
#undef STBI_FREE
#pragma pop_macro("STBI_FREE")
#undef STBI_MAX_DIMENSIONS
#pragma pop_macro("STBI_MAX_DIMENSIONS")
#undef STBI_NO_STDIO
#pragma pop_macro("STBI_NO_STDIO")
#undef STBI_NO_LINEAR
#pragma pop_macro("STBI_NO_LINEAR")
#undef STBI_NO_FAILURE_STRINGS
#pragma pop_macro("STBI_NO_FAILURE_STRINGS")
#undef STBI_NO_THREAD_LOCALS
#pragma pop_macro("STBI_NO_THREAD_LOCALS")
#undef STBI_NO_SIMD
#pragma pop_macro("STBI_NO_SIMD")
#undef STBI_NO_JPEG
#pragma pop_macro("STBI_NO_JPEG")
#undef STBI_NO_PNG
#pragma pop_macro("STBI_NO_PNG")
#undef STBI_NO_BMP
#pragma pop_macro("STBI_NO_BMP")
#undef STBI_NO_PSD
#pragma pop_macro("STBI_NO_PSD")
#undef STBI_NO_TGA
#pragma pop_macro("STBI_NO_TGA")
#undef STBI_NO_GIF
#pragma pop_macro("STBI_NO_GIF")
#undef STBI_NO_HDR
#pragma pop_macro("STBI_NO_HDR")
#undef STBI_NO_PIC
#pragma pop_macro("STBI_NO_PIC")
#undef STBI_NO_PNM
#pragma pop_macro("STBI_NO_PNM")
#undef STBI_NO_ZLIB
#pragma pop_macro("STBI_NO_ZLIB")
#undef STBI_ONLY_JPEG
#pragma pop_macro("STBI_ONLY_JPEG")
#undef STBI_ONLY_PNG
#pragma pop_macro("STBI_ONLY_PNG")
#undef STBI_ONLY_BMP
#pragma pop_macro("STBI_ONLY_BMP")
#undef STBI_ONLY_PSD
#pragma pop_macro("STBI_ONLY_PSD")
#undef STBI_ONLY_TGA
#pragma pop_macro("STBI_ONLY_TGA")
#undef STBI_ONLY_GIF
#pragma pop_macro("STBI_ONLY_GIF")
#undef STBI_ONLY_HDR
#pragma pop_macro("STBI_ONLY_HDR")
#undef STBI_ONLY_PIC
#pragma pop_macro("STBI_ONLY_PIC")
#undef STBI_ONLY_PNM
#pragma pop_macro("STBI_ONLY_PNM")
#undef STBI_ONLY_ZLIB
#pragma pop_macro("STBI_ONLY_ZLIB")
#undef STBI_SUPPORT_ZLIB
#pragma pop_macro("STBI_SUPPORT_ZLIB")
#undef STBI_FAILURE_USERMSG
#pragma pop_macro("STBI_FAILURE_USERMSG")
#undef STBI_MINGW_ENABLE_SSE2
#pragma pop_macro("STBI_MINGW_ENABLE_SSE2")
#undef STBI_NEON
#pragma pop_macro("STBI_NEON")
#undef STBI_WINDOWS_UTF8
#pragma pop_macro("STBI_WINDOWS_UTF8")
#undef FAST_BITS
#pragma pop_macro("FAST_BITS")
