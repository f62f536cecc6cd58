// The `top16` decoder behind right digests.
#include "frames.hpp"

TERSOR_FUZZ_TARGET(decode_top16) {
  const auto frame = fuzz::frame_of(data, tersor::codec::top16);
  for (const tersor::context& ctx : fuzz::contexts()) fuzz::decode_and_check(ctx, frame);
}
