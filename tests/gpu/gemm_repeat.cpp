// The same product again and again: in a graph, beside other kernels, on two streams at once. Every output
// stays the same, bit for bit.
#include <algorithm>

#include "gemm_rig.hpp"
#include "kernels.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::dtype;
using tersor::matrix_layout;
using tersor::cuda::gemm_kernel;
using tersor::cuda::gemm_plan;
using tersor::cuda::matrix_result;

/// A product of one weight, with its reference output from a run alone.
struct repeated {
  const test_weight& w;
  std::uint64_t n;
  gemm_plan plan;
  device_memory x, y, reference, differences;
  work_memory work;
  tersor::cuda::workspace ws;

  repeated(const test_weight& weight, std::uint64_t tokens, const gemm_plan& p,
           const tersor::cuda::gemm_device& device)
      : w(weight),
        n(tokens),
        plan(p),
        x(2 * n * w.cols),
        y(2 * n * w.rows),
        reference(2 * n * w.rows),
        differences(8) {
    x.put(0, make_tokens(w.type, n * w.cols, 3));
    differences.fill(0, 8, 0);
    y.fill(0, y_bytes(), kPoison);
    ws = work.of(tersor::cuda::gemm_workspace_size(
        {.layout = w.layout, .type = w.type, .rows = w.rows, .cols = w.cols, .n = n}, plan, device));
  }
  [[nodiscard]] std::uint64_t y_bytes() const { return 2 * n * w.rows; }

  tersor::status enqueue(cudaStream_t stream, bool overlap) {
    return tersor::cuda::gemm_async(w.on_device(), x.get(), 0, y.get(), 0, n,
                                    {.overlap_previous = overlap, .plan = plan}, ws, as_stream(stream));
  }
  /// Makes the reference; false if the plan cannot run here.
  bool begin(const env& e, section& s, cudaStream_t stream, const std::string& what) {
    const auto called = enqueue(stream, false);
    if (!called && called.error().code == tersor::errc::unsupported) return false;
    e.wait(stream, s, what);
    if (!s.check(called.has_value(), "gemm_async: " + text_of(called), what)) return false;
    must(cudaMemcpy(reference.get(), y.get(), y_bytes(), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    must(cudaStreamSynchronize(nullptr), "cudaMemcpy");
    return true;
  }
  void compare(cudaStream_t stream) {
    launch_count_differences(y.get(), reference.get(), y_bytes(), differences.as<unsigned long long>(),
                             stream);
  }
  void expect_same(section& s, const std::string& what) {
    s.check(differences.holds(0, 8, 0), "an output differs from run to run", what);
    differences.fill(0, 8, 0);
  }
};

std::vector<gemm_plan> plans_of(matrix_layout layout, std::uint32_t processors) {
  std::vector<gemm_plan> plans = {{}};
  if (layout == matrix_layout::tcatbe) return plans;
  plans.push_back({.kernel = gemm_kernel::warp_mma, .n_tile = 8, .row_blocks = 2, .ctas = processors});
  plans.push_back({.kernel = gemm_kernel::bulk_mma, .n_tile = 8, .row_blocks = 4, .ctas = processors});
  plans.push_back(
      {.kernel = gemm_kernel::bulk_mma, .n_tile = 16, .row_blocks = 2, .ctas = processors / 2, .split_k = 2});
  plans.push_back(
      {.kernel = gemm_kernel::bulk_mma, .n_tile = 16, .row_blocks = 4, .ctas = processors / 4, .split_k = 4});
  plans.push_back({.kernel = gemm_kernel::wgmma, .n_tile = 64, .row_blocks = 4, .ctas = processors});
  plans.push_back({.kernel = gemm_kernel::library});
  return plans;
}

void jittered(const env& e, section& s, const test_weight& w, const tersor::cuda::gemm_device& device,
              std::uint64_t reruns) {
  const side_stream stream, other;
  prng random(7);
  for (const gemm_plan& plan : plans_of(w.layout, device.multiprocessors)) {
    const std::string what = w.label() + " " + tersor::cuda::to_string(plan);
    repeated r(w, plan.n_tile > 16 ? 40 : 12, plan, device);
    if (!r.begin(e, s, stream.get(), what)) continue;
    for (std::uint64_t i = 0; i < reruns; ++i) {
      launch_busy(random.below(20'000), 1 + static_cast<unsigned>(random.below(400)), other.get());
      must(cudaMemsetAsync(r.y.get(), kPoison, r.y_bytes(), stream.get()), "cudaMemsetAsync");
      const auto called = r.enqueue(stream.get(), i % 2 == 1);
      if (!s.check(called.has_value(), "gemm_async: " + text_of(called), what)) return;
      r.compare(stream.get());
      if (i % 100 == 99) {
        e.wait(stream.get(), s, what);
        e.wait(other.get(), s, "the other kernels");
        r.expect_same(s, what);
      }
    }
    e.wait(stream.get(), s, what);
    e.wait(other.get(), s, "the other kernels");
    r.expect_same(s, what);
    s.add_values(reruns * w.rows * r.n);
  }
}

/// Two products at the same time, with a workspace each.
void two_streams(const env& e, section& s, const tersor::cuda::gemm_device& device) {
  const side_stream first, second;
  const test_weight a(e, dtype::bf16, 777, 1504, weights::trained, 1),
      b(e, dtype::f16, 1024, 1032, weights::trained, 2);
  for (const gemm_plan& plan : plans_of(matrix_layout::packed, device.multiprocessors)) {
    const std::string what = "two streams, " + tersor::cuda::to_string(plan);
    repeated left(a, 9, plan, device), right(b, 7, plan, device);
    if (!left.begin(e, s, first.get(), what) || !right.begin(e, s, second.get(), what)) continue;
    for (std::uint64_t i = 0; i < e.pick<std::uint64_t>(3, 500); ++i) {
      for (auto [r, stream] : {std::pair{&left, first.get()}, std::pair{&right, second.get()}}) {
        must(cudaMemsetAsync(r->y.get(), kPoison, r->y_bytes(), stream), "cudaMemsetAsync");
        const auto called = r->enqueue(stream, i % 3 == 0);
        if (!s.check(called.has_value(), "gemm_async: " + text_of(called), what)) return;
        r->compare(stream);
      }
    }
    e.wait(first.get(), s, what);
    e.wait(second.get(), s, what);
    left.expect_same(s, what);
    right.expect_same(s, what);
  }
}

std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  must(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

/// A layer in a graph: pack, unpack, and the product of what was packed, pointers constant.
struct layer {
  const test_weight& w;
  repeated product;
  device_memory packed, dense, results;
  work_memory work;
  tersor::cuda::workspace ws;

  layer(const test_weight& weight, const gemm_plan& plan, const tersor::cuda::gemm_device& device)
      : w(weight),
        product(weight, 8, plan, device),
        packed(w.packed.size()),
        dense(w.dense.size()),
        results(2 * sizeof(matrix_result)) {
    ws = work.of(tersor::cuda::pack_workspace_size(w.type, w.rows, w.cols, {}));
  }
  tersor::status enqueue(cudaStream_t stream) {
    auto* result = results.as<matrix_result>();
    const std::span<const std::byte> source(w.dense_dev.as<std::byte>(), w.dense.size());
    TERSOR_CHECK(tersor::cuda::pack_async({.type = w.type, .rows = w.rows, .cols = w.cols, .data = source},
                                          packed.get(), packed.size(), {}, result, ws, as_stream(stream)));
    TERSOR_CHECK(tersor::cuda::unpack_async({w.info, packed.get()}, dense.get(),
                                            tersor::matrix_order::row_major, 0, result + 1,
                                            as_stream(stream)));
    TERSOR_CHECK(tersor::cuda::gemm_async({w.info, packed.get()}, product.x.get(), 0, product.y.get(), 0,
                                          product.n, {.plan = product.plan}, product.ws, as_stream(stream)));
    return product.enqueue(stream, true);
  }
  void spoil() {
    packed.fill(0, w.packed.size(), kPoison);
    dense.fill(0, w.dense.size(), kPoison);
    results.fill(0, results.size(), kPoison);
    product.y.fill(0, product.y_bytes(), kPoison);
  }
  void check(const env& e, section& s, cudaStream_t stream, const std::string& what) {
    auto* counter = product.differences.as<unsigned long long>();
    launch_count_differences(packed.get(), w.packed_dev.get(), w.packed.size(), counter, stream);
    launch_count_differences(dense.get(), w.dense_dev.get(), w.dense.size(), counter, stream);
    product.compare(stream);
    e.wait(stream, s, what);
    product.expect_same(s, what);
  }
};

cudaGraphExec_t capture(const env& e, section& s, layer& l, cudaStream_t stream, const std::string& what) {
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  const auto captured = l.enqueue(stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaGraphExec_t exec = nullptr;
  if (s.check(captured && ended == cudaSuccess,
              "capture: " + text_of(captured) + ", " + cudaGetErrorString(ended), what)) {
    must(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    must(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  e.wait(stream, s, what);
  return exec;
}

void graphs(const env& e, section& s, const tersor::cuda::gemm_device& device) {
  const side_stream stream;
  const test_weight w(e, dtype::bf16, 513, 1096, weights::trained, 4);
  const std::uint64_t replays = e.pick<std::uint64_t>(20, 10'000), step = e.pick<std::uint64_t>(5, 500);
  for (const gemm_plan& plan : plans_of(matrix_layout::packed, device.multiprocessors)) {
    const std::string what = "graph, " + tersor::cuda::to_string(plan);
    layer l(w, plan, device);
    if (!l.product.begin(e, s, stream.get(), what)) continue;
    const auto warm = l.enqueue(stream.get());
    e.wait(stream.get(), s, what);
    if (!s.check(warm.has_value(), "before the capture: " + text_of(warm), what)) continue;
    cudaGraphExec_t exec = capture(e, s, l, stream.get(), what);
    if (exec == nullptr) continue;
    std::size_t free_before = 0;
    for (std::uint64_t i = 1; i <= replays; ++i) {
      const bool sampled = i % step == 0;
      if (sampled) {
        e.wait(stream.get(), s, what);
        l.spoil();
      }
      must(cudaGraphLaunch(exec, stream.get()), "cudaGraphLaunch");
      if (!sampled) continue;
      l.check(e, s, stream.get(), what);
      if (i == step) free_before = free_memory();
    }
    s.check(free_memory() == free_before, "free memory changed while the graph ran", what);
    must(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
  }
  s.note(std::to_string(replays) + " replays of each graph");
}

}  // namespace

void run_gemm_repeat(const env& e, section& s) {
  const auto device = tersor::cuda::current_gemm_device();
  if (!s.check(device.has_value(), "current_gemm_device")) return;
  const std::uint64_t reruns = e.pick<std::uint64_t>(3, 2000);
  const test_weight a(e, dtype::bf16, 1111, 2056, weights::trained, 11),
      b(e, dtype::f16, 640, 2048, weights::all_escapes, 12),
      c(e, dtype::bf16, 640, 1024, weights::trained, 13, {.layout = matrix_layout::tcatbe});
  for (const test_weight* w : {&a, &b, &c}) jittered(e, s, *w, *device, reruns);
  two_streams(e, s, *device);
  graphs(e, s, *device);
}

}  // namespace gpu_test
