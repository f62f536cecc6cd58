#include "safetensors/header_sax.hpp"

namespace tersor::safetensors {
namespace {

constexpr unsigned kTensorNesting = 2;  // the root and the tensor's object

}  // namespace

bool header_sax::reject_at(std::string message, std::uint64_t json_offset) {
  error_.code = errc::malformed;
  error_.message = std::move(message);
  error_.byte_offset = kLengthBytes + json_offset;
  const bool in_tensor = place_ != place::root_value && place_ != place::root && place_ != place::done &&
                         place_ != place::metadata_value && place_ != place::metadata;
  if (in_tensor && !tensors_.empty()) error_.tensor = tensors_.back().entry.name;
  return false;
}

bool header_sax::reject(std::string message) {
  return reject_at(std::move(message), position_);
}

const char* header_sax::expected() const {
  switch (place_) {
    case place::root_value:
      return "an object";
    case place::metadata_value:
      return "an object for __metadata__";
    case place::metadata:
      return "a string for each value of __metadata__";
    case place::tensor_value:
      return "an object for each tensor";
    case place::dtype_value:
      return "a string for dtype";
    case place::shape_value:
      return "an array for shape";
    case place::shape:
      return "unsigned integers in shape";
    case place::offsets_value:
      return "an array for data_offsets";
    case place::offsets:
      return "unsigned integers in data_offsets";
    default:
      return "a key";
  }
}

bool header_sax::scalar(const char* what) {
  if (place_ == place::skipped) return true;
  if (place_ == place::skipped_value) {
    place_ = place::tensor;
    return true;
  }
  return reject(std::string("expected ") + expected() + ", found " + what);
}

bool header_sax::number_unsigned(number_unsigned_t value) {
  if (place_ == place::shape) {
    tensors_.back().entry.shape.push_back(value);
    return true;
  }
  if (place_ == place::offsets) {
    if (offsets_.size() == 2) return reject("data_offsets has more than two numbers");
    offsets_.push_back(value);
    return true;
  }
  return scalar("a number");
}

bool header_sax::string(string_t& text) {
  if (place_ == place::metadata) {
    metadata_.emplace_back(std::move(metadata_key_), std::move(text));
    return true;
  }
  if (place_ == place::dtype_value) {
    tensors_.back().entry.dtype = std::move(text);
    place_ = place::tensor;
    return true;
  }
  return scalar("a string");
}

bool header_sax::open_skipped() {
  if (kTensorNesting + skipped_names_.size() >= kMaxNesting) return reject("nested too deeply");
  skipped_names_.emplace_back();
  place_ = place::skipped;
  return true;
}

void header_sax::close_skipped() {
  skipped_names_.pop_back();
  if (skipped_names_.empty()) place_ = place::tensor;
}

bool header_sax::start_object(std::size_t) {
  switch (place_) {
    case place::root_value:
      place_ = place::root;
      return true;
    case place::metadata_value:
      place_ = place::metadata;
      return true;
    case place::tensor_value:
      place_ = place::tensor;
      field_names_.clear();
      offsets_.clear();
      return true;
    case place::skipped_value:
    case place::skipped:
      return open_skipped();
    default:
      return reject(std::string("expected ") + expected() + ", found an object");
  }
}

bool header_sax::start_array(std::size_t) {
  switch (place_) {
    case place::shape_value:
      place_ = place::shape;
      return true;
    case place::offsets_value:
      place_ = place::offsets;
      return true;
    case place::skipped_value:
    case place::skipped:
      return open_skipped();
    default:
      return reject(std::string("expected ") + expected() + ", found an array");
  }
}

bool header_sax::key(string_t& name) {
  if (place_ == place::root) {
    if (name == "__metadata__") {
      if (has_metadata_) return reject("__metadata__ occurs twice");
      has_metadata_ = true;
      place_ = place::metadata_value;
      return true;
    }
    if (!tensor_names_.insert(name).second) {
      reject("the tensor occurs twice");
      error_.tensor = std::move(name);
      return false;
    }
    tensors_.push_back({.entry = {.name = std::move(name)}, .json_offset = position_});
    place_ = place::tensor_value;
    return true;
  }
  if (place_ == place::metadata) {
    if (!metadata_names_.insert(name).second) return reject("a key of __metadata__ occurs twice");
    metadata_key_ = std::move(name);
    return true;
  }
  if (place_ == place::tensor) return tensor_key(name);
  if (!skipped_names_.back().insert(std::move(name)).second) return reject("a key occurs twice");
  return true;
}

bool header_sax::tensor_key(const std::string& name) {
  if (!field_names_.insert(name).second) return reject("a key of the tensor occurs twice");
  if (name == "dtype") {
    place_ = place::dtype_value;
  } else if (name == "shape") {
    place_ = place::shape_value;
  } else if (name == "data_offsets") {
    place_ = place::offsets_value;
  } else {
    place_ = place::skipped_value;
  }
  return true;
}

bool header_sax::end_object() {
  switch (place_) {
    case place::root:
      place_ = place::done;
      return true;
    case place::metadata:
      place_ = place::root;
      return true;
    case place::skipped:
      close_skipped();
      return true;
    default:
      break;
  }
  for (const char* field : {"dtype", "shape", "data_offsets"}) {
    if (!field_names_.contains(field)) return reject(std::string("the tensor has no ") + field);
  }
  place_ = place::root;
  return true;
}

bool header_sax::end_array() {
  if (place_ == place::skipped) {
    close_skipped();
    return true;
  }
  if (place_ == place::offsets) {
    if (offsets_.size() != 2) return reject("data_offsets has fewer than two numbers");
    tensors_.back().entry.begin = offsets_[0];
    tensors_.back().entry.end = offsets_[1];
  }
  place_ = place::tensor;
  return true;
}

bool header_sax::parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) {
  return reject_at("the header is not valid UTF-8 JSON", position > 0 ? position - 1 : 0);
}

}  // namespace tersor::safetensors
