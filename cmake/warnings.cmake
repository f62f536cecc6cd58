# Warnings for Tersor's own targets only; consumers keep theirs.
add_library(tersor_warnings INTERFACE)
target_compile_options(tersor_warnings INTERFACE
  -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports overlaps in std::string's operator+ that cannot happen (PR 105329).
  target_compile_options(tersor_warnings INTERFACE -Wno-restrict)
endif()
