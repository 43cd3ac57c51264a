# The tool chain of whatever Emscripten is installed: Debian's (which needs NODE_PATH, see CMakePresets.json) or an emsdk.
find_program(FACENET_EMXX em++ REQUIRED)
get_filename_component(FACENET_EM_CONFIG ${FACENET_EMXX} DIRECTORY)
find_program(FACENET_EM_CONFIG_PROGRAM em-config HINTS ${FACENET_EM_CONFIG} /usr/share/emscripten)
if(FACENET_EM_CONFIG_PROGRAM)
  execute_process(COMMAND ${FACENET_EM_CONFIG_PROGRAM} EMSCRIPTEN_ROOT OUTPUT_VARIABLE FACENET_EM_ROOT
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
else()
  set(FACENET_EM_ROOT /usr/share/emscripten)
endif()
include(${FACENET_EM_ROOT}/cmake/Modules/Platform/Emscripten.cmake)
