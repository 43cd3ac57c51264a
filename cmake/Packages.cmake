# CPack: the command, the C library, and the headers with facenet::dispatch, each as .deb and .tar.gz. `cmake --preset package`,
# build, `cpack --config build/package/CPackConfig.cmake`.
set(CPACK_PACKAGE_VENDOR "The facenet authors")
set(CPACK_PACKAGE_CONTACT "The facenet authors <facenet@example.org>" CACHE STRING "Who maintains the packages, with an address")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Face detection and face embeddings on the CPU")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR "TGZ;DEB")
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL command development)
if(TARGET facenet_c)
  list(APPEND CPACK_COMPONENTS_ALL runtime)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libfacenet0 (= ${PROJECT_VERSION}-1)")
endif()
set(CPACK_COMPONENTS_GROUPING IGNORE)

set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_PROJECT_CONFIG_FILE ${PROJECT_SOURCE_DIR}/cmake/PackagesOf.cmake)
set(CPACK_ARCHIVE_COMMAND_FILE_NAME facenet-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_RUNTIME_FILE_NAME libfacenet-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_DEVELOPMENT_FILE_NAME facenet-dev-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME facenet)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SECTION graphics)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMMAND_PACKAGE_DEPENDS "python3")
set(CPACK_DEBIAN_COMMAND_PACKAGE_SUGGESTS "python3-torch, libfacenet-dev")
set(CPACK_COMPONENT_COMMAND_DESCRIPTION "Finds faces in photographs with MTCNN, cuts them out, and turns each into a
FaceNet embedding (Inception-ResNet-v1). One program for SSE4.2, AVX2 and
AVX-512, with VNNI where there is one: it takes what the CPU has. Weights
come from checkpoints of PyTorch, TensorFlow, Keras or ONNX, which
facenet-convert-weights converts; it needs PyTorch and facenet-pytorch.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libfacenet-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS "libstb-dev")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "The engine's headers, the static library facenet-dispatch for programs that
are built once and run on any CPU, facenet.h for programs in C and other
languages, and files for CMake and pkg-config.")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libfacenet0)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)   # for the packages of programs that link it
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
# ldconfig by a trigger, as Debian wants it. CPack writes scripts that call it unless it is given some; those that are not
# there are left out.
file(WRITE ${PROJECT_BINARY_DIR}/debian/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/debian/triggers
    ${PROJECT_BINARY_DIR}/debian/absent/postinst ${PROJECT_BINARY_DIR}/debian/absent/postrm)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "The library that programs in C and other languages find faces, compute
FaceNet embeddings and search galleries with. One file for SSE4.2, AVX2 and
AVX-512: it takes what the CPU has.")
include(CPack)
