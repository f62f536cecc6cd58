// A small compressed file with its original, and damaged copies of it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <tersor/codec.hpp>

namespace golden {

struct container_pair {
  std::vector<std::byte> plain, packed;
};

/// Compresses a file with every kind of tensor, or packs one with matrices; `scratch` is a folder for the two
/// files.
container_pair make_container(const tersor::context& ctx, const std::filesystem::path& scratch,
                              bool packing = false);

struct bad_container {
  std::string name;
  tersor::errc code = tersor::errc::ok;
  std::vector<std::byte> data;
};

std::vector<bad_container> bad_containers(const tersor::context& ctx, const container_pair& good);

}  // namespace golden
