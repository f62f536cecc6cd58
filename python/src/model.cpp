// Whole files and model directories.
#include <filesystem>

#include <nanobind/stl/filesystem.h>

#include "call_options.hpp"

namespace tersor::python {
namespace {

using std::filesystem::path;

nb::dict dict_of(const tensor_report& t) {
  nb::dict d;
  d["name"] = text_of(t.name);
  d["tensor_type"] = text_of(tensor_type(t.name));
  d["dtype"] = t.dtype;
  d["shape"] = tuple_of(t.shape);
  d["n_values"] = t.n_values;
  d["codec"] = t.coding();
  d["original_bytes"] = t.original_bytes;
  d["stored_bytes"] = t.stored_bytes;
  d["escape_tiles"] = t.n_escape_tiles;
  d["raw_tiles"] = t.n_raw_tiles;
  d["digest"] = t.digest;
  return d;
}

nb::dict dict_of(const file_report& f) {
  nb::dict d;
  d["name"] = text_of(f.name);
  d["safetensors"] = f.is_safetensors;
  d["compressed"] = f.is_compressed;
  d["original_bytes"] = f.original_bytes;
  d["stored_bytes"] = f.stored_bytes;
  nb::list tensors;
  for (const tensor_report& t : f.tensors) tensors.append(dict_of(t));
  d["tensors"] = tensors;
  return d;
}

nb::dict dict_of(const model_report& r) {
  nb::dict d;
  d["original_bytes"] = r.original_bytes;
  d["stored_bytes"] = r.stored_bytes;
  d["ratio"] =
      r.stored_bytes == 0 ? 1.0 : static_cast<double>(r.original_bytes) / static_cast<double>(r.stored_bytes);
  d["n_tensors"] = r.n_tensors;
  d["seconds"] = r.seconds;
  nb::list files;
  for (const file_report& f : r.files) files.append(dict_of(f));
  d["files"] = files;
  return d;
}

void bind_transforms(nb::module_& m) {
  m.def(
      "compress",
      [](const held_context& held, const path& src, const path& dst, const nb::kwargs& options) {
        const context& ctx = held.get();
        call_options call(options);
        return dict_of(call.run([&](const model_options& o) { return compress(ctx, src, dst, o); }));
      },
      nb::arg("ctx"), nb::arg("src"), nb::arg("dst"), nb::arg("options"));
  m.def(
      "decompress",
      [](const held_context& held, const path& src, const path& dst, const nb::kwargs& options) {
        const context& ctx = held.get();
        call_options call(options);
        return dict_of(call.run([&](const model_options& o) { return decompress(ctx, src, dst, o); }));
      },
      nb::arg("ctx"), nb::arg("src"), nb::arg("dst"), nb::arg("options"));
  m.def(
      "verify",
      [](const held_context& held, const path& src, const std::optional<path>& against,
         const nb::kwargs& options) {
        const context& ctx = held.get();
        call_options call(options);
        return dict_of(call.run([&](const model_options& o) { return verify(ctx, src, against, o); }));
      },
      nb::arg("ctx"), nb::arg("src"), nb::arg("against").none(), nb::arg("options"));
  m.def(
      "inspect_model",
      [](const path& src, const nb::kwargs& options) {
        call_options call(options);
        return dict_of(call.run([&](const model_options& o) { return inspect_model(src, o); }));
      },
      nb::arg("src"), nb::arg("options"));
  m.def("default_compressed_path", &default_compressed_path, nb::arg("src"));
  m.def("default_decompressed_path", &default_decompressed_path, nb::arg("src"));
}

}  // namespace

void bind_model(nb::module_& m) {
  bind_transforms(m);
  nb::class_<analysis>(m, "Analysis", "Exponent statistics of model files.")
      .def("to_json", [](const analysis& a) { return to_json(a); })
      .def(
          "to_html", [](const analysis& a, std::string_view title) { return to_html(a, title); },
          nb::arg("title"))
      .def("codebooks_json", [](const analysis& a) { return calibrate(a).to_json(); });
  m.def(
      "analyze",
      [](const held_context& held, const std::vector<path>& sources, const nb::kwargs& options) {
        const context& ctx = held.get();
        call_options call(options);
        return call.run([&](const model_options& o) { return analyze(ctx, sources, o); });
      },
      nb::arg("ctx"), nb::arg("sources"), nb::arg("options"));
  m.def("tensor_type", &tensor_type, nb::arg("name"));
  m.def("glob_match", &glob_match, nb::arg("pattern"), nb::arg("name"));
}

}  // namespace tersor::python
