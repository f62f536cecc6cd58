// A GPU for tersor::cuda's calls: its backend runs the kernels on the host twin, at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "simt/run.hpp"
#include <tersor/cuda.hpp>

namespace twin {

using bytes = std::vector<std::byte>;
using byte_view = std::span<const std::byte>;

/// Device memory and the way kernels run on it. The one made last is the current device.
class device {
 public:
  explicit device(std::uint64_t seed = 1, std::uint32_t multiprocessors = 1);
  ~device();
  device(const device&) = delete;
  device& operator=(const device&) = delete;

  [[nodiscard]] static device* current();

  /// Memory of exactly this size that begins `offset` bytes past a multiple of 256; garbage that kernels may
  /// write and then read.
  std::byte* reserve(std::size_t n_bytes, std::string name, std::size_t offset = 0);
  /// A copy that kernels may read.
  std::byte* upload(byte_view data, std::string name, std::size_t offset = 0);
  /// The same, and write.
  std::byte* upload_writable(byte_view data, std::string name);
  template <class T>
  T* reserve_array(std::size_t n, std::string name) {
    return reinterpret_cast<T*>(reserve(n * sizeof(T), std::move(name)));
  }
  /// A workspace as a caller prepares it, with garbage behind the part that calls leave zero.
  tersor::cuda::workspace reserve_workspace(std::uint64_t n_bytes);

  /// What the host writes into memory of reserve().
  void write(std::byte* at, byte_view data);
  /// What lies at `at`; a test failure where nothing was written.
  [[nodiscard]] bytes download(const void* at, std::size_t n_bytes);
  template <class T>
  [[nodiscard]] T download_value(const T* at) {
    T value{};
    read(at, sizeof(T), &value);
    return value;
  }
  /// Whether a kernel wrote the byte.
  [[nodiscard]] bool is_written(const std::byte* at);
  /// A test failure unless the part of the workspace that the next call relies on is zero.
  void expect_ready(const tersor::cuda::workspace& ws);

  /// For the backend: 0, or an error with its text in fault().
  int run(std::uint32_t n_ctas, std::size_t shared_bytes, const std::function<void(void*)>& body);
  /// The same for any grid; seed and residents are the device's.
  int run(simt::grid size, const std::function<void(void*)>& body);
  int clear(void* at, std::size_t n_bytes);
  [[nodiscard]] const std::string& fault() const { return fault_; }
  [[nodiscard]] std::uint32_t multiprocessors() const { return multiprocessors_; }
  [[nodiscard]] std::uint32_t n_launches() const { return n_launches_; }

 private:
  void read(const void* at, std::size_t n_bytes, void* out);
  std::byte* place(byte_view data, std::size_t n_bytes, simt::access allowed, std::string name,
                   std::size_t offset);

  simt::memory memory_;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::uint64_t seed_;
  std::uint32_t multiprocessors_;
  std::uint32_t n_launches_ = 0;
  std::string fault_;
  device* before_;
};

}  // namespace twin
