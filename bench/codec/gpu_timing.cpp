#include <algorithm>
#include <chrono>
#include <vector>

#include "gpu_device.hpp"

namespace tersor::bench {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t mid = values.size() / 2;
  return values.size() % 2 == 1 ? values[mid] : (values[mid - 1] + values[mid]) / 2;
}

class gpu_event {
 public:
  gpu_event() = default;
  gpu_event(const gpu_event&) = delete;
  gpu_event& operator=(const gpu_event&) = delete;
  ~gpu_event() {
    if (event_ != nullptr) (void)cudaEventDestroy(event_);
  }
  [[nodiscard]] status create() { return cuda_ok(cudaEventCreate(&event_), "event"); }
  [[nodiscard]] cudaEvent_t get() const noexcept { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class captured_graph {
 public:
  captured_graph() = default;
  captured_graph(const captured_graph&) = delete;
  captured_graph& operator=(const captured_graph&) = delete;
  ~captured_graph() {
    if (executable_ != nullptr) (void)cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }

  [[nodiscard]] status capture(const gpu_stream& s, const std::function<status()>& work) {
    TERSOR_CHECK(cuda_ok(cudaStreamBeginCapture(s.get(), cudaStreamCaptureModeThreadLocal), "capture"));
    // The capture is ended in any case, or the stream would stay unusable.
    const status enqueued = work();
    const status ended = cuda_ok(cudaStreamEndCapture(s.get(), &graph_), "capture");
    TERSOR_CHECK(enqueued);
    TERSOR_CHECK(ended);
    return cuda_ok(cudaGraphInstantiate(&executable_, graph_, 0), "graph");
  }
  [[nodiscard]] status launch(const gpu_stream& s) const {
    return cuda_ok(cudaGraphLaunch(executable_, s.get()), "graph launch");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

status run_calls(std::uint64_t n_calls, std::uint64_t n_slots, const enqueue& call) {
  for (std::uint64_t i = 0; i < n_calls; ++i) TERSOR_CHECK(call(i % n_slots));
  return {};
}

result<double> one_round_us(const gpu_stream& s, const std::function<status()>& round) {
  gpu_event begin, end;
  TERSOR_CHECK(begin.create());
  TERSOR_CHECK(end.create());
  TERSOR_CHECK(cuda_ok(cudaEventRecord(begin.get(), s.get()), "event"));
  TERSOR_CHECK(round());
  TERSOR_CHECK(cuda_ok(cudaEventRecord(end.get(), s.get()), "event"));
  TERSOR_CHECK(cuda_ok(cudaEventSynchronize(end.get()), "timed work"));
  float ms = 0;
  TERSOR_CHECK(cuda_ok(cudaEventElapsedTime(&ms, begin.get(), end.get()), "event"));
  return 1e3 * static_cast<double>(ms);
}

}  // namespace

result<double> device_us(const gpu_stream& s, const timing_plan& plan, std::uint64_t n_slots,
                         const enqueue& call) {
  const std::uint64_t n_calls = std::max<std::uint64_t>(plan.iters, n_slots);
  TERSOR_CHECK(run_calls(plan.warmup, n_slots, call));
  captured_graph graph;
  std::function<status()> round = [&] { return run_calls(n_calls, n_slots, call); };
  if (plan.graph) {
    TERSOR_CHECK(s.wait());
    TERSOR_CHECK(graph.capture(s, round));
    round = [&] { return graph.launch(s); };
    TERSOR_CHECK(round());
  }
  TERSOR_CHECK(s.wait());
  std::vector<double> times;
  for (unsigned i = 0; i < plan.repeats; ++i) {
    TERSOR_TRY(const double us, one_round_us(s, round));
    times.push_back(us / static_cast<double>(n_calls));
  }
  return median(std::move(times));
}

result<double> wall_us(const gpu_stream& s, const timing_plan& plan, std::uint64_t n_slots,
                       const enqueue& call) {
  using clock = std::chrono::steady_clock;
  constexpr std::uint64_t kLongRun = 400;
  const std::uint64_t n_calls = std::max({kLongRun, std::uint64_t{plan.iters}, 2 * n_slots});
  TERSOR_CHECK(run_calls(plan.warmup, n_slots, call));
  std::vector<double> times;
  for (unsigned i = 0; i < plan.repeats; ++i) {
    TERSOR_CHECK(s.wait());
    const auto start = clock::now();
    TERSOR_CHECK(run_calls(n_calls, n_slots, call));
    TERSOR_CHECK(s.wait());
    times.push_back(std::chrono::duration<double, std::micro>(clock::now() - start).count() /
                    static_cast<double>(n_calls));
  }
  return median(std::move(times));
}

}  // namespace tersor::bench
