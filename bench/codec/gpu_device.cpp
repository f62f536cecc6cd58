#include "gpu_device.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace tersor::bench {

status cuda_ok(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return {};
  return fail(code == cudaErrorMemoryAllocation ? errc::out_of_memory : errc::internal,
              std::string(what) + ": " + cudaGetErrorString(code));
}

device_buffer::~device_buffer() {
  // After an error of the device there is nobody to tell; the next call reports it again.
  if (data_ != nullptr) (void)cudaFree(data_);
}

result<device_buffer> device_buffer::allocate(std::uint64_t n_bytes, int fill) {
  constexpr std::uint64_t kSmallest = 256;
  device_buffer buffer;
  void* data = nullptr;
  TERSOR_CHECK(cuda_ok(cudaMalloc(&data, std::max(n_bytes, kSmallest)), "device memory"));
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.n_bytes_ = std::max(n_bytes, kSmallest);
  TERSOR_CHECK(buffer.fill(fill));
  return buffer;
}

status device_buffer::fill(int value) {
  // The benchmark's stream does not wait for the default one.
  TERSOR_CHECK(cuda_ok(cudaMemset(data_, value, n_bytes_), "fill"));
  return cuda_ok(cudaDeviceSynchronize(), "fill");
}

status upload(void* dst_dev, std::span<const std::byte> src) {
  TERSOR_CHECK(cuda_ok(cudaMemcpy(dst_dev, src.data(), src.size(), cudaMemcpyHostToDevice), "upload"));
  return cuda_ok(cudaDeviceSynchronize(), "upload");
}

status download(std::span<std::byte> dst, const void* src_dev) {
  return cuda_ok(cudaMemcpy(dst.data(), src_dev, dst.size(), cudaMemcpyDeviceToHost), "download");
}

status expect_equal(const void* got_dev, std::span<const std::byte> want, const std::string& what) {
  constexpr std::size_t kPiece = std::size_t{32} << 20;
  std::vector<std::byte> got(std::min(kPiece, want.size()));
  for (std::size_t at = 0; at < want.size(); at += kPiece) {
    const std::size_t n = std::min(kPiece, want.size() - at);
    TERSOR_CHECK(download(std::span(got).first(n), static_cast<const std::byte*>(got_dev) + at));
    if (std::memcmp(got.data(), want.data() + at, n) == 0) continue;
    const auto differs = std::mismatch(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(n),
                                       want.begin() + static_cast<std::ptrdiff_t>(at));
    const auto offset = at + static_cast<std::size_t>(differs.first - got.begin());
    return fail_at(errc::internal, what + " differs from what it must be", offset);
  }
  return {};
}

gpu_stream::~gpu_stream() {
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

result<gpu_stream> gpu_stream::create() {
  gpu_stream s;
  TERSOR_CHECK(cuda_ok(cudaStreamCreateWithFlags(&s.stream_, cudaStreamNonBlocking), "stream"));
  return s;
}

status gpu_stream::wait() const {
  return cuda_ok(cudaStreamSynchronize(stream_), "work on the GPU");
}

}  // namespace tersor::bench
