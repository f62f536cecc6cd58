// What the benchmark measures: something that encodes the input to a buffer of its own and decodes it again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench_input.hpp"
#include "core/thread_pool.hpp"
#include <tersor/codec.hpp>

namespace tersor::bench {

class contender {
 public:
  virtual ~contender() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  /// True if it wants the input tensor by tensor, false if copy by copy (see bench_input.hpp): the same
  /// tensors equally often.
  [[nodiscard]] virtual bool by_tensor() const { return false; }
  /// Size of the buffer that encode needs for `n_bytes`.
  [[nodiscard]] virtual std::uint64_t bound(std::uint64_t n_bytes) const = 0;
  /// Returns the encoded size.
  [[nodiscard]] virtual result<std::uint64_t> encode(std::span<const std::byte> src,
                                                     std::span<std::byte> dst) = 0;
  /// Decodes what the last encode or encode_auto wrote to `encoded`.
  [[nodiscard]] virtual status decode(std::span<const std::byte> encoded, std::span<std::byte> dst) = 0;
  [[nodiscard]] virtual bool has_auto() const { return false; }
  /// Encode with nothing known beforehand.
  [[nodiscard]] virtual result<std::uint64_t> encode_auto(std::span<const std::byte> src,
                                                          std::span<std::byte> dst) {
    return encode(src, dst);
  }
};

/// Encodes every segment of the input to a frame of its own, with the segment's codebook.
[[nodiscard]] std::unique_ptr<contender> make_tersor(const context& ctx, codec which,
                                                     std::span<const segment> segments);

/// Names of all peers that this program knows, built in or not.
[[nodiscard]] std::span<const std::string_view> peer_names() noexcept;
/// Null if the library was absent when the program was built.
[[nodiscard]] std::unique_ptr<contender> make_peer(std::string_view name, core::thread_pool& pool);

}  // namespace tersor::bench
