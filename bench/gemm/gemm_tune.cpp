// `tersor tune`: the fastest plan for every shape.
#include <algorithm>
#include <new>

#include "gemm_env.hpp"

namespace tersor::bench {
namespace {

constexpr unsigned kQuickRepeats = 3;

struct timed_plan {
  cuda::gemm_plan plan;
  double us = 0;
};

/// The time of a plan; nothing if the device or the shape cannot run it, or if its product is wrong.
result<std::optional<double>> time_plan(const gemm_env& env, const gemm_matrix& matrix,
                                        const gemm_tokens& tokens, const cuda::gemm_plan& plan,
                                        unsigned repeats) {
  const gemm_try how = {.plan = plan};
  TERSOR_TRY(const device_buffer ws, workspace_for(env, matrix, tokens.n(), plan));
  const auto error = check_product(env, matrix, tokens, how, ws);
  if (!error) {
    (void)cudaGetLastError();
    // Refused, or the device is lost.
    TERSOR_CHECK(env.stream.wait());
    return std::nullopt;
  }
  if (is_wrong(env.options.type, *error, std::nullopt)) return std::nullopt;
  timing_plan timing = timing_for(env, matrix, tokens.n(), repeats);
  timing.graph = true;
  TERSOR_TRY(const double us, device_us(env.stream, timing, matrix.n_slots(), [&](std::uint64_t slot) {
               return enqueue_product(env, matrix, tokens, how, ws, slot);
             }));
  return us;
}

result<std::optional<timed_plan>> fastest(const gemm_env& env, const gemm_matrix& matrix,
                                          const gemm_tokens& tokens, const cuda::gemm_shape& shape) {
  std::vector<timed_plan> timed;
  for (const cuda::gemm_plan& plan : candidate_plans(shape, env.planner)) {
    TERSOR_TRY(const auto us, time_plan(env, matrix, tokens, plan, kQuickRepeats));
    if (us) timed.push_back({plan, *us});
  }
  if (timed.empty()) return std::nullopt;
  const auto faster = [](const timed_plan& a, const timed_plan& b) { return a.us < b.us; };
  std::sort(timed.begin(), timed.end(), faster);
  // A close race is run again.
  constexpr double kClose = 1.03;
  std::optional<timed_plan> best;
  for (const timed_plan& t : timed) {
    if (t.us > kClose * timed.front().us) break;
    TERSOR_TRY(const auto us, time_plan(env, matrix, tokens, t.plan, env.options.repeats));
    if (us && (!best || *us < best->us)) best = timed_plan{t.plan, *us};
  }
  return best;
}

status tune_matrix(const gemm_env& env, const gemm_size& size, matrix_layout layout,
                   cuda::gemm_plan_table& table) {
  TERSOR_TRY(const gemm_matrix matrix, gemm_matrix::create(env, size, layout));
  for (const std::uint64_t n : env.options.n) {
    env.step(std::to_string(size.rows) + " x " + std::to_string(size.cols) + ", N = " + std::to_string(n));
    const cuda::gemm_shape shape = {
        .layout = layout, .type = env.options.type, .rows = size.rows, .cols = size.cols, .n = n};
    TERSOR_TRY(const gemm_tokens tokens, gemm_tokens::create(env, matrix, n));
    TERSOR_TRY(const auto best, fastest(env, matrix, tokens, shape));
    if (best) table.entries.push_back({.shape = shape, .plan = best->plan, .time_us = best->us});
  }
  return {};
}

}  // namespace

result<cuda::gemm_plan_table> tune_gemm(const gemm_bench_options& options) {
  try {
    TERSOR_TRY(const gemm_session session, gemm_session::create(options));
    const gemm_env& env = session.env();
    cuda::gemm_plan_table table;
    table.device = env.device.name;
    for (const matrix_layout layout : options.layouts) {
      for (const gemm_size& size : options.sizes) TERSOR_CHECK(tune_matrix(env, size, layout, table));
    }
    return table;
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  }
}

}  // namespace tersor::bench
