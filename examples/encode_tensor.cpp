// One tensor to a frame and back with the C++ API.
#include <cstdio>
#include <cstring>
#include <vector>

#include <tersor/tersor.hpp>

int main() {
  // Some BF16 values: 1.0, 1.0625, 1.125, ... repeated over a 512 x 256 matrix.
  const std::vector<std::uint64_t> shape = {512, 256};
  std::vector<std::byte> data(512 * 256 * 2);
  for (std::size_t i = 0; i < data.size() / 2; ++i) {
    const auto bits = static_cast<std::uint16_t>(0x3f80 + 8 * (i % 64));
    std::memcpy(data.data() + 2 * i, &bits, sizeof bits);
  }

  const auto ctx = tersor::context::create();  // all cores this process may use, fastest backend
  if (!ctx) return std::fprintf(stderr, "%s\n", ctx.error().describe().c_str()), 2;

  const tersor::tensor_view view{.type = tersor::dtype::bf16, .shape = shape, .data = data};
  const auto frame = tersor::encode(*ctx, view);  // codec rank, codebook from the tensor itself
  if (!frame) return std::fprintf(stderr, "%s\n", frame.error().describe().c_str()), 2;

  const auto back = tersor::decode(*ctx, *frame);  // compares every digest
  if (!back) return std::fprintf(stderr, "%s\n", back.error().describe().c_str()), 1;

  std::printf("%zu bytes -> %zu bytes, backend %.*s, %s\n", data.size(), frame->size(),
              static_cast<int>(ctx->backend().size()), ctx->backend().data(),
              back->data == data ? "identical" : "DIFFERENT");
  return back->data == data ? 0 : 1;
}
