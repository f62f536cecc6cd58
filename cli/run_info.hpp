// What a report says of the run that made it.
#pragma once

#include <string>

namespace tersor::cli {

/// The command line as it was typed, without the directory of the program.
[[nodiscard]] std::string command_line();
/// The time, UTC, as "2026-01-31T12:00:00Z".
[[nodiscard]] std::string now_text();

}  // namespace tersor::cli
