#include "common.hpp"

#include <algorithm>

#include <unistd.h>

namespace tersor::python {

void raise(const error& e) {
  const nb::object make = nb::module_::import_("tersor._errors").attr("from_core");
  const nb::object exception =
      make(static_cast<int>(e.code), std::string(to_string(e.code)), text_of(e.message), text_of(e.file),
           text_of(e.tensor), e.byte_offset, e.chunk);
  PyErr_SetObject(exception.type().ptr(), exception.ptr());
  throw nb::python_error();
}

nb::object text_of(std::string_view bytes) {
  return nb::steal(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape"));
}

held_context::held_context(context made)
    : held_(std::make_unique<context>(std::move(made))), process_(getpid()) {}

held_context::~held_context() {
  if (getpid() != process_) static_cast<void>(held_.release());
}

const context& held_context::get() const {
  if (getpid() != process_) {
    raise({.code = errc::invalid_argument,
           .message = "the context was made before a fork, and its threads are not in this process"});
  }
  return *held_;
}

namespace {

[[noreturn]] void refuse(const char* what, std::string_view name, const char* known) {
  raise({.code = errc::invalid_argument,
         .message = std::string("unknown ") + what + " '" + std::string(name) + "'; " + known});
}

}  // namespace

dtype dtype_of(std::string_view name) {
  if (const auto found = parse_dtype(name)) return *found;
  if (name == to_string(dtype::bytes)) return dtype::bytes;
  refuse("dtype", name, "names are those of safetensors: BF16, F16, F32, F8_E4M3, F8_E5M2, U8, ...");
}

codec codec_of(std::string_view name) {
  if (const auto found = parse_codec(name)) return *found;
  refuse("codec", name, "rank, top16 and raw are known");
}

matrix_layout layout_of(std::string_view name) {
  if (const auto found = parse_matrix_layout(name)) return *found;
  refuse("layout", name, "packed and tcatbe are known");
}

std::optional<codebook> book_of(const std::optional<nb::bytes>& symbols) {
  if (!symbols) return std::nullopt;
  codebook book;
  if (symbols->size() != book.symbols.size())
    raise({.code = errc::invalid_argument, .message = "a codebook is 16 bytes"});
  std::copy_n(reinterpret_cast<const std::uint8_t*>(symbols->c_str()), book.symbols.size(),
              book.symbols.begin());
  return book;
}

nb::bytes bytes_of(const codebook& book) {
  return nb::bytes(book.symbols.data(), book.symbols.size());
}

nb::tuple tuple_of(const std::vector<std::uint64_t>& shape) {
  nb::list sizes;
  for (const std::uint64_t size : shape) sizes.append(size);
  return nb::tuple(sizes);
}

}  // namespace tersor::python
