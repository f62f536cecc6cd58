// Which kernel makes a product, and in what pieces: a pure function of shape and device.
#include <algorithm>
#include <span>

#include "core/checked.hpp"
#include "cuda/gemm/plan_rules.hpp"

namespace tersor::cuda {
namespace {

using core::ceil_div;

constexpr std::uint64_t kMatrixRows = 16;  // of a block
constexpr std::uint64_t kMatrixCols = 128;

std::span<const tile_rule> rules_for(const gemm_shape& shape, const gemm_device& device) noexcept {
  if (shape.layout == matrix_layout::tcatbe) return kTcatbeRules;
  if (device.shared_bytes < kBulkSharedBytes) return kWarpRules;
  if (device.compute_major == 9 && device.compute_minor == 0) return kHopperRules;
  return device.compute_major == 10 ? std::span<const tile_rule>(kBulkRules) : kWarpRules;
}

const tile_rule& rule_for(std::span<const tile_rule> rules, std::uint64_t n) noexcept {
  const auto found =
      std::find_if(rules.begin(), rules.end(), [&](const tile_rule& r) { return n <= r.tile.tokens; });
  return found == rules.end() ? rules.back() : *found;
}

/// CTAs of a cluster. Where row blocks are few, a CTA that has several of them and a part of the columns
/// keeps more warps busy than one with few row blocks and all columns.
std::uint32_t split_for(const tile_rule& rule, const gemm_shape& shape, std::uint64_t row_blocks,
                        std::uint64_t processors) noexcept {
  if (rule.kernel != gemm_kernel::bulk_mma && rule.kernel != gemm_kernel::wgmma) return 1;
  const bool whole_tile = rule.tile.tokens > 16 || (rule.tile.tokens == 16 && shape.cols >= kLongRows);
  const std::uint64_t most_blocks = whole_tile ? rule.tile.row_blocks : 2;
  const std::uint64_t col_blocks = ceil_div(shape.cols, kMatrixCols);
  std::uint32_t split = 1;
  const auto fits = [&](std::uint64_t more) {
    const std::uint64_t owned = ceil_div(row_blocks * more, processors);
    return owned <= most_blocks && ceil_div(row_blocks, owned) * more <= processors &&
           more * kLeastSplitBlocks <= col_blocks;
  };
  while (split < kMostSplit && fits(2 * split)) split *= 2;
  return split;
}

/// Rows shared out evenly: every CTA has the same number of row blocks, or one less.
gemm_plan share_rows(tile_rule rule, const gemm_shape& shape, const gemm_device& device) noexcept {
  const std::uint64_t row_blocks = std::max<std::uint64_t>(1, ceil_div(shape.rows, kMatrixRows));
  const std::uint64_t processors = std::max<std::uint32_t>(1, device.multiprocessors);
  if (shape.groups > 1) {
    // Groups without tokens leave their CTAs idle, so each group is cut as finely as two tiles.
    const std::uint64_t ctas = ceil_div(row_blocks, 2 * rule.tile.row_blocks);
    return {rule.kernel, rule.tile.tokens, rule.tile.row_blocks, static_cast<std::uint32_t>(ctas), 1};
  }
  const std::uint64_t one_each = ceil_div(row_blocks, processors);
  if (rule.kernel == gemm_kernel::wgmma && rule.tile.tokens == 32 && one_each == 3) rule = kThreeRowBlocks;
  const std::uint32_t split = split_for(rule, shape, row_blocks, processors);
  const std::uint64_t owned = ceil_div(row_blocks * split, processors);
  if (rule.kernel == gemm_kernel::bulk_mma && rule.tile == gemm_tile{8, 4} && owned <= 2 && split == 1 &&
      shape.cols >= kLongRows) {
    rule.tile.row_blocks = 2;
  }
  return {rule.kernel, rule.tile.tokens, rule.tile.row_blocks,
          static_cast<std::uint32_t>(ceil_div(row_blocks, owned)), split};
}

}  // namespace

gemm_plan plan_gemm(const gemm_shape& shape, const gemm_device& device) noexcept {
  if (device.compute_major < 8) return {};
  if (device.has_library && shape.groups <= 1 && shape.n > kMostFusedTokens)
    return {.kernel = gemm_kernel::library};
  return share_rows(rule_for(rules_for(shape, device), shape.n), shape, device);
}

}  // namespace tersor::cuda
