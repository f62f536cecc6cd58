// Fills and compares device memory; the launch's CUDA error number is returned.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace tersor::bench {

/// Values [0, n) of `dst` from the `n_base` BF16 values at `base`: copies of them, each begun at another
/// place and with other low mantissa bits, so that exponents keep their statistics and no two copies are
/// alike.
[[nodiscard]] int launch_fill_kv(const std::uint16_t* base, std::uint64_t n_base, std::uint16_t* dst,
                                 std::uint64_t n, std::uint64_t salt, CUstream_st* s);
/// Adds the number of 32-bit words that differ to `*count`, in device memory. Both may be on a peer.
[[nodiscard]] int launch_count_different(const std::uint32_t* a, const std::uint32_t* b,
                                         std::uint64_t n_words, unsigned long long* count, CUstream_st* s);

}  // namespace tersor::bench
