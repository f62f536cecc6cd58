// Damage to frames, and what the CPU says about the outcome.
#pragma once

#include "simt/random.hpp"
#include "twin_data.hpp"

namespace twin {

struct damage {
  bytes frame;
  std::string what;
};
/// Changes one part of a good coded frame, or a few, and mostly makes the digests above it right again.
[[nodiscard]] damage damage_frame(const bytes& good, simt::random& r);
/// The same for a raw frame.
[[nodiscard]] damage damage_raw_frame(const bytes& good, simt::random& r);

struct verdict {
  tersor::errc code = tersor::errc::ok;
  std::uint32_t chunk = tersor::cuda::kNoChunk;
  bool judged_chunks = false;  ///< the header is good and as expected
  bytes data = {};
};
/// Of the frame that begins `frame` and should hold `n_values` values of `type` coded with `c`.
[[nodiscard]] verdict cpu_verdict(tersor::codec c, tersor::dtype type, std::uint64_t n_values,
                                  byte_view frame);

}  // namespace twin
