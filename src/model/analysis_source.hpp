// The tensors of plain and compressed files as the analysis reads them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "safetensors/input_file.hpp"
#include <tersor/model.hpp>

namespace tersor::model_detail {

/// One tensor and where its bytes, or its frame, lie in the file.
struct source_tensor {
  std::string name;
  std::optional<tersor::dtype> type;  ///< nothing for dtypes Tersor does not know
  std::vector<std::uint64_t> shape;
  std::uint64_t n_bytes = 0;  ///< original size
  std::uint64_t stored_at = 0;
  std::uint64_t stored_bytes = 0;
  std::optional<std::uint64_t> frame_digest = {};  ///< of a coded tensor
};

struct source_file {
  std::filesystem::path path;
  std::string label;  ///< the path below its source; behind the source's own path if there are several
  std::vector<source_tensor> tensors;
};

/// Opens every safetensors file of the sources and reads its header; files in order of their paths.
[[nodiscard]] result<std::vector<source_file>> read_sources(const context& ctx,
                                                            const std::vector<std::filesystem::path>& sources,
                                                            const model_options& options);

/// Receives original bytes in order, piece by piece, in whole values.
using piece_sink = std::function<status(std::span<const std::byte>)>;

/// Hands a tensor's original bytes to `sink` in pieces of at most 64 MiB; frames are decoded and their
/// digests compared.
[[nodiscard]] status read_pieces(const context& ctx, const safetensors::input_file& file,
                                 const source_tensor& tensor, const piece_sink& sink);

}  // namespace tersor::model_detail
