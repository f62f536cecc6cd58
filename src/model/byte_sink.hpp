// Where the bytes of a file go, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <tersor/error.hpp>

namespace tersor::model_detail {

class byte_sink {
 public:
  virtual ~byte_sink() = default;

  /// Room for at least `n_min` bytes, to be filled from the start; the room may be larger. Valid until the
  /// next call.
  [[nodiscard]] virtual result<std::span<std::byte>> room(std::uint64_t n_min) = 0;
  /// Takes the first `n` bytes of the last room.
  [[nodiscard]] virtual status take(std::uint64_t n) = 0;
  /// Takes bytes that lie elsewhere; they are not needed any more when the call returns.
  [[nodiscard]] virtual status put(std::span<const std::byte> bytes) = 0;
};

}  // namespace tersor::model_detail
