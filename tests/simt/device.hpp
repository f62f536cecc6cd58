// What the twin of ptx.cuh asks of the run that its lane belongs to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "site.hpp"

namespace simt {

inline constexpr std::uint32_t kLanes = 32;

/// One value of every lane of a warp.
using lane_values = std::uint64_t[kLanes];

std::uint32_t thread_index();
std::uint32_t cta_index();
std::uint32_t cta_count();
inline std::uint32_t lane_index() {
  return thread_index() % kLanes;
}

/// Waits until all lanes of the warp are in the call of this name and place; what each of them gave. The
/// values stand until the lane's next call.
const lane_values& gather(const char* call, std::uint64_t value, site where);
/// Waits for all threads of the CTA.
void barrier(site where);
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
/// Ends a group of the lane's copies.
void end_copies();
/// Copies arrive but for those of the lane's last `n_pending` groups and of the one that has not ended.
void wait_copies(std::uint32_t n_pending);
/// A point where other lanes may come in between, and sometimes do.
void crossing(const char* call, site where);

[[noreturn]] void fault(const char* what, site where);

}  // namespace simt
