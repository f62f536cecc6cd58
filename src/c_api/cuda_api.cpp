// The C ABI of tersor/cuda.hpp.
#include <algorithm>
#include <string>
#include <vector>

#include "c_api/cuda_types.hpp"

namespace {

using tersor::errc;
using tersor::fail;
using tersor::result;
using tersor::status;
using tersor::c_api::as_result;
using tersor::c_api::require;
using tersor::c_api::run;
using tersor::c_api::size_or_zero;
using tersor::c_api::to_codec;
using tersor::c_api::to_dtype;
using tersor::c_api::to_stream;
using tersor::c_api::to_tail_order;
using tersor::c_api::to_workspace;
namespace cuda = tersor::cuda;

result<cuda::encode_task> to_task(const tersor_cuda_encode_task& in) {
  if (in.shape == nullptr && in.rank != 0) return fail(errc::invalid_argument, "null shape");
  cuda::encode_task task{.shape = {in.shape, in.rank},
                         .src_dev = in.src_dev,
                         .codebook_dev = in.codebook_dev,
                         .frame_dev = in.frame_dev,
                         .capacity = in.capacity,
                         .result_dev = as_result(in.result_dev)};
  TERSOR_TRY(task.type, to_dtype(in.dtype));
  std::ranges::copy(in.codebook, task.book.symbols.begin());
  return task;
}

result<cuda::decode_task> to_task(const tersor_cuda_decode_task& in) {
  cuda::decode_task task{.n_values = in.n_values,
                         .frame_dev = in.frame_dev,
                         .frame_bytes = in.frame_bytes,
                         .dst_dev = in.dst_dev,
                         .result_dev = as_result(in.result_dev),
                         .chunk_codes_dev = in.chunk_codes_dev};
  TERSOR_TRY(task.type, to_dtype(in.dtype));
  return task;
}

template <class Task>
auto to_tasks(const Task* tasks, std::uint64_t n_tasks)
    -> result<std::vector<typename decltype(to_task(*tasks))::value_type>> {
  if (tasks == nullptr && n_tasks != 0) return fail(errc::invalid_argument, "null task list");
  std::vector<typename decltype(to_task(*tasks))::value_type> out;
  out.reserve(n_tasks);
  for (const Task& in : std::span(tasks, n_tasks)) {
    TERSOR_TRY(auto task, to_task(in));
    out.push_back(task);
  }
  return out;
}

}  // namespace

extern "C" {

std::int32_t tersor_cuda_device_count(std::uint32_t* count) {
  return run([&]() -> status {
    TERSOR_CHECK(require(count));
    *count = 0;
    TERSOR_TRY(const auto found, cuda::devices());
    *count = static_cast<std::uint32_t>(found.size());
    return {};
  });
}

std::int32_t tersor_cuda_device_info(std::uint32_t position, tersor_cuda_device* device) {
  return run([&]() -> status {
    TERSOR_CHECK(require(device));
    *device = {};
    TERSOR_TRY(const auto found, cuda::devices());
    if (position >= found.size()) return fail(errc::not_found, "there are fewer GPUs");
    const cuda::device_info& info = found[position];
    const auto copy_text = [](const std::string& text, std::span<char> dst) {
      std::copy_n(text.begin(), std::min(text.size(), dst.size() - 1), dst.begin());
    };
    device->index = info.index;
    device->compute_major = info.compute_major;
    device->compute_minor = info.compute_minor;
    device->multiprocessors = info.multiprocessors;
    device->memory_bytes = info.memory_bytes;
    device->l2_bytes = info.l2_bytes;
    copy_text(info.name, device->name);
    copy_text(info.driver, device->driver);
    return {};
  });
}

std::uint64_t tersor_cuda_encode_bound(std::int32_t codec, std::int32_t dtype, std::uint64_t n_values) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto type, to_dtype(dtype));
    return cuda::encode_bound(c, type, n_values);
  });
}

std::uint64_t tersor_cuda_encode_workspace_size(std::int32_t codec, std::int32_t tail_order,
                                                const tersor_cuda_encode_task* tasks, std::uint64_t n_tasks) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto order, to_tail_order(tail_order));
    TERSOR_TRY(const auto list, to_tasks(tasks, n_tasks));
    return cuda::encode_workspace_size(c, order, list);
  });
}

std::int32_t tersor_cuda_encode_async(std::int32_t codec, const tersor_cuda_encode_task* task,
                                      std::int32_t tail_order, void* workspace_dev,
                                      std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(task));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto order, to_tail_order(tail_order));
    TERSOR_TRY(const auto one, to_task(*task));
    return cuda::encode_async(c, one, order, to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_encode_batch_async(std::int32_t codec, const tersor_cuda_encode_task* tasks,
                                            std::uint64_t n_tasks, std::int32_t tail_order,
                                            void* workspace_dev, std::uint64_t workspace_bytes,
                                            void* stream) {
  return run([&]() -> status {
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto order, to_tail_order(tail_order));
    TERSOR_TRY(const auto list, to_tasks(tasks, n_tasks));
    return cuda::encode_batch_async(c, list, order, to_workspace(workspace_dev, workspace_bytes),
                                    to_stream(stream));
  });
}

std::uint64_t tersor_cuda_decode_workspace_size(const tersor_cuda_decode_task* tasks, std::uint64_t n_tasks) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto list, to_tasks(tasks, n_tasks));
    return cuda::decode_workspace_size(list);
  });
}

std::int32_t tersor_cuda_decode_async(std::int32_t codec, const tersor_cuda_decode_task* task,
                                      void* workspace_dev, std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(task));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto one, to_task(*task));
    return cuda::decode_async(c, one, to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_decode_batch_async(std::int32_t codec, const tersor_cuda_decode_task* tasks,
                                            std::uint64_t n_tasks, void* workspace_dev,
                                            std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto list, to_tasks(tasks, n_tasks));
    return cuda::decode_batch_async(c, list, to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::uint64_t tersor_cuda_codebook_workspace_size(void) {
  return cuda::codebook_workspace_size();
}

std::int32_t tersor_cuda_make_codebook_async(std::int32_t codec, std::int32_t dtype, const void* src_dev,
                                             std::uint64_t n_values, std::uint8_t* codebook_dev,
                                             void* workspace_dev, std::uint64_t workspace_bytes,
                                             void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(codebook_dev));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto type, to_dtype(dtype));
    return cuda::make_codebook_async(c, type, src_dev, n_values, codebook_dev,
                                     to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

}  // extern "C"
