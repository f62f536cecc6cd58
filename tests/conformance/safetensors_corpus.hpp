// Safetensors files, legal and not, each with the verdict that the strict reader must give.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/error.hpp>

namespace tersor::corpus {

struct row {
  std::string name;
  std::string bytes;         ///< the whole file
  errc verdict = errc::ok;   ///< ok: legal
  std::string differs = {};  ///< why the reference implementation decides otherwise; empty if it agrees
};

/// A file of a length field, `json` and `n_data` bytes.
[[nodiscard]] std::string make_file(std::string_view json, std::uint64_t n_data);

/// One tensor's object: {"dtype":...,"shape":...,"data_offsets":...}; the arguments are JSON text.
[[nodiscard]] std::string tensor_json(std::string_view dtype, std::string_view shape,
                                      std::string_view offsets);

/// Rows written by hand: one rule each.
[[nodiscard]] std::vector<row> written_rows();

/// Rows made from legal headers by systematic changes.
[[nodiscard]] std::vector<row> mutated_rows();

}  // namespace tersor::corpus
