#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "safetensors/atomic_directory.hpp"
#include "safetensors/atomic_file.hpp"
#include "safetensors/input_file.hpp"
#include "safetensors/writer.hpp"

namespace tersor::safetensors {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

::mode_t mode_of(const fs::path& path) {
  struct ::stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

// State of the replaced system calls; function pointers carry none.
int g_countdown = 0;
int g_errno = 0;

bool fails_now() {
  if (g_countdown == 0 || --g_countdown != 0) return false;
  errno = g_errno;
  return true;
}

syscall_table& kernel() {
  static syscall_table table = syscalls();
  return table;
}

class SafetensorsIo : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "tersor-io-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    (void)kernel();
  }
  void TearDown() override {
    syscalls() = kernel();
    std::error_code ec;
    fs::remove_all(dir_, ec);
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(dir_)) found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }
  fs::path dir_;
};

using names_list = std::vector<std::string>;

TEST_F(SafetensorsIo, ReadsInBothModes) {
  put(dir_ / "f", "0123456789");
  for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
    auto file = input_file::open(dir_ / "f", mode);
    ASSERT_TRUE(file);
    EXPECT_EQ(file->size(), 10U);
    std::array<std::byte, 4> part{};
    ASSERT_TRUE(file->read_at(3, part));
    EXPECT_EQ(text_of(part), "3456");
    std::vector<std::byte> scratch;
    const auto view = file->view(2, 8, scratch);
    ASSERT_TRUE(view);
    EXPECT_EQ(text_of(*view), "23456789");
    EXPECT_EQ(scratch.empty(), mode == read_mode::mmap);
    file->drop(0, 10);
    file->drop(5, ~std::uint64_t{0});
    file->drop(100, 1);
    EXPECT_EQ(text_of(*view), "23456789");
    EXPECT_TRUE(file->view(10, 0, scratch));
    EXPECT_EQ(file->view(10, 1, scratch).error().code, errc::truncated);
    EXPECT_EQ(file->view(~std::uint64_t{0}, 2, scratch).error().code, errc::truncated);
    EXPECT_EQ(file->view(1, ~std::uint64_t{0}, scratch).error().code, errc::truncated);
    EXPECT_EQ(file->read_at(7, part).error().code, errc::truncated);
    input_file moved = std::move(*file);
    EXPECT_EQ(text_of(*moved.view(0, 1, scratch)), "0");
  }
}

TEST_F(SafetensorsIo, EmptyFile) {
  put(dir_ / "f", "");
  for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
    const auto file = input_file::open(dir_ / "f", mode);
    ASSERT_TRUE(file);
    std::vector<std::byte> scratch;
    EXPECT_TRUE(file->view(0, 0, scratch));
    EXPECT_EQ(file->view(0, 1, scratch).error().code, errc::truncated);
    EXPECT_EQ(read_header(*file).error().code, errc::truncated);
  }
}

TEST_F(SafetensorsIo, RefusesWhatIsNoRegularFile) {
  ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(input_file::open(dir_ / "pipe", read_mode::mmap).error().code, errc::io_error);
  EXPECT_EQ(input_file::open(dir_, read_mode::pread).error().code, errc::io_error);
  EXPECT_EQ(input_file::open("/dev/null", read_mode::pread).error().code, errc::io_error);
  EXPECT_EQ(input_file::open(dir_ / "absent", read_mode::mmap).error().code, errc::not_found);
}

TEST_F(SafetensorsIo, FileThatShrankIsTruncated) {
  for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
    put(dir_ / "f", std::string(10000, 'x'));
    const auto file = input_file::open(dir_ / "f", mode);
    ASSERT_TRUE(file);
    fs::resize_file(dir_ / "f", 5000);
    std::vector<std::byte> scratch;
    const auto view = file->view(4000, 2000, scratch);
    ASSERT_FALSE(view);
    EXPECT_EQ(view.error().code, errc::truncated);
    EXPECT_EQ(view.error().byte_offset, 5000U);
  }
}

TEST_F(SafetensorsIo, ReadsAreRepeatedWhenInterruptedOrShort) {
  put(dir_ / "f", "0123456789");
  const auto file = input_file::open(dir_ / "f", read_mode::pread);
  ASSERT_TRUE(file);
  syscalls().pread = [](int fd, void* dst, std::size_t n_bytes, ::off_t offset) {
    if (fails_now()) return ::ssize_t{-1};
    return kernel().pread(fd, dst, std::min<std::size_t>(n_bytes, 3), offset);
  };
  std::array<std::byte, 10> all{};
  g_countdown = 2;
  g_errno = EINTR;
  ASSERT_TRUE(file->read_at(0, all));
  EXPECT_EQ(text_of(all), "0123456789");
  g_countdown = 3;
  g_errno = EIO;
  const status failed = file->read_at(0, all);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, errc::io_error);
  EXPECT_EQ(failed.error().byte_offset, 6U);
}

TEST_F(SafetensorsIo, CommitMakesTheFileAppear) {
  const ::mode_t mask = ::umask(027);
  auto file = atomic_file::create(dir_ / "out", false);
  ::umask(mask);
  ASSERT_TRUE(file);
  ASSERT_EQ(names().size(), 1U);
  EXPECT_EQ(names()[0].rfind(".out.tersor-" + std::to_string(::getpid()) + "-", 0), 0U);
  EXPECT_TRUE(names()[0].ends_with(".tmp"));
  ASSERT_TRUE(file->write(bytes_of("hello ")));
  ASSERT_TRUE(file->write(bytes_of("world")));
  ASSERT_TRUE(file->write_at(0, bytes_of("J")));
  EXPECT_EQ(file->size(), 11U);
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(names(), names_list{"out"});
  EXPECT_EQ(content(dir_ / "out"), "Jello world");
  EXPECT_EQ(mode_of(dir_ / "out"), 0640U);
  EXPECT_EQ(file->commit().error().code, errc::invalid_argument);
  EXPECT_EQ(file->write(bytes_of("x")).error().code, errc::invalid_argument);
}

TEST_F(SafetensorsIo, WithoutCommitNothingIsLeft) {
  {
    auto file = atomic_file::create(dir_ / "out", false);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write(bytes_of("x")));
    atomic_file moved = std::move(*file);
    ASSERT_EQ(names().size(), 1U);
    auto other = atomic_file::create(dir_ / "other", false);
    ASSERT_TRUE(other);
    moved = std::move(*other);
    ASSERT_EQ(names().size(), 1U);
  }
  EXPECT_EQ(names(), names_list{});
}

TEST_F(SafetensorsIo, OverwriteIsAskedForAndKeepsTheMode) {
  put(dir_ / "out", "old");
  ASSERT_EQ(::chmod((dir_ / "out").c_str(), 0604), 0);
  EXPECT_EQ(atomic_file::create(dir_ / "out", false).error().code, errc::already_exists);
  auto file = atomic_file::create(dir_ / "out", true);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write(bytes_of("new")));
  EXPECT_EQ(content(dir_ / "out"), "old");
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(content(dir_ / "out"), "new");
  EXPECT_EQ(mode_of(dir_ / "out"), 0604U);
  EXPECT_EQ(names(), names_list{"out"});
}

TEST_F(SafetensorsIo, FileThatAppearedMeanwhileIsKept) {
  for (const bool old_kernel : {false, true}) {
    if (old_kernel)
      syscalls().renameat2 = [](const char*, const char*, unsigned) {
        errno = ENOSYS;
        return -1;
      };
    auto file = atomic_file::create(dir_ / "out", false);
    ASSERT_TRUE(file);
    put(dir_ / "out", "theirs");
    EXPECT_EQ(file->commit().error().code, errc::already_exists);
    EXPECT_EQ(content(dir_ / "out"), "theirs");
    EXPECT_EQ(names(), names_list{"out"});
    fs::remove(dir_ / "out");
    auto again = atomic_file::create(dir_ / "out", false);
    ASSERT_TRUE(again);
    ASSERT_TRUE(again->commit());
    EXPECT_EQ(names(), names_list{"out"});
    fs::remove(dir_ / "out");
  }
}

TEST_F(SafetensorsIo, SymbolicLinkIsReplacedItself) {
  put(dir_ / "target", "old");
  fs::create_symlink("target", dir_ / "out");
  EXPECT_EQ(atomic_file::create(dir_ / "out", false).error().code, errc::already_exists);
  auto file = atomic_file::create(dir_ / "out", true);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write(bytes_of("new")));
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(content(dir_ / "target"), "old");
  EXPECT_FALSE(fs::is_symlink(dir_ / "out"));
}

TEST_F(SafetensorsIo, RefusesImpossibleDestinations) {
  EXPECT_EQ(atomic_file::create("/dev/null", true).error().code, errc::io_error);
  EXPECT_EQ(atomic_file::create(dir_, true).error().code, errc::io_error);
  EXPECT_EQ(atomic_file::create("", true).error().code, errc::invalid_argument);
  EXPECT_EQ(atomic_file::create("/", true).error().code, errc::invalid_argument);
  EXPECT_EQ(atomic_file::create(dir_ / "..", true).error().code, errc::invalid_argument);
  EXPECT_EQ(atomic_file::create(dir_ / "absent" / "out", false).error().code, errc::not_found);
  EXPECT_EQ(names(), names_list{});
}

TEST_F(SafetensorsIo, LongestNameWorks) {
  std::string name(1, 'n');
  for (int i = 0; i < 127; ++i) name += "\xc3\xa9";
  auto file = atomic_file::create(dir_ / name, false);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(names(), names_list{name});
}

TEST_F(SafetensorsIo, FullDiskIsAnErrorWithItsReason) {
  syscalls().pwrite = [](int fd, const void* src, std::size_t n_bytes, ::off_t offset) {
    if (offset >= 4) {
      errno = ENOSPC;
      return ::ssize_t{-1};
    }
    return kernel().pwrite(fd, src, std::min<std::size_t>(n_bytes, 2), offset);
  };
  auto file = atomic_file::create(dir_ / "out", false);
  ASSERT_TRUE(file);
  const status written = file->write(bytes_of("0123456789"));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, errc::io_error);
  EXPECT_NE(written.error().message.find("No space left on device"), std::string::npos);
  EXPECT_EQ(written.error().file, (dir_ / "out").string());
  EXPECT_EQ(written.error().byte_offset, 4U);
  EXPECT_EQ(file->commit().error().code, errc::io_error);
  EXPECT_EQ(names(), names_list{});
}

// Each call that a commit needs fails once: the destination holds the old text or the new, never anything
// else, the error is reported, and no temporary is left.
TEST_F(SafetensorsIo, AnyFailingCallLeavesOldOrNew) {
  const auto arm = [](int which) {
    syscalls() = kernel();
    g_errno = EIO;
    g_countdown = 1;
    switch (which) {
      case 0:
        syscalls().open = [](const char* p, int f, ::mode_t m) {
          return fails_now() ? -1 : kernel().open(p, f, m);
        };
        break;
      case 1:
        g_countdown = 2;
        syscalls().open = [](const char* p, int f, ::mode_t m) {
          return fails_now() ? -1 : kernel().open(p, f, m);
        };
        break;
      case 2:
        syscalls().pwrite = [](int d, const void* s, std::size_t n, ::off_t o) {
          return fails_now() ? ::ssize_t{-1} : kernel().pwrite(d, s, n, o);
        };
        break;
      case 3:
        syscalls().fsync = [](int d) { return fails_now() ? -1 : kernel().fsync(d); };
        break;
      case 4:
        g_countdown = 2;
        syscalls().fsync = [](int d) { return fails_now() ? -1 : kernel().fsync(d); };
        break;
      case 5:
        syscalls().rename = [](const char* a, const char* b) {
          return fails_now() ? -1 : kernel().rename(a, b);
        };
        break;
      case 6:
        syscalls().fchmod = [](int d, ::mode_t m) { return fails_now() ? -1 : kernel().fchmod(d, m); };
        break;
      case 7:
        syscalls().lstat = [](const char* p, struct ::stat* s) {
          return fails_now() ? -1 : kernel().lstat(p, s);
        };
        break;
      default:
        syscalls().close = [](int d) {
          const int rc = kernel().close(d);
          return fails_now() ? -1 : rc;
        };
        break;
    }
  };
  for (int which = 0; which < 9; ++which) {
    put(dir_ / "out", "old");
    arm(which);
    const status done = [&]() -> status {
      TERSOR_TRY(atomic_file file, atomic_file::create(dir_ / "out", true));
      TERSOR_CHECK(file.write(bytes_of("new")));
      return file.commit();
    }();
    syscalls() = kernel();
    EXPECT_FALSE(done) << which;
    const bool only_durability_failed = which == 1 || which == 4;
    EXPECT_EQ(content(dir_ / "out"), only_durability_failed ? "new" : "old") << which;
    EXPECT_EQ(names(), names_list{"out"}) << which;
  }
}

TEST_F(SafetensorsIo, PrefixAndHeaderRoundTrip) {
  const std::string json = build_header_json({{"t", "U8", {3}, 0, 3}}, {}, 64);
  auto out = atomic_file::create(dir_ / "m.safetensors", false);
  ASSERT_TRUE(out);
  ASSERT_TRUE(write_prefix(*out, json));
  EXPECT_EQ(out->size() % 64, 0U);
  ASSERT_TRUE(out->write(bytes_of("abc")));
  ASSERT_TRUE(out->commit());
  const auto in = input_file::open(dir_ / "m.safetensors", read_mode::mmap);
  ASSERT_TRUE(in);
  const auto parsed = read_header(*in);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->json, json);
  std::vector<std::byte> scratch;
  EXPECT_EQ(text_of(*in->view(parsed->data_offset(), 3, scratch)), "abc");
}

TEST_F(SafetensorsIo, RegistryHasALimitAndRecovers) {
  {
    std::vector<atomic_file> files;
    for (int i = 0; i < kMaxLiveTemporaries; ++i) {
      auto file = atomic_file::create(dir_ / std::to_string(i), false);
      ASSERT_TRUE(file);
      files.push_back(std::move(*file));
    }
    EXPECT_EQ(atomic_file::create(dir_ / "more", false).error().code, errc::io_error);
  }
  EXPECT_EQ(names(), names_list{});
  EXPECT_TRUE(atomic_file::create(dir_ / "more", false));
}

}  // namespace
}  // namespace tersor::safetensors
