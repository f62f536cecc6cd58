// Runs a kernel without a GPU: every thread is a fiber, the order in which they go on is drawn from a seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernel_fault.hpp"
#include "memory.hpp"

namespace simt {

struct grid {
  std::uint32_t n_ctas = 1;
  /// CTAs of one row of the grid; 0 = all. Those of a cluster are neighbours in a row.
  std::uint32_t row_ctas = 0;
  /// CTAs that run together and read each other's shared memory.
  std::uint32_t cluster = 1;
  /// A multiple of 32.
  std::uint32_t n_threads = 256;
  std::size_t shared_bytes = 0;
  std::uint64_t seed = 0;
  /// How many CTAs are under way at once, at least a cluster; the next one starts when one ends.
  std::uint32_t resident = 2;
  /// The kernel hangs if every lane went on this often since one of them last stored, counted or ended.
  std::uint64_t idle_rounds = 10000;
};

/// Runs `body` once per thread, with the address of the CTA's shared memory, until all have ended. What a
/// thread leaves on its stack when another one faults is not destroyed. Throws kernel_fault for
///   - lanes of a warp that wait for each other in different calls, or for a lane or thread that has ended,
///   - a kernel that hangs (not: one that loops without any call to ptx),
///   - a load, store or atomic outside `global`, misaligned, against the region's access, or unwritten,
///   - an exception that leaves the body.
void run(memory& global, const grid& size, const std::function<void(void*)>& body);

}  // namespace simt
