// Bodies of requests: multipart/form-data (RFC 7578) and base64 (RFC 4648), with bounds and without copies.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "command/http/http.hpp"

namespace command::service {

constexpr std::size_t most_parts = 32, most_part_header = 4096;  // bytes of a part's header lines

/// The boundary that the header content-type names, or "" where it is not multipart/form-data with a boundary.
std::string multipart_boundary(std::string_view content_type);

/// The parts of a body, whose memory they point into. Returns what is wrong, a sentence without a full stop, or "".
std::string parse_multipart(std::string_view body, const std::string& boundary, std::vector<Part>& parts);

/// Takes the alphabets of base64 and base64url, padding or none, blanks and line ends between, and a data URL's prefix
/// ("data:image/jpeg;base64,"). False for all else.
bool decode_base64(std::string_view text, std::string& bytes);
std::string encode_base64(std::string_view bytes);

}  // namespace command::service
