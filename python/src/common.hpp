// What all bindings share: errors to exceptions, bytes in and out, the GIL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <tersor/tersor.hpp>

namespace tersor::python {

namespace nb = nanobind;

/// Contiguous bytes on the CPU: anything with the buffer protocol or DLPack whose elements are uint8.
using bytes_in = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using bytes_out = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;

[[nodiscard]] inline std::span<const std::byte> span_of(const bytes_in& data) {
  return {reinterpret_cast<const std::byte*>(data.data()), data.size()};
}
[[nodiscard]] inline std::span<std::byte> span_of(const bytes_out& data) {
  return {reinterpret_cast<std::byte*>(data.data()), data.size()};
}

/// Raises the exception of `tersor._errors` that belongs to the code. Needs the GIL.
[[noreturn]] void raise(const error& e);

/// Runs `work` without the GIL and gives its value, or raises its error.
template <class Work>
auto unlocked(Work&& work) {
  auto outcome = [&] {
    const nb::gil_scoped_release release;
    return std::forward<Work>(work)();
  }();
  if (!outcome) raise(outcome.error());
  if constexpr (!std::is_void_v<typename decltype(outcome)::value_type>) return std::move(*outcome);
}

/// The value, or its error raised; for calls too short to release the GIL for.
template <class T>
T unwrap(result<T>&& outcome) {
  if (!outcome) raise(outcome.error());
  return std::move(*outcome);
}
inline void check(const status& outcome) {
  if (!outcome) raise(outcome.error());
}

/// Text for Python. Paths and names may hold any bytes: those that are no UTF-8 become surrogates, as in
/// os.fsdecode.
[[nodiscard]] nb::object text_of(std::string_view bytes);

[[nodiscard]] dtype dtype_of(std::string_view name);
[[nodiscard]] codec codec_of(std::string_view name);
[[nodiscard]] matrix_layout layout_of(std::string_view name);
[[nodiscard]] inline matrix_order order_of(bool column_major) {
  return column_major ? matrix_order::column_major : matrix_order::row_major;
}
/// A codebook of 16 symbols from bytes.
[[nodiscard]] std::optional<codebook> book_of(const std::optional<nb::bytes>& symbols);
[[nodiscard]] nb::bytes bytes_of(const codebook& book);
[[nodiscard]] nb::tuple tuple_of(const std::vector<std::uint64_t>& shape);

/// A context as Python holds it. Threads do not survive a fork: in a child process the parent's context is
/// abandoned rather than destroyed, which would wait for them without end.
class held_context {
 public:
  explicit held_context(context made);
  held_context(const held_context&) = delete;
  held_context& operator=(const held_context&) = delete;
  ~held_context();

  /// Raises `invalid_argument` in a child process of the one that made it.
  [[nodiscard]] const context& get() const;

 private:
  std::unique_ptr<context> held_;
  long process_;
};

/// Bytes that Python owns and others may view, by the buffer protocol or DLPack.
class buffer {
 public:
  explicit buffer(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  [[nodiscard]] std::vector<std::byte>& bytes() noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

void bind_buffer(nb::module_& m);
void bind_codec(nb::module_& m);
void bind_packed(nb::module_& m);
void bind_model(nb::module_& m);
void bind_tensor_file(nb::module_& m);
void bind_transfer(nb::module_& m);
void bind_cuda(nb::module_& cuda);
void bind_gemm(nb::module_& cuda);
void bind_kv(nb::module_& kv);

/// Device addresses travel as integers.
template <class T = void>
[[nodiscard]] T* pointer(std::uintptr_t address) noexcept {
  return reinterpret_cast<T*>(address);
}

}  // namespace tersor::python
