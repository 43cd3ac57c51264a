# Read by CPack before each generator.
if(CPACK_GENERATOR STREQUAL TGZ)
  set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)   # an archive unpacks into a folder of its own
endif()
