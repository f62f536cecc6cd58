// Frames damaged on purpose, most of them so that the digests above the damage are right again.
#pragma once

#include <string>
#include <vector>

#include "../golden/frame_edit.hpp"
#include "data.hpp"

namespace gpu_test {

/// A good frame and what it holds.
struct good_frame {
  tersor::codec codec = tersor::codec::rank;
  tersor::dtype type = tersor::dtype::bf16;
  std::uint64_t n_values = 0;
  bytes frame;
};

/// Frames of all codecs, dtypes, kinds of tiles and numbers of chunks.
[[nodiscard]] std::vector<good_frame> make_good_frames(const env& e);

inline constexpr unsigned kDamages = 16;
[[nodiscard]] const char* damage_name(unsigned damage) noexcept;

/// A damaged copy; `other` is a frame to take parts from.
[[nodiscard]] bytes make_damaged(const good_frame& good, const good_frame& other, unsigned damage,
                                 prng& random);

}  // namespace gpu_test
