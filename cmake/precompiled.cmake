# JSON and what nearly every file sees of the standard library take a second to parse: once for all targets with the
# same flags. DRYDOCK_PRECOMPILED=OFF, as in preset fuzz, shows that each file includes what it uses.
option(DRYDOCK_PRECOMPILED "Precompile the JSON and standard headers" ON)
set(DRYDOCK_PRECOMPILED_HEADERS <nlohmann/json.hpp> <algorithm> <cmath> <cstdint> <filesystem> <fstream> <functional>
  <map> <memory> <optional> <set> <span> <string> <vector>)
find_package(nlohmann_json REQUIRED)

# A precompiled header by that name, made with the flags that follow.
function(drydock_precompile name)
  if(DRYDOCK_PRECOMPILED)
    add_library(${name} OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cpp)
    target_compile_options(${name} PRIVATE ${ARGN})
    target_link_libraries(${name} PRIVATE nlohmann_json::nlohmann_json drydock_warnings)
    target_precompile_headers(${name} PRIVATE ${DRYDOCK_PRECOMPILED_HEADERS})
  endif()
endfunction()

function(drydock_use_precompiled name)
  if(DRYDOCK_PRECOMPILED)
    foreach(target ${ARGN})
      target_precompile_headers(${target} REUSE_FROM ${name})
    endforeach()
  endif()
endfunction()

if(DRYDOCK_PRECOMPILED)
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)  # for ccache
endif()
drydock_precompile(drydock_precompiled)
