// Frames on the GPU. Addresses and streams are integers; everything acts on the current device.
#include "device.hpp"

namespace tersor::python {
namespace {

using cuda::workspace;

/// One tensor to encode as Python gives it: (dtype, shape, src, codebook bytes or None, codebook address,
/// frame, capacity, result).
struct encode_job {
  std::vector<std::uint64_t> shape;
  cuda::encode_task task;
};

void fill(encode_job& job, const nb::tuple& given) {
  if (given.size() != 8) raise({.code = errc::invalid_argument, .message = "an encode task is a tuple of 8"});
  job.shape = nb::cast<std::vector<std::uint64_t>>(given[1]);
  job.task.type = dtype_of(nb::cast<std::string_view>(given[0]));
  job.task.shape = job.shape;
  job.task.src_dev = pointer(nb::cast<address>(given[2]));
  job.task.codebook_dev = pointer<const std::uint8_t>(nb::cast<address>(given[4]));
  if (!given[3].is_none()) job.task.book = *book_of(nb::cast<nb::bytes>(given[3]));
  if (given[3].is_none() && job.task.codebook_dev == nullptr)
    raise({.code = errc::invalid_argument, .message = "a codebook is needed, as bytes or in device memory"});
  job.task.frame_dev = pointer(nb::cast<address>(given[5]));
  job.task.capacity = nb::cast<std::uint64_t>(given[6]);
  job.task.result_dev = pointer<cuda::frame_result>(nb::cast<address>(given[7]));
}

std::vector<cuda::encode_task> encode_tasks(const std::vector<nb::tuple>& given,
                                            std::vector<encode_job>& jobs) {
  jobs.resize(given.size());
  std::vector<cuda::encode_task> tasks;
  for (std::size_t i = 0; i < given.size(); ++i) {
    fill(jobs[i], given[i]);
    tasks.push_back(jobs[i].task);
  }
  return tasks;
}

/// (dtype, n_values, frame, frame bytes, dst, result)
std::vector<cuda::decode_task> decode_tasks(const std::vector<nb::tuple>& given) {
  std::vector<cuda::decode_task> tasks;
  for (const nb::tuple& t : given) {
    if (t.size() != 6) raise({.code = errc::invalid_argument, .message = "a decode task is a tuple of 6"});
    tasks.push_back({.type = dtype_of(nb::cast<std::string_view>(t[0])),
                     .n_values = nb::cast<std::uint64_t>(t[1]),
                     .frame_dev = pointer(nb::cast<address>(t[2])),
                     .frame_bytes = nb::cast<std::uint64_t>(t[3]),
                     .dst_dev = pointer(nb::cast<address>(t[4])),
                     .result_dev = pointer<cuda::frame_result>(nb::cast<address>(t[5]))});
  }
  return tasks;
}

void bind_devices(nb::module_& cuda_module) {
  cuda_module.def("devices", [] {
    nb::list all;
    for (const cuda::device_info& d : unwrap(cuda::devices())) {
      nb::dict entry;
      entry["index"] = d.index;
      entry["name"] = d.name;
      entry["compute_capability"] = nb::make_tuple(d.compute_major, d.compute_minor);
      entry["multiprocessors"] = d.multiprocessors;
      entry["memory_bytes"] = d.memory_bytes;
      entry["l2_bytes"] = d.l2_bytes;
      entry["driver"] = d.driver;
      all.append(entry);
    }
    return all;
  });
}

void bind_encode(nb::module_& cuda_module) {
  cuda_module.def(
      "encode_bound",
      [](std::string_view c, std::string_view type, std::uint64_t n_values) {
        return cuda::encode_bound(codec_of(c), dtype_of(type), n_values);
      },
      nb::arg("codec"), nb::arg("dtype"), nb::arg("n_values"));
  cuda_module.def(
      "encode_workspace_size",
      [](std::string_view c, bool canonical, const std::vector<nb::tuple>& tasks) {
        std::vector<encode_job> jobs;
        return cuda::encode_workspace_size(codec_of(c), tails_of(canonical), encode_tasks(tasks, jobs));
      },
      nb::arg("codec"), nb::arg("canonical"), nb::arg("tasks"));
  cuda_module.def(
      "encode",
      [](std::string_view c, const std::vector<nb::tuple>& tasks, bool canonical, address ws,
         std::uint64_t ws_bytes, address stream) {
        std::vector<encode_job> jobs;
        const auto list = encode_tasks(tasks, jobs);
        const codec which = codec_of(c);
        const workspace memory = {pointer(ws), ws_bytes};
        check([&] {
          const nb::gil_scoped_release release;
          return cuda::encode_batch_async(which, list, tails_of(canonical), memory, stream_of(stream));
        }());
      },
      nb::arg("codec"), nb::arg("tasks"), nb::arg("canonical"), nb::arg("ws"), nb::arg("ws_bytes"),
      nb::arg("stream"));
}

void bind_decode(nb::module_& cuda_module) {
  cuda_module.def(
      "decode_workspace_size",
      [](const std::vector<nb::tuple>& tasks) { return cuda::decode_workspace_size(decode_tasks(tasks)); },
      nb::arg("tasks"));
  cuda_module.def(
      "decode",
      [](std::string_view c, const std::vector<nb::tuple>& tasks, address ws, std::uint64_t ws_bytes,
         address stream) {
        const auto list = decode_tasks(tasks);
        const codec which = codec_of(c);
        const workspace memory = {pointer(ws), ws_bytes};
        check([&] {
          const nb::gil_scoped_release release;
          return cuda::decode_batch_async(which, list, memory, stream_of(stream));
        }());
      },
      nb::arg("codec"), nb::arg("tasks"), nb::arg("ws"), nb::arg("ws_bytes"), nb::arg("stream"));
}

void bind_codebook(nb::module_& cuda_module) {
  cuda_module.def("codebook_workspace_size", &cuda::codebook_workspace_size);
  cuda_module.def(
      "make_codebook",
      [](std::string_view c, std::string_view type, address src, std::uint64_t n_values, address book,
         address ws, std::uint64_t ws_bytes, address stream) {
        check(cuda::make_codebook_async(codec_of(c), dtype_of(type), pointer(src), n_values,
                                        pointer<std::uint8_t>(book), {pointer(ws), ws_bytes},
                                        stream_of(stream)));
      },
      nb::arg("codec"), nb::arg("dtype"), nb::arg("src"), nb::arg("n_values"), nb::arg("codebook"),
      nb::arg("ws"), nb::arg("ws_bytes"), nb::arg("stream"));
}

}  // namespace

void bind_cuda(nb::module_& cuda_module) {
  static_assert(sizeof(cuda::frame_result) == 32);
  cuda_module.attr("FRAME_RESULT_BYTES") = sizeof(cuda::frame_result);
  cuda_module.attr("FRAME_ALIGNMENT") = cuda::kFrameAlignment;
  bind_devices(cuda_module);
  bind_encode(cuda_module);
  bind_decode(cuda_module);
  bind_codebook(cuda_module);
}

}  // namespace tersor::python
