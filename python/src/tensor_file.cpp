// One file, tensor by tensor.
#include <filesystem>

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>

#include "call_options.hpp"

namespace tersor::python {
namespace {

using std::filesystem::path;

/// The tensors of a Python list of (name, dtype, shape, bytes), and what keeps their memory alive.
struct tensor_list {
  std::vector<bytes_in> memory;
  std::vector<named_tensor> tensors;
};

tensor_list tensors_of(const std::vector<nb::tuple>& given) {
  tensor_list list;
  for (const nb::tuple& t : given) {
    if (t.size() != 4) raise({.code = errc::invalid_argument, .message = "a tensor is a tuple of 4"});
    try {
      list.memory.push_back(nb::cast<bytes_in>(t[3], false));
      list.tensors.push_back({.name = nb::cast<std::string>(t[0]),
                              .dtype = nb::cast<std::string>(t[1]),
                              .shape = nb::cast<std::vector<std::uint64_t>>(t[2]),
                              .data = span_of(list.memory.back())});
    } catch (const nb::cast_error&) {
      throw nb::type_error("a tensor is (name, dtype, shape, bytes)");
    }
  }
  return list;
}

const file_tensor& info_of(const tensor_file& file, std::string_view name) {
  if (const file_tensor* found = file.find(name)) return *found;
  raise({.code = errc::not_found,
         .message = "no such tensor in the file",
         .file = file.path().string(),
         .tensor = std::string(name)});
}

void bind_info(nb::module_& m) {
  nb::class_<file_tensor>(m, "TensorInfo", "A tensor of a file: what it is, and where its bytes lie.")
      .def_ro("name", &file_tensor::name)
      .def_ro("dtype", &file_tensor::dtype)
      .def_prop_ro("shape", [](const file_tensor& t) { return tuple_of(t.shape); })
      .def_ro("original_bytes", &file_tensor::original_bytes)
      .def_ro("file_offset", &file_tensor::file_offset)
      .def_ro("stored_bytes", &file_tensor::stored_bytes)
      .def_ro("is_stored", &file_tensor::is_stored)
      .def_prop_ro("is_matrix", [](const file_tensor& t) { return t.layout.has_value(); })
      .def_prop_ro("coding", &file_tensor::coding)
      .def_ro("digest", &file_tensor::digest)
      .def("__repr__", [](const file_tensor& t) {
        return "TensorInfo(" + t.name + ", " + t.dtype + ", " + std::string(t.coding()) + ", " +
               std::to_string(t.stored_bytes) + " of " + std::to_string(t.original_bytes) + " bytes)";
      });
}

void bind_reading(nb::module_& m) {
  nb::class_<tensor_file>(m, "TensorFile",
                          "A safetensors file, plain or compressed, open for reading; for all threads.")
      .def(
          "__init__",
          [](tensor_file* self, const path& file, bool use_mmap) {
            new (self) tensor_file(unlocked(
                [&] { return tensor_file::open(file, use_mmap ? read_mode::mmap : read_mode::pread); }));
          },
          nb::arg("path"), nb::arg("use_mmap") = true)
      .def_prop_ro("path", [](const tensor_file& f) { return f.path().string(); })
      .def_prop_ro("is_container", &tensor_file::is_container)
      .def_prop_ro("original_bytes", &tensor_file::original_bytes)
      .def("metadata", &tensor_file::metadata)
      .def("names",
           [](const tensor_file& f) {
             nb::list names;
             for (const file_tensor& t : f.tensors()) names.append(t.name);
             return names;
           })
      .def("__len__", [](const tensor_file& f) { return f.tensors().size(); })
      .def(
          "__contains__", [](const tensor_file& f, std::string_view name) { return f.find(name) != nullptr; },
          nb::arg("name"))
      .def("info", &info_of, nb::arg("name"), nb::rv_policy::reference_internal)
      .def(
          "read_into",
          [](const tensor_file& f, const held_context& held, std::string_view name, const bytes_out& dst) {
            const context& ctx = held.get();
            unlocked([&] { return f.read_into(ctx, name, span_of(dst)); });
          },
          nb::arg("ctx"), nb::arg("name"), nb::arg("dst").noconvert())
      .def(
          "read_rows",
          [](const tensor_file& f, const held_context& held, std::string_view name, std::uint64_t first,
             std::uint64_t count, const bytes_out& dst) {
            const context& ctx = held.get();
            unlocked([&] { return f.read_rows(ctx, name, first, count, span_of(dst)); });
          },
          nb::arg("ctx"), nb::arg("name"), nb::arg("first"), nb::arg("count"), nb::arg("dst").noconvert())
      .def(
          "read_raw",
          [](const tensor_file& f, std::string_view name, std::uint64_t offset, const bytes_out& dst) {
            unlocked([&] { return f.read_raw(name, offset, span_of(dst)); });
          },
          nb::arg("name"), nb::arg("offset"), nb::arg("dst").noconvert())
      .def(
          "read_stored",
          [](const tensor_file& f, const held_context& held, std::string_view name, std::uint64_t offset,
             const bytes_out& dst) {
            const context& ctx = held.get();
            return unlocked([&] { return f.read_stored(ctx, name, offset, span_of(dst)); });
          },
          nb::arg("ctx"), nb::arg("name"), nb::arg("offset"), nb::arg("dst").noconvert())
      .def_ro_static("STORED_STEP", &tensor_file::kStoredStep);
}

}  // namespace

void bind_tensor_file(nb::module_& m) {
  bind_info(m);
  bind_reading(m);
  m.def(
      "save_tensors",
      [](const held_context& held, const std::vector<nb::tuple>& tensors, const tensor_metadata& metadata,
         const path& dst, const nb::kwargs& options) {
        const context& ctx = held.get();
        const tensor_list list = tensors_of(tensors);
        call_options call(options);
        const file_report report = call.run(
            [&](const model_options& o) { return save_tensors(ctx, list.tensors, metadata, dst, o); });
        nb::dict d;
        d["original_bytes"] = report.original_bytes;
        d["stored_bytes"] = report.stored_bytes;
        return d;
      },
      nb::arg("ctx"), nb::arg("tensors"), nb::arg("metadata").none(), nb::arg("dst"), nb::arg("options"));
  m.def(
      "save_plain",
      [](const std::vector<nb::tuple>& tensors, const tensor_metadata& metadata, const path& dst,
         bool overwrite) {
        const tensor_list list = tensors_of(tensors);
        unlocked([&] { return save_plain(list.tensors, metadata, dst, overwrite); });
      },
      nb::arg("tensors"), nb::arg("metadata").none(), nb::arg("dst"), nb::arg("overwrite") = false);
}

}  // namespace tersor::python
