// Names, values and sentences of others, as a terminal may have them.
#pragma once

#include <cstddef>
#include <string>

namespace command {

/// The character that begins at text[at].
struct Character {
  std::size_t bytes;  // 1 where the byte is not UTF-8
  unsigned code;      // the code point, or that byte
  bool valid;         // UTF-8
  bool plain;  // may be shown: valid, no control character, none that turns the direction, ends a line or is not seen
};
Character character(const std::string& text, std::size_t at);

/// A field of a line: \t, \n, \r, \\ and \xHH for the other ASCII controls and for bytes that are not UTF-8, \uHHHH for
/// C1 controls (U+0080 to U+009F), line separators (U+2028, U+2029) and bidirectional controls (U+061C, U+200E, U+200F,
/// U+202A to U+202E, U+2066 to U+2069), and for what is not seen (soft hyphen, zero-width space, byte order mark and
/// their like; tags, U+E0000 to U+E007F, are \UHHHHHHHH; the joiners U+200C and U+200D stay). So none moves the cursor,
/// ends the line or the field, or passes for another.
std::string escaped(const std::string& text);

/// A whole line: the same, but TABs and backslashes stay.
std::string escaped_line(const std::string& text);

/// `text` in the middle of JSON, whose own escapes leave out DEL and all from the second line above: \uHHHH.
std::string escaped_json(const std::string& text);

/// The number of the first line that is not UTF-8; 0: there is none.
std::size_t line_not_utf8(const std::string& text);
/// What to say about it: "line 3 is not UTF-8", and whether it looks like what Windows calls Unicode; `start` is the
/// file's.
std::string not_utf8(std::size_t line, const std::string& start);

/// `stem` + `end` as a file's name: the stem is cut, between characters, where the name would have more than 255 bytes.
std::string file_name(const std::string& stem, const std::string& end);

}  // namespace command
