// What a launch that copies the tails of frames hands to its kernel; see launch.hpp.
#pragma once

#include "cuda/codec/launch.hpp"

namespace tersor::cuda {

/// The tails of one frame: [tails, end) of the frame, where its encoder says in `result` where they end.
struct tails_copy {
  const std::uint8_t* from = nullptr;
  std::uint8_t* to = nullptr;
  const result_slot* result = nullptr;
  std::uint64_t tails = 0;     ///< a multiple of 16, as the frame's size is
  std::uint64_t capacity = 0;  ///< bytes at `from` and at `to`
};

struct tails_launch {
  tails_copy copies[kMaxTensors];
  std::uint32_t n_copies = 0;
  std::uint32_t ctas_per_copy = 1;
};

}  // namespace tersor::cuda
