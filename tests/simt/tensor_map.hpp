// What a CUtensorMap says, as far as the twin needs it: a matrix of two-byte values and boxes of 128 bytes a
// row, whose 16-byte chunks are swizzled as CU_TENSOR_MAP_SWIZZLE_128B does.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

struct tensor_map {
  const std::byte* base = nullptr;
  std::uint64_t cols = 0, rows = 0;
  std::uint64_t stride_bytes = 0;
  std::uint32_t box_rows = 0;

  static constexpr std::uint32_t kRowBytes = 128;
};

/// Where the copy engine and wgmma look for a byte.
inline std::uintptr_t swizzled(std::uintptr_t address) {
  return address ^ (address >> 7 & 7) << 4;
}

}  // namespace simt
