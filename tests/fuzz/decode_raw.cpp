// The `raw` decoder behind right digests.
#include "frames.hpp"

TERSOR_FUZZ_TARGET(decode_raw) {
  const auto frame = fuzz::frame_of(data, tersor::codec::raw);
  for (const tersor::context& ctx : fuzz::contexts()) fuzz::decode_and_check(ctx, frame);
}
