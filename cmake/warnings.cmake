# Warnings for Tersor's own targets only; consumers keep theirs.
add_library(tersor_warnings INTERFACE)
target_compile_options(tersor_warnings INTERFACE
  -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor -Werror)
