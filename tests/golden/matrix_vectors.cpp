#include "matrix_vectors.hpp"

#include <functional>

namespace golden {
namespace {

using tersor::dtype;
using tersor::errc;
using tersor::matrix_layout;
using bytes = std::vector<std::byte>;

std::uint64_t mix(std::uint64_t z) {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9U;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBU;
  return z ^ z >> 31;
}

/// A matrix frame whose fields can be changed; the header digest is written here once more on purpose.
class matrix_edit {
 public:
  explicit matrix_edit(bytes data) : data_(std::move(data)) {}

  [[nodiscard]] std::uint64_t get(std::uint64_t at, unsigned size) const {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= static_cast<std::uint64_t>(data_.at(at + i)) << (8 * i);
    return value;
  }
  void set(std::uint64_t at, unsigned size, std::uint64_t value) {
    for (unsigned i = 0; i < size; ++i) data_.at(at + i) = static_cast<std::byte>(value >> (8 * i));
  }
  [[nodiscard]] std::uint64_t word(std::uint64_t i) const { return get(8 * i, 8); }
  void add(std::uint64_t at, unsigned size, std::uint64_t more) { set(at, size, get(at, size) + more); }
  void flip(std::uint64_t at) { data_.at(at) ^= std::byte{1}; }
  void resize(std::uint64_t size) { data_.resize(size); }
  [[nodiscard]] std::uint64_t size() const { return data_.size(); }

  void fix_header() {
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < 16; ++i)
      sum += mix((i == 5 ? 0 : word(i)) ^ mix(std::uint64_t{6} << 56 | i));
    set(40, 8, sum);
  }
  [[nodiscard]] bytes& data() { return data_; }

 private:
  bytes data_;
};

constexpr std::uint64_t kBlock = 128, kLow = kBlock + 2048, kHead = kBlock + 2816, kEscapes = kHead + 16;

class bad_list {
 public:
  bad_list(const tersor::context& ctx, const matrix_case& from) : good_(make_matrix(ctx, from)) {}

  /// A case whose header is changed, with a digest that fits.
  void header(const std::string& name, errc code, const std::function<void(matrix_edit&)>& change) {
    block(name, code, [&](matrix_edit& m) {
      change(m);
      m.fix_header();
    });
  }
  void block(const std::string& name, errc code, const std::function<void(matrix_edit&)>& change) {
    matrix_edit m(good_);
    change(m);
    all.push_back({.name = name, .code = code, .data = m.data()});
  }

  std::vector<bad_matrix> all;

 private:
  bytes good_;
};

void add_headers(bad_list& to) {
  to.block("matrix-header-short", errc::truncated, [](matrix_edit& m) { m.resize(127); });
  to.block("matrix-magic", errc::bad_magic, [](matrix_edit& m) { m.flip(3); });
  to.block("matrix-header-digest", errc::digest_mismatch, [](matrix_edit& m) { m.flip(8); });
  to.header("matrix-version-next", errc::unsupported_version, [](matrix_edit& m) { m.set(4, 1, 2); });
  to.header("matrix-layout", errc::unsupported, [](matrix_edit& m) { m.set(5, 1, 3); });
  to.header("matrix-dtype", errc::unsupported, [](matrix_edit& m) { m.set(6, 1, 3); });
  to.header("matrix-byte-7", errc::malformed, [](matrix_edit& m) { m.set(7, 1, 1); });
  to.header("matrix-no-rows", errc::malformed, [](matrix_edit& m) { m.set(8, 8, 0); });
  to.header("matrix-huge", errc::size_overflow, [](matrix_edit& m) { m.set(8, 8, std::uint64_t{1} << 62); });
  to.header("matrix-more-cols", errc::malformed, [](matrix_edit& m) { m.add(16, 8, 1); });
  to.header("matrix-block-bytes", errc::malformed, [](matrix_edit& m) { m.add(32, 4, 16); });
  to.header("matrix-inline-places", errc::malformed, [](matrix_edit& m) { m.set(36, 4, 1032); });
  to.header("matrix-overflow-place", errc::malformed, [](matrix_edit& m) { m.add(56, 8, 128); });
  to.header("matrix-overflow-many", errc::malformed,
            [](matrix_edit& m) { m.set(64, 8, std::uint64_t{1} << 32); });
  to.header("matrix-spare-word", errc::malformed, [](matrix_edit& m) { m.set(88, 8, 1); });
  to.header("matrix-content-digest", errc::digest_mismatch, [](matrix_edit& m) { m.flip(80); });
  to.block("matrix-short", errc::truncated, [](matrix_edit& m) { m.resize(m.size() - 1); });
  to.block("matrix-long", errc::malformed, [](matrix_edit& m) { m.resize(m.size() + 1); });
}

/// The matrix is one block with inline escapes in all places and others in the overflow section.
void add_blocks(bad_list& to) {
  to.block("matrix-gap", errc::malformed, [](matrix_edit& m) { m.flip(m.word(7) - 1); });
  to.block("matrix-digest", errc::digest_mismatch, [](matrix_edit& m) { m.flip(m.word(9)); });
  to.block("matrix-rest", errc::digest_mismatch, [](matrix_edit& m) { m.flip(kBlock + 77); });
  to.block("matrix-book-repeats", errc::malformed,
           [](matrix_edit& m) { m.set(kHead + 3, 1, m.get(kHead, 1)); });
  to.block("matrix-inline-many", errc::malformed, [](matrix_edit& m) { m.add(kHead + 8, 2, 1); });
  to.block("matrix-inline-order", errc::malformed, [](matrix_edit& m) {
    const std::uint64_t first = m.get(kEscapes, 2);
    m.set(kEscapes, 2, m.get(kEscapes + 2, 2));
    m.set(kEscapes + 2, 2, first);
  });
  to.block("matrix-escape-with-code", errc::malformed, [](matrix_edit& m) {
    const std::uint64_t position = m.get(kEscapes, 2) & 2047;
    const std::uint64_t lane = position / 16 % 32, step = position / 512 * 2 + position / 8 % 2;
    const std::uint64_t bit = 4 * (position % 8) + 2 * (step % 2);
    const std::uint64_t at = kLow + 16 * lane + 4 * (step / 2) + bit / 8;
    m.set(at, 1, m.get(at, 1) | std::uint64_t{1} << bit % 8);
  });
  to.block("matrix-overflow-first", errc::malformed, [](matrix_edit& m) { m.set(kHead + 12, 4, 1); });
  to.block("matrix-overflow-leaves", errc::malformed, [](matrix_edit& m) { m.add(kHead + 10, 2, 1); });
  to.block("matrix-overflow-symbol", errc::malformed, [](matrix_edit& m) { m.set(m.word(7) + 3, 1, 1); });
  to.block("matrix-overflow-position", errc::malformed, [](matrix_edit& m) { m.add(m.word(7), 2, 2048); });
}

void add_tcatbe(bad_list& to) {
  to.header("tcatbe-window", errc::malformed, [](matrix_edit& m) { m.set(32, 8, 250); });
  to.header("tcatbe-dtype", errc::unsupported, [](matrix_edit& m) { m.set(6, 1, 2); });
  to.header("tcatbe-index-place", errc::malformed, [](matrix_edit& m) { m.add(88, 8, 128); });
  to.header("tcatbe-coded-bytes", errc::malformed, [](matrix_edit& m) { m.add(104, 8, 8); });
  to.block("tcatbe-record", errc::malformed, [](matrix_edit& m) { m.add(m.word(11), 8, 16); });
  to.block("tcatbe-bitmap", errc::digest_mismatch, [](matrix_edit& m) { m.flip(kBlock + 40); });
  to.block("tcatbe-coded", errc::digest_mismatch, [](matrix_edit& m) { m.flip(m.word(12)); });
}

}  // namespace

std::vector<matrix_case> matrix_cases() {
  using enum matrix_layout;
  return {
      {"packed-bf16-1x1-weights", packed, dtype::bf16, 1, 1},
      {"packed-bf16-17x130-mixed", packed, dtype::bf16, 17, 130, pattern::mixed},
      {"packed-bf16-16x128-constant", packed, dtype::bf16, 16, 128, pattern::constant},
      {"packed-bf16-3x100-uniform-inline8", packed, dtype::bf16, 3, 100, pattern::uniform, 8},
      {"packed-bf16-40x90-weights-inline24", packed, dtype::bf16, 40, 90, pattern::weights, 24},
      {"packed-f16-1x1-weights", packed, dtype::f16, 1, 1},
      {"packed-f16-17x130-weights", packed, dtype::f16, 17, 130},
      {"packed-f16-9x128-uniform-inline8", packed, dtype::f16, 9, 128, pattern::uniform, 8},
      {"tcatbe-bf16-1x1-weights", tcatbe, dtype::bf16, 1, 1},
      {"tcatbe-bf16-30x70-mixed", tcatbe, dtype::bf16, 30, 70, pattern::mixed},
  };
}

bytes matrix_data(const matrix_case& c) {
  return sample(c.type, c.rows * c.cols, c.data, c.rows * 1000 + c.cols);
}

bytes make_matrix(const tersor::context& ctx, const matrix_case& c) {
  const bytes data = matrix_data(c);
  return tersor::pack(ctx, {.type = c.type, .rows = c.rows, .cols = c.cols, .data = data},
                      {.layout = c.layout, .inline_escapes = c.inline_escapes})
      .value();
}

std::vector<bad_matrix> bad_matrices(const tersor::context& ctx) {
  const auto full = [](matrix_layout layout, pattern data) {
    return matrix_case{
        .name = {}, .layout = layout, .rows = 16, .cols = 128, .data = data, .inline_escapes = 8};
  };
  bad_list list(ctx, full(matrix_layout::packed, pattern::weights));
  add_headers(list);
  add_blocks(list);
  bad_list constant(ctx, full(matrix_layout::packed, pattern::constant));
  constant.block("matrix-book-fill", errc::malformed, [](matrix_edit& m) { m.add(kHead + 7, 1, 1); });
  constant.block("matrix-inline-unused", errc::malformed, [](matrix_edit& m) { m.flip(kEscapes + 14); });
  bad_list one(ctx, {.name = {}, .rows = 1, .cols = 1, .inline_escapes = 8});
  one.block("matrix-padding", errc::malformed, [](matrix_edit& m) { m.flip(kBlock + 1); });
  bad_list tcatbe(ctx, {.name = {}, .layout = matrix_layout::tcatbe, .rows = 1, .cols = 1});
  add_tcatbe(tcatbe);
  for (bad_list* more : {&constant, &one, &tcatbe})
    list.all.insert(list.all.end(), more->all.begin(), more->all.end());
  return std::move(list.all);
}

}  // namespace golden
