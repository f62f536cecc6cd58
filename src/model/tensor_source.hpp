// Where the tensors that are compressed come from.
#pragma once

#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "safetensors/header.hpp"
#include "safetensors/input_file.hpp"

namespace tersor::model_detail {

class tensor_source {
 public:
  virtual ~tensor_source() = default;

  /// The bytes of a tensor; valid until the next call.
  [[nodiscard]] virtual result<std::span<const std::byte>> bytes_of(
      const safetensors::tensor_entry& entry) = 0;
  /// The tensor is not needed for now.
  virtual void release(const safetensors::tensor_entry& entry) noexcept = 0;
};

/// Tensors of an open safetensors file.
class file_source final : public tensor_source {
 public:
  file_source(const safetensors::input_file& file, std::uint64_t data_offset)
      : file_(file), data_offset_(data_offset) {}
  result<std::span<const std::byte>> bytes_of(const safetensors::tensor_entry& entry) override {
    return file_.view(data_offset_ + entry.begin, entry.end - entry.begin, scratch_);
  }
  void release(const safetensors::tensor_entry& entry) noexcept override {
    file_.drop(data_offset_ + entry.begin, entry.end - entry.begin);
  }

 private:
  const safetensors::input_file& file_;
  std::uint64_t data_offset_;
  std::vector<std::byte> scratch_;
};

/// Tensors in the caller's memory, by name.
class memory_source final : public tensor_source {
 public:
  using map = std::map<std::string_view, std::span<const std::byte>>;
  explicit memory_source(const map& tensors) : tensors_(tensors) {}
  result<std::span<const std::byte>> bytes_of(const safetensors::tensor_entry& entry) override {
    const auto found = tensors_.find(entry.name);
    if (found == tensors_.end()) return fail(errc::internal, "a tensor of the header is not in memory");
    return found->second;
  }
  void release(const safetensors::tensor_entry&) noexcept override {}

 private:
  const map& tensors_;
};

}  // namespace tersor::model_detail
