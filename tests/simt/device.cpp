#include "device.hpp"

#include <cstring>
#include <stdexcept>

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
  return needed().current().group->group->index;
}
std::uint32_t cta_count() {
  return needed().size().n_ctas;
}

const lane_values& gather(const char* call, std::uint64_t value, site where) {
  return needed().gather(call, value, where);
}
void barrier(site where) {
  needed().barrier(where);
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
