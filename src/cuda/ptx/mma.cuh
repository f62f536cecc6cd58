// What the GEMM kernels ask of the machine beyond ptx.cuh: matrix instructions, copies that fill with zeros,
// clusters and programmatic dependent launch.
#pragma once

#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda::ptx {

TERSOR_DEVICE u32 cta_index_y() {
  return blockIdx.y;
}

// ---- matrix products of a warp ----

/// d += a b: a is 16 x 16 (row-major), b is 16 x 8 (column-major). Lane l = 4 g + t holds of a: rows g, g +
/// 8, g, g + 8 in a[0..3], columns 2 t, 2 t + 1 (a[0], a[1]) and 2 t + 8, 2 t + 9 (a[2], a[3]); of b: column
/// g, rows 2 t, 2 t + 1 (b0) and 2 t + 8, 2 t + 9 (b1); of d: rows g (d[0], d[1]) and g + 8 (d[2], d[3]),
/// columns 2 t, 2 t + 1.
TERSOR_DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
TERSOR_DEVICE void mma_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// Four 8 x 8 matrices of 2-byte values: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
/// aligned) and receives of each matrix i row l / 4, columns 2 (l % 4) and the next one in r[i].
TERSOR_DEVICE void ldmatrix_x4(const void* shared, u32 (&r)[4]) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

// ---- copies ----

/// Starts a copy of `n_bytes` <= 16 bytes; the rest of the 16 bytes becomes zero. Both addresses are
/// multiples of 16; nothing is read for 0 bytes.
TERSOR_DEVICE void copy_16_or_zero(void* shared, const void* global, u32 n_bytes) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(n_bytes)
               : "memory");
}

// ---- bulk copies, which report to an mbarrier (compute capability 9.0) ----

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/// Arrives, and makes the phase wait for `n_bytes` of bulk copies too.
TERSOR_DEVICE void arrive_expecting(u64* counter, u32 n_bytes) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(at),
               "r"(n_bytes)
               : "memory");
}
/// Starts a copy of `n_bytes`, a multiple of 16 like both addresses.
TERSOR_DEVICE void bulk_copy(void* shared, const void* global, u32 n_bytes, u64* counter) {
  const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(global), "r"(n_bytes), "r"(at)
      : "memory");
}
/// The same for data that is read once: it leaves the L2 cache first.
TERSOR_DEVICE void bulk_copy_once(void* shared, const void* global, u32 n_bytes, u64* counter) {
  const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile(
      "{\n"
      "  .reg .b64 policy;\n"
      "  createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "  cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], policy;\n"
      "}" ::"r"(to),
      "l"(global), "r"(n_bytes), "r"(at)
      : "memory");
}
/// Starts the copy of a box of the tensor that `map` (a CUtensorMap) describes, its first element at (x, y).
TERSOR_DEVICE void tensor_copy(void* shared, const void* map, u32 x, u32 y, u64* counter) {
  const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(at)
      : "memory");
}
/// Arrives when this thread's copies so far (copy_16 and its like) are done.
TERSOR_DEVICE void arrive_after_copies(u64* counter) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(at) : "memory");
}
/// Makes this thread's arrival_init seen by bulk copies, and its stores to shared memory.
TERSOR_DEVICE void fence_for_copies() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
/// Waits for the end of the phase of this parity.
TERSOR_DEVICE void wait_until_ended(u64* counter, u32 parity) {
  while (!has_ended(counter, parity)) {
  }
}

#endif

// ---- programmatic dependent launch (nothing happens before compute capability 9.0) ----

/// The next kernel of the stream may start.
TERSOR_DEVICE void release_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Waits until the kernel before has finished and its writes are seen.
TERSOR_DEVICE void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- parts of a CTA, clusters (compute capability 9.0) ----

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/// `n_threads` threads of the CTA, whole warps, meet at barrier `id` (0 is everybody's).
TERSOR_DEVICE void barrier_of(u32 id, u32 n_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}
/// All threads of the cluster.
TERSOR_DEVICE void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Arrives at the counter that CTA `rank` of the cluster has at the same place; orders for the whole cluster.
TERSOR_DEVICE void arrive_in_cluster(u64* counter, u32 rank) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  asm volatile(
      "{\n"
      "  .reg .b32 there;\n"
      "  mapa.shared::cluster.u32 there, %0, %1;\n"
      "  mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(at),
      "r"(rank)
      : "memory");
}
/// Waits for the end of the phase of this parity; sees what the cluster wrote before it arrived.
TERSOR_DEVICE void wait_for_cluster(u64* counter, u32 parity) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(counter));
  u32 ended = 0;
  do {
    asm volatile(
        "{\n"
        "  .reg .pred p;\n"
        "  mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "  selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(ended)
        : "r"(at), "r"(parity)
        : "memory");
  } while (ended == 0);
}
/// The four floats at the same place as `shared` (a multiple of 16) in the shared memory of CTA `rank` of the
/// cluster.
TERSOR_DEVICE float4 load_from_cluster(const float* shared, u32 rank) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
  float4 value;
  asm volatile(
      "{\n"
      "  .reg .b32 there;\n"
      "  mapa.shared::cluster.u32 there, %4, %5;\n"
      "  ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n"
      "}"
      : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
      : "r"(at), "r"(rank)
      : "memory");
  return value;
}

#endif

// ---- number formats ----

/// The value of 16 bits as a float, and a float rounded to nearest even.
TERSOR_DEVICE float from_bf16(u16 bits) {
  return __uint_as_float(static_cast<u32>(bits) << 16);
}
TERSOR_DEVICE u16 to_bf16(float value) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
TERSOR_DEVICE float from_f16(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
TERSOR_DEVICE u16 to_f16(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace tersor::cuda::ptx
