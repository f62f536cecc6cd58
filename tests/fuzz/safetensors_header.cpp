// The strict header parser; what it accepts must have the layout it promises.
#include "frames.hpp"
#include "safetensors/header.hpp"

TERSOR_FUZZ_TARGET(safetensors_header) {
  fuzz::reader in(data);
  const std::uint64_t data_bytes = in.byte() + std::uint64_t{256} * in.byte();
  const auto parsed = tersor::safetensors::parse_header(fuzz::as_bytes(in.rest()), data_bytes);
  if (!parsed) {
    fuzz::require(parsed.error().code != tersor::errc::internal);
    return;
  }
  std::uint64_t at = 0;
  for (const auto& tensor : parsed->tensors) {
    fuzz::require(tensor.begin == at && tensor.end >= tensor.begin);
    at = tensor.end;
  }
  fuzz::require(at == data_bytes && parsed->json.size() == in.rest().size());
}
