// Encoding and decoding captured in a CUDA graph and replayed: the same result each time, and no memory
// taken.
#include "kernels.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

constexpr std::uint64_t kValues = 40'000;

/// Device memory of one captured pass: codebook, canonical frame, its values; free frame, its values.
struct pass {
  codec c = codec::rank;
  bytes data, expected;
  device_memory src, reference, book, frame, free_frame, dst, free_dst, results, differences;
  work_memory counting, coding, decoding;
  std::uint64_t capacity = 0;

  explicit pass(const env& e, codec which)
      : c(which), data(make_data(dtype::bf16, kValues, kind::lognormal_columns, 8)) {
    const std::uint64_t shape[] = {kValues};
    expected = cpu_frame(e.single, c, dtype::bf16, shape, data, cpu_book(dtype::bf16, data));
    capacity = tersor::cuda::encode_bound(c, dtype::bf16, kValues);
    src.grow(data.size());
    src.put(0, data);
    reference.grow(expected.size());
    reference.put(0, expected);
    book.grow(16);
    for (device_memory* memory : {&frame, &free_frame}) memory->grow(capacity);
    for (device_memory* memory : {&dst, &free_dst}) memory->grow(data.size());
    results.grow(4 * sizeof(frame_result));
    differences.grow(8);
    differences.fill(0, 8, 0);
  }
};

tersor::status enqueue_one(pass& p, tail_order order, device_memory& frame, device_memory& dst,
                           std::uint64_t result, cudaStream_t stream) {
  const std::uint64_t shape[] = {kValues};
  const tersor::cuda::encode_task coding{.type = dtype::bf16,
                                         .shape = shape,
                                         .src_dev = p.src.get(),
                                         .codebook_dev = p.book.get(),
                                         .frame_dev = frame.get(),
                                         .capacity = p.capacity,
                                         .result_dev = p.results.as<frame_result>() + result};
  const tersor::cuda::decode_task decoding{.type = dtype::bf16,
                                           .n_values = kValues,
                                           .frame_dev = frame.get(),
                                           .frame_bytes = p.capacity,
                                           .dst_dev = dst.get(),
                                           .result_dev = p.results.as<frame_result>() + result + 1};
  const auto work = p.coding.of(tersor::cuda::encode_workspace_size(p.c, order, {&coding, 1}));
  TERSOR_CHECK(tersor::cuda::encode_async(p.c, coding, order, work, as_stream(stream)));
  const auto more = p.decoding.of(tersor::cuda::decode_workspace_size({&decoding, 1}));
  return tersor::cuda::decode_async(p.c, decoding, more, as_stream(stream));
}

tersor::status enqueue(pass& p, cudaStream_t stream) {
  const auto counting = p.counting.of(tersor::cuda::codebook_workspace_size());
  TERSOR_CHECK(tersor::cuda::make_codebook_async(p.c, dtype::bf16, p.src.get(), kValues, p.book.get(),
                                                 counting, as_stream(stream)));
  // Canonical first: its workspace is the larger one, so that no memory is taken while the second is
  // captured.
  TERSOR_CHECK(enqueue_one(p, tail_order::canonical, p.frame, p.dst, 0, stream));
  return enqueue_one(p, tail_order::free, p.free_frame, p.free_dst, 2, stream);
}

/// Spoils everything that the next replay must write.
void spoil(pass& p) {
  for (device_memory* memory : {&p.book, &p.frame, &p.free_frame, &p.dst, &p.free_dst, &p.results})
    memory->fill(0, memory->size(), kPoison);
}

void check_replay(const env& e, section& s, pass& p, cudaStream_t stream, std::uint64_t replay) {
  auto* counter = p.differences.as<unsigned long long>();
  launch_count_differences(p.frame.get(), p.reference.get(), p.expected.size(), counter, stream);
  launch_count_differences(p.dst.get(), p.src.get(), p.data.size(), counter, stream);
  launch_count_differences(p.free_dst.get(), p.src.get(), p.data.size(), counter, stream);
  const std::string what = "replay " + std::to_string(replay);
  e.wait(stream, s, what);
  s.check(p.differences.holds(0, 8, 0), "frame or values differ", what);
  for (std::uint64_t i = 0; i < 4; ++i) {
    const frame_result r = take_result(p.results, i);
    s.check(r.code == 0 && r.frame_bytes == p.expected.size(), "code " + std::to_string(r.code), what);
  }
  s.add_values(kValues);
}

std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  must(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

cudaGraphExec_t capture(const env& e, section& s, pass& p, cudaStream_t stream) {
  const auto warm = enqueue(p, stream);
  e.wait(stream, s, "before the capture");
  if (!s.check(warm.has_value(), "before the capture: " + text_of(warm))) return nullptr;
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  const auto captured = enqueue(p, stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (!s.check(captured && ended == cudaSuccess,
               "capture: " + text_of(captured) + ", " + cudaGetErrorString(ended)))
    return nullptr;
  cudaGraphExec_t exec = nullptr;
  must(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  must(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return exec;
}

void replay(const env& e, section& s, codec c) {
  const side_stream stream;
  pass p(e, c);
  cudaGraphExec_t exec = capture(e, s, p, stream.get());
  if (exec == nullptr) return;
  const std::uint64_t n_replays = e.pick<std::uint64_t>(50, 50'000);
  const std::uint64_t step = e.pick<std::uint64_t>(10, 1000);
  std::size_t free_before = 0;
  for (std::uint64_t i = 1; i <= n_replays; ++i) {
    const bool sampled = i % step == 0;
    if (sampled) {
      e.wait(stream.get(), s, "replay " + std::to_string(i));
      spoil(p);
    }
    must(cudaGraphLaunch(exec, stream.get()), "cudaGraphLaunch");
    if (!sampled) continue;
    check_replay(e, s, p, stream.get(), i);
    if (i == step) free_before = free_memory();
  }
  const std::size_t free_after = free_memory();
  s.check(free_before == free_after,
          "free memory went from " + std::to_string(free_before) + " to " + std::to_string(free_after));
  s.note(std::string(tersor::to_string(c)) + ": " + std::to_string(n_replays) + " replays");
  must(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
}

}  // namespace

void run_graph(const env& e, section& s) {
  for (const codec c : kCodecs) replay(e, s, c);
}

}  // namespace gpu_test
