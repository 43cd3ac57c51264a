#if defined(FACENET_HEIF)

#  include <libheif/heif.h>

#  include <vector>

#  include "command/formats/decoder.hpp"

namespace command {

std::string heif_library() { return std::string("libheif ") + heif_get_version(); }

/// Its plug-ins are files.
void prepare_heif() {
#  if LIBHEIF_HAVE_VERSION(1, 13, 0)
  heif_init(nullptr);
#  endif
}

namespace {

[[noreturn]] void refuse_for(const heif_error& error, std::uint64_t pixels, const Canvas& canvas) {
  if (error.code == heif_error_Memory_allocation_error) refuse(Trouble::no_memory);
  // The decoders of single streams have no word for it.
  if (pixels * 9 / 2 > canvas.wanted().memory) refuse(Trouble::no_memory);
  if (error.subcode == heif_suberror_End_of_data) refuse(Trouble::truncated);
  if (error.code == heif_error_Unsupported_filetype || error.code == heif_error_Unsupported_feature)
    refuse(Trouble::unsupported);
  refuse(Trouble::corrupt);
}

void take_profile(const heif_image_handle* handle, Canvas& canvas) {
  const auto kind = heif_image_handle_get_color_profile_type(handle);
  if (kind != heif_color_profile_type_prof && kind != heif_color_profile_type_rICC) return;
  const std::size_t size = heif_image_handle_get_raw_color_profile_size(handle);
  if (size == 0 || size > (4u << 20)) return;
  std::vector<std::uint8_t> icc(size);
  if (heif_image_handle_get_raw_color_profile(handle, icc.data()).code == heif_error_Ok)
    canvas.set_profile(icc.data(), size);
}

}  // namespace

/// HEIC and AVIF. The turns and mirrors of the file (irot, imir) are libheif's business; EXIF's orientation says the
/// same once more, and ISO/IEC 23008-12 has readers pass over it.
void decode_heif(Source file, Canvas& canvas) {
  heif_context* context = heif_context_alloc();
  if (context == nullptr) refuse(Trouble::no_memory);
  heif_context_set_maximum_image_size_limit(context, most_side_in_file);
  heif_error error = heif_context_read_from_memory_without_copy(context, file.data, file.size, nullptr);
  if (error.code != heif_error_Ok) refuse_for(error, 0, canvas);
  heif_image_handle* handle = nullptr;
  error = heif_context_get_primary_image_handle(context, &handle);
  if (error.code != heif_error_Ok) refuse_for(error, 0, canvas);
  const int declared_width = heif_image_handle_get_width(handle),
            declared_height = heif_image_handle_get_height(handle);
  if (declared_width < 1 || declared_height < 1) refuse(Trouble::corrupt);
  const std::uint64_t pixels = static_cast<std::uint64_t>(declared_width) * static_cast<std::uint64_t>(declared_height);
  Canvas::check(static_cast<std::uint64_t>(declared_width), static_cast<std::uint64_t>(declared_height));
  take_profile(handle, canvas);
  heif_decoding_options* options = heif_decoding_options_alloc();
  if (options == nullptr) refuse(Trouble::no_memory);
  options->convert_hdr_to_8bit = 1;
  const bool alpha = heif_image_handle_has_alpha_channel(handle) != 0;
  heif_image* image = nullptr;
  error = heif_decode_image(handle, &image, heif_colorspace_RGB,
                            alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB, options);
  if (error.code != heif_error_Ok) refuse_for(error, pixels, canvas);
  const int width = heif_image_get_width(image, heif_channel_interleaved),
            height = heif_image_get_height(image, heif_channel_interleaved);
  int stride = 0;
  const std::uint8_t* plane = heif_image_get_plane_readonly(image, heif_channel_interleaved, &stride);
  if (plane == nullptr || width < 1 || height < 1) refuse(Trouble::corrupt);
  const bool premultiplied = alpha && heif_image_is_premultiplied_alpha(image) != 0;
  canvas.begin(width, height);
  for (int y = 0; y < height; ++y)
    if (alpha)
      canvas.row_rgba(plane + std::ptrdiff_t{stride} * y, premultiplied);
    else
      canvas.row(plane + std::ptrdiff_t{stride} * y);
}

}  // namespace command

#endif
