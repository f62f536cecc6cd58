#include "device.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "arrival.hpp"
#include "scheduler.hpp"
#include "words.hpp"

namespace simt {
namespace {

constexpr int kUnarrived = 0xc3;

thread_local scheduler* active_run = nullptr;

scheduler& needed() {
  if (active_run == nullptr) {
    throw std::logic_error("a call to ptx outside a kernel");
  }
  return *active_run;
}

const char* text(memory_error error) {
  switch (error) {
    case memory_error::outside:
      return "outside every region";
    case memory_error::misaligned:
      return "misaligned";
    case memory_error::not_writable:
      return "of memory that may only be read";
    default:
      return "of memory that was never written";
  }
}

void check(memory_error error, const char* call, const void* at, std::size_t n_bytes, site where) {
  if (error == memory_error::none) {
    return;
  }
  scheduler& s = needed();
  s.report(std::string(call) + " of " + std::to_string(n_bytes) + " bytes at " +
               hex(reinterpret_cast<std::uintptr_t>(at)) + " is " + text(error) + ": " +
               s.global().describe(at),
           where);
  s.stop();
}

}  // namespace

void run(memory& global, const grid& size, const std::function<void(void*)>& body) {
  const std::uint32_t row = size.row_ctas == 0 ? size.n_ctas : size.row_ctas;
  if (size.cluster == 0 || row == 0 || size.n_ctas % row != 0 || row % size.cluster != 0) {
    throw std::invalid_argument("a grid is of whole rows, a row of whole clusters");
  }
  if (size.n_threads == 0 || size.n_threads % kLanes != 0 || size.resident == 0) {
    throw std::invalid_argument("threads come in warps, and at least one CTA is under way");
  }
  if (active_run != nullptr) {
    throw std::logic_error("a kernel cannot run a kernel");
  }
  scheduler s(global, size, body);
  struct guard {
    explicit guard(scheduler* run) { active_run = run; }
    ~guard() { active_run = nullptr; }
  } while_running(&s);
  s.run();
}

std::uint32_t thread_index() {
  const lane& l = needed().current();
  return l.group->index * kLanes + l.index;
}
std::uint32_t cta_index() {
  return needed().current().group->group->index % cta_count();
}
std::uint32_t cta_index_y() {
  return needed().current().group->group->index / cta_count();
}
std::uint32_t cta_count() {
  const grid& size = needed().size();
  return size.row_ctas == 0 ? size.n_ctas : size.row_ctas;
}

const lane_values& gather(const char* call, std::uint64_t value, site where) {
  return needed().gather(call, value, where);
}
void barrier(site where) {
  needed().barrier(where);
}
void barrier_of(std::uint32_t id, std::uint32_t n_threads, site where) {
  needed().barrier_of(id, n_threads, where);
}
void cluster_barrier(site where) {
  needed().cluster_barrier(where);
}
void poll(const char* call, site where) {
  needed().poll(call, where);
}
void progress() {
  needed().progress();
}
void crossing(const char* call, site where) {
  needed().crossing(call, where);
}
void fault(const char* what, site where) {
  scheduler& s = needed();
  s.report(what, where);
  s.stop();
}

void read_global(const char* call, const void* at, std::size_t n_bytes, std::size_t alignment, void* out,
                 site where) {
  check(needed().global().read(at, n_bytes, alignment, out), call, at, n_bytes, where);
}

void write_global(const char* call, void* at, std::size_t n_bytes, std::size_t alignment, const void* value,
                  site where) {
  check(needed().global().write(at, n_bytes, alignment, value), call, at, n_bytes, where);
}

void check_shared(const char* call, const void* at, std::size_t n_bytes, site where) {
  const shared_memory& shared = *needed().current().group->group->shared;
  const auto begin = reinterpret_cast<std::uintptr_t>(shared.begin());
  const auto word = reinterpret_cast<std::uintptr_t>(at);
  if (word < begin || word + n_bytes > begin + shared.size() || word % n_bytes != 0) {
    scheduler& s = needed();
    s.report(std::string(call) + " at " + hex(word) + " is not on a word of the shared memory", where);
    s.stop();
  }
}

/// The same place in the shared memory of another CTA of the cluster.
static std::byte* place_in_cluster(const char* call, const void* shared, std::uint32_t rank,
                                   std::size_t n_bytes, site where) {
  check_shared(call, shared, n_bytes, where);
  crossing(call, where);
  const cta& own = *needed().current().group->group;
  if (rank >= own.peers.size()) {
    fault("the cluster has no CTA of this rank", where);
  }
  const cta& other = *own.peers[rank];
  if (other.n_ended == needed().size().n_threads) {
    fault("the other CTA has ended", where);
  }
  return other.shared->begin() + (static_cast<const std::byte*>(shared) - own.shared->begin());
}

void read_cluster(const char* call, const void* shared, std::uint32_t rank, std::size_t n_bytes, void* out,
                  site where) {
  std::memcpy(out, place_in_cluster(call, shared, rank, n_bytes, where), n_bytes);
}

void arrive_in_cluster(const char* call, std::uint64_t* counter, std::uint32_t rank, site where) {
  std::byte* at = place_in_cluster(call, counter, rank, sizeof *counter, where);
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  auto state = arrival_counter::from(word);
  state.missing -= 1;
  word = state.settled().word();
  std::memcpy(at, &word, sizeof word);
  progress();
}

void start_bulk_copy(const char* call, void* shared, const void* global, std::size_t n_bytes,
                     std::uint64_t* counter, site where) {
  constexpr std::size_t kUnit = 16;
  check_shared(call, counter, sizeof *counter, where);
  crossing(call, where);
  if (n_bytes == 0 || n_bytes % kUnit != 0) {
    fault("a bulk copy is of whole 16 bytes", where);
  }
  for (std::size_t at = 0; at < n_bytes; at += kUnit) {
    check_shared(call, static_cast<std::byte*>(shared) + at, kUnit, where);
  }
  bulk_copy copy{{{static_cast<std::byte*>(shared), std::vector<std::byte>(n_bytes)}}, counter, n_bytes, 0};
  read_global(call, global, n_bytes, kUnit, copy.pieces[0].value.data(), where);
  std::memset(shared, kUnarrived, n_bytes);
  needed().start_bulk_copy(std::move(copy));
}

void start_tensor_copy(const char* call, void* shared, const tensor_map& map, std::uint32_t x,
                       std::uint32_t y, std::uint64_t* counter, site where) {
  constexpr std::uint64_t kChunk = 16, kValue = 2;
  check_shared(call, counter, sizeof *counter, where);
  crossing(call, where);
  const std::uint64_t n_bytes = std::uint64_t{map.box_rows} * tensor_map::kRowBytes;
  const auto to = reinterpret_cast<std::uintptr_t>(shared);
  if (to % tensor_map::kRowBytes != 0 || reinterpret_cast<std::uintptr_t>(map.base) % kChunk != 0 ||
      map.stride_bytes % kChunk != 0) {
    fault("a tensor or its place is not aligned", where);
  }
  for (std::uint64_t at = 0; at < n_bytes; at += kChunk) {
    check_shared(call, static_cast<std::byte*>(shared) + at, kChunk, where);
  }
  bulk_copy copy{{{static_cast<std::byte*>(shared), std::vector<std::byte>(n_bytes)}}, counter, n_bytes, 0};
  for (std::uint64_t at = 0; at < n_bytes; at += kChunk) {
    const std::uint64_t row = y + at / tensor_map::kRowBytes, col = x + at % tensor_map::kRowBytes / kValue;
    if (row >= map.rows || col >= map.cols) {
      continue;
    }
    const std::uint64_t n = std::min(kChunk, (map.cols - col) * kValue);
    read_global(call, map.base + row * map.stride_bytes + col * kValue, n, kValue,
                copy.pieces[0].value.data() + (swizzled(to + at) - to), where);
  }
  std::memset(shared, kUnarrived, n_bytes);
  needed().start_bulk_copy(std::move(copy));
}

void arrive_after_copies(const char* call, std::uint64_t* counter, site where) {
  check_shared(call, counter, sizeof *counter, where);
  crossing(call, where);
  bulk_copy all{{}, counter, 0, 1};
  lane& l = needed().current();
  for (const pending_copy& copy : l.copies) {
    const auto first = copy.value.begin();
    all.pieces.push_back({copy.to, {first, first + static_cast<std::ptrdiff_t>(copy.n_bytes)}});
  }
  l.copies.clear();
  needed().start_bulk_copy(std::move(all));
}

void start_copy(const char* call, void* shared, const void* global, std::size_t n_bytes, site where) {
  check_shared(call, shared, n_bytes, where);
  crossing(call, where);
  pending_copy copy;
  copy.to = static_cast<std::byte*>(shared);
  copy.n_bytes = n_bytes;
  read_global(call, global, n_bytes, n_bytes, copy.value.data(), where);
  lane& l = needed().current();
  copy.group = l.n_copy_groups;
  std::memset(shared, kUnarrived, n_bytes);
  l.copies.push_back(copy);
}

void start_copy_or_zero(const char* call, void* shared, const void* global, std::size_t n_bytes, site where) {
  constexpr std::size_t kCopied = 16;
  check_shared(call, shared, kCopied, where);
  crossing(call, where);
  if (n_bytes > kCopied) {
    fault("a copy of more than 16 bytes", where);
  }
  pending_copy copy;
  copy.to = static_cast<std::byte*>(shared);
  copy.n_bytes = kCopied;
  if (n_bytes != 0) {
    read_global(call, global, n_bytes, kCopied, copy.value.data(), where);
  }
  lane& l = needed().current();
  copy.group = l.n_copy_groups;
  std::memset(shared, kUnarrived, kCopied);
  l.copies.push_back(copy);
}

void end_copies() {
  ++needed().current().n_copy_groups;
}

void wait_copies(std::uint32_t n_pending) {
  lane& l = needed().current();
  const auto arrives = [&](const pending_copy& copy) { return copy.group + n_pending < l.n_copy_groups; };
  for (const pending_copy& copy : l.copies) {
    if (arrives(copy)) std::memcpy(copy.to, copy.value.data(), copy.n_bytes);
  }
  std::erase_if(l.copies, arrives);
}

}  // namespace simt
