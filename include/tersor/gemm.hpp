// Products with packed matrices on an NVIDIA GPU: Y = X W^T from weights that stay compressed.
//
// The rules of tersor/cuda.hpp hold: calls enqueue work on the caller's stream, allocate nothing, wait for
// nothing, can be captured, and act on the current device. Results do not vary from run to run: sums are
// made in a fixed order.
#pragma once

#include <tersor/cuda.hpp>
#include <tersor/packed.hpp>

namespace tersor::cuda {

/// A packed matrix in device memory, 128-byte aligned: the bytes that `tersor::pack` or `pack_async` made.
/// GEMM and unpack trust `info` and check nothing against it on the device but what keeps them inside
/// `info.n_bytes`; `unpack_async` compares the digests.
struct packed_weight {
  matrix_info info;
  const void* data_dev = nullptr;
};

// ---- Plans ----

enum class gemm_kernel : std::uint8_t {
  automatic,  ///< let plan_gemm choose
  warp_mma,   ///< `packed`: mma.sync fed by cp.async; compute capability 8.0 and newer, any alignment of X
  bulk_mma,   ///< `packed`: mma.sync fed by bulk copies; 9.0 and 10.x, X aligned to 16 bytes
  wgmma,      ///< `packed`: wgmma with decoded weights in registers; 9.0, X aligned to 16 bytes
  tcatbe,     ///< ZipServ's scheme on `tcatbe` matrices
  library,    ///< unpack, then cuBLASLt; without bias and accumulation, which it rounds in between
};

/// How a product is made. A plan is a plain value: it can be printed, stored and forced. docs/gemm.md lists
/// the tiles (n_tile x row_blocks) that are compiled.
struct gemm_plan {
  gemm_kernel kernel = gemm_kernel::automatic;
  std::uint32_t n_tile = 0;      ///< tokens of one pass over the weights
  std::uint32_t row_blocks = 0;  ///< blocks of 16 rows that a CTA works on at a time (tcatbe: not used)
  std::uint32_t ctas = 0;        ///< CTAs that share the rows of a matrix
  std::uint32_t split_k = 1;  ///< each of them is a cluster of so many that share the columns: 1, 2, 4 or 8
  [[nodiscard]] friend bool operator==(const gemm_plan&, const gemm_plan&) = default;
};
struct gemm_shape {
  matrix_layout layout = matrix_layout::packed;
  dtype type = dtype::bf16;
  std::uint64_t rows = 0, cols = 0, n = 0;
  std::uint32_t groups = 1;
};
struct gemm_device {
  int compute_major = 9, compute_minor = 0;
  std::uint32_t multiprocessors = 132;
  std::uint32_t shared_bytes = 227 * 1024;  ///< shared memory that a CTA may have
  bool has_library = true;                  ///< cuBLASLt was found
};
/// What this build would run; a pure function, the same on every machine.
[[nodiscard]] gemm_plan plan_gemm(const gemm_shape& shape, const gemm_device& device) noexcept;
/// One line, e.g. "bulk_mma n_tile=8 row_blocks=4 ctas=128 split_k=1"; and back.
[[nodiscard]] std::string to_string(const gemm_plan& plan);
[[nodiscard]] std::optional<gemm_plan> parse_gemm_plan(std::string_view text);
/// The current device as the planner sees it. Errors: `backend_unavailable`.
[[nodiscard]] result<gemm_device> current_gemm_device();

/// Plans that were measured (`tersor tune`); what `find` gives goes into gemm_options::plan.
struct gemm_plan_table {
  struct entry {
    gemm_shape shape;
    gemm_plan plan;
    double time_us = 0;
  };
  std::string device;  ///< name of the GPU
  std::vector<entry> entries;

  /// The plan for these rows, columns, groups, layout and dtype that was measured with the fewest tokens that
  /// are not fewer than `shape.n`.
  [[nodiscard]] std::optional<gemm_plan> find(const gemm_shape& shape) const noexcept;
  [[nodiscard]] std::string to_json() const;
  /// Errors: `malformed`, `unsupported_version`.
  [[nodiscard]] static result<gemm_plan_table> from_json(std::string_view text);
};

// ---- Products ----

struct gemm_options {
  const void* bias_dev = nullptr;  ///< `rows` values of the weight's dtype, added to every row of Y
  bool accumulate = false;         ///< Y += instead of Y =
  /// Programmatic dependent launch: weights are fetched while the kernel before in the stream still runs.
  /// That kernel must not write the packed matrix.
  bool overlap_previous = false;
  gemm_plan plan = {};  ///< automatic, or a plan to force
};

/// Bytes of workspace for gemm_async with these arguments; the plan may be automatic.
[[nodiscard]] std::uint64_t gemm_workspace_size(const gemm_shape& shape, const gemm_plan& plan,
                                                const gemm_device& device) noexcept;

/// Y[n, rows] = X[n, cols] W^T (+ bias) (+ Y), all of the weight's dtype, sums in fp32. X and Y are row-major
/// with `ldx` and `ldy` values from one row to the next (0 = dense); any alignment of a value. Y must not
/// overlap X. Errors: `invalid_argument`, `unsupported` (a forced plan that this device or shape cannot run),
/// `backend_unavailable`, `internal` (the launch failed).
[[nodiscard]] status gemm_async(const packed_weight& w, const void* x_dev, std::uint64_t ldx, void* y_dev,
                                std::uint64_t ldy, std::uint64_t n, const gemm_options& options,
                                const workspace& ws, stream s);

/// Mixture of experts: `n_groups` matrices of the same `info` (n_bytes and overflow counts may differ), each
/// intact (unpack_async tells; a damaged one may lead the kernel to read outside it), and each
/// for its own run of tokens. Group i takes the rows `first_token_dev[i] .. first_token_dev[i + 1]` of X and
/// Y; both arrays are in device memory and are read by the kernel. `max_tokens`: the most tokens that a group
/// may have; more of them are not computed.
struct gemm_groups {
  std::uint32_t n_groups = 0;
  const void* const* weights_dev = nullptr;  ///< `n_groups` addresses of packed matrices, 128-byte aligned
  const std::int32_t* first_token_dev = nullptr;  ///< `n_groups + 1` numbers, ascending
  std::uint64_t max_tokens = 0;
  std::uint64_t n_tokens = 0;  ///< rows of X that may be read; 0 = not known, then only warp_mma can run
};
/// `bias_dev` of the options: n_groups x rows values. Layout `packed` only.
[[nodiscard]] status grouped_gemm_async(const matrix_info& info, const gemm_groups& groups, const void* x_dev,
                                        std::uint64_t ldx, void* y_dev, std::uint64_t ldy,
                                        const gemm_options& options, const workspace& ws, stream s);

// ---- Packing and unpacking on the GPU ----

/// Verdict of packing or unpacking, written once, at the end.
struct matrix_result {
  std::int32_t code = 0;           ///< errc as a number; 0 = good
  std::uint32_t block = kNoChunk;  ///< first block that is not good
  std::uint64_t n_bytes = 0;       ///< packing: size of the packed matrix
};

/// Packs a matrix in device memory (any alignment of a value, `data` of the view is a device span) into
/// `dst_dev` of `capacity` bytes (`pack_bound` always suffices): the bytes that tersor::pack makes. If it
/// does not fit, the code is `destination_too_small` and the header is not valid.
[[nodiscard]] status pack_async(const matrix_view& src_dev, void* dst_dev, std::uint64_t capacity,
                                const pack_options& options, matrix_result* result_dev, const workspace& ws,
                                stream s);
[[nodiscard]] std::uint64_t pack_workspace_size(dtype type, std::uint64_t rows, std::uint64_t cols,
                                                const pack_options& options) noexcept;

/// Unpacks into rows x cols values at `dst_dev` (null: compare the digests only). `result_dev` may be null.
/// Compared are the block digests and what keeps every access inside the matrix; the header's digest is the
/// host's to compare (inspect_packed), gaps and unused places are left to tersor::unpack_into.
[[nodiscard]] status unpack_async(const packed_weight& w, void* dst_dev, matrix_order order,
                                  std::uint64_t stride, matrix_result* result_dev, stream s);

}  // namespace tersor::cuda
