// Shell patterns and tensor types: any text, no run-away time.
#include <string>

#include "frames.hpp"
#include <tersor/model.hpp>

TERSOR_FUZZ_TARGET(glob) {
  const std::string text(reinterpret_cast<const char*>(data.data()), data.size());
  const std::size_t cut = text.find('\n');
  const std::string pattern = text.substr(0, std::min(cut, std::size_t{256}));
  const std::string name = cut == std::string::npos ? text : text.substr(cut + 1);
  (void)tersor::glob_match(pattern, name);
  fuzz::require(tersor::glob_match("*", name));
  const std::string type = tersor::tensor_type(name);
  fuzz::require(tersor::tensor_type(type) == type);
}
