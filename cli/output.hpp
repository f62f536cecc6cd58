// Standard output and standard error: text that a terminal may see, numbers for people, errors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/error.hpp>

namespace tersor::cli {

/// Writes all of `text` to standard output. On failure (closed pipe, full disk) says so and returns the exit
/// code of "could not".
[[nodiscard]] int print(std::string_view text);

/// One line "tersor: error: ..." on standard error and, with `json`, the error object on standard output;
/// returns the exit code.
[[nodiscard]] int report_error(const error& e, bool json);

void print_warning(std::string_view message);

/// One line "tersor: ..." on standard error.
void print_note(std::string_view message);

/// `text` with control characters and broken UTF-8 escaped as \xNN: names come from files and must not steer
/// a terminal.
[[nodiscard]] std::string printable(std::string_view text);

[[nodiscard]] std::string human_bytes(std::uint64_t n_bytes);                   ///< "1.50 GB", powers of 1000
[[nodiscard]] std::string shape_text(const std::vector<std::uint64_t>& shape);  ///< "[32, 128]"
[[nodiscard]] double ratio_of(std::uint64_t original, std::uint64_t stored) noexcept;  ///< 1 for nothing

/// Columns two spaces apart; the first row is the head; the first `n_text_columns` are aligned left, the
/// others right.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows,
                                std::size_t n_text_columns);

}  // namespace tersor::cli
