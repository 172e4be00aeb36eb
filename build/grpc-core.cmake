# Read by cmake at project(grpc): compiles the gRPC C core in fewer, larger
# units. The same sources, options and libraries as without it, in about half
# the time. `CMAKE_TOOLCHAIN_FILE= cargo build` does without.

# GCC 13 and later no longer get <cstdint> by accident (tikv/grpc-rs#617).
# Not for the target with the precompiled header: GCC ignores one that is not
# the very first thing in a file, and that one includes <cstdint> itself.
if(MSVC)
  return()
endif()
set(cstdint "SHELL:-include cstdint")
if(CMAKE_VERSION VERSION_LESS 3.19)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${cstdint}>")
  return() # no cmake_language(DEFER)
endif()
add_compile_options("$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<NOT:$<STREQUAL:$<TARGET_PROPERTY:NAME>,grpc>>>:${cstdint}>")

# Clang 19 and later take a slip in gRPC's headers for an error. (An older one
# does not know the warning, and says nothing.)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-template-arg-list-after-template-kw>")
endif()

# Files that give a name to something of their own which a neighbour gives to
# something else. Each is compiled alone, as it would be without all this.
set(grpc_core_apart
  src/core/ext/filters/client_channel/lb_policy/xds/xds_cluster_manager
  src/core/ext/transport/chttp2/transport/bin_encoder
  src/core/ext/xds/xds_channel_stack_modifier
  src/core/lib/event_engine/posix_engine/ev_
  src/core/lib/iomgr/ev_
  src/core/lib/security/credentials/alts/grpc_alts_credentials_server_options
  src/core/lib/security/credentials/external/.*external_account_credentials
  src/core/tsi/
)
list(JOIN grpc_core_apart "|" grpc_core_apart)

set(grpc_core_dir "${CMAKE_CURRENT_LIST_DIR}")

# Called at the end of the project's CMakeLists.txt, when the target is there.
function(billstream_grpc_core)
  if(PACKAGE_VERSION STREQUAL "1.56.2")
    include("${grpc_core_dir}/grpc-patches.cmake")
  else()
    message(WARNING "gRPC C core ${PACKAGE_VERSION}: build/grpc-patches.cmake is for 1.56.2")
  endif()

  target_precompile_headers(grpc PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${grpc_core_dir}/grpc-core.h>")

  # The list above was checked for this version, and on Linux.
  if(NOT PACKAGE_VERSION STREQUAL "1.56.2" OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    return()
  endif()

  # Eight files a unit, in the order of the project's own list; numbered here
  # rather than by cmake, so that every version of cmake makes the same units.
  set_target_properties(grpc PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  get_target_property(sources grpc SOURCES)
  set(count 0)
  foreach(source IN LISTS sources)
    if(source MATCHES "\\.cc$" AND NOT source MATCHES "^(${grpc_core_apart})")
      math(EXPR unit "${count} / 8")
      set_source_files_properties("${source}" PROPERTIES UNITY_GROUP "unit${unit}")
      math(EXPR count "${count} + 1")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL billstream_grpc_core)
