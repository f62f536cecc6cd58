// The C functions with any numbers and any bytes.
#include <vector>

#include "frames.hpp"
#include <tersor/tersor.h>

TERSOR_FUZZ_TARGET(c_abi) {
  static tersor_context* const kContext = [] {
    tersor_context* ctx = nullptr;
    fuzz::require(tersor_context_create(1, nullptr, &ctx) == TERSOR_OK);
    return ctx;
  }();
  fuzz::reader in(data);
  const auto codec = static_cast<std::int32_t>(static_cast<std::int8_t>(in.byte()));
  const auto dtype = static_cast<std::int32_t>(static_cast<std::int8_t>(in.byte()));
  const std::uint8_t flags = in.byte();
  std::uint64_t shape[9];
  for (std::uint64_t& dim : shape) dim = in.byte();
  const std::uint32_t rank = flags % 10;
  std::vector<std::uint8_t> book(16);
  for (std::uint8_t& symbol : book) symbol = in.byte();
  const std::vector<std::uint8_t> values(in.rest().begin(), in.rest().end());
  std::vector<std::uint8_t> dst((flags & 32) != 0 ? values.size() : 4 * values.size() + 8192);
  std::uint64_t size = 0;
  const std::int32_t code =
      tersor_encode(kContext, codec, dtype, (flags & 64) != 0 ? nullptr : shape, rank, values.data(),
                    values.size(), (flags & 128) != 0 ? book.data() : nullptr, dst.data(), dst.size(), &size);
  fuzz::require(code != TERSOR_INTERNAL && code >= 0 && *tersor_error_name(code) != '\0');
  if (code == TERSOR_OK) {
    std::vector<std::uint8_t> back(values.size());
    std::uint64_t n = 0;
    fuzz::require(tersor_decode(kContext, dst.data(), size, back.data(), back.size(), &n) == TERSOR_OK);
    fuzz::require(n == values.size() && back == values);
  }
  tersor_frame_info info;
  const auto frame = fuzz::frame_of(in.rest(), std::nullopt);
  if (tersor_inspect(frame.data(), frame.size(), &info) == TERSOR_OK) {
    std::vector<std::uint8_t> back(info.decoded_bytes);
    std::uint64_t n = 0;
    (void)tersor_decode(kContext, frame.data(), frame.size(), back.data(), back.size(), &n);
    (void)tersor_decode_chunks(kContext, frame.data(), frame.size(), flags, 1, back.data(), back.size(), &n);
  }
  (void)tersor_calibrate(kContext, dtype, values.data(), values.size(), book.data());
  (void)tersor_encode_bound(codec, dtype, shape[0] << (flags % 64));
}
