// Output directories, and what a fatal signal leaves of either kind of output.
#include <cerrno>
#include <csignal>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "safetensors/atomic_directory.hpp"
#include "safetensors/atomic_file.hpp"
#include "safetensors/syscalls.hpp"

namespace tersor::safetensors {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

int no_such_call(const char*, const char*, unsigned) {
  errno = ENOSYS;
  return -1;
}

class SafetensorsDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "tersor-dir-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    kernel_ = syscalls();
  }
  void TearDown() override {
    syscalls() = kernel_;
    std::error_code ec;
    fs::remove_all(dir_, ec);
  }
  [[nodiscard]] std::size_t n_entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }
  fs::path dir_;
  syscall_table kernel_{};
};

TEST_F(SafetensorsDirectory, CommitMovesTheWholeTree) {
  for (const bool old_kernel : {false, true}) {
    if (old_kernel) syscalls().renameat2 = no_such_call;
    auto out = atomic_directory::create(dir_ / "model/", false);
    ASSERT_TRUE(out);
    put(out->path() / "a", "1");
    fs::create_directories(out->path() / "x/y");
    put(out->path() / "x/y/b", "2");
    EXPECT_FALSE(fs::exists(dir_ / "model"));
    ASSERT_TRUE(out->commit());
    EXPECT_EQ(content(dir_ / "model/a"), "1");
    EXPECT_EQ(content(dir_ / "model/x/y/b"), "2");
    EXPECT_EQ(n_entries(), 1U);
    EXPECT_EQ(out->commit().error().code, errc::invalid_argument);
    fs::remove_all(dir_ / "model");
  }
}

TEST_F(SafetensorsDirectory, WithoutCommitNothingIsLeftAndLinksAreNotFollowed) {
  put(dir_ / "outside", "kept");
  fs::create_directory(dir_ / "outside_dir");
  put(dir_ / "outside_dir/f", "kept");
  {
    auto out = atomic_directory::create(dir_ / "model", false);
    ASSERT_TRUE(out);
    fs::create_directories(out->path() / "x/y/z");
    for (int i = 0; i < 300; ++i)
      put(out->path() / "x" / ("a_rather_long_file_name_" + std::to_string(i)), "1");
    fs::create_symlink(dir_ / "outside", out->path() / "x/link");
    fs::create_directory_symlink(dir_ / "outside_dir", out->path() / "x/dirlink");
    EXPECT_EQ(n_entries(), 3U);
  }
  EXPECT_EQ(n_entries(), 2U);
  EXPECT_EQ(content(dir_ / "outside"), "kept");
  EXPECT_EQ(content(dir_ / "outside_dir/f"), "kept");
}

TEST_F(SafetensorsDirectory, OverwriteReplacesTheOldTree) {
  for (const bool old_kernel : {false, true}) {
    if (old_kernel) syscalls().renameat2 = no_such_call;
    fs::remove_all(dir_ / "model");
    fs::create_directory(dir_ / "model");
    ASSERT_EQ(::chmod((dir_ / "model").c_str(), 0705), 0);
    put(dir_ / "model/old", "old");
    EXPECT_EQ(atomic_directory::create(dir_ / "model", false).error().code, errc::already_exists);
    auto out = atomic_directory::create(dir_ / "model", true);
    ASSERT_TRUE(out);
    put(out->path() / "new", "new");
    EXPECT_TRUE(fs::exists(dir_ / "model/old"));
    ASSERT_TRUE(out->commit());
    EXPECT_FALSE(fs::exists(dir_ / "model/old"));
    EXPECT_EQ(content(dir_ / "model/new"), "new");
    EXPECT_EQ(n_entries(), 1U);
    EXPECT_EQ(fs::status(dir_ / "model").permissions(), static_cast<fs::perms>(0705));
  }
}

TEST_F(SafetensorsDirectory, DirectoryThatAppearedMeanwhileIsKept) {
  for (const bool old_kernel : {false, true}) {
    if (old_kernel) syscalls().renameat2 = no_such_call;
    fs::remove_all(dir_ / "model");
    auto out = atomic_directory::create(dir_ / "model", false);
    ASSERT_TRUE(out);
    fs::create_directory(dir_ / "model");
    EXPECT_EQ(out->commit().error().code, errc::already_exists);
    EXPECT_TRUE(fs::is_empty(dir_ / "model"));
    EXPECT_EQ(n_entries(), 1U);
  }
}

TEST_F(SafetensorsDirectory, FailedSecondRenameRestoresTheOldTree) {
  static int n_renames = 0;
  n_renames = 0;
  syscalls().renameat2 = no_such_call;
  syscalls().rename = [](const char* from, const char* to) {
    if (++n_renames == 2) {
      errno = EIO;
      return -1;
    }
    return std::rename(from, to);
  };
  fs::create_directory(dir_ / "model");
  put(dir_ / "model/old", "old");
  auto out = atomic_directory::create(dir_ / "model", true);
  ASSERT_TRUE(out);
  EXPECT_EQ(out->commit().error().code, errc::io_error);
  EXPECT_EQ(content(dir_ / "model/old"), "old");
  EXPECT_EQ(n_entries(), 1U);
}

TEST_F(SafetensorsDirectory, FailedSyncLeavesTheDestinationAlone) {
  syscalls().fsync = [](int) {
    errno = EIO;
    return -1;
  };
  auto out = atomic_directory::create(dir_ / "model", false);
  ASSERT_TRUE(out);
  put(out->path() / "a", "1");
  EXPECT_EQ(out->commit().error().code, errc::io_error);
  EXPECT_EQ(n_entries(), 0U);
}

TEST_F(SafetensorsDirectory, RefusesToReplaceAFile) {
  put(dir_ / "model", "file");
  EXPECT_EQ(atomic_directory::create(dir_ / "model", true).error().code, errc::io_error);
  EXPECT_EQ(content(dir_ / "model"), "file");
}

// Runs `body` in a child and returns its wait status.
template <class Body>
int in_child(Body body) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(99);
  }
  int wait_status = 0;
  EXPECT_EQ(::waitpid(child, &wait_status, 0), child);
  return wait_status;
}

TEST_F(SafetensorsDirectory, FatalSignalsRemoveTheTemporaries) {
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP}) {
    const int wait_status = in_child([&] {
      ::signal(signal_number, SIG_DFL);
      if (!install_signal_cleanup()) ::_exit(1);
      auto file = atomic_file::create(dir_ / "file", false);
      auto out = atomic_directory::create(dir_ / "model", false);
      if (!file || !out) ::_exit(2);
      fs::create_directories(out->path() / "x/y");
      put(out->path() / "x/y/b", "2");
      auto inner = atomic_file::create(out->path() / "x/inner", false);
      if (n_entries() != 2 || !inner) ::_exit(3);
      ::raise(signal_number);
    });
    ASSERT_TRUE(WIFSIGNALED(wait_status)) << wait_status;
    EXPECT_EQ(WTERMSIG(wait_status), signal_number);
    EXPECT_EQ(n_entries(), 0U);
  }
}

TEST_F(SafetensorsDirectory, SignalKeepsWhatIsCommitted) {
  const int wait_status = in_child([&] {
    ::signal(SIGTERM, SIG_DFL);
    if (!install_signal_cleanup()) ::_exit(1);
    auto file = atomic_file::create(dir_ / "file", false);
    auto out = atomic_directory::create(dir_ / "model", false);
    if (!file || !out || !file->commit() || !out->commit()) ::_exit(2);
    ::raise(SIGTERM);
  });
  EXPECT_TRUE(WIFSIGNALED(wait_status));
  EXPECT_TRUE(fs::exists(dir_ / "file"));
  EXPECT_TRUE(fs::exists(dir_ / "model"));
}

TEST_F(SafetensorsDirectory, IgnoredSignalStaysIgnored) {
  const int wait_status = in_child([&] {
    ::signal(SIGHUP, SIG_IGN);
    if (!install_signal_cleanup()) ::_exit(1);
    auto file = atomic_file::create(dir_ / "file", false);
    ::raise(SIGHUP);
    ::_exit(file && file->commit() ? 42 : 2);
  });
  ASSERT_TRUE(WIFEXITED(wait_status));
  EXPECT_EQ(WEXITSTATUS(wait_status), 42);
}

TEST_F(SafetensorsDirectory, ForkedChildLeavesTheParentsTemporariesAlone) {
  auto file = atomic_file::create(dir_ / "file", false);
  auto out = atomic_directory::create(dir_ / "model", false);
  ASSERT_TRUE(file && out);
  const int ended = in_child([&] {
    { const atomic_file taken = std::move(*file); }
    { const atomic_directory taken = std::move(*out); }
    ::signal(SIGTERM, SIG_DFL);
    if (!install_signal_cleanup()) ::_exit(1);
    ::raise(SIGTERM);
  });
  EXPECT_TRUE(WIFSIGNALED(ended));
  EXPECT_EQ(n_entries(), 2U);
  EXPECT_TRUE(file->commit());
  EXPECT_TRUE(out->commit());
}

}  // namespace
}  // namespace tersor::safetensors
