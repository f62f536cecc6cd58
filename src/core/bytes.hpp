// Little-endian loads and stores that work at any address on any CPU.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

#include "core/host_device.hpp"

namespace tersor::core {

template <std::unsigned_integral T>
[[nodiscard]] TERSOR_HD inline T byte_swap(T value) noexcept {
  T swapped = 0;
  for (unsigned i = 0; i < sizeof(T); ++i) {
    swapped =
        static_cast<T>(static_cast<T>(swapped << (sizeof(T) > 1 ? 8 : 0)) | ((value >> (8 * i)) & 0xff));
  }
  return swapped;
}

template <std::unsigned_integral T>
[[nodiscard]] TERSOR_HD inline T load_le(const void* src) noexcept {
  T value;
  memcpy(&value, src, sizeof(T));
  if constexpr (std::endian::native == std::endian::big) value = byte_swap(value);
  return value;
}

template <std::unsigned_integral T>
TERSOR_HD inline void store_le(void* dst, T value) noexcept {
  if constexpr (std::endian::native == std::endian::big) value = byte_swap(value);
  memcpy(dst, &value, sizeof(T));
}

}  // namespace tersor::core
