#pragma once

#include <filesystem>

/// The seeds of the targets transfer_*.
void write_transfer_seeds(const std::filesystem::path& root);
