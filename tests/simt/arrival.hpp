// An arrival counter (mbarrier) as the twin keeps it in 64 bits of shared memory.
#pragma once

#include <cstdint>

namespace simt {

struct arrival_counter {
  std::uint64_t parity = 0;    ///< of the running phase
  std::uint64_t arrivals = 0;  ///< of a phase
  std::uint64_t missing = 0;   ///< in the running phase
  std::uint64_t n_bytes = 0;   ///< of copies that the running phase waits for

  static constexpr std::uint64_t kMaxArrivals = (1u << 15) - 1;
  static constexpr std::uint64_t kByteMask = (std::uint64_t{1} << 33) - 1;

  static arrival_counter from(std::uint64_t word) {
    return {word >> 63, word >> 48 & kMaxArrivals, word >> 33 & kMaxArrivals, word & kByteMask};
  }
  std::uint64_t word() const { return parity << 63 | arrivals << 48 | missing << 33 | (n_bytes & kByteMask); }
  /// Ends the phase if nothing is missing.
  arrival_counter settled() const {
    if (missing != 0 || (n_bytes & kByteMask) != 0) return *this;
    return {parity ^ 1, arrivals, arrivals, 0};
  }
};

}  // namespace simt
