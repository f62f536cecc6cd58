// The n-th system call of a kind fails, is interrupted, or does less than it was asked to, for every n.
#include <atomic>
#include <cerrno>
#include <functional>

#include <gtest/gtest.h>

#include "safetensors/syscalls.hpp"
#include "support.hpp"
#include <tersor/model.hpp>

namespace {

namespace fs = std::filesystem;
using tersor::errc;
using tersor::safetensors::syscall_table;
using tersor::safetensors::syscalls;

// State of the replaced calls, which are plain functions.
std::atomic<int> g_countdown{-1};
std::atomic<int> g_calls{0};
int g_errno = 0;
std::size_t g_most = 0;
bool g_interrupt = false;

const syscall_table& kernel() {
  static const syscall_table kTable = syscalls();
  return kTable;
}

bool fails_now() {
  ++g_calls;
  if (g_countdown < 0 || g_countdown-- != 0) return false;
  errno = g_errno;
  return true;
}

/// Replaces one entry by one that fails when its turn has come.
template <class Result, class... Args>
struct failing {
  template <Result (*syscall_table::*Entry)(Args...)>
  static Result call(Args... args) {
    if (fails_now()) return static_cast<Result>(-1);
    return (kernel().*Entry)(args...);
  }
};

void* failing_mmap(void* at, std::size_t n, int protection, int flags, int fd, ::off_t offset) {
  if (fails_now()) return MAP_FAILED;
  return kernel().mmap(at, n, protection, flags, fd, offset);
}

::ssize_t stingy_pread(int fd, void* dst, std::size_t n, ::off_t offset) {
  g_interrupt = !g_interrupt;
  if (g_interrupt) return errno = EINTR, -1;
  return kernel().pread(fd, dst, std::min(n, g_most), offset);
}

::ssize_t stingy_pwrite(int fd, const void* src, std::size_t n, ::off_t offset) {
  g_interrupt = !g_interrupt;
  if (g_interrupt) return errno = EINTR, -1;
  return kernel().pwrite(fd, src, std::min(n, g_most), offset);
}

struct kind {
  const char* name;
  void (*install)();
  int error_number;
};

template <auto Entry>
struct installer;
template <class Result, class... Args, Result (*syscall_table::*Entry)(Args...)>
struct installer<Entry> {
  static void install() { syscalls().*Entry = &failing<Result, Args...>::template call<Entry>; }
};

const std::vector<kind>& kinds() {
  static const std::vector<kind> kAll = {
      {"open", installer<&syscall_table::open>::install, EMFILE},
      {"fstat", installer<&syscall_table::fstat>::install, EIO},
      {"lstat", installer<&syscall_table::lstat>::install, EIO},
      {"pread", installer<&syscall_table::pread>::install, EIO},
      {"pwrite", installer<&syscall_table::pwrite>::install, ENOSPC},
      {"mmap", [] { syscalls().mmap = failing_mmap; }, ENOMEM},
      {"fsync", installer<&syscall_table::fsync>::install, EIO},
      {"fchmod", installer<&syscall_table::fchmod>::install, EIO},
      {"rename", installer<&syscall_table::rename>::install, EACCES},
      {"renameat2", installer<&syscall_table::renameat2>::install, EACCES},
      {"mkdir", installer<&syscall_table::mkdir>::install, ENOSPC},
  };
  return kAll;
}

class syscall_faults : public testing::Test {
 protected:
  syscall_faults() : ctx_(faults::make_context(2)) {
    (void)kernel();
    faults::write_model(dir_.path() / "plain.safetensors", 20'000);
    fs::create_directories(dir_.path() / "model");
    faults::write_model(dir_.path() / "model" / "model.safetensors", 9'000);
    faults::write_file(dir_.path() / "model" / "config.json", std::as_bytes(std::span("{\"a\": 1}", 8)));
    EXPECT_TRUE(
        tersor::compress(ctx_, dir_.path() / "plain.safetensors", dir_.path() / "packed.safetensors"));
    EXPECT_TRUE(tersor::compress(ctx_, dir_.path() / "model", dir_.path() / "model-tersor"));
    put_old();
    n_names_ = dir_.names().size();
  }
  ~syscall_faults() override { syscalls() = kernel(); }

  /// What stood at the destination before, or what a complete run writes there; nothing else.
  void expect_old_or_complete(const fs::path& complete, const std::string& what) const {
    const bool is_dir = fs::is_directory(complete);
    const fs::path& out = is_dir ? old_dir_ : old_;
    const bool is_old = is_dir ? same_tree(out, old_copy_) : faults::read_file(out).size() == 3;
    EXPECT_TRUE(is_old ||
                (is_dir ? same_tree(out, complete) : faults::read_file(out) == faults::read_file(complete)))
        << what;
    EXPECT_EQ(dir_.names().size(), n_names_) << what << " left a temporary";
  }

  void put_old() const {
    faults::write_file(old_, std::as_bytes(std::span("old", 3)));
    for (const fs::path& dir : {old_dir_, old_copy_}) {
      fs::remove_all(dir);
      fs::create_directories(dir);
      faults::write_file(dir / "old", std::as_bytes(std::span("old", 3)));
    }
  }

  static bool same_tree(const fs::path& a, const fs::path& b) {
    std::size_t n = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      const fs::path other = b / entry.path().filename();
      if (!fs::exists(other) || faults::read_file(entry.path()) != faults::read_file(other)) return false;
      ++n;
    }
    return n == static_cast<std::size_t>(std::distance(fs::directory_iterator(b), fs::directory_iterator()));
  }

  faults::temp_dir dir_;
  tersor::context ctx_;
  fs::path old_ = dir_.path() / "out.safetensors";
  fs::path old_dir_ = dir_.path() / "out";
  fs::path old_copy_ = dir_.path() / "out-copy";
  std::size_t n_names_ = 0;
};

using task = std::function<tersor::result<tersor::model_report>(const tersor::model_options&)>;

struct named_task {
  const char* name;
  fs::path complete;  ///< what a complete run writes
  task run;
};

std::vector<named_task> tasks(const tersor::context& ctx, const fs::path& d, const fs::path& file,
                              const fs::path& dir) {
  const fs::path plain = d / "plain.safetensors";
  const fs::path packed = d / "packed.safetensors";
  const fs::path model = d / "model";
  const fs::path packed_model = d / "model-tersor";
  return {
      {"compress", packed,
       [=, &ctx](const auto& options) { return tersor::compress(ctx, plain, file, options); }},
      {"decompress", plain,
       [=, &ctx](const auto& options) { return tersor::decompress(ctx, packed, file, options); }},
      {"compress directory", packed_model,
       [=, &ctx](const auto& options) { return tersor::compress(ctx, model, dir, options); }},
      {"decompress directory", model,
       [=, &ctx](const auto& options) { return tersor::decompress(ctx, packed_model, dir, options); }},
      {"verify", model,
       [=, &ctx](const auto& options) { return tersor::verify(ctx, packed_model, model, options); }},
  };
}

TEST_F(syscall_faults, every_call_fails_once) {
  std::uint64_t places = 0;
  std::uint64_t harmless = 0;
  for (const named_task& t : tasks(ctx_, dir_.path(), old_, old_dir_)) {
    for (const kind& k : kinds()) {
      for (const auto mode : {tersor::read_mode::mmap, tersor::read_mode::pread}) {
        for (int n = 0;; ++n) {
          ASSERT_LT(n, 10'000);
          put_old();
          g_errno = k.error_number;
          g_countdown = n;
          k.install();
          const auto done = t.run({.overwrite = true, .read = mode});
          syscalls() = kernel();
          const bool injected = g_countdown < 0;
          g_countdown = -1;
          const std::string what = std::string(t.name) + ", " + k.name + " number " + std::to_string(n);
          expect_old_or_complete(t.complete, what);
          if (!done) {
            EXPECT_TRUE(injected) << what << ": " << done.error().describe();
            EXPECT_FALSE(tersor::is_data_error(done.error().code)) << what << ": " << done.error().describe();
          }
          if (HasFailure()) return;
          if (!injected) break;
          ++places;
          if (done) ++harmless;
        }
      }
    }
  }
  // Few may fail without consequence: modes and syncs that a file system need not support.
  EXPECT_LT(harmless * 4, places);
  faults::publish(14, "failing system calls in compress, decompress, verify", places, 0, "places");
}

TEST_F(syscall_faults, short_and_interrupted_calls_change_nothing) {
  std::uint64_t runs = 0;
  for (const std::size_t most : {std::size_t{1}, std::size_t{3}, std::size_t{4095}}) {
    g_most = most;
    for (const named_task& t : tasks(ctx_, dir_.path(), old_, old_dir_)) {
      for (const auto mode : {tersor::read_mode::mmap, tersor::read_mode::pread}) {
        syscalls().pread = stingy_pread;
        syscalls().pwrite = stingy_pwrite;
        const auto done = t.run({.overwrite = true, .read = mode});
        syscalls() = kernel();
        ASSERT_TRUE(done) << t.name << ": " << done.error().describe();
        const std::string_view name = t.name;
        if (name == "verify") continue;
        const bool same = fs::is_directory(t.complete)
                              ? same_tree(old_dir_, t.complete)
                              : faults::read_file(old_) == faults::read_file(t.complete);
        ASSERT_TRUE(same) << t.name << " in steps of " << most;
        ++runs;
      }
    }
  }
  faults::publish(15, "short and interrupted reads and writes, same bytes", runs, 0, "runs");
}

}  // namespace
