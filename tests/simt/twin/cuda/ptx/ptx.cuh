// The host twin of src/cuda/ptx/ptx.cuh: the same functions in plain C++, each thread of the GPU being a
// fiber of simt::run. Kernels find it in place of the other by the order of the include directories.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "simt/arrival.hpp"
#include "simt/device.hpp"

#define TERSOR_DEVICE inline
#define TERSOR_DEVICE_RARE __attribute__((noinline)) inline

struct alignas(8) uint2 {
  std::uint32_t x, y;
};
struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};
inline uint4 make_uint4(std::uint32_t x, std::uint32_t y, std::uint32_t z, std::uint32_t w) {
  return {x, y, z, w};
}
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};

namespace tersor::cuda {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

namespace ptx {

using simt::site;

inline constexpr u32 kFull = 0xffffffffu;

// ---- who am I ----

inline u32 thread_index() {
  return simt::thread_index();
}
inline u32 cta_index() {
  return simt::cta_index();
}
inline u32 cta_count() {
  return simt::cta_count();
}

// ---- warp ----

inline u32 shfl(u32 value, u32 lane, site where = site::current()) {
  return static_cast<u32>(simt::gather("shfl of 32 bits", value, where)[lane % 32]);
}
inline u64 shfl(u64 value, u32 lane, site where = site::current()) {
  return simt::gather("shfl of 64 bits", value, where)[lane % 32];
}
inline u64 shfl_xor(u64 value, u32 mask, site where = site::current()) {
  return simt::gather("shfl_xor", value, where)[(simt::lane_index() ^ mask) % 32];
}
inline u32 add_from_below(u32 value, u32 step, site where = site::current()) {
  const auto& values = simt::gather("add_from_below", value, where);
  // The instruction looks at five bits of the step.
  const u32 below = step % 32;
  const u32 lane = simt::lane_index();
  return lane >= below ? value + static_cast<u32>(values[lane - below]) : value;
}
inline u32 ballot(bool predicate, site where = site::current()) {
  const auto& values = simt::gather("ballot", predicate ? 1 : 0, where);
  u32 out = 0;
  for (u32 i = 0; i < 32; ++i) {
    out |= static_cast<u32>(values[i]) << i;
  }
  return out;
}
inline bool any(bool predicate, site where = site::current()) {
  const auto& values = simt::gather("any", predicate ? 1 : 0, where);
  return std::any_of(values, values + 32, [](u64 v) { return v != 0; });
}
inline bool all(bool predicate, site where = site::current()) {
  const auto& values = simt::gather("all", predicate ? 1 : 0, where);
  return std::all_of(values, values + 32, [](u64 v) { return v != 0; });
}
inline u32 reduce_add(u32 value, site where = site::current()) {
  const auto& values = simt::gather("reduce_add", value, where);
  u32 out = 0;
  for (u32 i = 0; i < 32; ++i) {
    out += static_cast<u32>(values[i]);
  }
  return out;
}
inline u32 reduce_max(u32 value, site where = site::current()) {
  const auto& values = simt::gather("reduce_max", value, where);
  return static_cast<u32>(*std::max_element(values, values + 32));
}
inline u32 reduce_or(u32 value, site where = site::current()) {
  const auto& values = simt::gather("reduce_or", value, where);
  u32 out = 0;
  for (u32 i = 0; i < 32; ++i) {
    out |= static_cast<u32>(values[i]);
  }
  return out;
}
inline void sync_warp(site where = site::current()) {
  simt::gather("sync_warp", 0, where);
}

// ---- CTA ----

inline void barrier(site where = site::current()) {
  simt::barrier(where);
}

// ---- bits and bytes ----

inline u32 prmt(u32 a, u32 b, u32 selector) {
  const u64 bytes = (u64{b} << 32) | a;
  u32 out = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 nibble = selector >> (4 * i) & 0xfu;
    const u32 byte = static_cast<u32>(bytes >> (8 * (nibble & 7u))) & 0xffu;
    const u32 sign = (byte & 0x80u) != 0 ? 0xffu : 0;
    out |= ((nibble & 8u) != 0 ? sign : byte) << (8 * i);
  }
  return out;
}
inline u32 funnel_left_clamped(u32 low, u32 high, u32 shift) {
  return static_cast<u32>((((u64{high} << 32) | low) << std::min(shift, 32u)) >> 32);
}
inline u32 funnel_left(u32 low, u32 high, u32 shift) {
  return funnel_left_clamped(low, high, shift & 31u);
}
inline u32 funnel_right_clamped(u32 low, u32 high, u32 shift) {
  return static_cast<u32>(((u64{high} << 32) | low) >> std::min(shift, 32u));
}
inline u32 funnel_right(u32 low, u32 high, u32 shift) {
  return funnel_right_clamped(low, high, shift & 31u);
}
inline u32 popc(u32 value) {
  return static_cast<u32>(std::popcount(value));
}
inline u32 reverse(u32 value) {
  value = ((value >> 1) & 0x55555555u) | ((value & 0x55555555u) << 1);
  value = ((value >> 2) & 0x33333333u) | ((value & 0x33333333u) << 2);
  value = ((value >> 4) & 0x0f0f0f0fu) | ((value & 0x0f0f0f0fu) << 4);
  return prmt(value, 0, 0x0123u);
}
inline u32 lowest_bit(u32 value, site where = site::current()) {
  if (value == 0) {
    simt::fault("lowest_bit of zero", where);
  }
  return static_cast<u32>(std::countr_zero(value));
}
inline u32 dot_bytes(u32 a, u32 b, u32 c) {
  for (u32 i = 0; i < 32; i += 8) {
    c += (a >> i & 0xffu) * (b >> i & 0xffu);
  }
  return c;
}
inline u32 mul_high(u32 a, u32 b) {
  return static_cast<u32>((u64{a} * b) >> 32);
}
inline u32 blend(u32 a, u32 b, u32 mask) {
  return (a & mask) | (b & ~mask);
}

inline u32 spread_low_bits(u32 nibbles) {
  return prmt(0xff00, 0, nibbles & 0x7777);
}
inline u32 opaque(u32 value) {
  return value;
}

// ---- global memory ----

namespace twin {

template <class T>
T read(const char* call, const T* p, site where) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  simt::read_global(call, p, sizeof(T), alignof(T), &value, where);
  return value;
}
template <class T>
void write(const char* call, T* p, const T& value, site where) {
  static_assert(std::is_trivially_copyable_v<T>);
  simt::write_global(call, p, sizeof(T), alignof(T), &value, where);
}

/// Replaces the value by change(value); what was there. One step: no other lane comes in between.
template <class T, class Change>
T atomic(const char* call, T* p, site where, Change change) {
  simt::crossing(call, where);
  const T old = read(call, p, where);
  const T changed = change(old);
  write(call, p, changed, where);
  if (changed != old) {
    simt::progress();
  }
  return old;
}

}  // namespace twin

template <class T>
T load_once(const T* p, site where = site::current()) {
  simt::crossing("load_once", where);
  return twin::read("load_once", p, where);
}
template <class T>
T load(const T* p, site where = site::current()) {
  simt::crossing("load", where);
  return twin::read("load", p, where);
}
template <class T>
T load_fresh(const T* p, site where = site::current()) {
  simt::poll("load_fresh", where);
  return twin::read("load_fresh", p, where);
}
template <class T>
void store(T* p, T value, site where = site::current()) {
  simt::crossing("store", where);
  twin::write("store", p, value, where);
  simt::progress();
}

inline u64 atomic_add(u64* p, u64 value, site where = site::current()) {
  return twin::atomic("atomic_add", p, where, [&](u64 old) { return old + value; });
}
inline u32 atomic_add(u32* p, u32 value, site where = site::current()) {
  return twin::atomic("atomic_add", p, where, [&](u32 old) { return old + value; });
}
inline void atomic_min(u32* p, u32 value, site where = site::current()) {
  twin::atomic("atomic_min", p, where, [&](u32 old) { return std::min(old, value); });
}
inline void atomic_min(u64* p, u64 value, site where = site::current()) {
  twin::atomic("atomic_min", p, where, [&](u64 old) { return std::min(old, value); });
}
inline void atomic_max(u32* p, u32 value, site where = site::current()) {
  twin::atomic("atomic_max", p, where, [&](u32 old) { return std::max(old, value); });
}
inline u64 atomic_exchange(u64* p, u64 value, site where = site::current()) {
  return twin::atomic("atomic_exchange", p, where, [&](u64) { return value; });
}
inline u32 atomic_exchange(u32* p, u32 value, site where = site::current()) {
  return twin::atomic("atomic_exchange", p, where, [&](u32) { return value; });
}
inline void fence(site where = site::current()) {
  simt::crossing("fence", where);
}

// ---- global to shared memory ----

inline void copy_16(void* shared, const void* global, site where = site::current()) {
  simt::start_copy("copy_16", shared, global, 16, where);
}
inline void copy_8(void* shared, const void* global, site where = site::current()) {
  simt::start_copy("copy_8", shared, global, 8, where);
}
inline void copy_4(void* shared, const void* global, site where = site::current()) {
  simt::start_copy("copy_4", shared, global, 4, where);
}
inline void end_copies() {
  simt::end_copies();
}
template <u32 kPending>
void wait_copies() {
  simt::wait_copies(kPending);
}

// ---- shared memory ----

namespace twin {

template <class Word, class Change>
void shared_atomic(const char* call, Word* p, site where, Change change) {
  simt::check_shared(call, p, sizeof(Word), where);
  simt::crossing(call, where);
  const Word old = *p;
  *p = change(old);
  if (*p != old) {
    simt::progress();
  }
}

}  // namespace twin

inline void shared_or(u32* p, u32 value, site where = site::current()) {
  twin::shared_atomic("shared_or", p, where, [&](u32 old) { return old | value; });
}
inline void shared_or_nonzero(u32* p, u32 value, site where = site::current()) {
  if (value != 0) {
    twin::shared_atomic("shared_or_nonzero", p, where, [&](u32 old) { return old | value; });
  }
}
inline void shared_add(u32* p, u32 value, site where = site::current()) {
  twin::shared_atomic("shared_add", p, where, [&](u32 old) { return old + value; });
}
inline void arrival_init(u64* counter, u32 arrivals, site where = site::current()) {
  simt::check_shared("arrival_init", counter, sizeof(u64), where);
  *counter = simt::arrival_counter{0, arrivals, arrivals, 0}.word();
}
inline void arrive(u64* counter, site where = site::current()) {
  twin::shared_atomic("arrive", counter, where, [](u64 old) {
    auto state = simt::arrival_counter::from(old);
    state.missing -= 1;
    return state.settled().word();
  });
}
inline bool has_ended(u64* counter, u32 parity, site where = site::current()) {
  simt::check_shared("has_ended", counter, sizeof(u64), where);
  simt::poll("has_ended", where);
  return simt::arrival_counter::from(*counter).parity != parity;
}

}  // namespace ptx
}  // namespace tersor::cuda
