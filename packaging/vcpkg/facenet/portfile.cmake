# An overlay port: it builds the checkout that it lies in.
#   vcpkg install facenet --overlay-ports=packaging/vcpkg
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS features FEATURES
  dispatch FACENET_DISPATCH
  tools    FACENET_BUILD_TOOLS
)
if(NOT FACENET_DISPATCH AND NOT FACENET_BUILD_TOOLS)
  set(VCPKG_BUILD_TYPE release)   # headers alone: no debug build
endif()

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    ${features}
    -DFACENET_BUNDLE_XSIMD=OFF
    -DFACENET_BUILD_C=OFF
    -DFACENET_BUILD_TESTS=OFF
    -DFACENET_BUILD_BENCH=OFF
    -DFACENET_BUILD_EXAMPLES=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/facenet)
vcpkg_fixup_pkgconfig()
if(FACENET_BUILD_TOOLS)
  file(REMOVE "${CURRENT_PACKAGES_DIR}/bin/facenet-convert-weights" "${CURRENT_PACKAGES_DIR}/debug/bin/facenet-convert-weights")   # a link
  vcpkg_copy_tools(TOOL_NAMES facenet AUTO_CLEAN)
endif()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
if(NOT FACENET_DISPATCH)
  file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/lib" "${CURRENT_PACKAGES_DIR}/debug")
endif()
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
