// The host twin of src/cuda/ptx/wgmma.cuh. Products are done on return: what a kernel does to their operands
// too early is not seen.
#pragma once

#include "cuda/ptx/mma.cuh"
#include "simt/tensor_map.hpp"

namespace tersor::cuda::ptx {

/// In units of 16 bytes, as the GPU's descriptors are.
inline u64 wgmma_operand(const void* at) {
  return reinterpret_cast<std::uintptr_t>(at) / 16;
}
inline void wgmma_begin(site where = site::current()) {
  simt::gather("wgmma_begin", 0, where);
}
inline void wgmma_end(site where = site::current()) {
  simt::gather("wgmma_end", 0, where);
}
template <u32 kPending>
void wgmma_wait(site where = site::current()) {
  simt::gather("wgmma_wait", 0, where);
}
template <class Values>
void pin(Values&) {}

namespace twin {

/// Value k of row `row` of the right operand.
inline u16 operand_value(const char* call, u64 operand, u32 row, u32 k, site where) {
  const std::uintptr_t at = simt::swizzled(16 * operand + 128 * row + 2 * k);
  simt::check_shared(call, reinterpret_cast<const void*>(at), sizeof(u16), where);
  u16 value = 0;
  std::memcpy(&value, reinterpret_cast<const void*>(at), sizeof value);
  return value;
}

template <u32 kTiles, class Convert>
void wgmma(const char* call, float (&d)[kTiles][4], const u32 (&a)[4], u64 b, site where, Convert convert) {
  const auto upper = gather_all(call, u64{a[1]} << 32 | a[0], where);
  const auto lower = gather_all(call, u64{a[3]} << 32 | a[2], where);
  const u32 g = simt::lane_index() / 4, t = simt::lane_index() % 4;
  for (u32 tile = 0; tile < kTiles; ++tile) {
    for (u32 i = 0; i < 4; ++i) {
      double sum = 0;
      for (u32 k = 0; k < 16; ++k) {
        const u64 from_a = k < 8 ? upper[4 * g + k % 8 / 2] : lower[4 * g + k % 8 / 2];
        const auto left = static_cast<u16>(half_of(from_a, i / 2) >> (16 * (k % 2)));
        const u16 right = operand_value(call, b, 8 * tile + 2 * t + i % 2, k, where);
        sum += static_cast<double>(convert(left)) * static_cast<double>(convert(right));
      }
      d[tile][i] = static_cast<float>(static_cast<double>(d[tile][i]) + sum);
    }
  }
}

}  // namespace twin

template <u32 kTiles>
void wgmma_bf16(float (&d)[kTiles][4], const u32 (&a)[4], u64 b, site where = site::current()) {
  twin::wgmma("wgmma_bf16", d, a, b, where, simt::from_bf16);
}
template <u32 kTiles>
void wgmma_f16(float (&d)[kTiles][4], const u32 (&a)[4], u64 b, site where = site::current()) {
  twin::wgmma("wgmma_f16", d, a, b, where, simt::from_f16);
}

}  // namespace tersor::cuda::ptx
