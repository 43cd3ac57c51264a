# The ISAs of x86-64 that a program can choose among at run time, and how one piece of code is compiled for several of them.

# facenet_isa(NAME [LIKE ISA] FLAGS … NEEDS …): a row of the list, from the least CPU to the best. From it follow the targets
# of facenet::dispatch and of the command, $FACENET_FORCE_ISA's words, and the programs that tests/ compiles for each.
# LIKE: flags and needs of that ISA too; code with floats is the same in both. NEEDS: facenet_cpu::Feature of
# src/dispatch/cpu.hpp, all that GCC may use under FLAGS, as far as CPUs differ in it.
set(FACENET_DISPATCH_ISAS "" CACHE STRING "Of sse4;avx2;avxvnni;avx512;avx512vnni those among which a program chooses; empty: all")
set(FACENET_X86_ISAS)
macro(facenet_isa name)
  cmake_parse_arguments(arg "" "LIKE" "FLAGS;NEEDS" ${ARGN})
  set(FACENET_LIKE_${name} ${arg_LIKE})
  set(FACENET_FLAGS_${name} ${FACENET_FLAGS_${arg_LIKE}} ${arg_FLAGS})
  set(FACENET_NEEDS_${name} ${FACENET_NEEDS_${arg_LIKE}} ${arg_NEEDS})
  list(APPEND FACENET_X86_ISAS ${name})
endmacro()
facenet_isa(sse4 FLAGS -march=x86-64-v2 NEEDS sse42 popcnt)
facenet_isa(avx2 FLAGS -march=x86-64-v3 NEEDS sse42 popcnt avx f16c fma avx2 bmi bmi2 lzcnt movbe)
facenet_isa(avxvnni LIKE avx2 FLAGS -mavxvnni NEEDS avxvnni)
facenet_isa(avx512 FLAGS -march=x86-64-v4
            NEEDS ${FACENET_NEEDS_avx2} avx512f avx512dq avx512cd avx512bw avx512vl)
facenet_isa(avx512vnni LIKE avx512 FLAGS -mavx512vnni NEEDS avx512vnni)

# An inline function, of the standard library too, is compiled into each unit that needs it, and the linker keeps any one
# copy: perhaps the one with AVX in it, for an old CPU's caller. So the objects of an ISA are linked into one, and all of its
# symbols but one become local. GNU ld and objcopy (or LLVM's) do that; elsewhere there is one ISA, `any`.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64" AND CMAKE_SIZEOF_VOID_P EQUAL 8 AND UNIX AND NOT APPLE AND CMAKE_OBJCOPY
   AND NOT FACENET_SANITIZE)
  set(FACENET_ISAS ${FACENET_X86_ISAS})
  set(rows)
  foreach(isa IN LISTS FACENET_X86_ISAS)
    if(FACENET_DISPATCH_ISAS AND NOT isa IN_LIST FACENET_DISPATCH_ISAS)
      list(REMOVE_ITEM FACENET_ISAS ${isa})
      continue()
    endif()
    list(JOIN FACENET_NEEDS_${isa} " | " needs)
    string(APPEND rows " X(${isa}, ${needs})")
  endforeach()
  foreach(isa IN LISTS FACENET_DISPATCH_ISAS)
    if(NOT isa IN_LIST FACENET_X86_ISAS)
      message(FATAL_ERROR "FACENET_DISPATCH_ISAS: there is no ISA '${isa}'; there are ${FACENET_X86_ISAS}")
    endif()
  endforeach()
  list(JOIN FACENET_ISAS ", " names)
  string(REGEX REPLACE ", ([^,]*)$" " or \\1" names "${names}")
else()
  set(FACENET_ISAS any)
  set(rows " X(any, 0)")
  set(names)
endif()
set(FACENET_ISA_HEADERS ${PROJECT_BINARY_DIR}/isas)   # holds dispatch/isas.hpp, the list in C++
file(CONFIGURE OUTPUT ${FACENET_ISA_HEADERS}/dispatch/isas.hpp @ONLY CONTENT "\
// Made by cmake/FacenetIsa.cmake. X(name, facenet_cpu::Feature that it needs), from the least to the best.
#pragma once
#define FACENET_ISAS(X)@rows@
#define FACENET_ISA_NAMES \"@names@\"  // empty: there is nothing to choose
")

# facenet_isa_object(NAME ISA KEEP SYMBOL [RENAME FROM] [BASELINE OBJECT-LIBRARY …] SOURCES … [LIBRARIES …] [DEFINITIONS …])
#
# NAME.o: the sources compiled for ISA, and first the objects of BASELINE, which are for any CPU: constructors of global
# objects run before anybody has asked which CPU this is. SYMBOL (what FROM is renamed to) stays visible.
# Symbols that are unique in a whole process (GCC's for variables of inline functions) cannot be made local.
set(FACENET_HIDEABLE $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique> -fno-lto)   # nor do names inside of -flto's bytecode change

function(facenet_isa_object name isa)
  cmake_parse_arguments(arg "" "KEEP;RENAME" "BASELINE;SOURCES;LIBRARIES;DEFINITIONS" ${ARGN})
  add_library(${name} OBJECT ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES})
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  target_compile_options(${name} PRIVATE ${FACENET_FLAGS_${isa}} ${FACENET_HIDEABLE})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                        VISIBILITY_INLINES_HIDDEN ON INTERPROCEDURAL_OPTIMIZATION OFF)
  set(objects)
  foreach(part ${arg_BASELINE} ${name})
    list(APPEND objects $<FILTER:$<TARGET_OBJECTS:${part}>,EXCLUDE,[.][gp]ch$>)   # precompiled headers are listed too
  endforeach()
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
