// Packing and unpacking on the GPU: the CPU's bytes, and the source's.
#include <algorithm>
#include <cstring>

#include "gemm_rig.hpp"
#include "kernels.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::dtype;
using tersor::matrix_layout;
using tersor::matrix_order;
using tersor::cuda::matrix_result;

struct placing {
  matrix_order order = matrix_order::row_major;
  std::uint64_t more = 0;    ///< stride beyond the dense one
  std::uint64_t offset = 0;  ///< bytes past an address of cudaMalloc, plus 256
};
constexpr std::array kPlacings = {placing{},
                                  placing{matrix_order::row_major, 3, 2},
                                  placing{matrix_order::column_major, 0, 0},
                                  placing{matrix_order::column_major, 8, 16},
                                  placing{matrix_order::column_major, 1, 6},
                                  placing{matrix_order::row_major, 8, 32}};
constexpr std::uint64_t kBefore = 256, kBehind = 256;

/// Where a matrix lies in a buffer that is 0xee elsewhere.
struct placed_matrix {
  std::uint64_t stride, n_bytes;
  bytes buffer;
};
placed_matrix place(byte_view dense, std::uint64_t rows, std::uint64_t cols, const placing& p) {
  const bool by_rows = p.order == matrix_order::row_major;
  const std::uint64_t inner = by_rows ? cols : rows, outer = by_rows ? rows : cols, stride = inner + p.more;
  placed_matrix m{stride, 2 * ((outer - 1) * stride + inner), {}};
  m.buffer.assign(kBefore + p.offset + m.n_bytes + kBehind, std::byte{0xee});
  std::byte* to = m.buffer.data() + kBefore + p.offset;
  for (std::uint64_t r = 0; r < rows; ++r) {
    for (std::uint64_t c = 0; c < cols; ++c)
      std::memcpy(to + 2 * (by_rows ? r * stride + c : c * stride + r), dense.data() + 2 * (r * cols + c), 2);
  }
  return m;
}

class matrix_rig {
 public:
  matrix_rig(const env& e, section& s) : env_(e), section_(s) {}

  void check(dtype type, std::uint64_t rows, std::uint64_t cols, weights kind, std::uint64_t number,
             matrix_layout layout = matrix_layout::packed) {
    const placing& from = kPlacings[number % kPlacings.size()];
    const placing& to = kPlacings[(number / 2 + 1) % kPlacings.size()];
    constexpr std::array<std::uint32_t, 5> kInline = {0, 8, 64, 256, 1024};
    const tersor::pack_options options{
        .layout = layout,
        .inline_escapes = layout == matrix_layout::packed ? kInline[number % kInline.size()] : 0};
    const bytes dense = make_weights(type, rows, cols, kind, number);
    const bytes packed = cpu_packed(env_.cpu, type, rows, cols, dense, options);
    const std::string what = std::string(tersor::to_string(layout)) + " " +
                             std::string(tersor::to_string(type)) + " " + std::to_string(rows) + " x " +
                             std::to_string(cols) + ", " + to_string(kind) + ", number " +
                             std::to_string(number);
    check_pack(type, rows, cols, place(dense, rows, cols, from), from, packed, options, what);
    check_unpack(packed, place(dense, rows, cols, to), to, what);
    section_.add_values(rows * cols);
  }

 private:
  void check_pack(dtype type, std::uint64_t rows, std::uint64_t cols, const placed_matrix& m,
                  const placing& p, const bytes& packed, const tersor::pack_options& options,
                  const std::string& what) {
    src_.grow(m.buffer.size());
    src_.put(0, m.buffer);
    // Exactly the size that is needed, so that a sanitizer sees a step too far.
    packed_.free();
    packed_.grow(packed.size());
    env_.poison(packed_, 0, packed.size());
    result_.grow(sizeof(matrix_result));
    const auto ws = work_.of(tersor::cuda::pack_workspace_size(type, rows, cols, options));
    const std::span<const std::byte> source(src_.as<std::byte>(kBefore + p.offset), m.n_bytes);
    const auto called = tersor::cuda::pack_async({.type = type,
                                                  .rows = rows,
                                                  .cols = cols,
                                                  .order = p.order,
                                                  .stride = p.more == 0 ? 0 : m.stride,
                                                  .data = source},
                                                 packed_.get(), packed.size(), options,
                                                 result_.as<matrix_result>(), ws, as_stream(stream_.get()));
    env_.wait(stream_.get(), section_, what);
    if (!section_.check(called.has_value(), "pack_async: " + text_of(called), what)) return;
    const matrix_result got = take();
    section_.check(
        got.code == 0 && got.n_bytes == packed.size() && got.block == tersor::cuda::kNoChunk,
        "packing gave code " + std::to_string(got.code) + ", " + std::to_string(got.n_bytes) + " bytes",
        what);
    section_.check(packed_.take(0, packed.size()) == packed, "the packed bytes are not the CPU's", what);
  }

  void check_unpack(const bytes& packed, const placed_matrix& m, const placing& p, const std::string& what) {
    packed_.free();
    packed_.grow(packed.size());
    packed_.put(0, packed);
    dst_.grow(m.buffer.size());
    dst_.fill(0, m.buffer.size(), 0xee);
    const auto called = tersor::cuda::unpack_async(
        {info_of(packed), packed_.get()}, dst_.get() + kBefore + p.offset, p.order,
        p.more == 0 ? 0 : m.stride, result_.as<matrix_result>(), as_stream(stream_.get()));
    env_.wait(stream_.get(), section_, what);
    if (!section_.check(called.has_value(), "unpack_async: " + text_of(called), what)) return;
    const matrix_result got = take();
    section_.check(got.code == 0 && got.block == tersor::cuda::kNoChunk,
                   "unpacking gave code " + std::to_string(got.code) + " block " + std::to_string(got.block),
                   what);
    section_.check(dst_.take(0, m.buffer.size()) == m.buffer, "the matrix or what lies beside it differs",
                   what);
  }

  [[nodiscard]] matrix_result take() const {
    matrix_result got;
    const bytes raw = result_.take(0, sizeof got);
    std::memcpy(&got, raw.data(), sizeof got);
    return got;
  }

  const env& env_;
  section& section_;
  side_stream stream_;
  device_memory src_, packed_, dst_, result_;
  work_memory work_;
};

void conformance(const env& e, section& s) {
  struct size {
    std::uint64_t rows, cols;
  };
  const std::vector<size> sizes =
      e.opt.quick ? std::vector<size>{{17, 129}, {64, 300}}
                  : std::vector<size>{{1, 1},    {1, 128},   {16, 128},   {15, 127},    {17, 129},  {3, 1000},
                                      {1000, 3}, {333, 777}, {2048, 512}, {1001, 3001}, {64, 16384}};
  matrix_rig r(e, s);
  std::uint64_t number = 0;
  for (const dtype type : kWeightTypes) {
    for (const size& at : sizes) {
      for (const weights kind : kWeights) {
        if (e.opt.quick && ++number % 2 == 0) continue;
        r.check(type, at.rows, at.cols, kind, ++number);
        if (type == dtype::bf16) r.check(type, at.rows, at.cols, kind, number, matrix_layout::tcatbe);
      }
    }
  }
  // Many blocks: their overflow is placed by several CTAs.
  if (!e.opt.quick) {
    r.check(dtype::bf16, 4097, 12301, weights::all_escapes, 12);
    r.check(dtype::bf16, 8192, 8192, weights::trained, 18);
    r.check(dtype::f16, 4096, 4096, weights::all_escapes, 24);
    r.check(dtype::bf16, 8192, 8192, weights::trained, 30, matrix_layout::tcatbe);
  }
}

/// Damaged matrices: nothing outside is touched, and what is accepted holds the right values.
class damage_rig {
 public:
  damage_rig(const env& e, section& s) : env_(e), section_(s) {}

  void fire(const test_weight& w, bytes bad, std::uint64_t number, const std::string& what) {
    packed_.free();
    packed_.grow(bad.size());
    packed_.put(0, bad);
    const std::uint64_t y_bytes = 2 * kTokens * w.rows;
    dst_.grow(w.dense.size() + 2 * kGuardBytes);
    dst_.fill(0, dst_.size(), kGuard);
    x_.grow(2 * kTokens * w.cols);
    x_.fill(0, x_.size(), 0);
    y_.grow(y_bytes + 2 * kGuardBytes);
    y_.fill(0, y_.size(), kGuard);
    result_.grow(sizeof(matrix_result));
    unpack(w, what);
    const auto device = tersor::cuda::current_gemm_device();
    if (!section_.check(device.has_value(), "current_gemm_device", what)) return;
    tersor::cuda::gemm_plan plan;
    if (number % 2 == 1 && w.layout == tersor::matrix_layout::packed)
      plan = {.kernel = tersor::cuda::gemm_kernel::wgmma, .n_tile = 64, .row_blocks = 4, .ctas = 4};
    const auto ws = work_.of(tersor::cuda::gemm_workspace_size(
        {.layout = w.layout, .type = w.type, .rows = w.rows, .cols = w.cols, .n = kTokens}, plan, *device));
    const auto called = tersor::cuda::gemm_async({w.info, packed_.get()}, x_.get(), 0, y_.get() + kGuardBytes,
                                                 0, kTokens, {.plan = plan}, ws, as_stream(stream_.get()));
    env_.wait(stream_.get(), section_, what);
    section_.check(called || called.error().code == tersor::errc::unsupported,
                   "gemm_async: " + text_of(called), what);
    section_.check(y_.holds(0, kGuardBytes, kGuard) && y_.holds(kGuardBytes + y_bytes, kGuardBytes, kGuard),
                   "the product of a damaged matrix wrote beside Y", what);
  }
  [[nodiscard]] std::uint64_t n_shown() const noexcept { return n_shown_; }

 private:
  static constexpr std::uint64_t kTokens = 6;

  void unpack(const test_weight& w, const std::string& what) {
    const auto called = tersor::cuda::unpack_async({w.info, packed_.get()}, dst_.get() + kGuardBytes,
                                                   tersor::matrix_order::row_major, 0,
                                                   result_.as<matrix_result>(), as_stream(stream_.get()));
    env_.wait(stream_.get(), section_, what);
    if (!section_.check(called.has_value(), "unpack_async: " + text_of(called), what)) return;
    matrix_result got;
    const bytes raw = result_.take(0, sizeof got);
    std::memcpy(&got, raw.data(), sizeof got);
    section_.check(
        dst_.holds(0, kGuardBytes, kGuard) &&
            dst_.holds(kGuardBytes + w.dense.size(), dst_.size() - kGuardBytes - w.dense.size(), kGuard),
        "unpacking a damaged matrix wrote beside the destination", what);
    if (got.code == 0) {
      section_.check(dst_.take(kGuardBytes, w.dense.size()) == w.dense, "wrong values passed as good", what);
      return;
    }
    ++n_shown_;
    const bool known = got.code == static_cast<std::int32_t>(tersor::errc::digest_mismatch) ||
                       got.code == static_cast<std::int32_t>(tersor::errc::malformed);
    const std::uint64_t n_blocks = w.layout == matrix_layout::packed
                                       ? (w.rows + 15) / 16 * ((w.cols + 127) / 128)
                                       : (w.rows + 63) / 64 * ((w.cols + 63) / 64);
    section_.check(known && got.block < n_blocks,
                   "code " + std::to_string(got.code) + " block " + std::to_string(got.block), what);
  }

  const env& env_;
  section& section_;
  side_stream stream_;
  device_memory packed_, dst_, x_, y_, result_;
  work_memory work_;
  std::uint64_t n_shown_ = 0;
};

bytes make_bad(const test_weight& w, prng& random, std::uint64_t number) {
  bytes bad = w.packed;
  const std::uint64_t from = 128, n = bad.size() - from;
  switch (number % 4) {
    case 0:  // one bit
      bad[from + random.below(n)] ^= std::byte{1} << static_cast<int>(random.below(8));
      break;
    case 1:  // a run
      for (std::uint64_t at = from + random.below(n), i = 0; i < 300 && at + i < bad.size(); ++i)
        bad[at + i] = static_cast<std::byte>(random.next());
      break;
    case 2:  // everything
      for (std::uint64_t at = from; at < bad.size(); ++at) bad[at] = static_cast<std::byte>(random.next());
      break;
    default:  // all ones somewhere: counts and offsets at their largest
      for (std::uint64_t at = from + random.below(n), i = 0;
           i < 16 + random.below(5000) && at + i < bad.size(); ++i)
        bad[at + i] = std::byte{0xff};
  }
  return bad;
}

void damage(const env& e, section& s) {
  damage_rig r(e, s);
  prng random(1);
  const std::uint64_t rounds = e.pick<std::uint64_t>(12, 1500);
  std::uint64_t fired = 0;
  for (const dtype type : kWeightTypes) {
    for (const tersor::matrix_layout layout :
         {tersor::matrix_layout::packed, tersor::matrix_layout::tcatbe}) {
      if (type == dtype::f16 && layout == tersor::matrix_layout::tcatbe) continue;
      for (const weights kind : {weights::trained, weights::all_escapes}) {
        const test_weight w(e, type, 70, 304, kind, 1, {.layout = layout});
        for (std::uint64_t i = 0; i < rounds / 2; ++i) {
          r.fire(w, make_bad(w, random, i), i, w.label() + " damaged, number " + std::to_string(i));
          ++fired;
        }
      }
    }
  }
  s.check(r.n_shown() > fired / 2,
          "damage went unseen too often: " + std::to_string(r.n_shown()) + " of " + std::to_string(fired));
  s.note(std::to_string(r.n_shown()) + " of " + std::to_string(fired) +
         " damaged matrices refused, the others held the right values");
}

}  // namespace

void run_matrices(const env& e, section& s) {
  conformance(e, s);
}
void run_matrix_damage(const env& e, section& s) {
  damage(e, s);
}

}  // namespace gpu_test
