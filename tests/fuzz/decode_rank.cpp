// The `rank` decoder behind right digests.
#include "frames.hpp"

TERSOR_FUZZ_TARGET(decode_rank) {
  const auto frame = fuzz::frame_of(data, tersor::codec::rank);
  for (const tersor::context& ctx : fuzz::contexts()) fuzz::decode_and_check(ctx, frame);
}
