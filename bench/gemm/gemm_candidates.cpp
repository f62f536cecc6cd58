#include <algorithm>

#include "core/checked.hpp"
#include "cuda/gemm/plan_rules.hpp"
#include "gemm_bench.hpp"

namespace tersor::bench {
namespace {

using cuda::gemm_kernel;
using cuda::gemm_plan;

constexpr std::uint32_t kSplits[] = {1, 2, 4, 8};

/// The kernel and tile with rows shared out evenly over the machine, `split` CTAs for the columns.
gemm_plan share(gemm_kernel kernel, std::uint32_t n_tile, std::uint32_t row_blocks, std::uint32_t split,
                const cuda::gemm_shape& shape, const cuda::gemm_device& device) {
  const std::uint64_t blocks = std::max<std::uint64_t>(1, core::ceil_div(shape.rows, 16));
  const std::uint64_t at_once = std::max<std::uint32_t>(1, device.multiprocessors / split);
  const std::uint64_t owned = core::ceil_div(blocks, at_once);
  return {kernel, n_tile, row_blocks, static_cast<std::uint32_t>(core::ceil_div(blocks, owned)), split};
}

/// Whether the device runs the kernel.
bool runs(gemm_kernel kernel, const cuda::gemm_shape& shape, const cuda::gemm_device& device) {
  if ((kernel == gemm_kernel::tcatbe) != (shape.layout == matrix_layout::tcatbe)) return false;
  if (kernel == gemm_kernel::warp_mma || kernel == gemm_kernel::tcatbe) return true;
  if (device.shared_bytes < cuda::kBulkSharedBytes) return false;
  return kernel == gemm_kernel::wgmma ? device.compute_major == 9 && device.compute_minor == 0
                                      : device.compute_major == 9 || device.compute_major == 10;
}

/// Tiles that hold all tokens without wasting most of themselves; beyond the largest tile, up to four passes.
bool fits(std::uint32_t n_tile, std::uint64_t n) {
  const std::uint64_t passes = core::ceil_div(n, n_tile);
  return passes <= 4 && n_tile < 4 * std::max<std::uint64_t>(n, 8);
}

}  // namespace

std::vector<gemm_plan> candidate_plans(const cuda::gemm_shape& shape, const cuda::gemm_device& device) {
  std::vector<gemm_plan> plans = {cuda::plan_gemm(shape, device)};
  const auto add = [&](const gemm_plan& plan) {
    if (std::find(plans.begin(), plans.end(), plan) == plans.end()) plans.push_back(plan);
  };
  for (const cuda::compiled_tile& c : cuda::kCompiledTiles) {
    if (!fits(c.tile.tokens, shape.n) || !runs(c.kernel, shape, device)) continue;
    const bool splits = c.kernel == gemm_kernel::bulk_mma || c.kernel == gemm_kernel::wgmma;
    for (const std::uint32_t split : kSplits) {
      if (split == 1 || splits) add(share(c.kernel, c.tile.tokens, c.tile.row_blocks, split, shape, device));
    }
  }
  if (device.has_library && shape.n >= 32) add({.kernel = gemm_kernel::library});
  return plans;
}

}  // namespace tersor::bench
