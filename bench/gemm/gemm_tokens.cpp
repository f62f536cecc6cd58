#include <algorithm>
#include <cmath>
#include <limits>

#include "gemm_env.hpp"

namespace tersor::bench {
namespace {

constexpr std::uint64_t kValueBytes = 2;
// Of one reference: products, and outputs that are read back.
constexpr std::uint64_t kMostProducts = std::uint64_t{1} << 33, kMostOutputs = std::uint64_t{1} << 21;

/// Rows spread over the weight, first and last among them, at changing places within their blocks; all rows
/// if that is not too much work.
std::vector<std::uint64_t> sample_rows(const gemm_size& size, std::uint64_t n) {
  const std::uint64_t by_work = kMostProducts / std::max<std::uint64_t>(1, size.cols * n);
  const std::uint64_t most = std::max<std::uint64_t>(2, std::min(by_work, kMostOutputs / n));
  std::vector<std::uint64_t> rows;
  const std::uint64_t count = std::min(size.rows, most);
  for (std::uint64_t i = 0; i < count; ++i) {
    rows.push_back(count == 1 ? 0 : i * (size.rows - 1) / (count - 1));
  }
  return rows;
}

gemm_error error_between(const std::vector<double>& got, const std::vector<double>& want) {
  double squares = 0, difference_squares = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    squares += want[i] * want[i];
    difference_squares += (got[i] - want[i]) * (got[i] - want[i]);
  }
  const double rms = std::sqrt(squares / static_cast<double>(want.size()));
  gemm_error e{.rms = squares > 0 ? std::sqrt(difference_squares / squares) : std::sqrt(difference_squares)};
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double distance = std::abs(got[i] - want[i]);
    if (distance > 0) e.max = std::max(e.max, distance / (std::abs(want[i]) + rms));
  }
  return e;
}

}  // namespace

bool is_wrong(dtype type, const gemm_error& got, const std::optional<gemm_error>& library) noexcept {
  // Half a unit in the last place is 2^-8 of a BF16 value at most, 2^-11 of an FP16 one; sums in fp32 add
  // little.
  const double unit = type == dtype::f16 ? 0x1p-11 : 0x1p-8;
  const double rms = library ? 1.02 * library->rms + 1e-6 : unit;
  const double max = std::max(1.1 * unit, library ? 1.5 * library->max : 0.0);
  // Written so that what is no number is wrong.
  return !(got.rms <= rms && got.max <= max);
}

result<gemm_tokens> gemm_tokens::create(const gemm_env& env, const gemm_matrix& matrix, std::uint64_t n) {
  gemm_tokens t;
  t.size_ = matrix.size();
  t.type_ = env.options.type;
  t.n_ = n;
  t.n_slots_ = matrix.n_slots();
  TERSOR_CHECK(t.x_.allocate(t.n_slots_, n * t.size_.cols * kValueBytes));
  TERSOR_CHECK(t.y_.allocate(t.n_slots_, n * t.size_.rows * kValueBytes));
  TERSOR_CHECK(
      launched(launch_make_tokens(t.type_, t.x_.at(0), n * t.size_.cols, env.get()), "making tokens"));
  TERSOR_CHECK(env.stream.wait());
  TERSOR_CHECK(t.x_.repeat_first(t.n_slots_));
  TERSOR_CHECK(t.count_.allocate());

  const std::vector<std::uint64_t> rows = sample_rows(t.size_, n);
  t.n_sample_rows_ = rows.size();
  t.want_.resize(rows.size() * n);
  TERSOR_TRY(t.sample_rows_, device_buffer::allocate(rows.size() * sizeof(std::uint64_t)));
  TERSOR_TRY(t.gathered_, device_buffer::allocate(t.want_.size() * sizeof(double)));
  TERSOR_CHECK(upload(t.sample_rows_.data(), std::as_bytes(std::span(rows))));
  TERSOR_CHECK(launched(launch_reference(t.sample(), matrix.plain(0), t.x(0),
                                         reinterpret_cast<double*>(t.gathered_.data()), env.get()),
                        "reference"));
  TERSOR_CHECK(env.stream.wait());
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(t.want_)), t.gathered_.data()));
  return t;
}

gemm_sample gemm_tokens::sample() const noexcept {
  return {.type = type_,
          .rows_dev = reinterpret_cast<const std::uint64_t*>(sample_rows_.data()),
          .n_rows = n_sample_rows_,
          .rows = size_.rows,
          .cols = size_.cols,
          .n = n_};
}

status gemm_tokens::poison() const {
  for (std::uint64_t slot = 0; slot < n_slots_; ++slot) {
    TERSOR_CHECK(cuda_ok(cudaMemset(y_.at(slot), 0xff, y_.slot_bytes()), "fill"));
  }
  return cuda_ok(cudaDeviceSynchronize(), "fill");
}

result<gemm_error> gemm_tokens::error_of_first(const gemm_env& env) const {
  TERSOR_CHECK(launched(launch_count_not_finite(type_, y(0), n_ * size_.rows, count_.get(), env.get()),
                        "looking at Y"));
  TERSOR_CHECK(launched(launch_gather(sample(), y(0), reinterpret_cast<double*>(gathered_.data()), env.get()),
                        "looking at Y"));
  TERSOR_TRY(const std::uint64_t n_not_finite, count_.take(env.stream));
  if (n_not_finite != 0) {
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    return gemm_error{kInfinite, kInfinite};
  }
  std::vector<double> got(want_.size());
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(got)), gathered_.data()));
  return error_between(got, want_);
}

result<bool> gemm_tokens::all_equal(const gemm_env& env) const {
  for (std::uint64_t slot = 1; slot < n_slots_; ++slot) {
    TERSOR_CHECK(launched(launch_count_differences(y(slot), y(0), n_ * size_.rows, count_.get(), env.get()),
                          "comparing"));
  }
  TERSOR_TRY(const std::uint64_t n_differences, count_.take(env.stream));
  return n_differences == 0;
}

}  // namespace tersor::bench
