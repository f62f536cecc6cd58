// Copies the tails of frames: what of a frame has a size that only the device knows.
#pragma once

#include "cuda/codec/tails_launch.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

TERSOR_DEVICE void copy_tails_cta(const tails_launch& launch) {
  constexpr u32 kAtOnce = 4;
  const u32 which = ptx::cta_index() / launch.ctas_per_copy;
  const u32 part = ptx::cta_index() - which * launch.ctas_per_copy;
  const tails_copy& copy = launch.copies[which];
  const u64 n_bytes = ptx::load(&copy.result->frame_bytes);
  // A frame that did not fit has no tails to speak of; whoever decodes what arrives refuses it.
  if (ptx::load(&copy.result->code) != kOk || n_bytes > copy.capacity || n_bytes <= copy.tails) return;
  const uint4* from = reinterpret_cast<const uint4*>(copy.from + copy.tails);
  uint4* to = reinterpret_cast<uint4*>(copy.to + copy.tails);
  const u64 n = (n_bytes - copy.tails) / sizeof(uint4);
  const u64 step = static_cast<u64>(kCtaThreads) * kAtOnce * launch.ctas_per_copy;
  for (u64 at = static_cast<u64>(part) * kCtaThreads * kAtOnce + ptx::thread_index(); at < n; at += step) {
    uint4 words[kAtOnce];
#pragma unroll
    for (u32 i = 0; i < kAtOnce; ++i) {
      if (at + i * kCtaThreads < n) words[i] = ptx::load(from + at + i * kCtaThreads);
    }
#pragma unroll
    for (u32 i = 0; i < kAtOnce; ++i) {
      if (at + i * kCtaThreads < n) ptx::store(to + at + i * kCtaThreads, words[i]);
    }
  }
}

}  // namespace tersor::cuda
