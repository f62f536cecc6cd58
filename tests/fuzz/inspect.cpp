// Header and index of anything.
#include "frames.hpp"

TERSOR_FUZZ_TARGET(inspect) {
  const auto frame = fuzz::frame_of(data, std::nullopt);
  const auto info = tersor::inspect(frame);
  if (!info) return;
  fuzz::require(info->frame_bytes <= frame.size());
  fuzz::require(info->shape.size() <= 8);
  // spec/frame.md: a coded frame of n bytes never declares more than 2 n bytes.
  fuzz::require(info->decoded_bytes <= 2 * frame.size());
}
