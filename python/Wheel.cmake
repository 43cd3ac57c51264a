# What a wheel is made of, before the command's and the module's CMakeLists.txt ask.
# SQLite as an archive, where there is one: a wheel brings no library of the system with it.
find_library(FACENET_SQLITE_ARCHIVE libsqlite3.a)
mark_as_advanced(FACENET_SQLITE_ARCHIVE)
if(FACENET_SQLITE_ARCHIVE)
  set(SQLite3_LIBRARY ${FACENET_SQLITE_ARCHIVE} CACHE FILEPATH "SQLite")
  find_package(SQLite3 3.37 QUIET)
  if(TARGET SQLite::SQLite3)
    set_property(TARGET SQLite::SQLite3 APPEND PROPERTY INTERFACE_LINK_LIBRARIES m ${CMAKE_DL_LIBS} Threads::Threads)
  endif()
endif()

# The command: compiled (ON: ten minutes of a CPU, once for each ISA), left out (OFF), or a program that is there already.
set(FACENET_PYTHON_COMMAND ON CACHE STRING "The command in the wheel: ON, OFF, or a program that was compiled before")
find_package(CLI11 QUIET)
find_package(nlohmann_json QUIET)
if(FACENET_PYTHON_COMMAND STREQUAL ON)
  if(TARGET CLI11::CLI11 AND TARGET nlohmann_json::nlohmann_json AND TARGET SQLite::SQLite3)
    set(FACENET_BUILD_TOOLS ON)
  else()
    message(STATUS "facenet: without the command, since CLI11, nlohmann_json or SQLite is not there")
    set(FACENET_PYTHON_COMMAND OFF)
  endif()
endif()
