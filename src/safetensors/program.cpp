#include <span>

#include "safetensors/atomic_file.hpp"
#include "safetensors/temp_registry.hpp"
#include <tersor/program.hpp>

namespace tersor {

status install_signal_cleanup() {
  return safetensors::install_signal_cleanup();
}

status write_file(const std::filesystem::path& path, std::string_view content, bool overwrite) {
  TERSOR_TRY(auto file, safetensors::atomic_file::create(path, overwrite));
  TERSOR_CHECK(file.write(std::as_bytes(std::span(content))));
  return file.commit();
}

}  // namespace tersor
