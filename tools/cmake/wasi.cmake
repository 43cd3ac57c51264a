# WebAssembly without Emscripten: clang with wasi-libc and a libc++ for it. Debian: clang-19 lld-19 libc++-19-dev-wasm32
# libclang-rt-19-dev-wasm32; elsewhere -DFACENET_WASI_CLANG=…/wasi-sdk/bin/clang++.
set(CMAKE_SYSTEM_NAME WASI)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
find_program(FACENET_WASI_CLANG NAMES clang++-19 clang++ REQUIRED)
set(CMAKE_CXX_COMPILER ${FACENET_WASI_CLANG})
set(CMAKE_CXX_COMPILER_TARGET wasm32-wasi)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_EXECUTABLE_SUFFIX .wasm)
