// tersor.Buffer: bytes made by a call, handed over without a copy.
#include "common.hpp"

namespace tersor::python {
namespace {

int get_view(PyObject* self, Py_buffer* view, int flags) noexcept {
  std::vector<std::byte>& bytes = nb::inst_ptr<buffer>(self)->bytes();
  return PyBuffer_FillInfo(view, self, bytes.data(), static_cast<Py_ssize_t>(bytes.size()), 0, flags);
}

// The limited API has the slots since Python 3.9, where nanobind knows both names.
PyType_Slot kBufferSlots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(&get_view)}, {0, nullptr}};

nb::ndarray<std::uint8_t, nb::ndim<1>> array_of(nb::handle_t<buffer> self) {
  std::vector<std::byte>& bytes = nb::inst_ptr<buffer>(self)->bytes();
  return {reinterpret_cast<std::uint8_t*>(bytes.data()), {bytes.size()}, self};
}

}  // namespace

void bind_buffer(nb::module_& m) {
  nb::class_<buffer>(m, "Buffer", nb::type_slots(kBufferSlots),
                     "Bytes that a call made. Views share them: memoryview(b), numpy.asarray(b), "
                     "torch.from_dlpack(b); bytes(b) copies.")
      .def("__init__",
           [](buffer* self, const bytes_in& data) {
             const auto span = span_of(data);
             new (self) buffer(std::vector<std::byte>(span.begin(), span.end()));
           })
      .def("__len__", [](buffer& self) { return self.bytes().size(); })
      .def("__repr__",
           [](buffer& self) { return "tersor.Buffer(" + std::to_string(self.bytes().size()) + " bytes)"; })
      .def(
          "__eq__",
          [](buffer& self, const bytes_in& other) {
            const auto span = span_of(other);
            return std::equal(self.bytes().begin(), self.bytes().end(), span.begin(), span.end());
          },
          nb::is_operator())
      .def("__reduce__",
           [](nb::handle_t<buffer> self) {
             std::vector<std::byte>& bytes = nb::inst_ptr<buffer>(self)->bytes();
             return nb::make_tuple(self.type(), nb::make_tuple(nb::bytes(bytes.data(), bytes.size())));
           })
      .def(
          "__dlpack__",
          [](nb::handle_t<buffer> self, const nb::kwargs& how) {
            if (how.contains("copy") && !how["copy"].is_none() && nb::cast<bool>(how["copy"]))
              throw nb::buffer_error("a Buffer is shared by DLPack, not copied");
            return nb::cast(array_of(self));
          },
          nb::arg("how"))
      .def("__dlpack_device__", [](buffer&) { return nb::make_tuple(1, 0); });
}

}  // namespace tersor::python
