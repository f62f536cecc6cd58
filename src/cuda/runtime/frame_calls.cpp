// Calls on frames that are there already: the tails of one that moves, the values of one that was decoded.
#include <algorithm>
#include <vector>

#include "codec/coding.hpp"
#include "codec/frame_codec.hpp"
#include "cuda/kv/bounds.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda {
namespace {

/// Enough to keep a link busy, and few enough to leave the device to others.
constexpr std::uint32_t kTailsCtas = 64;

status check_tails_task(const tails_task& task) {
  TERSOR_CHECK(check_frame_address(task.from_dev));
  TERSOR_CHECK(check_frame_address(task.to_dev));
  if (task.encoded_dev == nullptr) return fail(errc::invalid_argument, "the result's address is null");
  if (task.prefix_bytes % 128 != 0 || task.prefix_bytes > task.capacity)
    return fail(errc::invalid_argument, "the prefix is not a multiple of 128 or leaves the capacity");
  return {};
}

status check_recheck_task(const recheck_task& task, const recheck_task& first) {
  if (task.type != first.type) return fail(errc::invalid_argument, "tasks of a call have one dtype");
  if (task.values_dev == nullptr && task.n_values != 0)
    return fail(errc::invalid_argument, "the values' address is null");
  if (task.result_dev == nullptr) return fail(errc::invalid_argument, "the result's address is null");
  return check_frame_address(task.frame_dev);
}

result<tensor_group> group_of(codec c, const recheck_task& task) {
  TERSOR_TRY(const frame_plan plan,
             plan_frame(c, task.type, {&task.n_values, 1}, task.frame_bytes & ~std::uint64_t{3}));
  tensor_group group;
  group.shape = plan.shape;
  std::copy_n(plan.header, kHeaderWords, group.header);
  // The kernel only reads both; a group serves all directions.
  group.tensor = static_cast<std::uint8_t*>(const_cast<void*>(task.values_dev));
  group.frame = static_cast<std::uint8_t*>(const_cast<void*>(task.frame_dev));
  group.result = reinterpret_cast<result_slot*>(task.result_dev);
  // No such frame can be whole: only its header is judged.
  if (group.shape.n_bytes < group.shape.tails) group.shape.n_tiles = group.shape.n_chunks = 0;
  return group;
}

}  // namespace

std::uint64_t frame_prefix_size(codec c, dtype type, std::uint64_t n_values) noexcept {
  const auto layout = largest_layout(c, type, n_values);
  return layout ? layout->tails : 0;
}

status copy_tails_async(std::span<const tails_task> tasks, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  for (std::size_t first = 0; first < tasks.size(); first += kMaxTensors) {
    tails_launch launch;
    launch.n_copies =
        static_cast<std::uint32_t>(std::min<std::size_t>(tasks.size() - first, std::size_t{kMaxTensors}));
    launch.ctas_per_copy = std::max(kTailsCtas / launch.n_copies, 1u);
    for (std::uint32_t i = 0; i < launch.n_copies; ++i) {
      const tails_task& task = tasks[first + i];
      TERSOR_CHECK(check_tails_task(task));
      launch.copies[i] = {.from = static_cast<const std::uint8_t*>(task.from_dev),
                          .to = static_cast<std::uint8_t*>(task.to_dev),
                          .result = reinterpret_cast<const result_slot*>(task.encoded_dev),
                          .tails = task.prefix_bytes,
                          .capacity = task.capacity};
    }
    TERSOR_CHECK(check_launch(
        *backend, backend->copy_tails(launch, launch.n_copies * launch.ctas_per_copy, s), "copying tails"));
  }
  return {};
}

std::uint64_t recheck_workspace_size() noexcept {
  return kScratchAt;
}

status recheck_async(codec c, std::span<const recheck_task> tasks, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_CHECK(check_workspace(ws, kScratchAt));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  for (std::size_t first = 0; first < tasks.size(); first += kMaxTensors) {
    tensor_launch launch;
    launch.totals = reinterpret_cast<frame_totals*>(ws.data_dev);
    launch.n_groups =
        static_cast<std::uint32_t>(std::min<std::size_t>(tasks.size() - first, std::size_t{kMaxTensors}));
    for (std::uint32_t i = 0; i < launch.n_groups; ++i) {
      TERSOR_CHECK(check_recheck_task(tasks[first + i], tasks.front()));
      TERSOR_TRY(launch.groups[i], group_of(c, tasks[first + i]));
    }
    share_ctas(launch, std::uint64_t{processors} * kDecodeCtas);
    const std::uint32_t raw_words =
        codec_detail::make_plan(c, codec_detail::find_planes(tasks.front().type)->symbol_bits).raw_words();
    TERSOR_CHECK(check_launch(
        *backend,
        backend->recheck(tasks.front().type, launch, raw_words, launch.first_cta[launch.n_groups], s),
        "checking values again"));
  }
  return {};
}

}  // namespace tersor::cuda
