// Damaged compressed files: every changed bit and byte, every cut, tensors and headers of another file.
#include <algorithm>
#include <atomic>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "support.hpp"
#include <tersor/model.hpp>

namespace {

namespace fs = std::filesystem;
using faults::bytes;

/// True if verify says that the data is wrong.
bool is_refused(const tersor::context& ctx, const fs::path& path) {
  const auto verified = tersor::verify(ctx, path, std::nullopt, {.read = tersor::read_mode::pread});
  // A damaged key can make it a plain file, which is refused as such.
  return !verified &&
         (tersor::is_data_error(verified.error().code) || verified.error().code == tersor::errc::wrong_kind);
}

/// A compressed file with coded and stored tensors, changed in place.
class file_faults : public testing::Test {
 protected:
  file_faults() : ctx_(faults::make_context()) {}
  ~file_faults() override {
    if (fd_ >= 0) ::close(fd_);
  }

  void prepare(std::uint64_t n_values) {
    const fs::path plain = dir_.path() / "plain.safetensors";
    faults::write_model(plain, n_values);
    const auto done = tersor::compress(ctx_, plain, packed_);
    ASSERT_TRUE(done) << done.error().describe();
    good_ = faults::read_file(packed_);
    fd_ = ::open(packed_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd_, 0);
  }

  /// Counts a change that verify did not call wrong data.
  void expect_refused(const std::string& what) {
    ++tried_;
    if (is_refused(ctx_, packed_)) return;
    ++silent_;
    ADD_FAILURE() << what;
  }

  faults::temp_dir dir_;
  tersor::context ctx_;
  fs::path packed_ = dir_.path() / "packed.safetensors";
  bytes good_;
  int fd_ = -1;
  std::uint64_t tried_ = 0, silent_ = 0;
};

/// Changes the bytes first, first + step, ... of a copy of the file; returns changes tried, and those not
/// noticed.
std::pair<std::uint64_t, std::uint64_t> change_bytes(const fs::path& path, const bytes& good,
                                                     std::size_t first, std::size_t step) {
  const tersor::context ctx = faults::make_context();
  faults::write_file(path, good);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  std::uint64_t tried = 0;
  std::uint64_t silent = 0;
  const auto put = [&](std::size_t at, std::byte b) {
    if (::pwrite(fd, &b, 1, static_cast<::off_t>(at)) != 1) ++silent;
  };
  for (std::size_t at = first; at < good.size(); at += step) {
    for (unsigned change = 1; change < 256; ++change) {
      const bool one_bit = (change & (change - 1)) == 0;
      if (!one_bit && !faults::long_run() && at >= 64) continue;
      put(at, good[at] ^ static_cast<std::byte>(change));
      ++tried;
      if (!is_refused(ctx, path)) ++silent;
    }
    put(at, good[at]);
  }
  // The file as it was is right again: the refusals above had no other reason.
  if (!tersor::verify(ctx, path, std::nullopt)) ++silent;
  ::close(fd);
  return {tried, silent};
}

TEST_F(file_faults, every_changed_byte_is_noticed) {
  ASSERT_NO_FATAL_FAILURE(prepare(faults::long_run() ? 27'000 : 3'000));
  ASSERT_GE(good_.size(), faults::long_run() ? 60'000U : 6'000U);
  const unsigned n_threads = std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  std::atomic<std::uint64_t> tried = 0;
  std::atomic<std::uint64_t> silent = 0;
  for (unsigned i = 0; i < n_threads; ++i) {
    threads.emplace_back([&, i] {
      const auto part =
          change_bytes(dir_.path() / ("part" + std::to_string(i)), good_, i, n_threads * faults::slowness());
      tried += part.first;
      silent += part.second;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(silent, 0U);
  faults::publish(6, "compressed file, " + std::to_string(good_.size()) + " bytes", tried, silent, "changes");
}

TEST_F(file_faults, a_file_cut_anywhere_is_an_error) {
  ASSERT_NO_FATAL_FAILURE(prepare(faults::long_run() ? 27'000 : 6'000));
  for (std::size_t n = good_.size(); n-- > 0;) {
    ASSERT_EQ(::ftruncate(fd_, static_cast<::off_t>(n)), 0);
    expect_refused("cut to " + std::to_string(n));
  }
  faults::write_file(packed_, good_);
  bytes longer = good_;
  for (unsigned n = 0; n < 130; ++n) {
    longer.push_back(std::byte{0});
    faults::write_file(packed_, longer);
    expect_refused("lengthened by " + std::to_string(n + 1));
  }
  faults::publish(8, "compressed files cut or lengthened", tried_, silent_, "lengths");
}

TEST_F(file_faults, parts_of_another_file_are_noticed) {
  ASSERT_NO_FATAL_FAILURE(prepare(20'000));
  // The same names, shapes and sizes of header; other weights.
  const fs::path plain = dir_.path() / "plain.safetensors";
  bytes other = faults::read_file(plain);
  for (std::size_t at = other.size() / 2; at < other.size(); at += 5) other[at] ^= std::byte{1};
  faults::write_file(plain, other);
  const fs::path other_packed = dir_.path() / "other.safetensors";
  ASSERT_TRUE(tersor::compress(ctx_, plain, other_packed));
  const bytes donor = faults::read_file(other_packed);
  const std::size_t common = std::min(good_.size(), donor.size());
  for (const std::size_t block : {std::size_t{128}, std::size_t{1024}, std::size_t{8192}}) {
    for (std::size_t at = 0; at + block <= common; at += block) {
      const auto part = static_cast<std::ptrdiff_t>(at);
      const auto part_end = static_cast<std::ptrdiff_t>(at + block);
      for (const bool own : {false, true}) {
        // From the other file, or from the next block of the same.
        bytes spliced = good_;
        const std::size_t from = own ? (at + block) % (common - block + 1) : at;
        const bytes& source = own ? good_ : donor;
        std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from), block, spliced.begin() + part);
        if (std::equal(spliced.begin() + part, spliced.begin() + part_end, good_.begin() + part)) continue;
        faults::write_file(packed_, spliced);
        expect_refused("splice at " + std::to_string(at));
      }
    }
  }
  faults::publish(7, "compressed files with blocks of another place or file", tried_, silent_, "files");
}

}  // namespace
