// Grouped products (mixture of experts) against double precision, and wrong arguments of all GEMM calls.
#include <algorithm>
#include <cstring>
#include <memory>

#include "error_cases.hpp"
#include "gemm_rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::dtype;
using tersor::errc;
using tersor::cuda::gemm_kernel;

constexpr std::uint64_t kGuardValues = 512;

/// Experts of one shape and their tokens.
struct experts {
  std::vector<std::unique_ptr<test_weight>> all;
  std::vector<std::int32_t> first_token;
  device_memory addresses, first_token_dev;

  experts(const env& e, dtype type, std::uint64_t rows, std::uint64_t cols,
          const std::vector<std::int32_t>& tokens, std::uint64_t seed) {
    std::vector<const void*> at;
    first_token.push_back(0);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const weights kind = i % 3 == 1 ? weights::all_escapes : weights::trained;
      all.push_back(std::make_unique<test_weight>(e, type, rows, cols, kind, seed + i));
      at.push_back(all.back()->packed_dev.get());
      first_token.push_back(first_token.back() + tokens[i]);
    }
    addresses.grow(at.size() * sizeof at[0]);
    addresses.put(0, std::as_bytes(std::span(at)));
    first_token_dev.grow(first_token.size() * 4);
    first_token_dev.put(0, std::as_bytes(std::span(first_token)));
  }
  [[nodiscard]] std::uint64_t n_tokens() const { return static_cast<std::uint64_t>(first_token.back()); }
};

struct grouped_buffers {
  device_memory x, y, before, bias, verdict;
  std::uint64_t ldx, ldy, y_values;
};

grouped_buffers make_buffers(const experts& ex, std::uint64_t more, std::uint64_t seed) {
  const test_weight& w = *ex.all[0];
  grouped_buffers b{.x = {},
                    .y = {},
                    .before = {},
                    .bias = {},
                    .verdict = {},
                    .ldx = (w.cols + 7) / 8 * 8 + more / 2,
                    .ldy = w.rows + more,
                    .y_values = 0};
  b.y_values = 2 * kGuardValues + ex.n_tokens() * b.ldy;
  b.x.grow(2 * ex.n_tokens() * b.ldx + 2);
  b.x.put(0, make_tokens(w.type, ex.n_tokens() * b.ldx, seed));
  const bytes before = make_tokens(w.type, b.y_values, seed + 1);
  b.y.grow(2 * b.y_values);
  b.y.put(0, before);
  b.before.grow(2 * b.y_values);
  b.before.put(0, before);
  b.bias.grow(2 * w.rows * ex.all.size());
  b.bias.put(0, make_tokens(w.type, w.rows * ex.all.size(), seed + 2));
  b.verdict.grow(sizeof(product_verdict) + 8);
  const product_verdict fresh;
  b.verdict.fill(0, sizeof fresh + 8, 0);
  b.verdict.put(0, std::as_bytes(std::span(&fresh, 1)));
  return b;
}

void judge(const env& e, section& s, const experts& ex, const grouped_buffers& b, bool bias, bool accumulate,
           cudaStream_t stream, const std::string& what) {
  const test_weight& w = *ex.all[0];
  for (std::size_t i = 0; i < ex.all.size(); ++i) {
    const auto first = static_cast<std::uint64_t>(ex.first_token[i]);
    const std::uint64_t n = static_cast<std::uint64_t>(ex.first_token[i + 1]) - first;
    if (n == 0) continue;
    const std::uint64_t at = kGuardValues + first * b.ldy;
    launch_check_product({.w = ex.all[i]->dense_dev.as<std::uint16_t>(),
                          .x = b.x.as<std::uint16_t>() + first * b.ldx,
                          .y = b.y.as<std::uint16_t>() + at,
                          .y_before = b.before.as<std::uint16_t>() + at,
                          .bias = bias ? b.bias.as<std::uint16_t>() + i * w.rows : nullptr,
                          .ldx = b.ldx,
                          .ldy = b.ldy,
                          .rows = w.rows,
                          .cols = w.cols,
                          .n = n,
                          .half = w.type == dtype::f16,
                          .accumulate = accumulate},
                         b.verdict.as<product_verdict>(), stream);
  }
  launch_check_untouched(b.y.as<std::uint16_t>(), b.before.as<std::uint16_t>(), b.y_values, kGuardValues,
                         b.ldy, w.rows, ex.n_tokens(),
                         b.verdict.as<unsigned long long>(sizeof(product_verdict)), stream);
  e.wait(stream, s, what);
  product_verdict got;
  const bytes raw = b.verdict.take(0, sizeof got + 8);
  std::memcpy(&got, raw.data(), sizeof got);
  std::uint64_t touched = 0;
  std::memcpy(&touched, raw.data() + sizeof got, 8);
  s.check(got.n_bad == 0,
          std::to_string(got.n_bad) + " outputs of groups are wrong, worst " + std::to_string(got.worst),
          what);
  s.check(touched == 0, std::to_string(touched) + " values beside the outputs were written", what);
  s.add_values(ex.n_tokens() * w.rows);
}

void check_groups(const env& e, section& s, const experts& ex, std::uint64_t number,
                  const std::string& what) {
  const side_stream stream;
  const test_weight& w = *ex.all[0];
  const std::uint64_t more = number % 3;
  const bool bias = number % 2 == 0, accumulate = number % 4 == 3;
  const grouped_buffers b = make_buffers(ex, more, number);
  std::int32_t most = 1;
  for (std::size_t i = 0; i < ex.all.size(); ++i)
    most = std::max(most, ex.first_token[i + 1] - ex.first_token[i]);
  const tersor::cuda::gemm_groups groups{.n_groups = static_cast<std::uint32_t>(ex.all.size()),
                                         .weights_dev = ex.addresses.as<const void*>(),
                                         .first_token_dev = ex.first_token_dev.as<std::int32_t>(),
                                         .max_tokens = static_cast<std::uint64_t>(most),
                                         .n_tokens = ex.n_tokens()};
  const tersor::cuda::gemm_options options{.bias_dev = bias ? b.bias.get() : nullptr,
                                           .accumulate = accumulate};
  const auto device = tersor::cuda::current_gemm_device();
  if (!s.check(device.has_value(), "current_gemm_device", what)) return;
  work_memory work;
  const auto ws = work.of(tersor::cuda::gemm_workspace_size(
      {.type = w.type, .rows = w.rows, .cols = w.cols, .n = groups.max_tokens, .groups = groups.n_groups}, {},
      *device));
  const auto called = tersor::cuda::grouped_gemm_async(w.info, groups, b.x.get(), b.ldx,
                                                       b.y.as<std::uint16_t>() + kGuardValues, b.ldy, options,
                                                       ws, as_stream(stream.get()));
  e.wait(stream.get(), s, what);
  if (s.check(called.has_value(), "grouped_gemm_async: " + text_of(called), what))
    judge(e, s, ex, b, bias, accumulate, stream.get(), what);
}

void wrong_arguments(const env& e, section& s) {
  const test_weight w(e, dtype::bf16, 64, 256, weights::trained, 1);
  device_memory x(2 * 4 * 256), y(2 * 4 * 64), before(2 * 4 * 64);
  y.fill(0, y.size(), kGuard);
  before.fill(0, before.size(), kGuard);
  work_memory work;
  const auto ws = work.of(1 << 20);
  const auto call = [&](const tersor::cuda::packed_weight& weight, const void* from, std::uint64_t ldx,
                        void* to, std::uint64_t ldy, std::uint64_t n,
                        const tersor::cuda::gemm_options& options = {}) {
    return tersor::cuda::gemm_async(weight, from, ldx, to, ldy, n, options, ws, nullptr);
  };
  const auto good = w.on_device();
  auto bent = good;
  bent.info.n_bytes += 128;
  const auto kArgument = {errc::invalid_argument};
  expect_error(s, call({good.info, nullptr}, x.get(), 0, y.get(), 0, 4), kArgument, "no weight");
  expect_error(s, call({good.info, w.packed_dev.get() + 64}, x.get(), 0, y.get(), 0, 4), kArgument,
               "weight not aligned");
  expect_error(s, call(good, nullptr, 0, y.get(), 0, 4), kArgument, "no X");
  expect_error(s, call(good, x.get(), 0, nullptr, 0, 4), kArgument, "no Y");
  expect_error(s, call(good, x.get() + 1, 0, y.get(), 0, 4), kArgument, "X between values");
  expect_error(s, call(good, x.get(), 255, y.get(), 0, 4), kArgument, "rows of X overlap");
  expect_error(s, call(good, x.get(), 0, y.get(), 63, 4), kArgument, "rows of Y overlap");
  s.check(call(good, nullptr, 0, nullptr, 0, 0).has_value(), "no tokens are no error");
  expect_error(s, call(bent, x.get(), 0, y.get(), 0, 4), kArgument, "an info that contradicts itself");
  expect_error(s,
               call(good, x.get(), 0, y.get(), 0, 4,
                    {.plan = {.kernel = gemm_kernel::tcatbe, .n_tile = 8, .row_blocks = 4, .ctas = 1}}),
               {errc::unsupported, errc::invalid_argument}, "a kernel of another layout");
  expect_error(s,
               call(good, x.get(), 0, y.get(), 0, 4,
                    {.plan = {.kernel = gemm_kernel::warp_mma, .n_tile = 7, .row_blocks = 1, .ctas = 1}}),
               {errc::unsupported, errc::invalid_argument}, "a tile that is not compiled");
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  s.check(y.holds(0, y.size(), kGuard), "a refused call wrote");
}

}  // namespace

void run_gemm_groups(const env& e, section& s) {
  const std::vector<std::vector<std::int32_t>> tokens = {
      {1}, {0, 3, 0, 9}, {5, 5, 5, 5, 5, 5, 5, 5}, {33, 1, 0, 17, 2, 70, 8, 1, 0}, {0, 0, 1}, {300, 2, 129}};
  std::uint64_t number = 0;
  for (const dtype type : kWeightTypes) {
    for (const auto& each : tokens) {
      ++number;
      if (e.opt.quick && number % 3 != 1) continue;
      const experts ex(e, type, number % 2 == 0 ? 96 : 333, number % 3 == 0 ? 128 : 515, each, number);
      check_groups(e, s, ex, number,
                   ex.all[0]->label() + ", " + std::to_string(each.size()) + " groups, number " +
                       std::to_string(number));
    }
  }
  wrong_arguments(e, s);
}

}  // namespace gpu_test
