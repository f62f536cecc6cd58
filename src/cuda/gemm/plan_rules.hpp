// The numbers behind plan_gemm. Measured ones belong here and nowhere else.
#pragma once

#include "cuda/gemm/gemm_launch.hpp"
#include <tersor/gemm.hpp>

namespace tersor::cuda {

/// Tiles that are compiled (warp_gemm.cu, bulk_gemm.cu, group_gemm.cu, tcatbe_gemm.cu).
struct compiled_tile {
  gemm_kernel kernel;
  gemm_tile tile;
};
inline constexpr compiled_tile kCompiledTiles[] = {
    {gemm_kernel::warp_mma, {8, 2}},  {gemm_kernel::warp_mma, {8, 4}},  {gemm_kernel::warp_mma, {16, 2}},
    {gemm_kernel::warp_mma, {32, 2}}, {gemm_kernel::bulk_mma, {8, 2}},  {gemm_kernel::bulk_mma, {8, 3}},
    {gemm_kernel::bulk_mma, {8, 4}},  {gemm_kernel::bulk_mma, {16, 2}}, {gemm_kernel::bulk_mma, {16, 4}},
    {gemm_kernel::bulk_mma, {32, 3}}, {gemm_kernel::wgmma, {32, 4}},    {gemm_kernel::wgmma, {64, 4}},
    {gemm_kernel::wgmma, {128, 4}},   {gemm_kernel::tcatbe, {8, 4}},    {gemm_kernel::tcatbe, {16, 4}},
    {gemm_kernel::tcatbe, {32, 4}},   {gemm_kernel::tcatbe, {64, 4}},   {gemm_kernel::tcatbe, {128, 4}},
};

/// The tile of a number of tokens: the first rule that holds them, else the last one, in passes over the
/// weights.
struct tile_rule {
  gemm_kernel kernel;
  gemm_tile tile;
};
inline constexpr tile_rule kHopperRules[] = {
    {gemm_kernel::bulk_mma, {8, 4}}, {gemm_kernel::bulk_mma, {16, 4}}, {gemm_kernel::wgmma, {32, 4}},
    {gemm_kernel::wgmma, {64, 4}},   {gemm_kernel::wgmma, {128, 4}},
};
/// Up to 32 tokens where every CTA has just three row blocks: a fourth team would stand idle.
inline constexpr tile_rule kThreeRowBlocks = {gemm_kernel::bulk_mma, {32, 3}};
/// Compute capability 10.x.
inline constexpr tile_rule kBulkRules[] = {
    {gemm_kernel::bulk_mma, {8, 4}}, {gemm_kernel::bulk_mma, {16, 4}}, {gemm_kernel::bulk_mma, {32, 3}}};
inline constexpr tile_rule kWarpRules[] = {
    {gemm_kernel::warp_mma, {8, 4}}, {gemm_kernel::warp_mma, {16, 2}}, {gemm_kernel::warp_mma, {32, 2}}};
inline constexpr tile_rule kTcatbeRules[] = {{gemm_kernel::tcatbe, {8, 4}},
                                             {gemm_kernel::tcatbe, {16, 4}},
                                             {gemm_kernel::tcatbe, {32, 4}},
                                             {gemm_kernel::tcatbe, {64, 4}},
                                             {gemm_kernel::tcatbe, {128, 4}}};

/// Matrices with at least so many columns keep their warps busy with few row blocks.
inline constexpr std::uint64_t kLongRows = 8192;
/// Tokens from which unpacking pays, since the product costs more than reading the weights.
inline constexpr std::uint64_t kMostFusedTokens = 256;
/// CTAs that share columns, at most: larger clusters find no room on all multiprocessors at once.
inline constexpr std::uint32_t kMostSplit = 4;
/// Blocks of 128 columns that a CTA of a split should have at least.
inline constexpr std::uint64_t kLeastSplitBlocks = 8;
/// What bulk_mma and wgmma are built for.
inline constexpr std::uint32_t kBulkSharedBytes = 227 * 1024;

}  // namespace tersor::cuda
