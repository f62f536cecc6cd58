#include <algorithm>

#include "bench_input.hpp"
#include "gpu_link_bench.hpp"
#include "gpu_link_kernels.hpp"

namespace tersor::bench {

using namespace transfer::device;

namespace {

status launched(int code, const char* what) {
  return ok(static_cast<cudaError_t>(code), what);
}

}  // namespace

result<link_data> load_link_data(const std::string& path, int device) {
  TERSOR_TRY(const std::vector<bench_tensor> tensors, load_bf16(path));
  const on_device here(device);
  TERSOR_CHECK(here.good());
  link_data data;
  for (const bench_tensor& tensor : tensors) {
    TERSOR_TRY(const histogram counts, count_symbols(dtype::bf16, tensor.bytes));
    TERSOR_TRY(const codebook book, make_codebook(dtype::bf16, counts));
    TERSOR_TRY(memory base, make_memory(tensor.bytes.size()));
    TERSOR_CHECK(ok(cudaMemcpy(base.get(), tensor.bytes.data(), tensor.bytes.size(), cudaMemcpyHostToDevice),
                    "upload"));
    data.base.push_back(std::move(base));
    data.tensors.push_back({.n_values = tensor.bytes.size() / 2, .book = book});
  }
  return data;
}

result<link_buffers> make_buffers(const link_data& data, std::uint64_t n_bytes, std::uint64_t salt,
                                  int source_device, int target_device) {
  link_buffers b;
  b.n_bytes = n_bytes;
  {
    const on_device here(target_device < 0 ? source_device : target_device);
    TERSOR_CHECK(here.good());
    TERSOR_TRY(b.target, make_memory(n_bytes));
  }
  const on_device here(source_device);
  TERSOR_CHECK(here.good());
  TERSOR_TRY(b.source, make_memory(n_bytes));
  const std::uint64_t n = data.tensors.size();
  const std::uint64_t n_values = n_bytes / 2;
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t begin = n_values * i / n / 8 * 8;
    const std::uint64_t end = i + 1 == n ? n_values : n_values * (i + 1) / n / 8 * 8;
    auto* src = static_cast<std::uint16_t*>(b.source.get()) + begin;
    TERSOR_CHECK(launched(launch_fill_kv(static_cast<const std::uint16_t*>(data.base[i].get()),
                                         data.tensors[i].n_values, src, end - begin, salt, nullptr),
                          "filling"));
    b.regions.push_back({.src = src,
                         .dst = static_cast<std::uint16_t*>(b.target.get()) + begin,
                         .n_values = end - begin,
                         .book = data.tensors[i].book});
  }
  TERSOR_CHECK(ok(cudaDeviceSynchronize(), "filling"));
  return b;
}

status poison(link_buffers& b, int target_device) {
  const on_device here(target_device);
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(ok(cudaMemset(b.target.get(), 0xa5, b.n_bytes), "poison"));
  return ok(cudaDeviceSynchronize(), "poison");
}

status expect_arrived(const link_buffers& b, int target_device, const std::string& what) {
  const on_device here(target_device);
  TERSOR_CHECK(here.good());
  TERSOR_TRY(const memory count, make_memory(sizeof(unsigned long long)));
  TERSOR_CHECK(
      launched(launch_count_different(static_cast<const std::uint32_t*>(b.source.get()),
                                      static_cast<const std::uint32_t*>(b.target.get()), b.n_bytes / 4,
                                      static_cast<unsigned long long*>(count.get()), nullptr),
               "comparing"));
  unsigned long long different = 0;
  TERSOR_CHECK(ok(cudaMemcpy(&different, count.get(), sizeof different, cudaMemcpyDeviceToHost), "download"));
  if (different == 0) return {};
  return fail(errc::internal, what + ": " + std::to_string(different) + " words differ");
}

}  // namespace tersor::bench
