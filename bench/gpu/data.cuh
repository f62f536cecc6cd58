// Test data of the trial, made on the device, and the comparisons by integer view.
#pragma once

#include <cuda_runtime.h>

#include "device.cuh"

namespace trial {

enum class data_kind {
  normal,
  row_scaled,
  lognormal_columns,
  uniform_exponents,
  all_patterns,
  zeros_and_nans
};
constexpr data_kind kAllData[] = {data_kind::normal,
                                  data_kind::row_scaled,
                                  data_kind::lognormal_columns,
                                  data_kind::uniform_exponents,
                                  data_kind::all_patterns,
                                  data_kind::zeros_and_nans};

inline const char* name_of(data_kind kind) {
  constexpr const char* names[] = {"normal_0.02",       "row_scaled",   "lognormal_columns",
                                   "uniform_exponents", "all_patterns", "zeros_and_nans"};
  return names[static_cast<int>(kind)];
}

__device__ inline u32 scramble(u64 i, u32 salt) {
  return static_cast<u32>(mix(i * 0x9E3779B97F4A7C15ULL + salt) >> 32);
}

__device__ inline float normal(u64 i, u32 salt) {
  float u = (static_cast<float>(scramble(2 * i, salt)) + 1.0f) * 2.3283064e-10f;
  float v = static_cast<float>(scramble(2 * i + 1, salt)) * 2.3283064e-10f;
  return sqrtf(-2.0f * logf(fminf(u, 1.0f))) * cospif(2.0f * v);
}

__device__ inline u16 to_bf16(float x) {
  u32 bits = __float_as_uint(x);
  return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ inline u16 make_value(data_kind kind, u64 i, u32 salt) {
  switch (kind) {
    case data_kind::normal:
      return to_bf16(0.02f * normal(i, salt));
    case data_kind::row_scaled:
      return to_bf16(0.02f * normal(i, salt) * expf(0.5f * normal(i >> 12, salt + 1)));
    case data_kind::lognormal_columns:
      return to_bf16(normal(i, salt) * expf(normal(i & 4095, salt + 1)));
    case data_kind::uniform_exponents:
      return static_cast<u16>((scramble(i, salt) & 0x807f) | (120 + scramble(i, salt + 1) % 14) << 7);
    case data_kind::all_patterns:
      return static_cast<u16>(i * 40503 + (i >> 16) * 7);
    case data_kind::zeros_and_nans: {
      u32 pick = scramble(i >> 4, salt + 1);
      if (pick % 5 == 0) return 0;
      if (pick % 97 == 1) return static_cast<u16>(0x7f80 | (scramble(i, salt + 2) & 0x807f));
      if (pick % 7 == 2) return static_cast<u16>(scramble(i, salt + 3));
      return to_bf16(normal(i, salt));
    }
  }
  return 0;
}

__global__ void generate(u16* out, u64 count, data_kind kind, u32 salt) {
  for (u64 i = blockIdx.x * u64{blockDim.x} + threadIdx.x; i < count; i += u64{gridDim.x} * blockDim.x) {
    out[i] = make_value(kind, i, salt);
  }
}

__global__ void count_symbols(const u16* in, u64 count, unsigned long long* counts) {
  __shared__ u32 local[256];
  local[threadIdx.x] = 0;
  __syncthreads();
  for (u64 i = blockIdx.x * u64{blockDim.x} + threadIdx.x; i < count; i += u64{gridDim.x} * blockDim.x) {
    atomicAdd(&local[in[i] >> 7 & 0xff], 1u);
  }
  __syncthreads();
  atomicAdd(&counts[threadIdx.x], static_cast<unsigned long long>(local[threadIdx.x]));
}

__global__ void count_differences(const u32* a, const u32* b, u64 words, unsigned long long* bad) {
  u32 mine = 0;
  for (u64 i = blockIdx.x * u64{blockDim.x} + threadIdx.x; i < words; i += u64{gridDim.x} * blockDim.x)
    mine += a[i] != b[i];
  if (mine) atomicAdd(bad, static_cast<unsigned long long>(mine));
}

/// How many chunks do not have the status `want`.
__global__ void count_not(const u32* status, u64 count, u32 want, unsigned long long* bad) {
  for (u64 i = blockIdx.x * u64{blockDim.x} + threadIdx.x; i < count; i += u64{gridDim.x} * blockDim.x) {
    if (status[i] != want) atomicAdd(bad, 1ull);
  }
}

__global__ void __launch_bounds__(256) copy_four(const uint4* from, uint4* to) {
  const u64 i = blockIdx.x * u64{1024} + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (u32 k = 0; k < 4; ++k) v[k] = from[i + 256 * k];
#pragma unroll
  for (u32 k = 0; k < 4; ++k) to[i + 256 * k] = v[k];
}

/// The encoder's loads and stores without the codec: values in, rest and code planes and tails of known
/// lengths out.
template <class Code>
__global__ void __launch_bounds__(256, 6) encode_pattern(const uint4* in, frame_view f) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const length_mask before = lengths_before(warp);
  for (u32 chunk = blockIdx.x; chunk < f.chunks; chunk += gridDim.x) {
    const u32 tile = kChunkTiles * chunk + warp;
    u32* records = f.records + 6 * static_cast<u64>(chunk);
    const u32 record = lane < 6 ? records[lane] : 0;
    const tile_place place = place_of(record, warp, before, f.tail_words);
    if (tile >= f.tiles) continue;
    const uint4* from = in + static_cast<u64>(tile) * 128 + lane;
    uint4 x[4];
#pragma unroll
    for (u32 s = 0; s < 4; ++s) x[s] = load_once(from + 32 * s);
    uint2* rest = reinterpret_cast<uint2*>(f.rest + static_cast<u64>(tile) * kTileValues) + lane;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) rest[32 * s] = {x[s].x ^ x[s].y, x[s].z ^ x[s].w};
    Code code{};
    code.x = x[0].x ^ x[1].x;
    code.y = x[2].y ^ x[3].y;
    reinterpret_cast<Code*>(f.code + static_cast<u64>(tile) * 32 * sizeof(Code))[lane] = code;
    for (u32 i = lane; i < place.words(); i += 32) f.tails[place.first + i] = x[0].x + i;
    if (lane < 6 && warp == 0) records[lane] = record;
  }
}

}  // namespace trial
