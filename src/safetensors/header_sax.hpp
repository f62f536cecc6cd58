// Receives the events of the JSON parser and builds the tensor list, refusing all that a header must not
// hold. Private to header.cpp.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "safetensors/header.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// A tensor and where its key ends in the JSON text, for errors found after parsing.
struct parsed_tensor {
  tensor_entry entry;
  std::uint64_t json_offset = 0;
};

class header_sax : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// `position` counts the bytes that the parser has taken; it must outlive this object.
  explicit header_sax(const std::uint64_t& position) : position_(position) {}

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return scalar("a negative number"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t, const string_t&) override {
    return scalar("a number that is no integer of 64 bits");
  }
  bool string(string_t& text) override;
  bool binary(binary_t&) override { return scalar("binary data"); }
  bool start_object(std::size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override;

  [[nodiscard]] error take_error() { return std::move(error_); }
  [[nodiscard]] std::vector<parsed_tensor> take_tensors() { return std::move(tensors_); }
  [[nodiscard]] metadata_list take_metadata() { return std::move(metadata_); }

 private:
  // What the parser's next event belongs to.
  enum class place {
    root_value,
    root,
    metadata_value,
    metadata,
    tensor_value,
    tensor,
    dtype_value,
    shape_value,
    shape,
    offsets_value,
    offsets,
    skipped_value,
    skipped,
    done
  };

  bool scalar(const char* what);
  bool tensor_key(const std::string& name);
  bool open_skipped();
  void close_skipped();
  [[nodiscard]] const char* expected() const;
  bool reject(std::string message);
  bool reject_at(std::string message, std::uint64_t json_offset);

  const std::uint64_t& position_;
  place place_ = place::root_value;
  error error_;

  std::vector<parsed_tensor> tensors_;
  metadata_list metadata_;
  bool has_metadata_ = false;
  // Ordered sets: the names are an attacker's, and a hash table could be made to collide.
  std::set<std::string> tensor_names_;
  std::set<std::string> metadata_names_;
  std::set<std::string> field_names_;
  std::vector<std::set<std::string>> skipped_names_;  ///< one per open object or array under an unknown key
  std::string metadata_key_;
  std::vector<std::uint64_t> offsets_;
};

}  // namespace tersor::safetensors
