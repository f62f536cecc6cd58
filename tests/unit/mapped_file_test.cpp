// Output through a mapping: whole or not at all, also when the system refuses.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "safetensors/atomic_file.hpp"

namespace tersor::safetensors {
namespace {

namespace fs = std::filesystem;

int refuse_space(int, ::off_t, ::off_t) {
  return ENOSPC;
}
int interrupted_once(int fd, ::off_t offset, ::off_t n_bytes) {
  static bool first = true;
  if (std::exchange(first, false)) return EINTR;
  return ::posix_fallocate(fd, offset, n_bytes);
}
void* refuse_mapping(void*, std::size_t, int, int, int, ::off_t) {
  errno = ENOMEM;
  return MAP_FAILED;
}
int refuse_sync(int) {
  errno = EIO;
  return -1;
}
int refuse_move(const char*, const char*, unsigned) {
  errno = EACCES;
  return -1;
}

class MappedFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tersor-mapped-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override {
    syscalls() = kept_;
    fs::remove_all(dir_);
  }
  [[nodiscard]] std::size_t n_files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream in(dir_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  fs::path dir_;
  syscall_table kept_ = syscalls();
};

TEST_F(MappedFile, WhatIsWrittenToMemoryIsInTheFile) {
  auto file = atomic_file::create(dir_ / "x", false);
  ASSERT_TRUE(file.has_value());
  const auto bytes = file->map(100'001);
  ASSERT_TRUE(bytes.has_value());
  ASSERT_EQ(bytes->size(), 100'001U);
  std::memset(bytes->data(), 'm', bytes->size());
  EXPECT_FALSE(fs::exists(dir_ / "x"));
  // The mapping goes with its owner.
  atomic_file moved = std::move(*file);
  std::memset(bytes->data(), 'n', 3);
  ASSERT_TRUE(moved.commit());
  EXPECT_EQ(read("x"), "nnn" + std::string(99'998, 'm'));
  EXPECT_EQ(n_files(), 1U);
}

TEST_F(MappedFile, WithoutCommitNothingStays) {
  {
    auto file = atomic_file::create(dir_ / "x", false);
    ASSERT_TRUE(file && file->map(10'000));
    EXPECT_EQ(n_files(), 1U);
  }
  EXPECT_EQ(n_files(), 0U);
}

TEST_F(MappedFile, SizesThatNoFileHas) {
  auto file = atomic_file::create(dir_ / "x", false);
  ASSERT_TRUE(file.has_value());
  EXPECT_FALSE(file->map(0).has_value());
  EXPECT_FALSE(file->map(~std::uint64_t{0}).has_value());
  EXPECT_FALSE(file->map(std::uint64_t{1} << 62).has_value());
  EXPECT_TRUE(file->map(1).has_value());
}

TEST_F(MappedFile, AFullDiskIsAnErrorBeforeTheFirstByte) {
  auto file = atomic_file::create(dir_ / "x", false);
  ASSERT_TRUE(file.has_value());
  syscalls().allocate = refuse_space;
  const auto bytes = file->map(10'000);
  ASSERT_FALSE(bytes.has_value());
  EXPECT_EQ(bytes.error().code, errc::io_error);
  EXPECT_NE(bytes.error().message.find("space"), std::string::npos);
}

TEST_F(MappedFile, InterruptionsAreRepeated) {
  auto file = atomic_file::create(dir_ / "x", false);
  syscalls().allocate = interrupted_once;
  ASSERT_TRUE(file && file->map(10'000));
  EXPECT_TRUE(file->commit());
}

TEST_F(MappedFile, NoMemoryForTheMapping) {
  auto file = atomic_file::create(dir_ / "x", false);
  ASSERT_TRUE(file.has_value());
  syscalls().mmap = refuse_mapping;
  EXPECT_EQ(file->map(10'000).error().code, errc::out_of_memory);
}

TEST_F(MappedFile, FaultsOfCommitLeaveNothing) {
  for (const bool at_sync : {true, false}) {
    auto file = atomic_file::create(dir_ / "x", false);
    ASSERT_TRUE(file && file->map(10'000));
    if (at_sync) {
      syscalls().fsync = refuse_sync;
    } else {
      syscalls().renameat2 = refuse_move;
    }
    EXPECT_EQ(file->commit().error().code, errc::io_error);
    EXPECT_EQ(n_files(), 0U);
    syscalls() = kept_;
  }
}

}  // namespace
}  // namespace tersor::safetensors
