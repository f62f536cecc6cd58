// A plain counter in shared memory for the tests of the scheduler: what spins on it lets others run.
#pragma once

#include "cuda/ptx/ptx.cuh"

namespace simt {

inline void count_up(std::uint32_t* counter, site where = site::current()) {
  tersor::cuda::ptx::twin::shared_atomic("count_up", counter, where,
                                         [](std::uint32_t old) { return old + 1; });
}
inline std::uint32_t read_count(std::uint32_t* counter, site where = site::current()) {
  check_shared("read_count", counter, sizeof(std::uint32_t), where);
  poll("read_count", where);
  return *counter;
}

}  // namespace simt
