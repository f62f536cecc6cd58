// Device memory, streams and the watchdog.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "report.hpp"
#include <tersor/codec.hpp>
#include <tersor/cuda.hpp>

namespace gpu_test {

using bytes = std::vector<std::byte>;
using byte_view = std::span<const std::byte>;

/// A CUDA call failed; the section cannot go on.
struct cuda_failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void must(cudaError_t code, const char* what);

inline constexpr std::uint8_t kPoison = 0xcd;  ///< what frames lie on before they are written
inline constexpr std::uint8_t kGuard = 0xa5;   ///< what nobody may touch
inline constexpr std::uint64_t kGuardBytes = 4096;

/// Device memory that frees itself. Host and device agree on its content after every call.
class device_memory {
 public:
  device_memory() = default;
  explicit device_memory(std::uint64_t n_bytes) { grow(n_bytes); }
  device_memory(device_memory&& other) noexcept;
  device_memory& operator=(device_memory&& other) noexcept;
  ~device_memory() { free(); }

  /// Makes it hold at least `n_bytes`; the old content is lost if it has to move. True if it moved.
  bool grow(std::uint64_t n_bytes);
  void free() noexcept;
  void fill(std::uint64_t at, std::uint64_t n_bytes, std::uint8_t value);
  void put(std::uint64_t at, byte_view data);
  [[nodiscard]] bytes take(std::uint64_t at, std::uint64_t n_bytes) const;
  /// True if all bytes of a range have one value.
  [[nodiscard]] bool holds(std::uint64_t at, std::uint64_t n_bytes, std::uint8_t value) const;

  [[nodiscard]] std::uint8_t* get() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return n_bytes_; }
  template <class T>
  [[nodiscard]] T* as(std::uint64_t at = 0) const noexcept {
    return reinterpret_cast<T*>(data_ + at);
  }

 private:
  std::uint8_t* data_ = nullptr;
  std::uint64_t n_bytes_ = 0;
};

/// A stream that does not wait for the default stream.
class side_stream {
 public:
  explicit side_stream(unsigned flags = cudaStreamNonBlocking);
  side_stream(const side_stream&) = delete;
  side_stream& operator=(const side_stream&) = delete;
  ~side_stream() { cudaStreamDestroy(stream_); }
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

struct options {
  bool quick = false;
  bool bare = false;  ///< do not poison what the library is to write, so that initcheck sees what it left out
  bool list = false;
  double watchdog_s = 5;
  std::string only, json, vectors, commit;
};

/// What all sections share.
struct env {
  const options& opt;
  report& log;
  tersor::context cpu;     ///< all cores
  tersor::context single;  ///< one thread, for small frames

  /// Waits for the stream. A launch that outlasts the watchdog ends the program with a report, because
  /// nothing on a hanging device can be cleaned up.
  void wait(cudaStream_t stream, section& s, std::string_view what) const;
  /// Quick runs take the first number.
  template <class T>
  [[nodiscard]] T pick(T quick, T full) const {
    return opt.quick ? quick : full;
  }
  void poison(device_memory& memory, std::uint64_t at, std::uint64_t n_bytes) const {
    if (!opt.bare) memory.fill(at, n_bytes, kPoison);
  }
};

/// A result in device memory, read back.
[[nodiscard]] tersor::cuda::frame_result take_result(const device_memory& memory, std::uint64_t index = 0);

/// Workspace memory of at least this size, zeroed when it is new.
class work_memory {
 public:
  [[nodiscard]] tersor::cuda::workspace of(std::uint64_t n_bytes);
  void drop() noexcept { memory_.free(); }

 private:
  device_memory memory_;
};

[[nodiscard]] inline std::string text_of(const tersor::status& s) {
  return s ? std::string("ok") : s.error().describe();
}
[[nodiscard]] inline tersor::cuda::stream as_stream(cudaStream_t s) noexcept {
  return s;
}

}  // namespace gpu_test
