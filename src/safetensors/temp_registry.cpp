#include "safetensors/temp_registry.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "safetensors/file_util.hpp"

namespace tersor::safetensors {
namespace {

// A path is written only in `claimed` and read by the handler only in `cleaning`, so the two never meet.
enum slot_state : int { kFree, kClaimed, kLiveFile, kLiveDirectory, kCleaning };

struct slot {
  std::atomic<int> state{kFree};
  ::pid_t owner = 0;
  std::array<char, PATH_MAX> path{};
};

static_assert(std::atomic<int>::is_always_lock_free, "the signal handler needs lock-free states");

// Process-wide by nature: a signal handler receives no context.
constinit std::array<slot, kMaxLiveTemporaries> g_slots{};

constexpr std::array kFatalSignals = {SIGINT, SIGTERM, SIGHUP};

void remove_all_live() noexcept {
  const ::pid_t self = ::getpid();
  for (slot& s : g_slots) {
    int state = s.state.load(std::memory_order_acquire);
    if (state != kLiveFile && state != kLiveDirectory) continue;
    if (s.owner != self) continue;
    const bool is_directory = state == kLiveDirectory;
    if (!s.state.compare_exchange_strong(state, kCleaning, std::memory_order_acq_rel)) continue;
    if (is_directory) {
      // Another thread may still be adding files; a few passes outrun it.
      for (int pass = 0; pass < 8 && !remove_tree(s.path.data()); ++pass) {
      }
    } else {
      syscalls().unlink(s.path.data());
    }
  }
}

void on_fatal_signal(int signal_number) {
  remove_all_live();
  struct ::sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal_number, &action, nullptr);
  // Blocked until this handler returns, then fatal: the parent sees the true cause of death.
  ::raise(signal_number);
}

}  // namespace

status install_signal_cleanup() {
  for (const int signal_number : kFatalSignals) {
    struct ::sigaction action {};
    struct ::sigaction before {};
    if (::sigaction(signal_number, nullptr, &before) != 0) {
      return fail_errno(errno, "read a signal's action", {});
    }
    if ((before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = on_fatal_signal;
    ::sigemptyset(&action.sa_mask);
    for (const int other : kFatalSignals) ::sigaddset(&action.sa_mask, other);
    if (::sigaction(signal_number, &action, nullptr) != 0) {
      return fail_errno(errno, "install a signal handler", {});
    }
  }
  return {};
}

result<temp_slot> temp_slot::publish(const std::filesystem::path& path, temp_kind kind) {
  const std::string& text = path.native();
  if (text.size() >= PATH_MAX) return fail_errno(ENAMETOOLONG, "create a temporary", path);
  for (int i = 0; i < kMaxLiveTemporaries; ++i) {
    slot& s = g_slots[static_cast<std::size_t>(i)];
    int expected = kFree;
    if (!s.state.compare_exchange_strong(expected, kClaimed, std::memory_order_acq_rel)) continue;
    std::memcpy(s.path.data(), text.c_str(), text.size() + 1);
    s.owner = ::getpid();
    s.state.store(kind == temp_kind::file ? kLiveFile : kLiveDirectory, std::memory_order_release);
    return temp_slot(i);
  }
  return tl::unexpected<error>(
      error{.code = errc::io_error, .message = "too many output files open at once", .file = text});
}

void temp_slot::release() noexcept {
  const int index = std::exchange(index_, -1);
  if (index < 0) return;
  std::atomic<int>& state = g_slots[static_cast<std::size_t>(index)].state;
  int expected = state.load(std::memory_order_acquire);
  // A slot in kCleaning stays with the handler: the process is about to end.
  while (expected != kCleaning && !state.compare_exchange_weak(expected, kFree, std::memory_order_acq_rel)) {
  }
}

bool temp_slot::owned_by_this_process() const noexcept {
  return index_ >= 0 && g_slots[static_cast<std::size_t>(index_)].owner == ::getpid();
}

}  // namespace tersor::safetensors
