// The rows of `tersor bench gemm`.
#include <new>

#include "gemm_env.hpp"

namespace tersor::bench {
namespace {

std::string shape_name(const gemm_size& size) {
  return std::to_string(size.rows) + " x " + std::to_string(size.cols);
}

/// The plan that the options ask for.
cuda::gemm_plan plan_for(const gemm_env& env, const gemm_matrix& matrix, std::uint64_t n) {
  const gemm_bench_options& o = env.options;
  if (o.plan) return *o.plan;
  const cuda::gemm_shape shape = {.layout = matrix.info().layout,
                                  .type = o.type,
                                  .rows = matrix.size().rows,
                                  .cols = matrix.size().cols,
                                  .n = n};
  const auto measured = o.plans ? o.plans->find(shape) : std::nullopt;
  cuda::gemm_plan plan = measured ? *measured : cuda::plan_gemm(shape, env.planner);
  if (o.split_k) plan.split_k = *o.split_k;
  return plan;
}

/// Refusals are the row's; after an error of the device nothing else could be measured.
status note_failure(const gemm_env& env, const error& e, gemm_row& row) {
  (void)cudaGetLastError();
  if (const status alive = env.stream.wait(); !alive) return tl::unexpected<error>(e);
  row.failure = e.describe();
  return {};
}

status measure_product(const gemm_env& env, const gemm_matrix& matrix, const gemm_tokens& tokens,
                       gemm_row& row) {
  const gemm_try how = {row.plan, row.pdl};
  TERSOR_TRY(const device_buffer ws, workspace_for(env, matrix, tokens.n(), row.plan));
  TERSOR_TRY(row.error, check_product(env, matrix, tokens, how, ws));
  row.wrong = row.wrong || is_wrong(env.options.type, row.error, row.cublas_error);
  TERSOR_CHECK(tokens.poison());
  TERSOR_TRY(row.time_us, device_us(env.stream, timing_for(env, matrix, tokens.n(), env.options.repeats),
                                    matrix.n_slots(), [&](std::uint64_t slot) {
                                      return enqueue_product(env, matrix, tokens, how, ws, slot);
                                    }));
  // The timed calls made the same bits as each other, and right ones.
  TERSOR_TRY(const gemm_error after, tokens.error_of_first(env));
  TERSOR_TRY(const bool equal, tokens.all_equal(env));
  row.wrong = row.wrong || !equal || after.rms != row.error.rms;
  return {};
}

status measure_tokens(const gemm_env& env, const gemm_matrix& matrix, bool right_weights, std::uint64_t n,
                      gemm_bench_report& report) {
  env.step(shape_name(matrix.size()) + ", N = " + std::to_string(n));
  TERSOR_TRY(const gemm_tokens tokens, gemm_tokens::create(env, matrix, n));
  TERSOR_TRY(const auto library, measure_library(env, matrix, tokens));
  gemm_row base;
  base.size = matrix.size();
  base.n = n;
  base.layout = matrix.info().layout;
  base.graph = env.options.graph;
  base.plan = plan_for(env, matrix, n);
  base.bits_per_weight = matrix.info().bits_per_weight();
  base.packed_bytes = matrix.info().n_bytes;
  base.wrong = !right_weights;
  if (library) {
    base.cublas_us = library->us;
    base.cublas_error = library->error;
  }
  for (const bool pdl : {false, true}) {
    if (pdl && !env.options.pdl) continue;
    gemm_row row = base;
    row.pdl = pdl;
    if (const status measured = measure_product(env, matrix, tokens, row); !measured) {
      TERSOR_CHECK(note_failure(env, measured.error(), row));
    }
    report.rows.push_back(std::move(row));
  }
  return {};
}

/// Into the plain copies, which hold the same values already.
status measure_unpack(const gemm_env& env, const gemm_matrix& matrix, gemm_bench_report& report) {
  const timing_plan plan = timing_for(env, matrix, 1, env.options.repeats);
  TERSOR_TRY(const double us, device_us(env.stream, plan, matrix.n_slots(), [&](std::uint64_t slot) {
               return cuda::unpack_async(matrix.packed(slot), matrix.plain(slot), matrix_order::row_major, 0,
                                         nullptr, env.get());
             }));
  const std::uint64_t moved = matrix.info().n_bytes + 2 * matrix.size().rows * matrix.size().cols;
  const double gb_s = static_cast<double>(moved) / (us * 1e3);
  report.unpack.push_back({matrix.size(), matrix.info().layout, us, gb_s, gb_s / env.copy_gb_s});
  return {};
}

status measure_matrix(const gemm_env& env, const gemm_size& size, matrix_layout layout,
                      gemm_bench_report& report) {
  env.step(shape_name(size));
  TERSOR_TRY(const gemm_matrix matrix, gemm_matrix::create(env, size, layout));
  TERSOR_TRY(const bool right, matrix.unpacks_to_source(env));
  for (const std::uint64_t n : env.options.n) TERSOR_CHECK(measure_tokens(env, matrix, right, n, report));
  if (env.options.unpack && right) TERSOR_CHECK(measure_unpack(env, matrix, report));
  return {};
}

}  // namespace

result<gemm_bench_report> run_gemm_bench(const gemm_bench_options& options) {
  try {
    TERSOR_TRY(const gemm_session session, gemm_session::create(options));
    const gemm_env& env = session.env();
    gemm_bench_report report;
    report.device = env.device.name;
    report.driver = env.device.driver;
    report.data = session.data_name();
    report.copy_gb_s = env.copy_gb_s;
    report.has_library = env.library != nullptr;
    for (const matrix_layout layout : options.layouts) {
      for (const gemm_size& size : options.sizes) TERSOR_CHECK(measure_matrix(env, size, layout, report));
    }
    return report;
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  }
}

}  // namespace tersor::bench
