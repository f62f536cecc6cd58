#include "gemm_rig.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "simt/numbers.hpp"
#include "simt/random.hpp"

namespace twin {
namespace {

using tersor::dtype;
using words = std::vector<std::uint16_t>;

unsigned mantissa_bits(dtype type) {
  return type == dtype::f16 ? 10 : 7;
}
unsigned middle(dtype type) {
  return type == dtype::f16 ? 15 : 127;
}
std::uint16_t join(dtype type, std::uint64_t random, unsigned exponent) {
  const unsigned m = mantissa_bits(type);
  return static_cast<std::uint16_t>((random >> 20 & 1) << 15 | exponent << m | (random & ((1u << m) - 1)));
}

std::uint16_t make_one(dtype type, content what, std::uint64_t random, std::uint64_t row) {
  const unsigned mid = middle(type);
  const auto trained = [&] {
    if ((random >> 56 & 0x7f) == 0)
      return join(type, random, mid - 12 + static_cast<unsigned>(random >> 40 & 7));
    return join(type, random,
                mid - 1 - std::min(static_cast<unsigned>(std::countr_zero(random >> 24 | 1u << 8)), 8u));
  };
  switch (what) {
    case content::trained:
      return trained();
    case content::all_escapes:
      return join(type, random,
                  mid - 14 + static_cast<unsigned>(random >> 32) % (type == dtype::f16 ? 15 : 40));
    case content::special:
      if ((random >> 40 & 15) == 0) return static_cast<std::uint16_t>(random & 0x8000);
      if ((random >> 40 & 15) == 1) return join(type, random, 0);
      if ((random >> 40 & 15) == 2 && row % 5 == 1) return join(type, 0, 2 * mid + 1);
      if ((random >> 40 & 15) == 3 && row % 7 == 3) return join(type, random | 1, 2 * mid + 1);
      return trained();
    case content::constant:
      return join(type, 0x55, mid);
  }
  return 0;
}

float to_float(dtype type, std::uint16_t bits) {
  return type == dtype::f16 ? simt::from_f16(bits) : simt::from_bf16(bits);
}

words make_words(dtype type, std::uint64_t n, std::uint64_t seed) {
  simt::random random(seed);
  words out(n);
  for (auto& value : out) {
    const std::uint64_t bits = random.next();
    value = join(type, bits, middle(type) - static_cast<unsigned>(bits >> 32 & 3));
  }
  return out;
}

byte_view view(const words& values) {
  return std::as_bytes(std::span(values));
}

/// X in rows of `ldx`; what lies between them is not a number.
words make_x(const weight& w, const product& p, std::uint64_t n, std::uint64_t ldx) {
  const std::uint16_t one = w.type == dtype::f16 ? 0x3c00 : 0x3f80;
  words x = make_words(w.type, n * ldx, p.seed);
  for (std::uint64_t t = 0; t < n; ++t) {
    for (std::uint64_t c = 0; c < ldx; ++c) {
      if (c >= w.cols) x[t * ldx + c] = 0xffff;
      if (c < w.cols && p.one_hot) x[t * ldx + c] = c == t % w.cols ? one : 0;
    }
  }
  return x;
}

struct made {
  std::uint64_t ldx, ldy;
  words x, y_before, bias, y;
};

/// The output of one token and row; "" or what is wrong with it.
std::string judge(const weight& w, const product& p, const made& m, std::uint64_t group, std::uint64_t token,
                  std::uint64_t row) {
  double sum = 0, size = 0;
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.dense.data()) + row * w.cols;
  for (std::uint64_t c = 0; c < w.cols; ++c) {
    const double product = static_cast<double>(to_float(w.type, weights[c])) *
                           static_cast<double>(to_float(w.type, m.x[token * m.ldx + c]));
    sum += product;
    size += std::fabs(product);
  }
  if (p.bias) sum += static_cast<double>(to_float(w.type, m.bias[group * w.rows + row]));
  if (p.accumulate) sum += static_cast<double>(to_float(w.type, m.y_before[token * m.ldy + row]));
  const std::uint16_t bits = m.y[token * m.ldy + row];
  const double got = static_cast<double>(to_float(w.type, bits));
  const auto text = [&] {
    return "token " + std::to_string(token) + " row " + std::to_string(row) + ": " + std::to_string(got) +
           ", not " + std::to_string(sum);
  };
  if (!std::isfinite(sum)) return (std::isnan(sum) ? std::isnan(got) : got == sum) ? "" : text();
  if (p.one_hot && !p.bias && !p.accumulate) {
    const std::uint16_t want = weights[token % w.cols];
    return want == bits || ((want | bits) & 0x7fff) == 0 ? "" : text() + ", one-hot";
  }
  const double rounding = w.type == dtype::f16 ? std::fabs(sum) / 2048 + 6e-8 : std::fabs(sum) / 256 + 1e-38;
  const double adding = size / 8388608 * (8 + static_cast<double>(w.cols) / 16);
  return std::fabs(got - sum) <= rounding + adding ? "" : text();
}

std::vector<std::uint64_t> tokens_of(const product& p) {
  return p.groups.empty() ? std::vector<std::uint64_t>{p.n} : p.groups;
}

void judge_all(const std::vector<const weight*>& weights, const product& p, const made& m,
               const std::string& what) {
  std::uint64_t token = 0, group = 0;
  for (const std::uint64_t n : tokens_of(p)) {
    for (std::uint64_t end = token + n; token < end; ++token) {
      for (std::uint64_t row = 0; row < weights[group]->rows; ++row) {
        const std::string wrong = judge(*weights[group], p, m, group, token, row);
        ASSERT_EQ(wrong, "") << what;
      }
      for (std::uint64_t i = weights[group]->rows; i < m.ldy && token * m.ldy + i < m.y.size(); ++i)
        ASSERT_EQ(m.y[token * m.ldy + i], m.y_before[token * m.ldy + i]) << what << ", between rows of Y";
    }
    ++group;
  }
}

}  // namespace

weight make_weight(dtype type, std::uint64_t rows, std::uint64_t cols, content what, std::uint64_t seed,
                   const tersor::pack_options& options) {
  simt::random random(seed);
  words values(rows * cols);
  for (std::uint64_t i = 0; i < values.size(); ++i) values[i] = make_one(type, what, random.next(), i / cols);
  weight w{.type = type, .rows = rows, .cols = cols, .dense = {}, .packed = {}, .info = {}};
  w.dense.assign(view(values).begin(), view(values).end());
  auto packed = tersor::pack(cpu(), {.type = type, .rows = rows, .cols = cols, .data = w.dense}, options);
  if (!packed) throw std::runtime_error(packed.error().describe());
  w.packed = std::move(*packed);
  w.info = *tersor::inspect_packed(w.packed);
  return w;
}

void check_product(device& d, const std::vector<const weight*>& weights, const product& p,
                   const product_launcher& launch, const std::string& what) {
  const weight& w = *weights[0];
  const auto tokens = tokens_of(p);
  std::uint64_t n = 0, most = 0;
  std::vector<std::int32_t> first = {0};
  for (const std::uint64_t each : tokens) {
    n += each;
    most = std::max(most, each);
    first.push_back(static_cast<std::int32_t>(n));
  }
  made m{w.cols + p.more_x,
         w.rows + p.more_y,
         {},
         {},
         make_words(w.type, w.rows * tokens.size(), p.seed + 2),
         {}};
  m.x = make_x(w, p, n, m.ldx);
  // Y ends with its last value.
  m.y_before = make_words(w.type, (n - 1) * m.ldy + w.rows, p.seed + 1);
  std::vector<const std::byte*> at;
  for (const weight* one : weights) at.push_back(d.upload(one->packed, "weight"));
  // X ends with its last value too.
  const auto* x = d.upload(view(m.x).first(2 * ((n - 1) * m.ldx + w.cols)), "X", p.x_offset);
  auto* y = d.reserve(2 * m.y_before.size(), "Y", p.y_offset);
  d.write(y, view(m.y_before));
  tersor::cuda::gemm_operands op{.weights = reinterpret_cast<const std::uint8_t*>(at[0]),
                                 .x = reinterpret_cast<const std::uint8_t*>(x),
                                 .y = reinterpret_cast<std::uint8_t*>(y),
                                 .ldx = m.ldx,
                                 .ldy = m.ldy,
                                 .rows = static_cast<std::uint32_t>(w.rows),
                                 .cols = static_cast<std::uint32_t>(w.cols),
                                 .n_tokens = static_cast<std::uint32_t>(most),
                                 .accumulate = p.accumulate ? 1u : 0u,
                                 .x_aligned = p.x_offset % 16 == 0 && m.ldx % 8 == 0 ? 1u : 0u};
  if (p.bias) op.bias = reinterpret_cast<const std::uint8_t*>(d.upload(view(m.bias), "bias", 2));
  if (!p.groups.empty()) {
    op.weights = nullptr;
    op.weight_table =
        reinterpret_cast<const std::uint8_t* const*>(d.upload(std::as_bytes(std::span(at)), "weights"));
    op.first_token =
        reinterpret_cast<const std::int32_t*>(d.upload(std::as_bytes(std::span(first)), "first tokens"));
  }
  ASSERT_EQ(launch(d, op, static_cast<std::uint32_t>(tokens.size()), n), 0) << what << ": " << d.fault();
  const bytes got = d.download(y, 2 * m.y_before.size());
  m.y.resize(m.y_before.size());
  std::memcpy(m.y.data(), got.data(), got.size());
  judge_all(weights, p, m, what);
}

}  // namespace twin
