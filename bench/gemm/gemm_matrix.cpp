#include <algorithm>

#include "core/checked.hpp"
#include "gemm_env.hpp"

namespace tersor::bench {
namespace {

constexpr std::uint64_t kValueBytes = 2;

/// The source: drawn on the device, or the input again and again.
status make_plain(const gemm_env& env, const gemm_size& size, std::byte* dst) {
  const std::uint64_t n_bytes = size.rows * size.cols * kValueBytes;
  if (env.input.empty()) {
    TERSOR_CHECK(launched(launch_make_weights(env.options.type, dst, size.rows, size.cols, env.get()),
                          "making weights"));
    return env.stream.wait();
  }
  for (std::uint64_t at = 0; at < n_bytes; at += env.input.size()) {
    const std::uint64_t n = std::min<std::uint64_t>(env.input.size(), n_bytes - at);
    TERSOR_CHECK(upload(dst + at, std::span(env.input).first(n)));
  }
  return {};
}

/// A packed matrix in a buffer that may be larger.
struct packed_matrix {
  device_buffer bytes;
  matrix_info info;
};

bool is_missing(const error& e) noexcept {
  return e.code == errc::backend_unavailable || e.code == errc::unsupported;
}

result<packed_matrix> pack_on_device(const gemm_env& env, const matrix_view& plain,
                                     const pack_options& options) {
  packed_matrix packed;
  const std::uint64_t bound = pack_bound(plain.type, plain.rows, plain.cols, options);
  TERSOR_TRY(packed.bytes, device_buffer::allocate(bound));
  TERSOR_TRY(const device_buffer ws,
             device_buffer::allocate(cuda::pack_workspace_size(plain.type, plain.rows, plain.cols, options)));
  TERSOR_TRY(const device_buffer verdict, device_buffer::allocate(sizeof(cuda::matrix_result)));
  TERSOR_CHECK(cuda::pack_async(plain, packed.bytes.data(), bound, options,
                                reinterpret_cast<cuda::matrix_result*>(verdict.data()),
                                {ws.data(), ws.size()}, env.get()));
  TERSOR_CHECK(env.stream.wait());
  cuda::matrix_result found;
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(&found, 1)), verdict.data()));
  if (found.code != 0) {
    return fail(static_cast<errc>(found.code),
                "packing on the GPU: " + std::string(to_string(static_cast<errc>(found.code))));
  }
  std::vector<std::byte> header(128);
  TERSOR_CHECK(download(header, packed.bytes.data()));
  TERSOR_TRY(packed.info, inspect_packed(header));
  return packed;
}

result<packed_matrix> pack_on_host(const gemm_env& env, const matrix_view& plain_dev,
                                   const pack_options& options) {
  std::vector<std::byte> plain(plain_dev.data.size());
  TERSOR_CHECK(download(plain, plain_dev.data.data()));
  matrix_view view = plain_dev;
  view.data = plain;
  TERSOR_TRY(const std::vector<std::byte> made, pack(env.cpu, view, options));
  packed_matrix packed;
  TERSOR_TRY(packed.info, inspect_packed(made));
  TERSOR_TRY(packed.bytes, device_buffer::allocate(made.size()));
  TERSOR_CHECK(upload(packed.bytes.data(), made));
  return packed;
}

/// At least 500 MB and four times the L2 cache, but not more than 16 copies.
std::uint64_t slots_for(const gemm_env& env, std::uint64_t packed_bytes) noexcept {
  constexpr std::uint64_t kLeastBytes = 500'000'000, kMostSlots = 16;
  const std::uint64_t want = std::max(kLeastBytes, 4 * env.device.l2_bytes);
  return std::clamp<std::uint64_t>(core::ceil_div(want, packed_bytes), 2, kMostSlots);
}

}  // namespace

status slot_ring::allocate(std::uint64_t n_slots, std::uint64_t slot_bytes) {
  n_bytes_ = slot_bytes;
  stride_ = core::align_up(slot_bytes, 256);
  TERSOR_TRY(buffer_, device_buffer::allocate(n_slots * stride_));
  return {};
}

status slot_ring::repeat_first(std::uint64_t n_slots) const {
  for (std::uint64_t slot = 1; slot < n_slots; ++slot) {
    TERSOR_CHECK(cuda_ok(cudaMemcpy(at(slot), at(0), n_bytes_, cudaMemcpyDeviceToDevice), "copying"));
  }
  return cuda_ok(cudaDeviceSynchronize(), "copying");
}

status device_count::allocate() {
  TERSOR_TRY(buffer_, device_buffer::allocate(sizeof(std::uint64_t)));
  return {};
}

std::uint64_t* device_count::get() const noexcept {
  return reinterpret_cast<std::uint64_t*>(buffer_.data());
}

result<std::uint64_t> device_count::take(const gpu_stream& s) const {
  TERSOR_CHECK(s.wait());
  std::uint64_t count = 0;
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(&count, 1)), buffer_.data()));
  TERSOR_CHECK(cuda_ok(cudaMemset(buffer_.data(), 0, sizeof count), "count"));
  TERSOR_CHECK(cuda_ok(cudaDeviceSynchronize(), "count"));
  return count;
}

result<gemm_matrix> gemm_matrix::create(const gemm_env& env, const gemm_size& size, matrix_layout layout) {
  gemm_matrix m;
  m.size_ = size;
  const std::uint64_t plain_bytes = size.rows * size.cols * kValueBytes;
  TERSOR_TRY(const device_buffer source, device_buffer::allocate(plain_bytes));
  env.step("making the weight");
  TERSOR_CHECK(make_plain(env, size, source.data()));
  const matrix_view view = {.type = env.options.type,
                            .rows = size.rows,
                            .cols = size.cols,
                            .data = std::span<const std::byte>(source.data(), plain_bytes)};
  const pack_options options = {.layout = layout};
  env.step("packing");
  auto packed = pack_on_device(env, view, options);
  if (!packed && is_missing(packed.error())) packed = pack_on_host(env, view, options);
  if (!packed) return tl::unexpected<error>(std::move(packed).error());
  m.info_ = packed->info;
  m.n_slots_ = slots_for(env, m.info_.n_bytes);
  TERSOR_CHECK(m.packed_.allocate(m.n_slots_, m.info_.n_bytes));
  TERSOR_CHECK(m.plain_.allocate(m.n_slots_, plain_bytes));
  const auto copy = [](std::byte* dst, const device_buffer& src, std::uint64_t n) {
    return cuda_ok(cudaMemcpy(dst, src.data(), n, cudaMemcpyDeviceToDevice), "copying");
  };
  TERSOR_CHECK(copy(m.packed_.at(0), packed->bytes, m.info_.n_bytes));
  TERSOR_CHECK(copy(m.plain_.at(0), source, plain_bytes));
  TERSOR_CHECK(m.packed_.repeat_first(m.n_slots_));
  TERSOR_CHECK(m.plain_.repeat_first(m.n_slots_));
  return m;
}

result<bool> gemm_matrix::unpacks_to_source(const gemm_env& env) const {
  TERSOR_TRY(const device_buffer back, device_buffer::allocate(plain_.slot_bytes(), 0xff));
  TERSOR_TRY(const device_buffer verdict, device_buffer::allocate(sizeof(cuda::matrix_result), 0xff));
  TERSOR_CHECK(cuda::unpack_async(packed(0), back.data(), matrix_order::row_major, 0,
                                  reinterpret_cast<cuda::matrix_result*>(verdict.data()), env.get()));
  device_count count;
  TERSOR_CHECK(count.allocate());
  TERSOR_CHECK(launched(
      launch_count_differences(back.data(), plain(0), size_.rows * size_.cols, count.get(), env.get()),
      "comparing"));
  TERSOR_TRY(const std::uint64_t n_differences, count.take(env.stream));
  cuda::matrix_result found;
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(&found, 1)), verdict.data()));
  return n_differences == 0 && found.code == 0;
}

}  // namespace tersor::bench
