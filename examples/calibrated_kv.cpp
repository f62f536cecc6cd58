// A codebook calibrated once and shared by many tensors, as a KV cache wants it: encoding then reads its
// input once.
#include <bit>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <tersor/tersor.hpp>

namespace {

std::vector<std::byte> some_keys(unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0F, 1.5F);
  std::vector<std::byte> data(64 * 1024);
  for (std::size_t i = 0; i < data.size() / 2; ++i) {
    const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(rng)) >> 16);
    std::memcpy(data.data() + 2 * i, &bits, sizeof bits);
  }
  return data;
}

}  // namespace

int main() {
  const auto ctx = tersor::context::create(1);
  if (!ctx) return 2;

  // Calibrate on one page ...
  const auto sample = some_keys(1);
  const auto counts = tersor::count_symbols(tersor::dtype::bf16, sample);
  if (!counts) return 2;
  const auto book = tersor::make_codebook(tersor::dtype::bf16, *counts);
  if (!book) return 2;
  std::printf("entropy %.3f bits, top 15 cover %.4f\n", counts->entropy(), counts->coverage(15));

  // ... and encode others into a buffer of known worst-case size.
  const std::vector<std::uint64_t> shape = {16, 8, 256};
  std::vector<std::byte> slot(tersor::encode_bound(tersor::codec::top16, tersor::dtype::bf16, 16 * 8 * 256));
  for (unsigned page = 2; page < 6; ++page) {
    const auto data = some_keys(page);
    const tersor::tensor_view view{.type = tersor::dtype::bf16, .shape = shape, .data = data};
    const auto size = tersor::encode_into(*ctx, view, slot, {.codec = tersor::codec::top16, .book = *book});
    if (!size) return std::fprintf(stderr, "%s\n", size.error().describe().c_str()), 2;
    std::vector<std::byte> back(data.size());
    const auto n = tersor::decode_into(*ctx, {slot.data(), *size}, back);
    if (!n || back != data) return 1;
    std::printf("page %u: %zu -> %llu bytes\n", page, data.size(), static_cast<unsigned long long>(*size));
  }
  return 0;
}
