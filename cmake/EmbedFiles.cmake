# cmake -DOUT=FILE.cpp -DFILES=a;b -P EmbedFiles.cmake: a unit that defines command::service::embedded_file (in
# tools/command/service/embedded_files.hpp) over the bytes of these files.
set(arrays "")
set(rows "")
set(number 0)
foreach(file IN LISTS FILES)
  file(READ "${file}" bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
  get_filename_component(name "${file}" NAME)
  string(APPEND arrays "constexpr unsigned char file_${number}[] = {\n${bytes}};\n")
  string(APPEND rows "  if (name == \"${name}\") return {reinterpret_cast<const char*>(file_${number}), sizeof file_${number}};\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUT}" "#include \"command/service/embedded_files.hpp\"

namespace command::service {

namespace {

${arrays}
}  // namespace

std::string_view embedded_file(std::string_view name) {
${rows}  return {};
}

}  // namespace command::service
")
