// Codebook files: what is read is written so that it reads the same.
#include "frames.hpp"
#include <tersor/model.hpp>

TERSOR_FUZZ_TARGET(codebook_json) {
  const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
  const auto set = tersor::codebook_set::from_json(text);
  if (!set) {
    fuzz::require(set.error().code != tersor::errc::internal);
    return;
  }
  const std::string written = set->to_json();
  const auto again = tersor::codebook_set::from_json(written);
  fuzz::require(again.has_value() && again->to_json() == written);
  (void)set->find("model.layers.0.mlp.up_proj.weight", tersor::dtype::bf16);
}
