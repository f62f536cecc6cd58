// The kernels of layout tcatbe without a GPU: packing makes the CPU's bytes, unpacking is exact and notices
// damage, products are right for any shape, split and content.
#include "codec/tcatbe.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cuda/gemm/tcatbe_gemm.cuh"
#include "cuda/gemm/tcatbe_pack.cuh"
#include "cuda/gemm/tcatbe_unpack.cuh"
#include "simt/kernel_fault.hpp"
#include "simt/numbers.hpp"
#include "simt/run.hpp"

namespace {

using namespace tersor::cuda;
namespace codec = tersor::codec_detail;
using bytes = std::vector<std::uint8_t>;
using bits = std::vector<std::uint16_t>;

tersor::core::thread_pool& pool() {
  static tersor::core::thread_pool one(1);
  return one;
}

void launch_ctas(simt::memory& memory, simt::grid size, const std::function<void(void*)>& body) {
  try {
    simt::run(memory, size, body);
  } catch (const simt::kernel_fault& fault) {
    ADD_FAILURE() << fault.what();
  }
}

// ---- matrices ----

bits gaussian(std::size_t n, unsigned seed, float scale = 0.02F) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  bits v(n);
  for (auto& x : v) x = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(rng)) >> 16);
  return v;
}

/// Values in rows as they lie in memory.
struct form {
  std::uint64_t rows, cols;
  bool column_major = false;
  std::uint64_t gap = 0;
  std::size_t offset = 0;  ///< of the first value from a multiple of 16 bytes

  [[nodiscard]] std::uint64_t stride() const { return (column_major ? rows : cols) + gap; }
  [[nodiscard]] std::size_t at(std::uint64_t r, std::uint64_t c) const {
    return column_major ? c * stride() + r : r * stride() + c;
  }
  [[nodiscard]] std::size_t n() const { return at(rows - 1, cols - 1) + 1; }
  [[nodiscard]] tersor::cuda::tcatbe_values values() const {
    return {rows, cols, stride(), column_major, offset % 8 == 0 && stride() % 8 == 0};
  }
};

/// Device memory with `n` values that begin `offset` values past an aligned address.
std::uint16_t* place(simt::memory& memory, std::size_t n, std::size_t offset, const char* name,
                     simt::access allowed = simt::access::uninitialized) {
  return static_cast<std::uint16_t*>(memory.allocate(2 * (n + offset), name, allowed)) + offset;
}
std::uint16_t* upload(simt::memory& memory, const bits& v, const form& f, const char* name) {
  std::uint16_t* at = place(memory, f.n(), f.offset, name, simt::access::read);
  for (std::uint64_t r = 0; r < f.rows; ++r) {
    for (std::uint64_t c = 0; c < f.cols; ++c) at[f.at(r, c)] = v[r * f.cols + c];
  }
  return at;
}

bytes pack(const bits& v, std::uint64_t rows, std::uint64_t cols) {
  bytes packed(codec::tcatbe_bound(rows, cols));
  const auto n = codec::tcatbe_pack(
      pool(),
      {.data = reinterpret_cast<const std::uint8_t*>(v.data()), .rows = rows, .cols = cols, .stride = cols},
      packed);
  EXPECT_TRUE(n);
  packed.resize(n.value_or(0));
  return packed;
}
tcatbe_matrix matrix_of(const bytes& packed) {
  const auto w = codec::load_matrix_words(packed.data());
  return make_tcatbe_matrix(w[codec::kWordRows], w[codec::kWordCols], w[codec::kWordOverflowAt],
                            w[codec::kWordBytes], static_cast<std::uint32_t>(w[codec::kWordParameters]));
}
std::uint8_t* upload(simt::memory& memory, const bytes& packed) {
  auto* at = static_cast<std::uint8_t*>(memory.allocate(packed.size(), "packed matrix", simt::access::read));
  std::memcpy(at, packed.data(), packed.size());
  return at;
}

// ---- unpacking ----

matrix_result_slot unpack(const bytes& packed, const form& f, bits& out, std::uint32_t ctas,
                          std::uint64_t seed) {
  simt::memory memory;
  tcatbe_unpack_launch launch;
  launch.matrix = matrix_of(packed);
  launch.values = f.values();
  launch.packed = upload(memory, packed);
  launch.dst = place(memory, f.n(), f.offset, "unpacked");
  launch.result = memory.allocate_array<matrix_result_slot>(1, "result");
  launch_ctas(memory, {.n_threads = 32}, [&](void*) {
    if (ptx::thread_index() == 0) begin_tcatbe_unpack(launch);
  });
  launch_ctas(memory,
              {.n_ctas = ctas,
               .n_threads = tcatbe_unpack_shared::kThreads,
               .shared_bytes = sizeof(tcatbe_unpack_shared),
               .seed = seed},
              [&](void* shared) { tcatbe_unpack_cta(launch, *static_cast<tcatbe_unpack_shared*>(shared)); });
  out.resize(f.rows * f.cols);
  for (std::uint64_t r = 0; r < f.rows; ++r) {
    for (std::uint64_t c = 0; c < f.cols; ++c) out[r * f.cols + c] = launch.dst[f.at(r, c)];
  }
  return *launch.result;
}

void expect_unpacks(const bits& v, const form& f, std::uint32_t ctas, std::uint64_t seed) {
  bits out;
  const auto result = unpack(pack(v, f.rows, f.cols), f, out, ctas, seed);
  EXPECT_EQ(result.code, 0) << result.block;
  EXPECT_TRUE(out == v) << f.rows << " x " << f.cols;
}

TEST(simt_tcatbe, unpacks_any_shape) {
  std::uint64_t seed = 1;
  for (const std::uint64_t rows : {1u, 15u, 64u, 65u, 130u}) {
    for (const std::uint64_t cols : {1u, 63u, 64u, 136u}) {
      const bits v = gaussian(rows * cols, static_cast<unsigned>(++seed));
      expect_unpacks(v, {.rows = rows, .cols = cols}, static_cast<std::uint32_t>(1 + seed % 3), seed);
      expect_unpacks(v, {.rows = rows, .cols = cols, .column_major = true}, 2, seed);
      expect_unpacks(v, {.rows = rows, .cols = cols, .gap = 3, .offset = 1}, 2, seed);
    }
  }
}

bits contents(std::size_t n, int kind) {
  bits v = gaussian(n, 7);
  std::mt19937 rng(5);
  for (std::size_t i = 0; i < n; ++i) {
    if (kind == 1) v[i] = static_cast<std::uint16_t>(i * 41);                       // all patterns
    if (kind == 2) v[i] = static_cast<std::uint16_t>(rng() % 2 == 0 ? 0 : 0x8001);  // zeros and subnormals
    if (kind == 3) v[i] = 0x7fc0;
    if (kind == 4) v[i] = static_cast<std::uint16_t>((i * 8 % 256) << 7 | i % 128);
    if (kind == 5)
      v[i] = static_cast<std::uint16_t>(rng() % 8 << 7 | (rng() & 0x807f));  // a window that begins at 0
    if (kind == 6 && i >= n / 2) v[i] = 0x0080;                              // tiles of escapes only
    if (kind == 7) v[i] = static_cast<std::uint16_t>((255 - rng() % 8) << 7 | (rng() & 0x807f));
  }
  return v;
}

TEST(simt_tcatbe, unpacks_any_content) {
  for (int kind = 1; kind <= 7; ++kind) {
    SCOPED_TRACE(kind);
    expect_unpacks(contents(128 * 192, kind), {.rows = 128, .cols = 192}, 2,
                   static_cast<std::uint64_t>(kind));
  }
}

TEST(simt_tcatbe, unpacking_notices_damage) {
  const std::uint64_t rows = 100, cols = 150;  // 2 x 3 tiles
  const bytes packed = pack(gaussian(rows * cols, 9), rows, cols);
  const auto m = matrix_of(packed);
  std::mt19937_64 rng(3);
  bits out;
  for (int i = 0; i < 60; ++i) {
    // A tile's bitmaps, counts, digest; a coded value.
    const std::uint64_t tile = rng() % 6;
    std::uint64_t coded = 0;
    std::memcpy(&coded, packed.data() + m.index_at + 24 * tile, 8);
    const std::uint64_t at = i % 4 == 0   ? 128 + 1536 * tile + rng() % 1536
                             : i % 4 == 1 ? m.index_at + 24 * tile + 16 + rng() % 8
                             : i % 4 == 2 ? m.digests_at + 8 * tile + rng() % 8
                                          : m.coded_at + coded + rng() % 3000;
    bytes damaged = packed;
    damaged[at] = static_cast<std::uint8_t>(damaged[at] ^ 1u << rng() % 8);
    const auto result = unpack(damaged, {.rows = rows, .cols = cols}, out, 2, static_cast<std::uint64_t>(i));
    EXPECT_EQ(result.code, kDigestMismatch) << i;
    EXPECT_EQ(result.block, tile) << i;
  }
}

TEST(simt_tcatbe, unpacking_forged_offsets_stays_inside) {
  const std::uint64_t rows = 100, cols = 150;
  const bytes packed = pack(gaussian(rows * cols, 10), rows, cols);
  const auto m = matrix_of(packed);
  std::mt19937_64 rng(4);
  bits out;
  for (int i = 0; i < 60; ++i) {
    bytes forged = packed;
    for (std::uint64_t k = 0; k < 3; ++k) {
      const std::uint64_t word = rng() >> (i % 60);
      std::memcpy(forged.data() + m.index_at + 24 * (rng() % 6) + 8 * k, &word, 8);
    }
    EXPECT_NE(unpack(forged, {.rows = rows, .cols = cols}, out, 2, static_cast<std::uint64_t>(i)).code, 0);
  }
}

// ---- packing ----

void expect_packs(const bits& v, const form& f, std::uint32_t ctas, std::uint64_t seed, bool fits = true) {
  const bytes wanted = pack(v, f.rows, f.cols);
  simt::memory memory;
  tcatbe_pack_launch launch;
  launch.matrix = make_tcatbe_matrix(f.rows, f.cols, 0, 0, 0);
  launch.values = f.values();
  launch.src = upload(memory, v, f, "source");
  launch.capacity = fits ? codec::tcatbe_bound(f.rows, f.cols) : wanted.size() - 1;
  launch.packed = static_cast<std::uint8_t*>(memory.allocate(launch.capacity, "packed"));
  launch.result = memory.allocate_array<matrix_result_slot>(1, "result");
  launch.first_word = codec::first_matrix_word(tersor::matrix_layout::tcatbe, tersor::dtype::bf16);
  launch.totals = memory.allocate_array<tcatbe_pack_totals>(1, "totals", simt::access::read_write);
  *launch.totals = {};
  const auto pass = [&]<class Shared>(Shared*, std::uint32_t n, std::uint32_t threads, auto cta) {
    launch_ctas(memory, {.n_ctas = n, .n_threads = threads, .shared_bytes = sizeof(Shared), .seed = seed},
                [&](void* shared) { cta(launch, *static_cast<Shared*>(shared)); });
  };
  pass(static_cast<tcatbe_count_shared*>(nullptr), ctas, kCtaThreads, count_exponents_cta);
  pass(static_cast<tcatbe_window_shared*>(nullptr), 1, kCtaThreads, choose_window_cta);
  pass(static_cast<tcatbe_strips_shared*>(nullptr), ctas, kCtaThreads, count_tiles_cta);
  pass(static_cast<tcatbe_place_shared*>(nullptr), 1, kTcatbePlaceThreads, place_tiles_cta);
  pass(static_cast<tcatbe_write_shared*>(nullptr), ctas, tcatbe_write_shared::kThreads, write_tiles_cta);
  const auto result = *launch.result;
  EXPECT_EQ(result.code, fits ? 0 : kDestinationTooSmall);
  EXPECT_EQ(result.n_bytes, wanted.size());
  if (fits) {
    EXPECT_TRUE(std::memcmp(launch.packed, wanted.data(), wanted.size()) == 0) << f.rows << " x " << f.cols;
  }
}

TEST(simt_tcatbe, packs_as_the_cpu) {
  std::uint64_t seed = 20;
  for (const std::uint64_t rows : {1u, 16u, 65u, 128u}) {
    for (const std::uint64_t cols : {1u, 64u, 130u}) {
      const bits v = gaussian(rows * cols, static_cast<unsigned>(++seed));
      expect_packs(v, {.rows = rows, .cols = cols}, static_cast<std::uint32_t>(1 + seed % 3), seed);
      expect_packs(v, {.rows = rows, .cols = cols, .column_major = true, .gap = seed % 2}, 2, seed);
      expect_packs(v, {.rows = rows, .cols = cols, .gap = 5, .offset = 3}, 2, seed);
    }
  }
  for (int kind = 1; kind <= 7; ++kind) {
    SCOPED_TRACE(kind);
    expect_packs(contents(128 * 192, kind), {.rows = 128, .cols = 192}, 2, seed);
  }
  expect_packs(contents(128 * 192, 0), {.rows = 128, .cols = 192}, 2, seed, false);
}

// ---- products ----

struct product {
  std::uint64_t rows, cols, tokens;
  std::uint32_t ctas = 1;
  std::uint64_t x_gap = 0, y_gap = 0;
  std::size_t x_offset = 0;
  bool bias = false, accumulate = false;
  std::uint64_t seed = 1;
};

template <u32 kTokens>
bits multiply(const bits& w, const bits& x, const bits& bias, const bits& y, const product& p) {
  simt::memory memory;
  const bytes packed = pack(w, p.rows, p.cols);
  const form of_x{.rows = p.tokens, .cols = p.cols, .gap = p.x_gap, .offset = p.x_offset};
  const form of_y{.rows = p.tokens, .cols = p.rows, .gap = p.y_gap};
  tcatbe_gemm_launch launch;
  launch.matrix = matrix_of(packed);
  launch.n_tile = kTokens;
  launch.ctas = std::min(p.ctas, launch.matrix.n_tiles);
  launch.partials =
      static_cast<float*>(memory.allocate(tcatbe_partial_bytes(launch.ctas, kTokens), "partials"));
  launch.op.weights = upload(memory, packed);
  launch.op.x = reinterpret_cast<const std::uint8_t*>(upload(memory, x, of_x, "x"));
  std::uint16_t* out =
      place(memory, of_y.n(), 0, "y", p.accumulate ? simt::access::read_write : simt::access::uninitialized);
  for (std::uint64_t t = 0; t < p.tokens && p.accumulate; ++t) {
    for (std::uint64_t r = 0; r < p.rows; ++r) out[of_y.at(t, r)] = y[t * p.rows + r];
  }
  launch.op.y = reinterpret_cast<std::uint8_t*>(out);
  if (p.bias)
    launch.op.bias =
        reinterpret_cast<const std::uint8_t*>(upload(memory, bias, {.rows = 1, .cols = p.rows}, "bias"));
  launch.op.ldx = of_x.stride();
  launch.op.ldy = of_y.stride();
  launch.op.rows = static_cast<u32>(p.rows);
  launch.op.cols = static_cast<u32>(p.cols);
  launch.op.n_tokens = static_cast<u32>(p.tokens);
  launch.op.accumulate = p.accumulate ? 1 : 0;
  launch.op.x_aligned = of_x.values().in_eights ? 1 : 0;
  using sizes = tcatbe_gemm_sizes<kTokens>;
  launch_ctas(
      memory,
      {.n_ctas = launch.ctas, .n_threads = sizes::kThreads, .shared_bytes = sizes::kBytes, .seed = p.seed},
      [&](void* shared) { tcatbe_gemm_cta<sizes>(launch, static_cast<u8*>(shared)); });
  launch_ctas(memory, {.n_ctas = launch.matrix.row_tiles, .n_threads = kTcatbeSumThreads, .seed = p.seed},
              [&](void*) { tcatbe_sum_cta(launch); });
  bits result(p.tokens * p.rows);
  for (std::uint64_t t = 0; t < p.tokens; ++t) {
    for (std::uint64_t r = 0; r < p.rows; ++r) result[t * p.rows + r] = out[of_y.at(t, r)];
  }
  return result;
}

template <u32 kTokens>
void expect_product(const bits& w, const product& p) {
  SCOPED_TRACE(std::to_string(p.rows) + " x " + std::to_string(p.cols) + ", " + std::to_string(p.tokens) +
               " tokens, " + std::to_string(p.ctas) + " CTAs");
  const bits x = gaussian(p.tokens * p.cols, 31, 1.0F), bias = gaussian(p.rows, 32, 1.0F),
             y = gaussian(p.tokens * p.rows, 33, 1.0F);
  const bits result = multiply<kTokens>(w, x, bias, y, p);
  std::size_t wrong = 0;
  for (std::uint64_t t = 0; t < p.tokens; ++t) {
    for (std::uint64_t r = 0; r < p.rows; ++r) {
      double sum = 0, size = 0;
      const auto add = [&](double term) {
        sum += term;
        size += std::abs(term);
      };
      for (std::uint64_t c = 0; c < p.cols; ++c)
        add(double{simt::from_bf16(w[r * p.cols + c])} * double{simt::from_bf16(x[t * p.cols + c])});
      if (p.bias) add(double{simt::from_bf16(bias[r])});
      if (p.accumulate) add(double{simt::from_bf16(y[t * p.rows + r])});
      const double got = double{simt::from_bf16(result[t * p.rows + r])};
      // Subnormal results are multiples of 2^-133.
      if (!(std::abs(got - sum) <= std::abs(sum) / 250 + size * 1e-5 + 1e-40)) ++wrong;
    }
  }
  EXPECT_EQ(wrong, 0u);
}

TEST(simt_tcatbe, multiplies_any_shape) {
  const auto weights = [](const product& p) { return gaussian(p.rows * p.cols, 40); };
  for (const product& p : std::initializer_list<product>{
           {.rows = 64, .cols = 64, .tokens = 8},
           {.rows = 128, .cols = 320, .tokens = 8, .ctas = 3},
           {.rows = 128, .cols = 320, .tokens = 5, .ctas = 10, .bias = true, .accumulate = true},
           {.rows = 200, .cols = 128, .tokens = 8, .ctas = 2, .y_gap = 3, .bias = true},
           {.rows = 1, .cols = 1, .tokens = 1},
           {.rows = 65, .cols = 131, .tokens = 3, .ctas = 4, .x_gap = 5},
           {.rows = 65, .cols = 131, .tokens = 8, .ctas = 5, .x_gap = 1, .x_offset = 1, .accumulate = true},
           {.rows = 64, .cols = 700, .tokens = 1, .ctas = 4, .x_offset = 3},
       }) {
    expect_product<8>(weights(p), p);
  }
  const product p{.rows = 130, .cols = 200, .tokens = 13, .ctas = 5, .bias = true};
  expect_product<16>(weights(p), p);
  const product q{.rows = 130, .cols = 328, .tokens = 32, .ctas = 7};
  expect_product<32>(weights(q), q);
  expect_product<64>(weights(q), q);
  expect_product<128>(weights(q), q);
}

TEST(simt_tcatbe, multiplies_any_finite_content) {
  for (const int kind : {2, 4, 5, 6}) {
    SCOPED_TRACE(kind);
    bits w = contents(128 * 192, kind);
    for (auto& x : w) {
      if ((x & 0x7f80) >= 0x7000) x = static_cast<std::uint16_t>(x & 0x8fff);  // sums stay finite
    }
    expect_product<8>(w, {.rows = 128, .cols = 192, .tokens = 8, .ctas = 4});
  }
}

}  // namespace
