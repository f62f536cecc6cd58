#include "gemm_rig.hpp"

#include <algorithm>
#include <cstring>

namespace gpu_test {

using tersor::dtype;
using tersor::errc;
using tersor::matrix_layout;
using tersor::cuda::gemm_kernel;
using tersor::cuda::gemm_plan;

namespace {

/// Values before and behind Y that nobody may touch.
constexpr std::uint64_t kGuardValues = 1024;

}  // namespace

test_weight::test_weight(const env& e, dtype t, std::uint64_t r, std::uint64_t c, weights kind,
                         std::uint64_t seed, const tersor::pack_options& options)
    : type(t),
      layout(options.layout),
      rows(r),
      cols(c),
      dense(make_weights(t, r, c, kind, seed)),
      packed(cpu_packed(e.cpu, t, r, c, dense, options)),
      info(info_of(packed)),
      dense_dev(dense.size()),
      packed_dev(packed.size()) {
  dense_dev.put(0, dense);
  packed_dev.put(0, packed);
}

std::string test_weight::label() const {
  return std::string(tersor::to_string(layout)) + " " + std::string(tersor::to_string(type)) + " " +
         std::to_string(rows) + " x " + std::to_string(cols);
}

const tersor::cuda::gemm_device& gemm_rig::device() {
  if (!has_device_) device_ = tersor::cuda::current_gemm_device();
  if (!device_) throw std::runtime_error("no GEMM device: " + device_.error().describe());
  has_device_ = true;
  return *device_;
}

gemm_rig::places gemm_rig::prepare(const test_weight& w, const product_args& args,
                                   std::uint64_t first_column) {
  places p{.ldx = w.cols + args.more_x, .ldy = w.rows + args.more_y, .y_values = 0, .lead = 0};
  p.lead = kGuardValues + args.y_offset / 2;
  p.y_values = p.lead + args.n * p.ldy + kGuardValues;
  x_.grow(args.x_offset + 2 * args.n * p.ldx + 2);
  auto* x = reinterpret_cast<std::uint16_t*>(x_.get() + args.x_offset);
  if (args.one_hot) {
    // What lies between the rows of X is not a number: it must not be multiplied.
    x_.fill(0, x_.size(), 0xff);
    launch_make_one_hot(x, p.ldx, w.cols, args.n, first_column, w.type == dtype::f16, stream_.get());
  } else {
    bytes tokens = make_tokens(w.type, args.n * p.ldx, args.seed);
    for (std::uint64_t i = 0; i < args.n && args.more_x != 0; ++i)
      std::memset(tokens.data() + 2 * (i * p.ldx + w.cols), 0xff, 2 * args.more_x);
    x_.put(args.x_offset, tokens);
  }
  y_before_.grow(2 * p.y_values);
  y_.grow(2 * p.y_values);
  const bytes before = make_tokens(w.type, p.y_values, args.seed + 1);
  y_before_.put(0, before);
  y_.put(0, before);
  bias_.grow(2 * w.rows);
  if (args.bias) bias_.put(0, make_tokens(w.type, w.rows, args.seed + 2));
  return p;
}

bool gemm_rig::run(const test_weight& w, const product_args& args, std::uint64_t first_column,
                   std::string_view where) {
  const places p = prepare(w, args, first_column);
  const tersor::cuda::gemm_options options{.bias_dev = args.bias ? bias_.get() : nullptr,
                                           .accumulate = args.accumulate,
                                           .overlap_previous = args.overlap_previous,
                                           .plan = args.plan};
  const tersor::cuda::gemm_shape shape{
      .layout = w.layout, .type = w.type, .rows = w.rows, .cols = w.cols, .n = args.n};
  const auto ws = work_.of(tersor::cuda::gemm_workspace_size(shape, args.plan, device()));
  const auto called = tersor::cuda::gemm_async(
      w.on_device(), x_.get() + args.x_offset, args.more_x == 0 ? 0 : p.ldx, y_.as<std::uint16_t>() + p.lead,
      args.more_y == 0 ? 0 : p.ldy, args.n, options, ws, as_stream(stream_.get()));
  if (!called && called.error().code == errc::unsupported) {
    ++n_unsupported_;
    return false;
  }
  env_.wait(stream_.get(), section_, where);
  if (section_.check(called.has_value(), "gemm_async: " + text_of(called), where))
    judge(w, args, p, first_column, where);
  return true;
}

void gemm_rig::judge(const test_weight& w, const product_args& args, const places& p,
                     std::uint64_t first_column, std::string_view where) {
  const made_product made{.w = w.dense_dev.as<std::uint16_t>(),
                          .x = reinterpret_cast<const std::uint16_t*>(x_.get() + args.x_offset),
                          .y = y_.as<std::uint16_t>() + p.lead,
                          .y_before = y_before_.as<std::uint16_t>() + p.lead,
                          .bias = args.bias ? bias_.as<std::uint16_t>() : nullptr,
                          .ldx = p.ldx,
                          .ldy = p.ldy,
                          .rows = w.rows,
                          .cols = w.cols,
                          .n = args.n,
                          .half = w.type == dtype::f16,
                          .accumulate = args.accumulate};
  const product_verdict fresh;
  verdict_.grow(sizeof fresh + 8);
  verdict_.fill(0, sizeof fresh + 8, 0);
  verdict_.put(0, std::as_bytes(std::span(&fresh, 1)));
  if (args.one_hot) {
    launch_check_one_hot(made, first_column, verdict_.as<product_verdict>(), stream_.get());
  } else {
    launch_check_product(made, verdict_.as<product_verdict>(), stream_.get());
  }
  launch_check_untouched(y_.as<std::uint16_t>(), y_before_.as<std::uint16_t>(), p.y_values, p.lead, p.ldy,
                         w.rows, args.n, verdict_.as<unsigned long long>(sizeof fresh), stream_.get());
  env_.wait(stream_.get(), section_, where);
  product_verdict got;
  const bytes raw = verdict_.take(0, sizeof got + 8);
  std::memcpy(&got, raw.data(), sizeof got);
  std::uint64_t touched = 0;
  std::memcpy(&touched, raw.data() + sizeof got, 8);
  if (got.n_bad != 0) {
    section_.check(false,
                   std::to_string(got.n_bad) + " outputs are wrong, first: token " +
                       std::to_string(got.first_bad / w.rows) + " row " +
                       std::to_string(got.first_bad % w.rows) + ", worst error " + std::to_string(got.worst),
                   where);
  } else {
    section_.check(true, "outputs", where);
  }
  section_.check(touched == 0, std::to_string(touched) + " values beside the outputs were written", where);
  section_.add_values(args.n * w.rows);
}

bool gemm_rig::check(const test_weight& w, const product_args& args, std::string_view where) {
  return run(w, args, 0, where);
}

void gemm_rig::check_every_weight(const test_weight& w, product_args args, std::string_view where) {
  args.one_hot = true;
  const std::uint64_t each = args.n;
  for (std::uint64_t first = 0; first < w.cols; first += each) {
    args.n = std::min(each, w.cols - first);
    if (!run(w, args, first, where)) return;
  }
}

std::vector<gemm_plan> all_plans(matrix_layout layout, std::uint32_t ctas) {
  std::vector<gemm_plan> plans;
  const auto add = [&](gemm_kernel kernel, std::initializer_list<std::uint32_t> tiles,
                       std::initializer_list<std::uint32_t> rows,
                       std::initializer_list<std::uint32_t> splits) {
    for (const std::uint32_t tile : tiles) {
      for (const std::uint32_t row_blocks : rows) {
        for (const std::uint32_t split : splits) {
          plans.push_back({.kernel = kernel,
                           .n_tile = tile,
                           .row_blocks = row_blocks,
                           .ctas = std::max(1u, ctas / split),
                           .split_k = split});
        }
      }
    }
  };
  if (layout == matrix_layout::packed) {
    add(gemm_kernel::warp_mma, {8, 16, 32}, {1, 2, 3, 4}, {1});
    add(gemm_kernel::bulk_mma, {8, 16, 32}, {2, 3, 4}, {1, 2, 4, 8});
    add(gemm_kernel::wgmma, {16, 32, 64, 128}, {4, 8}, {1, 2, 4, 8});
  } else {
    add(gemm_kernel::tcatbe, {8, 16, 32, 64, 128}, {4}, {1});
  }
  plans.push_back({.kernel = gemm_kernel::library});
  return plans;
}

}  // namespace gpu_test
