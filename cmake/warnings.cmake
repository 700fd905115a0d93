option(DRYDOCK_WARNINGS_ARE_ERRORS "Fail the build on a compiler warning" OFF)
add_library(drydock_warnings INTERFACE)
# GCC 12 warns falsely of std::string code at -O2 (its bugs 105329, 105651 and 105762).
# Of anonymous namespaces it warns where they stand in an included file, as in a unity build.
target_compile_options(drydock_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-stringop-overflow -Wno-array-bounds -Wno-subobject-linkage>
  $<$<BOOL:${DRYDOCK_WARNINGS_ARE_ERRORS}>:-Werror>)
