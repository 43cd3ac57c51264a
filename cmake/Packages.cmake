# CPack: the command, and the headers with facenet::dispatch, each as .deb and .tar.gz. `cmake --preset package`,
# build, `cpack --config build/package/CPackConfig.cmake`.
set(CPACK_PACKAGE_VENDOR "The facenet authors")
set(CPACK_PACKAGE_CONTACT "The facenet authors <facenet@example.org>" CACHE STRING "Who maintains the packages, with an address")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Face detection and face embeddings on the CPU")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR "TGZ;DEB")
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL command development)
set(CPACK_COMPONENTS_GROUPING IGNORE)

set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_PROJECT_CONFIG_FILE ${PROJECT_SOURCE_DIR}/cmake/PackagesOf.cmake)
set(CPACK_ARCHIVE_COMMAND_FILE_NAME facenet-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
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
AVX-512: it takes what the CPU has. Weights come from checkpoints of PyTorch,
TensorFlow, Keras or ONNX, which facenet-convert-weights converts; it needs
PyTorch and facenet-pytorch.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libfacenet-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS "libstb-dev")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "The engine's headers, the static library facenet-dispatch for programs that
are built once and run on any CPU, and files for CMake and pkg-config.")
include(CPack)
