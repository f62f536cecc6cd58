// What the kernels ask of the machine, one instruction (or one load, store, atomic) per function. No other
// file names an intrinsic, a built-in variable or inline PTX, so tests/simt can stand in for the GPU with a
// header of the same functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

#define TERSOR_DEVICE __device__ __forceinline__
/// For paths that are rare: their registers and instructions stay out of the caller's.
#define TERSOR_DEVICE_RARE __device__ __noinline__

namespace tersor::cuda {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

namespace ptx {

inline constexpr u32 kFull = 0xffffffffu;

// ---- who am I ----

TERSOR_DEVICE u32 thread_index() {
  return threadIdx.x;
}
TERSOR_DEVICE u32 cta_index() {
  return blockIdx.x;
}
TERSOR_DEVICE u32 cta_count() {
  return gridDim.x;
}

// ---- warp ----

/// `value` of lane `lane`.
TERSOR_DEVICE u32 shfl(u32 value, u32 lane) {
  return __shfl_sync(kFull, value, static_cast<int>(lane));
}
TERSOR_DEVICE u64 shfl(u64 value, u32 lane) {
  return __shfl_sync(kFull, value, static_cast<int>(lane));
}
TERSOR_DEVICE u64 shfl_xor(u64 value, u32 mask) {
  return __shfl_xor_sync(kFull, value, static_cast<int>(mask));
}
/// value + value of the lane `step` below, or value where there is none.
TERSOR_DEVICE u32 add_from_below(u32 value, u32 step) {
  u32 out;
  asm("{\n"
      "  .reg .pred inside;\n"
      "  shfl.sync.up.b32 %0|inside, %1, %2, 0, 0xffffffff;\n"
      "  @inside add.u32 %0, %0, %1;\n"
      "}"
      : "=&r"(out)
      : "r"(value), "r"(step));
  return out;
}
TERSOR_DEVICE u32 ballot(bool predicate) {
  return __ballot_sync(kFull, predicate);
}
TERSOR_DEVICE bool any(bool predicate) {
  return __any_sync(kFull, predicate);
}
TERSOR_DEVICE bool all(bool predicate) {
  return __all_sync(kFull, predicate);
}
TERSOR_DEVICE u32 reduce_add(u32 value) {
  return __reduce_add_sync(kFull, value);
}
TERSOR_DEVICE u32 reduce_max(u32 value) {
  return __reduce_max_sync(kFull, value);
}
TERSOR_DEVICE u32 reduce_or(u32 value) {
  return __reduce_or_sync(kFull, value);
}
TERSOR_DEVICE void sync_warp() {
  __syncwarp();
}

// ---- CTA ----

TERSOR_DEVICE void barrier() {
  __syncthreads();
}

// ---- bits and bytes ----

/// Bytes of {b, a} by the nibbles of `selector`; bit 3 of a nibble replicates the byte's sign.
TERSOR_DEVICE u32 prmt(u32 a, u32 b, u32 selector) {
  u32 out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
  return out;
}
/// A byte of ones for each of the four low nibbles of `nibbles` that is 1, a zero byte for 0.
TERSOR_DEVICE u32 spread_low_bits(u32 nibbles) {
  return __byte_perm(0xff00, 0, nibbles);
}
/// High word of {high, low} << (shift & 31).
TERSOR_DEVICE u32 funnel_left(u32 low, u32 high, u32 shift) {
  return __funnelshift_l(low, high, shift);
}
/// High word of {high, low} << min(shift, 32).
TERSOR_DEVICE u32 funnel_left_clamped(u32 low, u32 high, u32 shift) {
  return __funnelshift_lc(low, high, shift);
}
/// Low word of {high, low} >> (shift & 31).
TERSOR_DEVICE u32 funnel_right(u32 low, u32 high, u32 shift) {
  return __funnelshift_r(low, high, shift);
}
/// Low word of {high, low} >> min(shift, 32).
TERSOR_DEVICE u32 funnel_right_clamped(u32 low, u32 high, u32 shift) {
  return __funnelshift_rc(low, high, shift);
}
TERSOR_DEVICE u32 popc(u32 value) {
  return static_cast<u32>(__popc(value));
}
TERSOR_DEVICE u32 reverse(u32 value) {
  return __brev(value);
}
/// Index of the lowest bit that is set; `value` is not zero.
TERSOR_DEVICE u32 lowest_bit(u32 value) {
  return static_cast<u32>(__ffs(static_cast<int>(value)) - 1);
}
/// c plus the sum of the products of the four bytes of a and b.
TERSOR_DEVICE u32 dot_bytes(u32 a, u32 b, u32 c) {
  return __dp4a(a, b, c);
}
/// Upper half of a * b.
TERSOR_DEVICE u32 mul_high(u32 a, u32 b) {
  return __umulhi(a, b);
}

/// Bits of `mask` from a, the others from b, in one LOP3 also where the mask is a literal.
TERSOR_DEVICE u32 blend(u32 a, u32 b, u32 mask) {
  u32 out;
  asm("lop3.b32 %0, %1, %2, %3, 0xe2;" : "=r"(out) : "r"(a), "r"(mask), "r"(b));
  return out;
}

/// The value, of which the compiler knows nothing: it stays in a register of its own.
TERSOR_DEVICE u32 opaque(u32 value) {
  asm volatile("" : "+r"(value));
  return value;
}

// ---- global memory ----

template <class T>
TERSOR_DEVICE T load(const T* p) {
  return *p;
}
template <class T>
TERSOR_DEVICE void store(T* p, T value) {
  *p = value;
}

TERSOR_DEVICE u64 atomic_add(u64* p, u64 value) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(value));
}
TERSOR_DEVICE u32 atomic_add(u32* p, u32 value) {
  return atomicAdd(p, value);
}
TERSOR_DEVICE void atomic_max(u32* p, u32 value) {
  atomicMax(p, value);
}
TERSOR_DEVICE void atomic_min(u64* p, u64 value) {
  atomicMin(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(value));
}
TERSOR_DEVICE u64 atomic_exchange(u64* p, u64 value) {
  return atomicExch(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(value));
}
TERSOR_DEVICE u32 atomic_exchange(u32* p, u32 value) {
  return atomicExch(p, value);
}
/// Orders this thread's accesses to global memory for all threads of the GPU.
TERSOR_DEVICE void fence() {
  __threadfence();
}

// ---- global to shared memory, behind the thread's back ----

/// Starts a copy of 16 bytes, both addresses multiples of 16.
TERSOR_DEVICE void copy_16(void* shared, const void* global) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
}
/// Starts a copy of 8 bytes, both addresses multiples of 8.
TERSOR_DEVICE void copy_8(void* shared, const void* global) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(global) : "memory");
}
/// Starts a copy of 4 bytes, both addresses multiples of 4.
TERSOR_DEVICE void copy_4(void* shared, const void* global) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(global) : "memory");
}
/// Ends a group of this thread's copies.
TERSOR_DEVICE void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most `kPending` of this thread's groups are still under way.
template <u32 kPending>
TERSOR_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- shared memory ----

TERSOR_DEVICE void shared_or(u32* p, u32 value) {
  atomicOr(p, value);
}
/// The same where `value` is not zero, without a branch.
TERSOR_DEVICE void shared_or_nonzero(u32* p, u32 value) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(p));
  asm volatile(
      "{\n"
      "  .reg .pred some;\n"
      "  setp.ne.u32 some, %1, 0;\n"
      "  @some red.relaxed.cta.shared.or.b32 [%0], %1;\n"
      "}" ::"r"(at),
      "r"(value)
      : "memory");
}
TERSOR_DEVICE void shared_add(u32* p, u32 value) {
  atomicAdd(p, value);
}
/// An mbarrier: counts arrivals; a phase ends with the last one, and the next phase begins. Phases alternate
/// in parity, 0 first. What a thread wrote before it arrived is seen by whoever saw the phase end.
TERSOR_DEVICE void arrival_init(u64* counter, u32 arrivals) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
TERSOR_DEVICE void arrive(u64* counter) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at) : "memory");
}
/// Whether the latest phase of this parity has ended. May suspend the thread for a while first.
TERSOR_DEVICE bool has_ended(u64* counter, u32 parity) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  u32 ended = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(ended)
               : "r"(at), "r"(parity)
               : "memory");
#else
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(ended)
               : "r"(at), "r"(parity)
               : "memory");
#endif
  return ended != 0;
}

}  // namespace ptx
}  // namespace tersor::cuda
