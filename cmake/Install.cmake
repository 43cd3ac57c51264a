# What `cmake --install` puts where. Components: development (headers, library, CMake and pkg-config files), runtime (the C
# library) and command.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/facenet)
set(FACENET_DISPATCH_OPENMP OFF)
find_program(FACENET_GZIP gzip)   # Debian wants manual pages and changelogs compressed
mark_as_advanced(FACENET_GZIP)
function(facenet_gzip variable)
  if(FACENET_GZIP)
    execute_process(COMMAND ${FACENET_GZIP} -9nkf ${${variable}})
    set(${variable} ${${variable}}.gz PARENT_SCOPE)
  endif()
endfunction()

install(DIRECTORY include/facenet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
set(interface_targets facenet)
if(TARGET facenet_image)
  set_target_properties(facenet_image PROPERTIES EXPORT_NAME image)
  list(APPEND interface_targets facenet_image)
endif()
install(TARGETS ${interface_targets} EXPORT facenet_targets)
install(EXPORT facenet_targets FILE facenetTargets.cmake NAMESPACE facenet:: DESTINATION ${package_dir} COMPONENT development)
set(pc_flags "-I\${includedir}")
set(pc_requires "")
set(FACENET_NEEDS_XSIMD ON)
if(FACENET_XSIMD_BUNDLED)
  set(FACENET_NEEDS_XSIMD OFF)
  install(DIRECTORY ${FACENET_XSIMD_BUNDLED}/xsimd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/facenet/third_party COMPONENT development)
  string(APPEND pc_flags " -isystem \${includedir}/facenet/third_party")
else()
  set(pc_requires "Requires: xsimd >= 11.2\n")
endif()
file(RELATIVE_PATH PC_UP ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/facenet.pc.in facenet.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/facenet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

if(TARGET facenet_dispatch)
  install(TARGETS facenet_dispatch EXPORT facenet_dispatch_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
          COMPONENT development)
  install(EXPORT facenet_dispatch_targets FILE facenetDispatchTargets.cmake NAMESPACE facenet:: DESTINATION ${package_dir}
          COMPONENT development)
  set(pc_libs "-L\${libdir} -lfacenet-dispatch -pthread")
  if(FACENET_OPENMP AND OpenMP_CXX_FOUND)
    set(FACENET_DISPATCH_OPENMP ON)
    set(names ${OpenMP_CXX_LIB_NAMES})
    list(REMOVE_ITEM names pthread)
    list(TRANSFORM names PREPEND -l)
    list(JOIN names " " names)
    string(APPEND pc_libs " ${names}")
  endif()
  configure_file(cmake/facenet-dispatch.pc.in facenet-dispatch.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/facenet-dispatch.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
          COMPONENT development)
endif()

if(TARGET facenet_c)
  install(TARGETS facenet_c EXPORT facenet_c_targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime
          PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ NAMELINK_COMPONENT development)
  install(EXPORT facenet_c_targets FILE facenetCTargets.cmake NAMESPACE facenet:: DESTINATION ${package_dir} COMPONENT development)
  configure_file(cmake/facenet-c.pc.in facenet-c.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/facenet-c.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endif()

configure_package_config_file(cmake/facenetConfig.cmake.in facenetConfig.cmake INSTALL_DESTINATION ${package_dir})
# Headers are the same whatever the size of a pointer; the library is found through a path that knows the machine.
write_basic_package_version_file(facenetConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/facenetConfig.cmake ${PROJECT_BINARY_DIR}/facenetConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

# ---- The command, its manual page and completions, and the tool that makes weight files --------------------------------
if(TARGET facenet_command)
  install(TARGETS facenet_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT command)
  if(TARGET facenet_decode)
    install(TARGETS facenet_decode RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/facenet COMPONENT command)
  endif()
  if(NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR)
    set(generated)
    set(share ${PROJECT_BINARY_DIR}/share)
    foreach(place "man|man/man1/facenet.1" "complete-bash|bash-completion/completions/facenet"
            "complete-zsh|zsh/vendor-completions/_facenet" "complete-fish|fish/vendor_completions.d/facenet.fish")
      string(REPLACE "|" ";" place ${place})
      list(GET place 0 kind)
      list(GET place 1 file)
      get_filename_component(folder ${share}/${file} DIRECTORY)
      file(MAKE_DIRECTORY ${folder})
      set(compress)
      if(kind STREQUAL man AND FACENET_GZIP)
        set(compress COMMAND ${FACENET_GZIP} -9nf ${share}/${file})
        set(suffix .gz)
      else()
        set(suffix "")
      endif()
      add_custom_command(OUTPUT ${share}/${file}${suffix} COMMAND facenet_command --generate ${kind} > ${share}/${file} ${compress}
                         DEPENDS facenet_command VERBATIM)
      list(APPEND generated ${share}/${file}${suffix})
    endforeach()
    add_custom_target(facenet_generated ALL DEPENDS ${generated})
    install(DIRECTORY ${share}/ DESTINATION ${CMAKE_INSTALL_DATADIR} COMPONENT command)
  endif()

  if(FACENET_SERVE)   # off until somebody enables them
    install(FILES packaging/systemd/facenet.service packaging/systemd/facenet.socket DESTINATION lib/systemd/system COMPONENT command)
  endif()

  set(page ${PROJECT_BINARY_DIR}/facenet-convert-weights.1)
  configure_file(packaging/facenet-convert-weights.1 ${page} COPYONLY)
  facenet_gzip(page)
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_DATADIR}/man/man1 COMPONENT command)
  set(tool ${CMAKE_INSTALL_DATADIR}/facenet)
  install(PROGRAMS tools/convert_weights.py DESTINATION ${tool} COMPONENT command)
  install(DIRECTORY tools/facenet_tools DESTINATION ${tool} COMPONENT command FILES_MATCHING PATTERN "*.py"
          PATTERN __pycache__ EXCLUDE)
  file(RELATIVE_PATH from_bin ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_DATADIR}/facenet/convert_weights.py)
  file(CREATE_LINK ${from_bin} ${PROJECT_BINARY_DIR}/facenet-convert-weights SYMBOLIC)
  install(FILES ${PROJECT_BINARY_DIR}/facenet-convert-weights DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT command)
  set(pages ${CMAKE_INSTALL_DATADIR}/doc/facenet)
  install(FILES weights/README.md DESTINATION ${pages} RENAME weights.md COMPONENT command)
  # The pages that help names, under the names that it gives, and those that they link to.
  install(FILES docs/command.md docs/command-json.md docs/galleries.md docs/recognition.md docs/service.md docs/rest.md
          docs/watch.md docs/archive.md DESTINATION ${pages}/docs COMPONENT command)
  install(FILES docs/schema/facenet-command-1.json DESTINATION ${pages}/docs/schema COMPONENT command)
endif()

# ---- Licences, the list of what is inside, and what Debian asks for ---------------------------------------------------------
include(cmake/Sbom.cmake)
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${PROJECT_BINARY_DIR}/changelog.Debian "facenet (${PROJECT_VERSION}-1) unstable; urgency=medium

  * Version ${PROJECT_VERSION}; see CHANGELOG.md of its source.

 -- The facenet authors <facenet@example.org>  ${date}
")
set(changelog ${PROJECT_BINARY_DIR}/changelog.Debian)
facenet_gzip(changelog)
foreach(place "command|facenet" "development|libfacenet-dev" "runtime|libfacenet0")
  string(REPLACE "|" ";" place ${place})
  list(GET place 0 component)
  list(GET place 1 package)
  install(FILES packaging/copyright ${PROJECT_BINARY_DIR}/facenet.spdx.json ${changelog}
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} COMPONENT ${component})
endforeach()
