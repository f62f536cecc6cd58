// What the fault and conformance tests share: backends, frames, guarded memory, and the figures they report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/codec.hpp>

namespace faults {

using bytes = std::vector<std::byte>;

/// True in the long run (environment TERSOR_LONG=1): full grids instead of samples of them.
[[nodiscard]] bool long_run();

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TERSOR_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TERSOR_TEST_SANITIZED 1
#endif
#endif

/// How much slower this build is: sanitizer builds take every n-th case of the large grids.
[[nodiscard]] constexpr unsigned slowness() noexcept {
#ifdef TERSOR_TEST_SANITIZED
  return 16;
#else
  return 1;
#endif
}

/// Names of the backends that this CPU runs; the reference backend is among them.
[[nodiscard]] std::vector<std::string> backend_names();

/// A context, or the end of the test program.
[[nodiscard]] tersor::context make_context(unsigned threads = 1, std::string_view backend = {});

/// One line of the scoreboard: appended as JSON to the file that TERSOR_FIGURES names, and printed.
void publish(int row, std::string_view what, std::uint64_t count, std::uint64_t wrong, std::string_view unit);

/// Encodes one-dimensional data; ends the test program if that fails.
[[nodiscard]] bytes encode_data(const tersor::context& ctx, tersor::codec c, tersor::dtype type,
                                std::span<const std::byte> data, bool raw_fallback = false);

/// A BF16 tensor with plain, escape and raw tiles, one after another.
[[nodiscard]] bytes mixed_values(tersor::dtype type, std::uint64_t n_values, std::uint64_t seed);

/// What a decode says: code and chunk, and the bytes if it succeeded.
struct verdict {
  tersor::errc code = tersor::errc::ok;
  std::int64_t chunk = -1;
  bytes data = {};
  friend bool operator==(const verdict&, const verdict&) = default;
};
[[nodiscard]] verdict decode_verdict(const tersor::context& ctx, std::span<const std::byte> frame);

/// Makes index and header digests of a changed frame right again, as far as its header makes sense.
void reseal(std::span<std::byte> frame);

/// Memory between two pages that nobody may touch.
class guarded {
 public:
  explicit guarded(std::size_t capacity);
  ~guarded();
  guarded(const guarded&) = delete;
  guarded& operator=(const guarded&) = delete;

  /// `n` bytes that begin at the first usable byte, or end `gap` bytes before the last.
  [[nodiscard]] std::span<std::byte> front(std::size_t n) const { return {data_, n}; }
  [[nodiscard]] std::span<std::byte> back(std::size_t n, std::size_t gap = 0) const {
    return {data_ + capacity_ - gap - n, n};
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

 private:
  std::byte* map_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t capacity_ = 0;
};

/// A directory that vanishes with the object; under /dev/shm where there is one, for speed.
class temp_dir {
 public:
  temp_dir();
  ~temp_dir();
  temp_dir(const temp_dir&) = delete;
  temp_dir& operator=(const temp_dir&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  std::filesystem::path path_;
};

void write_file(const std::filesystem::path& path, std::span<const std::byte> data);
[[nodiscard]] bytes read_file(const std::filesystem::path& path);

/// A plain safetensors file: BF16 weights of `n_values`, a few values of other types, an empty tensor and
/// metadata.
void write_model(const std::filesystem::path& path, std::uint64_t n_values);

/// Peak resident set of this process in KiB (VmHWM), and its reset to the present size.
[[nodiscard]] std::uint64_t peak_kib();
void reset_peak();

}  // namespace faults
