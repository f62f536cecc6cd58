// Products on the GPU, one at a time, in buffers that are kept from call to call.
#pragma once

#include "gemm_kernels.hpp"
#include "matrix_data.hpp"
#include <tersor/gemm.hpp>

namespace gpu_test {

/// A weight, as it is and packed, on the host and on the device.
struct test_weight {
  tersor::dtype type = tersor::dtype::bf16;
  tersor::matrix_layout layout = tersor::matrix_layout::packed;
  std::uint64_t rows = 0, cols = 0;
  bytes dense, packed;
  tersor::matrix_info info;
  device_memory dense_dev, packed_dev;

  test_weight(const env& e, tersor::dtype t, std::uint64_t r, std::uint64_t c, weights kind,
              std::uint64_t seed, const tersor::pack_options& options = {});
  [[nodiscard]] tersor::cuda::packed_weight on_device() const { return {info, packed_dev.get()}; }
  [[nodiscard]] std::string label() const;
};

struct product_args {
  std::uint64_t n = 1;
  tersor::cuda::gemm_plan plan = {};
  bool bias = false, accumulate = false, overlap_previous = false;
  std::uint64_t more_x = 0, more_y = 0;      ///< values of the strides beyond the dense ones
  std::uint64_t x_offset = 0, y_offset = 0;  ///< bytes past an address of cudaMalloc
  bool one_hot = false;  ///< X is rows of the identity: all weights, `n` columns at a time
  std::uint64_t seed = 1;
};

class gemm_rig {
 public:
  gemm_rig(const env& e, section& s) : env_(e), section_(s) {}

  /// Makes a product and compares it. False if the plan cannot run here (`unsupported`), which is counted.
  bool check(const test_weight& w, const product_args& args, std::string_view where);
  /// Every weight, bit for bit, with `n` tokens a call; `more_x` should make rows of X end at 16 bytes where
  /// a kernel wants that.
  void check_every_weight(const test_weight& w, product_args args, std::string_view where);
  [[nodiscard]] const tersor::cuda::gemm_device& device();
  [[nodiscard]] section& log() const noexcept { return section_; }
  [[nodiscard]] std::uint64_t n_unsupported() const noexcept { return n_unsupported_; }

 private:
  struct places {
    std::uint64_t ldx, ldy, y_values, lead;
  };
  places prepare(const test_weight& w, const product_args& args, std::uint64_t first_column);
  bool run(const test_weight& w, const product_args& args, std::uint64_t first_column,
           std::string_view where);
  void judge(const test_weight& w, const product_args& args, const places& p, std::uint64_t first_column,
             std::string_view where);

  const env& env_;
  section& section_;
  side_stream stream_;
  device_memory x_, y_, y_before_, bias_, verdict_;
  work_memory work_;
  tersor::result<tersor::cuda::gemm_device> device_ = tersor::cuda::gemm_device{};
  bool has_device_ = false;
  std::uint64_t n_unsupported_ = 0;
};

/// Plans that may be forced: every kernel, n_tile, row_blocks and split. Many are not compiled.
[[nodiscard]] std::vector<tersor::cuda::gemm_plan> all_plans(tersor::matrix_layout layout,
                                                             std::uint32_t ctas);

}  // namespace gpu_test
