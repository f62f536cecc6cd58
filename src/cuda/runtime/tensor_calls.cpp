// encode_async, decode_async and their batches: argument checks, planning, launches of up to kMaxTensors
// frames.
#include <algorithm>
#include <vector>

#include "codec/coding.hpp"
#include "codec/frame_codec.hpp"
#include "core/bytes.hpp"
#include "cuda/kv/bounds.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda {
namespace {

static_assert(sizeof(frame_result) == sizeof(result_slot));

template <class T>
T* result_memory(frame_result* results) {
  return reinterpret_cast<T*>(results);
}

status check_encode_task(const encode_task& task, const frame_plan& plan) {
  if (task.src_dev == nullptr && plan.shape.n_values != 0)
    return fail(errc::invalid_argument, "the tensor's address is null");
  TERSOR_CHECK(check_frame_address(task.frame_dev));
  if (task.result_dev == nullptr) return fail(errc::invalid_argument, "the result's address is null");
  if (reinterpret_cast<std::uintptr_t>(task.codebook_dev) % 16 != 0) {
    return fail(errc::invalid_argument, "the codebook's address is not 16-byte aligned");
  }
  if (task.capacity < plan.shape.tails) {
    return fail(errc::destination_too_small, "the frame needs " + std::to_string(plan.shape.tails) +
                                                 " bytes before its tails, its capacity is " +
                                                 std::to_string(task.capacity));
  }
  return {};
}

/// The header's codebook words, for tasks that bring the codebook along.
status set_book(frame_plan& plan, codec c, const encode_task& task) {
  if (task.codebook_dev != nullptr) return {};
  codebook book = task.book;
  const auto levels = codec_detail::make_plan(c, codec_detail::find_planes(task.type)->symbol_bits);
  std::fill(book.symbols.begin() + levels.n_entries, book.symbols.end(), std::uint8_t{0});
  if (!codec_detail::is_valid_book(levels, book)) {
    return fail(errc::invalid_argument, "codebook entries repeat or leave the symbol width");
  }
  plan.header[kCodebookWord] = core::load_le<std::uint64_t>(book.symbols.data());
  plan.header[kCodebookWord + 1] = core::load_le<std::uint64_t>(book.symbols.data() + 8);
  return {};
}

result<std::vector<frame_plan>> plan_encode(codec c, std::span<const encode_task> tasks) {
  std::vector<frame_plan> plans;
  plans.reserve(tasks.size());
  for (const encode_task& task : tasks) {
    TERSOR_TRY(frame_plan plan, plan_frame(c, task.type, task.shape, task.capacity & ~std::uint64_t{127}));
    TERSOR_CHECK(check_encode_task(task, plan));
    TERSOR_CHECK(set_book(plan, c, task));
    plans.push_back(plan);
  }
  return plans;
}

tensor_group group_of(const frame_plan& plan) {
  tensor_group group;
  group.shape = plan.shape;
  std::copy_n(plan.header, kHeaderWords, group.header);
  return group;
}

struct call {
  const gpu_backend& backend;
  codec c;
  std::uint64_t multiprocessors;
  std::byte* ws;
  stream s;
};

status order_tails(const call& k, tensor_launch& launch) {
  // The same launch, its CTAs counted in blocks of chunks.
  for (std::uint32_t g = 0; g < launch.n_groups; ++g) {
    const std::uint32_t blocks = (launch.groups[g].shape.n_chunks + kOrderChunks - 1) / kOrderChunks;
    launch.first_cta[g + 1] = launch.first_cta[g] + std::max(blocks, 1u);
  }
  return check_launch(k.backend, k.backend.order(launch, launch.first_cta[launch.n_groups], k.s),
                      "ordering tails");
}

/// Up to kMaxTensors tasks of one dtype.
status encode_some(const call& k, std::span<const encode_task> tasks, std::span<const frame_plan> plans,
                   tail_order order) {
  tensor_launch launch;
  launch.totals = reinterpret_cast<frame_totals*>(k.ws);
  launch.n_groups = static_cast<std::uint32_t>(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    tensor_group& group = launch.groups[i] = group_of(plans[i]);
    // The kernel only reads it; a group serves both directions.
    group.tensor = static_cast<std::uint8_t*>(const_cast<void*>(tasks[i].src_dev));
    group.frame = static_cast<std::uint8_t*>(tasks[i].frame_dev);
    group.codebook = tasks[i].codebook_dev;
    group.result = result_memory<result_slot>(tasks[i].result_dev);
  }
  if (order == tail_order::canonical) {
    const order_scratch scratch = place_order_scratch(plans, k.ws + kScratchAt, &launch);
    TERSOR_CHECK(check_launch(k.backend, k.backend.clear(k.ws + kScratchAt, scratch.cleared_bytes, k.s),
                              "clearing the workspace"));
  }
  share_ctas(launch, k.multiprocessors * (k.c == codec::rank ? kRankEncodeCtas : kTop16EncodeCtas));
  TERSOR_CHECK(check_launch(
      k.backend, k.backend.encode(k.c, tasks[0].type, launch, launch.first_cta[launch.n_groups], k.s),
      "encoding"));
  return order == tail_order::canonical ? order_tails(k, launch) : status{};
}

status decode_some(const call& k, std::span<const decode_task> tasks, std::span<const frame_plan> plans) {
  tensor_launch launch;
  launch.totals = reinterpret_cast<frame_totals*>(k.ws);
  launch.n_groups = static_cast<std::uint32_t>(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    tensor_group& group = launch.groups[i] = group_of(plans[i]);
    group.tensor = static_cast<std::uint8_t*>(tasks[i].dst_dev);
    group.frame = static_cast<std::uint8_t*>(const_cast<void*>(tasks[i].frame_dev));
    group.result = result_memory<result_slot>(tasks[i].result_dev);
    group.chunk_codes = tasks[i].chunk_codes_dev;
    if (group.shape.n_bytes < group.shape.tails) {
      // No such frame can be whole: only its header is judged.
      group.shape.n_tiles = group.shape.n_chunks = 0;
    }
  }
  share_ctas(launch, k.multiprocessors * kDecodeCtas);
  return check_launch(k.backend,
                      k.backend.decode(k.c, tasks[0].type, launch, launch.first_cta[launch.n_groups], k.s),
                      "decoding");
}

/// Number of tasks from `first` on that go into one launch: same dtype, at most kMaxTensors.
template <class Task>
std::size_t run_length(std::span<const Task> tasks, std::size_t first) {
  std::size_t n = 1;
  while (n < kMaxTensors && first + n < tasks.size() && tasks[first + n].type == tasks[first].type) ++n;
  return n;
}

/// Canonical order: the largest scratch of any launch.
std::uint64_t workspace_of(std::span<const frame_plan> plans, std::span<const encode_task> tasks,
                           tail_order order) {
  if (order == tail_order::free) return kScratchAt;
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < tasks.size();) {
    const std::size_t n = run_length(tasks, i);
    most = std::max(most, place_order_scratch(plans.subspan(i, n), nullptr, nullptr).n_bytes);
    i += n;
  }
  return kScratchAt + most;
}

}  // namespace

std::uint64_t encode_bound(codec c, dtype type, std::uint64_t n_values) noexcept {
  return frame_bound(c, type, n_values);
}

std::uint64_t encode_workspace_size(codec c, tail_order order, std::span<const encode_task> tasks) noexcept {
  std::vector<frame_plan> plans;
  for (const encode_task& task : tasks) {
    const auto plan = plan_frame(c, task.type, task.shape, 0);
    if (!plan) return 0;
    plans.push_back(*plan);
  }
  return workspace_of(plans, tasks, order);
}

status encode_batch_async(codec c, std::span<const encode_task> tasks, tail_order order, const workspace& ws,
                          stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const std::vector<frame_plan> plans, plan_encode(c, tasks));
  TERSOR_CHECK(check_workspace(ws, workspace_of(plans, tasks, order)));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  const call k{*backend, c, processors, static_cast<std::byte*>(ws.data_dev), s};
  for (std::size_t i = 0; i < tasks.size();) {
    const std::size_t n = run_length(tasks, i);
    TERSOR_CHECK(encode_some(k, tasks.subspan(i, n), std::span(plans).subspan(i, n), order));
    i += n;
  }
  return {};
}

status encode_async(codec c, const encode_task& task, tail_order order, const workspace& ws, stream s) {
  return encode_batch_async(c, {&task, 1}, order, ws, s);
}

std::uint64_t decode_workspace_size(std::span<const decode_task>) noexcept {
  return kScratchAt;
}

status decode_batch_async(codec c, std::span<const decode_task> tasks, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  std::vector<frame_plan> plans;
  plans.reserve(tasks.size());
  for (const decode_task& task : tasks) {
    TERSOR_TRY(const frame_plan plan, plan_frame(c, task.type, {&task.n_values, 1}, task.frame_bytes));
    if (task.dst_dev == nullptr && task.n_values != 0)
      return fail(errc::invalid_argument, "the destination's address is null");
    if (task.result_dev == nullptr) return fail(errc::invalid_argument, "the result's address is null");
    TERSOR_CHECK(check_frame_address(task.frame_dev));
    plans.push_back(plan);
  }
  TERSOR_CHECK(check_workspace(ws, kScratchAt));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  const call k{*backend, c, processors, static_cast<std::byte*>(ws.data_dev), s};
  for (std::size_t i = 0; i < tasks.size();) {
    const std::size_t n = run_length(tasks, i);
    TERSOR_CHECK(decode_some(k, tasks.subspan(i, n), std::span<const frame_plan>(plans).subspan(i, n)));
    i += n;
  }
  return {};
}

status decode_async(codec c, const decode_task& task, const workspace& ws, stream s) {
  return decode_batch_async(c, {&task, 1}, ws, s);
}

std::uint64_t codebook_workspace_size() noexcept {
  return kScratchAt;
}

status make_codebook_async(codec c, dtype type, const void* src_dev, std::uint64_t n_values,
                           std::uint8_t* codebook_dev, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const frame_plan plan, plan_frame(c, type, {&n_values, 1}, 0));
  if ((src_dev == nullptr && n_values != 0) || codebook_dev == nullptr ||
      reinterpret_cast<std::uintptr_t>(codebook_dev) % 16 != 0) {
    return fail(errc::invalid_argument, "the tensor's or the codebook's address is null or not aligned");
  }
  TERSOR_CHECK(check_workspace(ws, kScratchAt));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  tensor_launch launch;
  launch.n_groups = 1;
  launch.groups[0] = group_of(plan);
  launch.groups[0].tensor = static_cast<std::uint8_t*>(const_cast<void*>(src_dev));
  share_ctas(launch, std::uint64_t{processors} * kCountCtas);
  const one_tensor_launch one = only_group(launch);
  const codebook_request to{static_cast<std::byte*>(ws.data_dev) + kCountsAt, codebook_dev,
                            c == codec::rank ? 16u : 15u};
  return check_launch(*backend, backend->count(type, one, to, one.first_cta[1], s), "counting symbols");
}

result<std::vector<device_info>> devices() {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  std::vector<device_info> all;
  if (const gpu_error error = backend->list(all); error != 0) {
    return fail(errc::backend_unavailable, std::string("CUDA: ") + backend->error_text(error));
  }
  return all;
}

}  // namespace tersor::cuda
