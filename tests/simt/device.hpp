// What the twin of ptx.cuh asks of the run that its lane belongs to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "site.hpp"
#include "tensor_map.hpp"

namespace simt {

inline constexpr std::uint32_t kLanes = 32;

/// One value of every lane of a warp.
using lane_values = std::uint64_t[kLanes];

std::uint32_t thread_index();
std::uint32_t cta_index();
std::uint32_t cta_index_y();
std::uint32_t cta_count();
inline std::uint32_t lane_index() {
  return thread_index() % kLanes;
}

/// Waits until all lanes of the warp are in the call of this name and place; what each of them gave. The
/// values stand until the lane's next call.
const lane_values& gather(const char* call, std::uint64_t value, site where);
/// Waits for all threads of the CTA.
void barrier(site where);
/// Waits for `n_threads` threads, whole warps, at barrier `id` of the CTA (not 0).
void barrier_of(std::uint32_t id, std::uint32_t n_threads, site where);
/// Arrives at the counter at the same place in CTA `rank` of the cluster.
void arrive_in_cluster(const char* call, std::uint64_t* counter, std::uint32_t rank, site where);
/// Waits for all threads of the cluster.
void cluster_barrier(site where);
/// Reads at the place of `shared` in the shared memory of CTA `rank` of the cluster.
void read_cluster(const char* call, const void* shared, std::uint32_t rank, std::size_t n_bytes, void* out,
                  site where);
/// A look at what others have to change: all others get their turn before the next one.
void poll(const char* call, site where);
/// The kernel got somewhere, so that it does not hang.
void progress();

void read_global(const char* call, const void* at, std::size_t n_bytes, std::size_t alignment, void* out,
                 site where);
void write_global(const char* call, void* at, std::size_t n_bytes, std::size_t alignment, const void* value,
                  site where);
/// Faults unless the word lies in the CTA's shared memory.
void check_shared(const char* call, const void* at, std::size_t n_bytes, site where);
/// Starts a copy of 4, 8 or 16 bytes from global to shared memory, where garbage stands until the wait.
void start_copy(const char* call, void* shared, const void* global, std::size_t n_bytes, site where);
/// The same for 16 bytes, of which only `n_bytes` are read and the others become zero.
void start_copy_or_zero(const char* call, void* shared, const void* global, std::size_t n_bytes, site where);
/// Starts a copy of multiples of 16 bytes that takes its bytes from the counter when it lands.
void start_bulk_copy(const char* call, void* shared, const void* global, std::size_t n_bytes,
                     std::uint64_t* counter, site where);
/// The same for a box of a matrix from column x and row y on; what the matrix does not have becomes zero.
void start_tensor_copy(const char* call, void* shared, const tensor_map& map, std::uint32_t x,
                       std::uint32_t y, std::uint64_t* counter, site where);
/// The lane's copies so far arrive at the counter once they have landed.
void arrive_after_copies(const char* call, std::uint64_t* counter, site where);
/// Ends a group of the lane's copies.
void end_copies();
/// Copies arrive but for those of the lane's last `n_pending` groups and of the one that has not ended.
void wait_copies(std::uint32_t n_pending);
/// A point where other lanes may come in between, and sometimes do.
void crossing(const char* call, site where);

[[noreturn]] void fault(const char* what, site where);

}  // namespace simt
