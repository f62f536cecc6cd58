// For programs built on Tersor: signals, and small files written as safely as models are.
#pragma once

#include <filesystem>
#include <string_view>

#include <tersor/error.hpp>

namespace tersor {

/// Lets SIGINT, SIGTERM and SIGHUP remove the unfinished output of this process before they end it, as they
/// would without the call. A signal that the process ignores stays ignored. Never called by the library
/// itself.
[[nodiscard]] status install_signal_cleanup();

/// Writes `content` to a temporary beside `path`, syncs it and gives it its name. Errors: `already_exists` if
/// there is something and `overwrite` is false; `not_found`, `io_error`.
[[nodiscard]] status write_file(const std::filesystem::path& path, std::string_view content, bool overwrite);

}  // namespace tersor
