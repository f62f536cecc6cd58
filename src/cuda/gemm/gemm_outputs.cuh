// What the GEMM kernels share: a group's operands, the product of one step, and the way of sums to Y.
#pragma once

#include "cuda/gemm/gemm_launch.hpp"
#include "cuda/gemm/packed_decode.cuh"
#include "cuda/ptx/mma.cuh"

namespace tersor::cuda {

template <class Weight>
TERSOR_DEVICE void mma_of(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (Weight::kHalf) {
    ptx::mma_f16(d, a, b0, b1);
  } else {
    ptx::mma_bf16(d, a, b0, b1);
  }
}

/// What the values of Y and the bias are.
template <class Weight>
TERSOR_DEVICE float to_float(u16 bits) {
  return Weight::kHalf ? ptx::from_f16(bits) : ptx::from_bf16(bits);
}
template <class Weight>
TERSOR_DEVICE u16 from_float(float value) {
  return Weight::kHalf ? ptx::to_f16(value) : ptx::to_bf16(value);
}

/// A group's part of the operands.
struct group_operands {
  const u8* matrix;
  const u16* x;
  u16* y;
  const u16* bias;
  u32 n_tokens;
  u32 first_token;
};
TERSOR_DEVICE group_operands operands_of_group(const gemm_operands& op, u32 group) {
  group_operands g = {op.weights,
                      reinterpret_cast<const u16*>(op.x),
                      reinterpret_cast<u16*>(op.y),
                      reinterpret_cast<const u16*>(op.bias),
                      op.n_tokens,
                      0};
  if (op.weight_table == nullptr) return g;
  g.matrix = ptx::load(op.weight_table + group);
  const std::int32_t first = ptx::load(op.first_token + group), end = ptx::load(op.first_token + group + 1);
  g.n_tokens = end > first ? static_cast<u32>(end - first) : 0;
  if (g.n_tokens > op.n_tokens) g.n_tokens = op.n_tokens;
  g.first_token = static_cast<u32>(first);
  g.x += static_cast<u64>(first) * op.ldx;
  g.y += static_cast<u64>(first) * op.ldy;
  if (g.bias != nullptr) g.bias += static_cast<u64>(group) * op.rows;
  return g;
}

/// Sum `value` of row m and a token, with bias and what Y holds, to Y.
template <class Weight>
TERSOR_DEVICE void store_output(const gemm_operands& op, const group_operands& g, u32 m, u32 token,
                                float value) {
  if (m >= op.rows || token >= g.n_tokens) return;
  u16* y = g.y + token * op.ldy + m;
  if (g.bias != nullptr) value += to_float<Weight>(ptx::load(g.bias + m));
  if (op.accumulate != 0) value += to_float<Weight>(ptx::load(y));
  ptx::store(y, from_float<Weight>(value));
}

/// A warp's sums of a row block: tiles of mma.m16n8k16.
template <u32 kTokens>
using block_sums = float[kTokens / 8][4];

template <u32 kTokens>
TERSOR_DEVICE void clear(block_sums<kTokens>& sums) {
#pragma unroll
  for (auto& tile : sums) tile[0] = tile[1] = tile[2] = tile[3] = 0;
}

/// Floats from one row of sums in shared memory to the next: four more than tokens, against bank conflicts.
template <u32 kTokens>
inline constexpr u32 kSumStride = kTokens + 4;

/// Puts sums where `shared` has 16 rows, or adds them to what is there.
template <u32 kTokens>
TERSOR_DEVICE void put_sums(const block_sums<kTokens>& sums, bool add, u32 lane, float* shared) {
#pragma unroll
  for (u32 tile = 0; tile < kTokens / 8; ++tile) {
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
      const u32 row = 8 * half + lane / 4, token = 8 * tile + 2 * (lane % 4);
      float2* at = reinterpret_cast<float2*>(shared + row * kSumStride<kTokens> + token);
      float2 value = make_float2(sums[tile][2 * half], sums[tile][2 * half + 1]);
      if (add) {
        const float2 before = *at;
        value.x += before.x;
        value.y += before.y;
      }
      *at = value;
    }
  }
}

TERSOR_DEVICE float4 plus(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// Four tokens' sums of row m.
template <class Weight>
TERSOR_DEVICE void store_outputs(const gemm_operands& op, const group_operands& g, u32 m, u32 token,
                                 const float4& value) {
  store_output<Weight>(op, g, m, token, value.x);
  store_output<Weight>(op, g, m, token + 1, value.y);
  store_output<Weight>(op, g, m, token + 2, value.z);
  store_output<Weight>(op, g, m, token + 3, value.w);
}

}  // namespace tersor::cuda
