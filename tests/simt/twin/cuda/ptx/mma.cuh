// The host twin of src/cuda/ptx/mma.cuh: matrix instructions, copies that fill with zeros, clusters.
#pragma once

#include <array>
#include <cstring>

#include "cuda/ptx/ptx.cuh"
#include "simt/numbers.hpp"

struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

namespace tersor::cuda::ptx {

inline u32 cta_index_y() {
  return simt::cta_index_y();
}

// ---- matrix products of a warp ----

namespace twin {

inline std::array<u64, 32> gather_all(const char* call, u64 value, site where) {
  const auto& values = simt::gather(call, value, where);
  std::array<u64, 32> out;
  std::copy(values, values + 32, out.begin());
  return out;
}
inline u32 half_of(u64 pairs, u32 i) {
  return static_cast<u32>(pairs >> (32 * i));
}

/// Sums in double precision, so that the order of the GPU's additions, which nobody promises, is left out.
template <class Convert>
void mma(const char* call, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, site where, Convert convert) {
  const auto upper = gather_all(call, u64{a[1]} << 32 | a[0], where);
  const auto lower = gather_all(call, u64{a[3]} << 32 | a[2], where);
  const auto columns = gather_all(call, u64{b1} << 32 | b0, where);
  const u32 g = simt::lane_index() / 4, t = simt::lane_index() % 4;
  for (u32 i = 0; i < 4; ++i) {
    const u32 column = 2 * t + i % 2, second_row = i / 2;
    double sum = 0;
    for (u32 k = 0; k < 16; ++k) {
      // Columns 0..7 of a row are in a[0] or a[1], 8..15 in a[2] or a[3]; rows of b likewise.
      const u32 quad = k % 8 / 2, shift = 16 * (k % 2);
      const u64 from_a = k < 8 ? upper[4 * g + quad] : lower[4 * g + quad];
      const u32 from_b = half_of(columns[4 * column + quad], k / 8);
      sum += static_cast<double>(convert(static_cast<u16>(half_of(from_a, second_row) >> shift))) *
             static_cast<double>(convert(static_cast<u16>(from_b >> shift)));
    }
    d[i] = static_cast<float>(static_cast<double>(d[i]) + sum);
  }
}

}  // namespace twin

inline void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, site where = site::current()) {
  twin::mma("mma_bf16", d, a, b0, b1, where, simt::from_bf16);
}
inline void mma_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, site where = site::current()) {
  twin::mma("mma_f16", d, a, b0, b1, where, simt::from_f16);
}
inline void ldmatrix_x4(const void* shared, u32 (&r)[4], site where = site::current()) {
  simt::check_shared("ldmatrix_x4", shared, 16, where);
  simt::crossing("ldmatrix_x4", where);
  // What the lane's row holds when the lane comes here: no later write may be meant.
  u64 row[2];
  std::memcpy(row, shared, 16);
  const auto low = twin::gather_all("ldmatrix_x4", row[0], where);
  const auto high = twin::gather_all("ldmatrix_x4", row[1], where);
  const u32 g = simt::lane_index() / 4, t = simt::lane_index() % 4;
  for (u32 i = 0; i < 4; ++i) {
    r[i] = twin::half_of(t < 2 ? low[8 * i + g] : high[8 * i + g], t % 2);
  }
}

// ---- copies ----

inline void copy_16_or_zero(void* shared, const void* global, u32 n_bytes, site where = site::current()) {
  simt::start_copy_or_zero("copy_16_or_zero", shared, global, n_bytes, where);
}

// ---- bulk copies, which land when they like ----

inline void arrive_expecting(u64* counter, u32 n_bytes, site where = site::current()) {
  twin::shared_atomic("arrive_expecting", counter, where, [n_bytes](u64 old) {
    auto state = simt::arrival_counter::from(old);
    state.missing -= 1;
    state.n_bytes += n_bytes;
    return state.settled().word();
  });
}
inline void bulk_copy(void* shared, const void* global, u32 n_bytes, u64* counter,
                      site where = site::current()) {
  simt::start_bulk_copy("bulk_copy", shared, global, n_bytes, counter, where);
}
inline void bulk_copy_once(void* shared, const void* global, u32 n_bytes, u64* counter,
                           site where = site::current()) {
  simt::start_bulk_copy("bulk_copy_once", shared, global, n_bytes, counter, where);
}
/// In place of a CUtensorMap stands a simt::tensor_map.
inline void tensor_copy(void* shared, const void* map, u32 x, u32 y, u64* counter,
                        site where = site::current()) {
  simt::tensor_map known;
  std::memcpy(&known, map, sizeof known);
  simt::start_tensor_copy("tensor_copy", shared, known, x, y, counter, where);
}
inline void arrive_after_copies(u64* counter, site where = site::current()) {
  simt::arrive_after_copies("arrive_after_copies", counter, where);
}
inline void fence_for_copies() {}
inline void wait_until_ended(u64* counter, u32 parity, site where = site::current()) {
  while (!has_ended(counter, parity, where)) {
  }
}

// ---- programmatic dependent launch: kernels run one after the other here ----

inline void release_next_kernel() {}
inline void wait_for_previous_kernel() {}

// ---- parts of a CTA, clusters ----

inline void barrier_of(u32 id, u32 n_threads, site where = site::current()) {
  simt::barrier_of(id, n_threads, where);
}

inline void cluster_barrier(site where = site::current()) {
  simt::cluster_barrier(where);
}
inline void arrive_in_cluster(u64* counter, u32 rank, site where = site::current()) {
  simt::arrive_in_cluster("arrive_in_cluster", counter, rank, where);
}
inline void wait_for_cluster(u64* counter, u32 parity, site where = site::current()) {
  wait_until_ended(counter, parity, where);
}
inline float4 load_from_cluster(const float* shared, u32 rank, site where = site::current()) {
  float4 value{};
  simt::read_cluster("load_from_cluster", shared, rank, sizeof value, &value, where);
  return value;
}

// ---- number formats ----

inline float from_bf16(u16 bits) {
  return simt::from_bf16(bits);
}
inline u16 to_bf16(float value) {
  return simt::to_bf16(value);
}
inline float from_f16(u16 bits) {
  return simt::from_f16(bits);
}
inline u16 to_f16(float value) {
  return simt::to_f16(value);
}

}  // namespace tersor::cuda::ptx
