// Every backend gives the same bytes or the same error code for the same chunk.
#include "../faults/support.hpp"
#include "frames.hpp"

TERSOR_FUZZ_TARGET(differential) {
  const auto frame = fuzz::frame_of(data, std::nullopt);
  const auto info = tersor::inspect(frame);
  if (info && info->decoded_bytes > (1U << 22)) return;
  const faults::verdict expected = faults::decode_verdict(fuzz::contexts().back(), frame);
  for (const tersor::context& ctx : fuzz::contexts())
    fuzz::require(faults::decode_verdict(ctx, frame) == expected);
}
