// In a build without CUDA.
#include "gemm_bench.hpp"

namespace tersor::bench {
namespace {

tl::unexpected<error> no_cuda() {
  return fail(errc::backend_unavailable, "CUDA is not in this build");
}

}  // namespace

result<gemm_bench_report> run_gemm_bench(const gemm_bench_options& options) {
  TERSOR_CHECK(check_gemm_options(options));
  return no_cuda();
}

result<cuda::gemm_plan_table> tune_gemm(const gemm_bench_options& options) {
  TERSOR_CHECK(check_gemm_options(options));
  return no_cuda();
}

}  // namespace tersor::bench
