// The extension module tersor._core: the public C++ API, with addresses instead of device arrays.
#include "common.hpp"

NB_MODULE(_core, m) {
  using namespace tersor::python;
  // Tensors that view a Buffer may outlive the interpreter.
  nanobind::set_leak_warnings(false);
  m.doc() = "Bindings of the C++ library; use the package tersor.";
  m.attr("VERSION") = nb::str(tersor::kVersion.data(), tersor::kVersion.size());
  m.attr("FRAME_FORMAT_VERSION") = tersor::kFrameFormatVersion;
  m.attr("CONTAINER_FORMAT_VERSION") = tersor::kContainerFormatVersion;
  bind_buffer(m);
  bind_codec(m);
  bind_packed(m);
  bind_model(m);
  bind_tensor_file(m);
  nb::module_ transfer = m.def_submodule("transfer", "KV caches from one process to another.");
  bind_transfer(transfer);
  nb::module_ cuda = m.def_submodule("cuda", "NVIDIA GPUs: device memory by address, calls on a stream.");
  bind_cuda(cuda);
  bind_gemm(cuda);
  nb::module_ kv = cuda.def_submodule("kv", "Paged KV caches.");
  bind_kv(kv);
}
