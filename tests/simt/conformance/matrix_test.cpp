// Packing and unpacking matrices through the kernels and through the CPU: the same bytes.
#include <cstring>

#include <gtest/gtest.h>

#include "simt/random.hpp"
#include "twin_data.hpp"
#include <tersor/gemm.hpp>

namespace {

using namespace twin;
using tersor::dtype;
using tersor::matrix_order;
using tersor::cuda::matrix_result;

struct shape {
  std::uint64_t rows, cols;
};
constexpr std::array kShapes = {shape{1, 1},   shape{16, 128}, shape{17, 129}, shape{15, 127}, shape{33, 300},
                                shape{3, 700}, shape{200, 16}, shape{64, 256}, shape{40, 8}};
struct packed_as {
  dtype type;
  tersor::matrix_layout layout;
};
constexpr std::array kPackedAs = {packed_as{dtype::bf16, tersor::matrix_layout::packed},
                                  packed_as{dtype::f16, tersor::matrix_layout::packed},
                                  packed_as{dtype::bf16, tersor::matrix_layout::tcatbe}};
tersor::pack_options options_of(const packed_as& how, std::uint32_t inline_escapes) {
  const bool takes_places = how.layout == tersor::matrix_layout::packed;
  return {.layout = how.layout, .inline_escapes = takes_places ? inline_escapes : 0};
}

/// Where and how a matrix lies.
struct placing {
  matrix_order order = matrix_order::row_major;
  std::uint64_t more = 0;  ///< stride beyond the dense one
  std::size_t offset = 0;  ///< bytes past a multiple of 256
};
constexpr std::array kPlacings = {placing{},
                                  placing{matrix_order::row_major, 3, 2},
                                  placing{matrix_order::column_major, 0, 0},
                                  placing{matrix_order::column_major, 8, 0},
                                  placing{matrix_order::column_major, 1, 6},
                                  placing{matrix_order::row_major, 8, 16}};

std::uint64_t inner_of(const shape& s, matrix_order order) {
  return order == matrix_order::row_major ? s.cols : s.rows;
}
std::uint64_t outer_of(const shape& s, matrix_order order) {
  return order == matrix_order::row_major ? s.rows : s.cols;
}
std::uint64_t placed_bytes(const shape& s, const placing& p) {
  return 2 * ((outer_of(s, p.order) - 1) * (inner_of(s, p.order) + p.more) + inner_of(s, p.order));
}

/// A dense row-major matrix as it lies elsewhere; what lies between its rows or columns is 0xee.
bytes placed(byte_view dense, const shape& s, const placing& p) {
  bytes out(placed_bytes(s, p), std::byte{0xee});
  const std::uint64_t stride = inner_of(s, p.order) + p.more;
  for (std::uint64_t r = 0; r < s.rows; ++r) {
    for (std::uint64_t c = 0; c < s.cols; ++c) {
      const std::uint64_t at = p.order == matrix_order::row_major ? r * stride + c : c * stride + r;
      std::memcpy(out.data() + 2 * at, dense.data() + 2 * (r * s.cols + c), 2);
    }
  }
  return out;
}

tersor::matrix_view view_of(dtype type, const shape& s, const placing& p, byte_view data) {
  return {.type = type,
          .rows = s.rows,
          .cols = s.cols,
          .order = p.order,
          .stride = p.more == 0 ? 0 : inner_of(s, p.order) + p.more,
          .data = data};
}

bytes cpu_packed(dtype type, const shape& s, byte_view dense, const tersor::pack_options& options) {
  const auto packed = tersor::pack(cpu(), view_of(type, s, {}, dense), options);
  if (!packed) throw std::runtime_error(packed.error().describe());
  return *packed;
}

struct packing {
  tersor::status call;
  matrix_result result;
  bytes packed;
};
packing pack(device& d, dtype type, const shape& s, const placing& p, byte_view dense,
             const tersor::pack_options& options, std::uint64_t capacity) {
  const bytes source = placed(dense, s, p);
  const auto* src = d.upload(source, "matrix", p.offset);
  auto* dst = d.reserve(capacity, "packed");
  auto* result = d.reserve_array<matrix_result>(1, "result");
  const std::uint64_t n = tersor::cuda::pack_workspace_size(type, s.rows, s.cols, options);
  const tersor::cuda::workspace ws{d.reserve(n, "workspace"), n};
  packing out{tersor::cuda::pack_async(view_of(type, s, p, {src, source.size()}), dst, capacity, options,
                                       result, ws, nullptr),
              {},
              {}};
  if (!out.call) return out;
  out.result = d.download_value(result);
  if (out.result.code == 0) out.packed = d.download(dst, out.result.n_bytes);
  return out;
}

struct unpacking {
  tersor::status call;
  matrix_result result;
};
/// Runs on a device of its own; compares with `dense` where the verdict is good.
unpacking unpack(std::uint64_t seed, const tersor::matrix_info& info, byte_view packed, const placing& p,
                 byte_view dense) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 2));
  const shape s{info.rows, info.cols};
  const tersor::cuda::packed_weight w{info, d.upload(packed, "packed")};
  // Bytes between rows or columns are not device memory that was written: reading them back would fail.
  auto* dst = d.reserve(placed_bytes(s, p), "destination", p.offset);
  auto* result = d.reserve_array<matrix_result>(1, "result");
  const std::uint64_t stride = p.more == 0 ? 0 : inner_of(s, p.order) + p.more;
  unpacking out{tersor::cuda::unpack_async(w, dst, p.order, stride, result, nullptr), {}};
  if (!out.call) return out;
  out.result = d.download_value(result);
  if (out.result.code != 0) return out;
  const bytes want = placed(dense, s, p);
  const std::uint64_t step = inner_of(s, p.order) + p.more;
  for (std::uint64_t o = 0; o < outer_of(s, p.order); ++o) {
    const bytes line = d.download(dst + 2 * o * step, 2 * inner_of(s, p.order));
    const std::string where = difference(line, byte_view(want).subspan(2 * o * step, line.size()));
    EXPECT_EQ(where, "") << "line " << o;
    if (!where.empty()) break;
    if (p.more != 0 && o + 1 < outer_of(s, p.order)) {
      EXPECT_FALSE(d.is_written(dst + 2 * (o * step + inner_of(s, p.order))));
    }
  }
  return out;
}

std::string name_of(dtype type, const shape& s, std::size_t place, const char* data) {
  return std::string(tersor::to_string(type)) + " " + std::to_string(s.rows) + " x " +
         std::to_string(s.cols) + " placing " + std::to_string(place) + " " + data;
}

void check_both_ways(const packed_as& how, const shape& s, byte_view dense, std::size_t place,
                     std::uint32_t inline_escapes, std::uint64_t seed) {
  const dtype type = how.type;
  const tersor::pack_options options = options_of(how, inline_escapes);
  const bytes want = cpu_packed(type, s, dense, options);
  {
    device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
    const packing got =
        pack(d, type, s, kPlacings[place], dense, options, seed % 2 == 0 ? want.size() : want.size() + 12345);
    ASSERT_TRUE(got.call.has_value()) << got.call.error().describe();
    EXPECT_EQ(got.result.code, 0);
    EXPECT_EQ(got.result.block, tersor::cuda::kNoChunk);
    ASSERT_EQ(got.result.n_bytes, want.size());
    ASSERT_EQ(difference(got.packed, want), "");
  }
  const auto info = tersor::inspect_packed(want);
  ASSERT_TRUE(info.has_value()) << info.error().describe();
  const unpacking back = unpack(seed + 7, *info, want, kPlacings[(place + 1) % kPlacings.size()], dense);
  ASSERT_TRUE(back.call.has_value()) << back.call.error().describe();
  EXPECT_EQ(back.result.code, 0);
  EXPECT_EQ(back.result.block, tersor::cuda::kNoChunk);
}

class matrices : public testing::TestWithParam<packed_as> {};

TEST_P(matrices, every_shape_and_kind) {
  constexpr std::array<std::uint32_t, 5> kInline = {0, 8, 48, 512, 1024};
  std::uint64_t number = 0;
  for (const shape& s : kShapes) {
    for (const kind k : kKinds) {
      if (left_out(++number, 5)) continue;
      const std::size_t place = number % kPlacings.size();
      SCOPED_TRACE(name_of(GetParam().type, s, place, to_string(k)));
      const bytes dense = make_data(GetParam().type, s.rows * s.cols, k, number);
      check_both_ways(GetParam(), s, dense, place, kInline[number % kInline.size()], number);
      if (HasFailure()) return;
    }
  }
}

/// One exponent alone, the all-ones one among them: padding takes the other code there.
TEST_P(matrices, one_value_repeated) {
  constexpr std::array<std::uint16_t, 7> kValues = {0x0000, 0x8000, 0xffff, 0x7f80, 0x7c00, 0x0001, 0x3c00};
  for (const std::uint16_t value : kValues) {
    const shape s{19, 140};
    bytes dense(2 * s.rows * s.cols);
    for (std::size_t i = 0; i < dense.size(); i += 2) std::memcpy(dense.data() + i, &value, 2);
    SCOPED_TRACE(value);
    check_both_ways(GetParam(), s, dense, value % 6, 0, value);
    if (HasFailure()) return;
  }
}

TEST_P(matrices, what_does_not_fit_is_said) {
  const bool has_blocks = GetParam().layout == tersor::matrix_layout::packed;
  const shape s{32, 256};
  const bytes dense = make_data(GetParam().type, s.rows * s.cols, kind::uniform_exponents, 5);
  const bytes want = cpu_packed(GetParam().type, s, dense, options_of(GetParam(), 8));
  const auto info = tersor::inspect_packed(want);
  ASSERT_TRUE(info.has_value());
  // Before the values are known: no overflow; no value at all.
  const std::uint64_t least = has_blocks ? want.size() - (info->n_overflow * 4 + 127) / 128 * 128
                                         : (info->digests_at + 8 * 4 + 127) / 128 * 128;
  for (const std::uint64_t capacity : {least - 128, least - 1, least, want.size() - 128, want.size() - 1}) {
    device d(capacity);
    const packing got = pack(d, GetParam().type, s, {}, dense, options_of(GetParam(), 8), capacity);
    SCOPED_TRACE(capacity);
    if (capacity < least) {
      ASSERT_FALSE(got.call.has_value());
      EXPECT_EQ(got.call.error().code, tersor::errc::destination_too_small);
    } else {
      ASSERT_TRUE(got.call.has_value()) << got.call.error().describe();
      EXPECT_EQ(got.result.code, static_cast<int>(tersor::errc::destination_too_small));
      EXPECT_EQ(got.result.n_bytes, want.size());
    }
  }
}

/// Any damage behind the header: no access outside, and either a verdict or the right values.
TEST_P(matrices, damage_stays_inside_and_shows) {
  simt::random random(3);
  std::uint64_t shown = 0;
  const std::uint64_t n_rounds = kSlow ? 40 : 240;
  for (std::uint64_t i = 0; i < n_rounds; ++i) {
    const shape s = kShapes[i % kShapes.size()];
    const bytes dense = make_data(GetParam().type, s.rows * s.cols, kKinds[i % kKinds.size()], i);
    const bytes good = cpu_packed(GetParam().type, s, dense, options_of(GetParam(), i % 3 == 0 ? 8 : 0));
    const auto info = tersor::inspect_packed(good);
    ASSERT_TRUE(info.has_value());
    bytes bad = good;
    const std::size_t n_bytes = 1 + random.below(i % 2 == 0 ? 2 : 200);
    const std::size_t at = 128 + random.below(bad.size() - 128);
    for (std::size_t k = 0; k < n_bytes && at + k < bad.size(); ++k)
      bad[at + k] = static_cast<std::byte>(random.next());
    const unpacking got = unpack(i, *info, bad, kPlacings[i % kPlacings.size()], dense);
    ASSERT_TRUE(got.call.has_value()) << got.call.error().describe();
    if (got.result.code == 0) continue;
    ++shown;
    EXPECT_TRUE(got.result.code == static_cast<int>(tersor::errc::digest_mismatch) ||
                got.result.code == static_cast<int>(tersor::errc::malformed));
    const bool has_blocks = GetParam().layout == tersor::matrix_layout::packed;
    const std::uint64_t n_blocks = has_blocks ? ((s.rows + 15) / 16) * ((s.cols + 127) / 128)
                                              : ((s.rows + 63) / 64) * ((s.cols + 63) / 64);
    EXPECT_LT(got.result.block, n_blocks);
    // Overflow entries may belong to any block.
    if (has_blocks && at + n_bytes <= 128 + n_blocks * info->block_bytes) {
      EXPECT_GE(got.result.block, (at - 128) / info->block_bytes);
      EXPECT_LE(got.result.block, (at + n_bytes - 129) / info->block_bytes);
    }
  }
  EXPECT_GT(shown, n_rounds / 3);
}

/// Heads that point everywhere.
TEST_P(matrices, hostile_heads_stay_inside) {
  if (GetParam().layout != tersor::matrix_layout::packed) GTEST_SKIP() << "there are no heads";
  const shape s{32, 256};
  const bytes dense = make_data(GetParam().type, s.rows * s.cols, kind::heavy_tails, 4);
  const bytes good = cpu_packed(GetParam().type, s, dense, {});
  const auto info = tersor::inspect_packed(good);
  ASSERT_TRUE(info.has_value());
  const std::uint64_t head = 128 + info->block_bytes + info->block_bytes - 2 * info->inline_escapes - 16;
  struct counts {
    std::uint16_t n_inline, n_overflow;
    std::uint32_t first;
  };
  const auto too_many = static_cast<std::uint16_t>(info->inline_escapes + 1);
  const std::array all_counts = {
      counts{0xffff, 0, 0},   counts{0, 0xffff, 0},     counts{0xffff, 0xffff, 0xffffffff},
      counts{too_many, 0, 0}, counts{0, 1, 0xffffffff}, counts{2000, 2000, 5}};
  for (const counts& c : all_counts) {
    bytes bad = good;
    std::memcpy(bad.data() + head + 8, &c, sizeof c);
    const unpacking got = unpack(c.n_inline, *info, bad, {}, dense);
    ASSERT_TRUE(got.call.has_value()) << got.call.error().describe();
    EXPECT_EQ(got.result.code, static_cast<int>(tersor::errc::malformed));
    EXPECT_EQ(got.result.block, 1u);
  }
}

/// Overflow of more blocks than one CTA places.
TEST_P(matrices, many_blocks) {
  if (kSlow) GTEST_SKIP() << "too slow in this build";
  const shape s{16 * 33, 128 * 32};
  const bytes dense = make_data(GetParam().type, s.rows * s.cols, kind::heavy_tails, 8);
  check_both_ways(GetParam(), s, dense, 0, 8, 5);
}

INSTANTIATE_TEST_SUITE_P(twin, matrices, testing::ValuesIn(kPackedAs), [](const auto& one) {
  return std::string(tersor::to_string(one.param.layout)) + "_" +
         std::string(tersor::to_string(one.param.type));
});

TEST(matrix_calls, arguments) {
  device d;
  const shape s{20, 200};
  const bytes dense = make_data(dtype::bf16, s.rows * s.cols, kind::normal);
  const bytes packed = cpu_packed(dtype::bf16, s, dense, {});
  const auto info = tersor::inspect_packed(packed);
  ASSERT_TRUE(info.has_value());
  auto* at = d.upload(packed, "packed");
  auto* dst = d.reserve(2 * s.rows * s.cols, "destination");
  const auto code = [&](const tersor::cuda::packed_weight& w, void* to, std::uint64_t stride) {
    const auto status = tersor::cuda::unpack_async(w, to, matrix_order::row_major, stride, nullptr, nullptr);
    return status ? tersor::errc::ok : status.error().code;
  };
  EXPECT_EQ(code({*info, at}, dst, 0), tersor::errc::ok);
  EXPECT_EQ(code({*info, at}, nullptr, 0), tersor::errc::ok);
  EXPECT_EQ(code({*info, nullptr}, dst, 0), tersor::errc::invalid_argument);
  EXPECT_EQ(code({*info, at + 16}, dst, 0), tersor::errc::invalid_argument);
  EXPECT_EQ(code({*info, at}, dst + 1, 0), tersor::errc::invalid_argument);
  EXPECT_EQ(code({*info, at}, dst, 199), tersor::errc::invalid_argument);
  auto other = *info;
  other.n_overflow += 1000;
  EXPECT_EQ(code({other, at}, dst, 0), tersor::errc::invalid_argument);
  other = *info;
  other.rows = 0;
  EXPECT_EQ(code({other, at}, dst, 0), tersor::errc::invalid_argument);
  other = *info;
  other.type = dtype::f32;
  EXPECT_EQ(code({other, at}, dst, 0), tersor::errc::unsupported);
  EXPECT_EQ(tersor::cuda::pack_workspace_size(dtype::f32, 4, 4, {}), 0u);
  EXPECT_EQ(tersor::cuda::pack_workspace_size(dtype::bf16, 0, 4, {}), 0u);
  EXPECT_EQ(tersor::cuda::pack_workspace_size(dtype::bf16, 4, 4, {.inline_escapes = 9}), 0u);
}

}  // namespace
