#pragma once

#include <cstdint>
#include <cstring>

namespace simt {

/// The line of the kernel that called. std::source_location where the compiler has none.
struct site {
  const char* file = "";
  std::uint32_t line = 0;

  static constexpr site current(const char* file = __builtin_FILE(), std::uint32_t line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const site& other) const {
    return line == other.line && std::strcmp(file, other.file) == 0;
  }
};

}  // namespace simt
