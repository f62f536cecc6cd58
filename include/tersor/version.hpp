// Versions of the library and of the formats it reads and writes.
#pragma once

#include <cstdint>
#include <string_view>

namespace tersor {

inline constexpr std::string_view kVersion = "0.1.0";
inline constexpr std::uint16_t kFrameFormatVersion = 1;
inline constexpr std::uint16_t kContainerFormatVersion = 1;

}  // namespace tersor
