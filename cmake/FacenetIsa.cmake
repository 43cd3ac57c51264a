# One piece of code compiled for several ISAs in one binary.
#
# An inline function, of the standard library too, is compiled into each unit that needs it, and the linker keeps any one
# copy: perhaps the one with AVX in it, for an old CPU's caller. So the objects of an ISA are linked into one, and all of its
# symbols but one become local. GNU ld and objcopy (or LLVM's) do that; elsewhere there is one ISA.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64" AND CMAKE_SIZEOF_VOID_P EQUAL 8 AND UNIX AND NOT APPLE AND CMAKE_OBJCOPY
   AND NOT FACENET_SANITIZE)
  set(FACENET_ISAS sse4 avx2 avx512)
else()
  set(FACENET_ISAS any)
endif()
set(FACENET_FLAGS_sse4 -march=x86-64-v2)
set(FACENET_FLAGS_avx2 -march=x86-64-v3)
set(FACENET_FLAGS_avx512 -march=x86-64-v4)
set(FACENET_FLAGS_any "")

# facenet_isa_object(NAME ISA KEEP SYMBOL [RENAME FROM] [BASELINE OBJECT-LIBRARY] SOURCES … [LIBRARIES …] [DEFINITIONS …])
#
# NAME.o: the sources compiled for ISA, and first the objects of BASELINE, which are for any CPU: constructors of global
# objects run before anybody has asked which CPU this is. SYMBOL (what FROM is renamed to) stays visible.
# Symbols that are unique in a whole process (GCC's for variables of inline functions) cannot be made local.
set(FACENET_HIDEABLE $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique> -fno-lto)   # nor do names inside of -flto's bytecode change

function(facenet_isa_object name isa)
  cmake_parse_arguments(arg "" "KEEP;RENAME;BASELINE" "SOURCES;LIBRARIES;DEFINITIONS" ${ARGN})
  add_library(${name} OBJECT ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES})
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  target_compile_options(${name} PRIVATE ${FACENET_FLAGS_${isa}} ${FACENET_HIDEABLE})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                        VISIBILITY_INLINES_HIDDEN ON INTERPROCEDURAL_OPTIMIZATION OFF)
  set(objects $<TARGET_OBJECTS:${name}>)
  if(arg_BASELINE)
    list(PREPEND objects $<TARGET_OBJECTS:${arg_BASELINE}>)
  endif()
  set(rename)
  if(arg_RENAME)
    set(rename --redefine-sym ${arg_RENAME}=${arg_KEEP})
  endif()
  set(made ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(OUTPUT ${made}
    COMMAND ${CMAKE_CXX_COMPILER} -fno-lto -r -nostdlib -Wl,--force-group-allocation -o ${made}.all ${objects}
    COMMAND ${CMAKE_OBJCOPY} ${rename} ${made}.all ${made}.named
    COMMAND ${CMAKE_OBJCOPY} --keep-global-symbol=${arg_KEEP} ${made}.named ${made}
    COMMAND ${CMAKE_COMMAND} -E rm ${made}.all ${made}.named
    DEPENDS ${name} ${arg_BASELINE} ${objects} COMMAND_EXPAND_LISTS VERBATIM COMMENT "Hiding the symbols of ${name}")
  set_source_files_properties(${made} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
endfunction()
