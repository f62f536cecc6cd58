// gemm_async and grouped_gemm_async: argument checks, plans, launches.
#include <algorithm>

#include "codec/packed_matrix.hpp"
#include "core/checked.hpp"
#include "cuda/gemm/library_gemm.hpp"
#include "cuda/gemm/matrix_checks.hpp"
#include "cuda/gemm/plan_rules.hpp"
#include "cuda/gemm/tcatbe_launch.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda {
namespace {

using codec_detail::packed_geometry;

/// Rows, columns and tokens are counted in 32 bits on the device.
constexpr std::uint64_t kMostCounted = std::uint64_t{1} << 31;
constexpr std::uint64_t kPartAlignment = 256;  // of the workspace's parts

/// What one call multiplies, after its arguments were checked.
struct product {
  matrix_info info;
  gemm_operands op;
  gemm_plan plan = {};
  std::uint32_t groups = 1;
  std::uint64_t x_rows = 0;
  bool overlap_previous = false;
};

struct context_of_call {
  const gpu_backend& backend;
  gemm_device device;
  workspace ws;
  stream s;
};

gemm_shape shape_of(const product& p) {
  return {p.info.layout, p.info.type, p.info.rows, p.info.cols, p.op.n_tokens, p.groups};
}

bool needs_aligned_x(gemm_kernel kernel) {
  return kernel == gemm_kernel::bulk_mma || kernel == gemm_kernel::wgmma;
}

bool is_aligned(const void* p, std::uint64_t n_bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % n_bytes == 0;
}

status check_operands(const matrix_info& info, const void* x, std::uint64_t& ldx, void* y, std::uint64_t& ldy,
                      std::uint64_t n, const void* bias) {
  if (ldx == 0) ldx = info.cols;
  if (ldy == 0) ldy = info.rows;
  if (ldx < info.cols || ldy < info.rows)
    return fail(errc::invalid_argument, "ldx or ldy is less than a row");
  if (info.rows >= kMostCounted || info.cols >= kMostCounted || n >= kMostCounted)
    return fail(errc::unsupported, "more rows, columns or tokens than a GPU counts");
  if (!core::checked_mul(n, ldx) || !core::checked_mul(n, ldy))
    return fail(errc::size_overflow, "the sizes of X or Y leave 64 bits");
  if (n != 0 && (x == nullptr || y == nullptr)) return fail(errc::invalid_argument, "X or Y is null");
  if (!is_aligned(x, 2) || !is_aligned(y, 2) || !is_aligned(bias, 2))
    return fail(errc::invalid_argument, "X, Y or the bias is not aligned to its values");
  return {};
}

/// The plan to run: the caller's, or the planner's; and whether it can run here.
status settle_plan(product& p, const gemm_plan& asked, const gemm_device& device) {
  p.plan = asked;
  // cuBLASLt rounds to the output's type before it adds a bias or Y.
  const bool library = device.has_library && p.op.bias == nullptr && p.op.accumulate == 0;
  const bool x_ready = p.op.x_aligned != 0 && p.x_rows != 0;
  if (asked.kernel == gemm_kernel::automatic) {
    gemm_device as = device;
    as.has_library = library;
    if (!x_ready && p.info.layout == matrix_layout::packed)
      as.shared_bytes = std::min(as.shared_bytes, kBulkSharedBytes - 1);
    p.plan = plan_gemm(shape_of(p), as);
  }
  if (p.plan.kernel == gemm_kernel::automatic)
    return fail(errc::unsupported, "the GPU is older than compute capability 8.0");
  const gemm_plan& plan = p.plan;
  if (plan.kernel == gemm_kernel::library) {
    if (p.groups > 1 || p.op.weight_table != nullptr)
      return fail(errc::unsupported, "groups are not for the library");
    if (!library)
      return fail(errc::unsupported, "cuBLASLt was not found, or there is a bias or a sum to add to");
    return {};
  }
  const bool is_tcatbe = plan.kernel == gemm_kernel::tcatbe;
  if (is_tcatbe != (p.info.layout == matrix_layout::tcatbe))
    return fail(errc::unsupported, "the plan is for another layout");
  const bool compiled =
      std::any_of(std::begin(kCompiledTiles), std::end(kCompiledTiles), [&](const compiled_tile& c) {
        return c.kernel == plan.kernel && c.tile.tokens == plan.n_tile &&
               (is_tcatbe || c.tile.row_blocks == plan.row_blocks);
      });
  if (!compiled) return fail(errc::unsupported, "the plan's tile is not in this build: " + to_string(plan));
  const bool hopper = device.compute_major == 9 && device.compute_minor == 0;
  if (needs_aligned_x(plan.kernel)) {
    if (device.shared_bytes < kBulkSharedBytes ||
        (plan.kernel == gemm_kernel::wgmma ? !hopper : device.compute_major < 9)) {
      return fail(errc::unsupported, "the plan's kernel does not run on this GPU");
    }
    if (!x_ready) {
      return fail(errc::unsupported,
                  "the plan's kernel wants X and ldx aligned to 16 bytes, and its rows known");
    }
  }
  const std::uint32_t most_split = needs_aligned_x(plan.kernel) ? 8 : 1;
  if (plan.ctas == 0 || plan.split_k == 0 || plan.split_k > most_split ||
      (plan.split_k & (plan.split_k - 1)) != 0 ||
      !core::checked_mul(plan.ctas, std::uint64_t{plan.split_k}) ||
      std::uint64_t{plan.ctas} * plan.split_k >= kMostCounted) {
    return fail(errc::unsupported, "the plan's CTAs or split_k are out of range: " + to_string(plan));
  }
  return {};
}

bulk_gemm_launch plan_launch(const product& p) {
  bulk_gemm_launch launch;
  launch.op = p.op;
  launch.sections = {p.info.blocks_at, p.info.overflow_at, p.info.n_overflow, p.info.block_bytes,
                     p.info.inline_escapes};
  launch.row_blocks = static_cast<std::uint32_t>(core::ceil_div(p.info.rows, packed_geometry::kRows));
  launch.col_blocks = static_cast<std::uint32_t>(core::ceil_div(p.info.cols, packed_geometry::kCols));
  launch.ctas = std::min(p.plan.ctas, launch.row_blocks);
  launch.split_k = p.plan.split_k;
  launch.overlap_previous = p.overlap_previous ? 1 : 0;
  launch.x_rows = p.x_rows;
  return launch;
}

std::uint32_t tcatbe_ctas(const matrix_info& info, std::uint32_t n_tile, const gemm_device& device) {
  const auto sections = codec_detail::make_tcatbe_sections(info.rows, info.cols);
  return tcatbe_gemm_ctas(sections.n_tiles, n_tile, device.multiprocessors, device.shared_bytes);
}

status run_tcatbe(const context_of_call& c, product p) {
  const std::uint32_t n_tile = p.plan.n_tile;
  tcatbe_gemm_launch launch;
  launch.matrix =
      make_tcatbe_matrix(p.info.rows, p.info.cols, p.info.overflow_at, p.info.n_bytes, p.info.first_symbol);
  launch.n_tile = n_tile;
  launch.ctas = tcatbe_ctas(p.info, n_tile, c.device);
  launch.partials = static_cast<float*>(c.ws.data_dev);
  const std::uint32_t n = p.op.n_tokens;
  for (std::uint32_t first = 0; first < n; first += n_tile) {
    launch.op = p.op;
    launch.op.x += 2 * first * p.op.ldx;
    launch.op.y += 2 * first * p.op.ldy;
    launch.op.n_tokens = std::min(n_tile, n - first);
    TERSOR_CHECK(check_launch(c.backend, c.backend.tcatbe_gemm(launch, c.s), "multiplying"));
  }
  return {};
}

std::uint64_t unpacked_bytes(const gemm_shape& shape) {
  return core::align_up(2 * shape.rows * shape.cols, kPartAlignment);
}

status run_library(const context_of_call& c, const product& p, const void* x, void* y) {
  const library_gemm* library = library_gemm::find();
  if (library == nullptr) return fail(errc::unsupported, "cuBLASLt was not found");
  auto* const plain = static_cast<std::byte*>(c.ws.data_dev);
  const packed_weight weight = {p.info, p.op.weights};
  TERSOR_CHECK(unpack_async(weight, plain, matrix_order::row_major, 0, nullptr, c.s));
  const std::uint64_t taken = unpacked_bytes(shape_of(p));
  const library_product product = {.type = p.info.type,
                                   .rows = p.info.rows,
                                   .cols = p.info.cols,
                                   .n = p.op.n_tokens,
                                   .w_dev = plain,
                                   .x_dev = x,
                                   .ldx = p.op.ldx,
                                   .y_dev = y,
                                   .ldy = p.op.ldy};
  return check_launch(c.backend, library->multiply(product, plain + taken, c.ws.n_bytes - taken, c.s),
                      "multiplying");
}

std::uint64_t workspace_bytes(const gemm_shape& shape, const gemm_plan& plan,
                              const gemm_device& device) noexcept {
  switch (plan.kernel) {
    case gemm_kernel::library:
      return unpacked_bytes(shape) + library_gemm::kWorkspaceBytes;
    case gemm_kernel::tcatbe: {
      matrix_info info;
      info.rows = shape.rows;
      info.cols = shape.cols;
      return tcatbe_partial_bytes(tcatbe_ctas(info, plan.n_tile, device), plan.n_tile);
    }
    default:
      return 0;
  }
}

status run(const context_of_call& c, const product& p, const void* x, void* y) {
  const std::uint64_t needed = workspace_bytes(shape_of(p), p.plan, c.device);
  if (needed != 0) TERSOR_CHECK(check_workspace(c.ws, needed));
  switch (p.plan.kernel) {
    case gemm_kernel::library:
      return run_library(c, p, x, y);
    case gemm_kernel::tcatbe:
      return run_tcatbe(c, p);
    default:
      return check_launch(c.backend,
                          c.backend.gemm(p.plan.kernel, p.info.type, plan_launch(p),
                                         {p.plan.n_tile, p.plan.row_blocks}, p.groups, c.s),
                          "multiplying");
  }
}

gemm_operands operands(const matrix_info& info, const void* x, std::uint64_t ldx, void* y, std::uint64_t ldy,
                       std::uint64_t n, const gemm_options& options) {
  gemm_operands op;
  op.x = static_cast<const std::uint8_t*>(x);
  op.y = static_cast<std::uint8_t*>(y);
  op.bias = static_cast<const std::uint8_t*>(options.bias_dev);
  op.ldx = ldx;
  op.ldy = ldy;
  op.rows = static_cast<std::uint32_t>(info.rows);
  op.cols = static_cast<std::uint32_t>(info.cols);
  op.n_tokens = static_cast<std::uint32_t>(n);
  op.accumulate = options.accumulate ? 1 : 0;
  op.x_aligned = is_aligned(x, 16) && ldx % 8 == 0 ? 1 : 0;
  return op;
}

}  // namespace

result<gemm_device> current_gemm_device() {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  gemm_device device;
  const gpu_error error = backend->limits(device);
  if (error != 0) {
    return fail(errc::backend_unavailable,
                std::string("no CUDA device is current: ") + backend->error_text(error));
  }
  device.has_library = library_gemm::find() != nullptr;
  return device;
}

std::uint64_t gemm_workspace_size(const gemm_shape& shape, const gemm_plan& plan,
                                  const gemm_device& device) noexcept {
  return workspace_bytes(shape, plan.kernel == gemm_kernel::automatic ? plan_gemm(shape, device) : plan,
                         device);
}

status gemm_async(const packed_weight& w, const void* x_dev, std::uint64_t ldx, void* y_dev,
                  std::uint64_t ldy, std::uint64_t n, const gemm_options& options, const workspace& ws,
                  stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_CHECK(check_matrix(w.info));
  TERSOR_CHECK(check_packed_address(w.data_dev));
  TERSOR_CHECK(check_operands(w.info, x_dev, ldx, y_dev, ldy, n, options.bias_dev));
  TERSOR_TRY(const gemm_device device, current_gemm_device());
  product p = {.info = w.info,
               .op = operands(w.info, x_dev, ldx, y_dev, ldy, n, options),
               .x_rows = n,
               .overlap_previous = options.overlap_previous};
  p.op.weights = static_cast<const std::uint8_t*>(w.data_dev);
  if (n == 0) return {};
  TERSOR_CHECK(settle_plan(p, options.plan, device));
  return run({*backend, device, ws, s}, p, x_dev, y_dev);
}

status grouped_gemm_async(const matrix_info& info, const gemm_groups& groups, const void* x_dev,
                          std::uint64_t ldx, void* y_dev, std::uint64_t ldy, const gemm_options& options,
                          const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  if (info.layout != matrix_layout::packed)
    return fail(errc::unsupported, "groups are for the layout packed only");
  TERSOR_CHECK(check_matrix(info));
  constexpr std::uint32_t kMostGroups = 65535;  // of a grid's second dimension
  if (groups.n_groups > kMostGroups) return fail(errc::unsupported, "more than 65,535 groups");
  if (groups.n_groups != 0 && (groups.weights_dev == nullptr || groups.first_token_dev == nullptr))
    return fail(errc::invalid_argument, "the groups' matrices or tokens are null");
  TERSOR_CHECK(check_operands(info, x_dev, ldx, y_dev, ldy, groups.max_tokens, options.bias_dev));
  TERSOR_TRY(const gemm_device device, current_gemm_device());
  product p = {.info = info,
               .op = operands(info, x_dev, ldx, y_dev, ldy, groups.max_tokens, options),
               .groups = groups.n_groups,
               .x_rows = groups.n_tokens,
               .overlap_previous = options.overlap_previous};
  // Every group has as many escapes beside its blocks as its own matrix says; the kernel only keeps inside 32
  // bits.
  p.info.n_overflow = 0xffffffffu;
  p.op.weight_table = reinterpret_cast<const std::uint8_t* const*>(groups.weights_dev);
  p.op.first_token = groups.first_token_dev;
  if (groups.n_groups == 0 || groups.max_tokens == 0) return {};
  TERSOR_CHECK(settle_plan(p, options.plan, device));
  return run({*backend, device, ws, s}, p, x_dev, y_dev);
}

}  // namespace tersor::cuda
