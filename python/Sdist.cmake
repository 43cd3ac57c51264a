# Gathers, before scikit-build-core packs an sdist, the headers that the package is compiled with: an sdist then needs a compiler
# and nothing else. SQLite is not among them: it is a library, and without it the package has no galleries.
set(third_party ${PROJECT_SOURCE_DIR}/third_party)
file(REMOVE_RECURSE ${third_party})
function(facenet_gather name)  # a header, or a folder of headers; looked for in bootstrap's folder, then in the system's
  find_path(FACENET_SDIST_${name} NAMES ${name} HINTS ${PROJECT_SOURCE_DIR}/.deps/include NO_CACHE)
  if(NOT FACENET_SDIST_${name})
    message(FATAL_ERROR "facenet: ${name} is not there, which the sdist carries: run tools/bootstrap.sh.")
  endif()
  get_filename_component(folder ${name} DIRECTORY)
  file(COPY ${FACENET_SDIST_${name}}/${name} DESTINATION ${third_party}/include/${folder})
endfunction()
facenet_gather(xsimd)
facenet_gather(stb/stb_image.h)
facenet_gather(nlohmann)
