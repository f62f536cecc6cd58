// In a build without CUDA.
#include "gpu_bench.hpp"

namespace tersor::bench {

result<gpu_bench_report> run_gpu_bench(const gpu_bench_options& /*options*/) {
  return fail(errc::backend_unavailable, "CUDA is not in this build; cpu is");
}

}  // namespace tersor::bench
