#include <algorithm>
#include <cmath>
#include <tuple>

#include "gemm_bench.hpp"

namespace tersor::bench {
namespace {

struct named_sizes {
  std::string_view name;
  std::vector<gemm_size> sizes;
};

const std::vector<named_sizes>& all_sizes() {
  static const std::vector<named_sizes> kAll = {
      {"targets", {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}, {57344, 8192}, {8192, 28672}}},
      {"llama-3.1-8b", {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}}},
      {"llama-3.1-70b", {{10240, 8192}, {8192, 8192}, {57344, 8192}, {8192, 28672}}},
      {"llama-3.1-405b", {{18432, 16384}, {16384, 16384}, {106496, 16384}, {16384, 53248}}},
      {"qwen3-8b", {{6144, 4096}, {4096, 4096}, {24576, 4096}, {4096, 12288}}},
      {"qwen3-14b", {{7168, 5120}, {5120, 5120}, {34816, 5120}, {5120, 17408}}},
      {"qwen3-32b", {{10240, 5120}, {5120, 8192}, {51200, 5120}, {5120, 25600}}},
  };
  return kAll;
}

}  // namespace

std::vector<gemm_size> gemm_sizes_of(std::string_view name) {
  for (const named_sizes& named : all_sizes()) {
    if (named.name == name) return named.sizes;
  }
  return {};
}

std::vector<std::string> gemm_size_names() {
  std::vector<std::string> names;
  for (const named_sizes& named : all_sizes()) names.emplace_back(named.name);
  return names;
}

status check_gemm_options(const gemm_bench_options& o) {
  if (o.sizes.empty() || o.n.empty() || o.layouts.empty() || o.repeats == 0) {
    return fail(errc::invalid_argument, "shapes, numbers of tokens, layouts and repeats must be given");
  }
  constexpr std::uint64_t kMostSide = std::uint64_t{1} << 24, kMostTokens = 65536;
  for (const gemm_size& size : o.sizes) {
    if (size.rows == 0 || size.cols == 0 || size.rows > kMostSide || size.cols > kMostSide) {
      return fail(errc::invalid_argument, "M and K must be between 1 and 2^24");
    }
  }
  for (const std::uint64_t n : o.n) {
    if (n == 0 || n > kMostTokens) return fail(errc::invalid_argument, "N must be between 1 and 65536");
  }
  if (o.type != dtype::bf16 && o.type != dtype::f16) {
    return fail(errc::invalid_argument, "weights are bf16 or f16");
  }
  if (o.input && o.type != dtype::bf16) return fail(errc::invalid_argument, "an input has BF16 weights");
  return {};
}

double gemm_row::tflop_s() const noexcept {
  if (time_us <= 0) return 0;
  const double n_products =
      static_cast<double>(size.rows) * static_cast<double>(size.cols) * static_cast<double>(n);
  return 2 * n_products / (time_us * 1e6);
}

std::vector<gemm_summary> summaries_of(std::span<const gemm_row> rows) {
  std::vector<gemm_summary> all;
  for (const gemm_row& row : rows) {
    const auto speedup = row.speedup();
    if (!speedup || row.wrong || !row.failure.empty()) continue;
    auto found = std::find_if(all.begin(), all.end(), [&](const gemm_summary& s) {
      return s.n == row.n && s.layout == row.layout && s.pdl == row.pdl;
    });
    if (found == all.end()) {
      found = all.insert(all.end(), {.n = row.n, .layout = row.layout, .pdl = row.pdl, .least = *speedup});
    }
    // The sum of logarithms until the end.
    found->geomean += std::log(*speedup);
    found->least = std::min(found->least, *speedup);
    ++found->n_rows;
  }
  for (gemm_summary& s : all) s.geomean = std::exp(s.geomean / static_cast<double>(s.n_rows));
  std::stable_sort(all.begin(), all.end(), [](const gemm_summary& a, const gemm_summary& b) {
    return std::tuple(a.layout, a.pdl, a.n) < std::tuple(b.layout, b.pdl, b.n);
  });
  return all;
}

}  // namespace tersor::bench
