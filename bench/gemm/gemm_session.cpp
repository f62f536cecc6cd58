#include <algorithm>

#include "bench_input.hpp"
#include "gemm_env.hpp"
#include "gpu_env.hpp"

namespace tersor::bench {
namespace {

result<cuda::device_info> pick_device(int index) {
  TERSOR_TRY(const auto devices, cuda::devices());
  for (const cuda::device_info& device : devices) {
    if (device.index == index) return device;
  }
  return fail(errc::backend_unavailable,
              "no device cuda:" + std::to_string(index) + " that this build can use");
}

/// The device's copy, measured as `tersor bench codec` does.
result<double> measured_copy(const gemm_env& env) {
  const gpu_bench_options options = {.on_step = env.options.on_step};
  core::thread_pool pool(env.cpu.threads());
  TERSOR_TRY(gpu_stream stream, gpu_stream::create());
  gpu_env copy_env{
      .options = options, .cpu = env.cpu, .pool = pool, .device = env.device, .stream = std::move(stream)};
  gpu_bench_report report;
  TERSOR_CHECK(measure_copy(copy_env, report));
  return report.copy_gb_s;
}

result<std::vector<std::byte>> read_input(const std::filesystem::path& path) {
  TERSOR_TRY(const auto tensors, load_bf16(path));
  std::vector<std::byte> bytes;
  for (const bench_tensor& tensor : tensors)
    bytes.insert(bytes.end(), tensor.bytes.begin(), tensor.bytes.end());
  return bytes;
}

}  // namespace

result<gemm_session> gemm_session::create(const gemm_bench_options& options) {
  TERSOR_CHECK(check_gemm_options(options));
  TERSOR_TRY(const cuda::device_info device, pick_device(options.device));
  TERSOR_CHECK(cuda_ok(cudaSetDevice(options.device), "device"));
  gemm_session session;
  TERSOR_TRY(context cpu, context::create(options.threads));
  session.cpu_ = std::make_unique<context>(std::move(cpu));
  TERSOR_TRY(const cuda::gemm_device planner, cuda::current_gemm_device());
  TERSOR_TRY(gpu_stream stream, gpu_stream::create());
  TERSOR_TRY(device_buffer workspace, device_buffer::allocate(kLibraryWorkspace));
  session.env_ = std::make_unique<gemm_env>(gemm_env{.options = options,
                                                     .cpu = *session.cpu_,
                                                     .device = device,
                                                     .planner = planner,
                                                     .library = cuda::library_gemm::find(),
                                                     .stream = std::move(stream),
                                                     .library_workspace = std::move(workspace)});
  if (options.input) {
    TERSOR_TRY(session.env_->input, read_input(*options.input));
    session.data_name_ = options.input->filename().string();
  }
  TERSOR_TRY(session.env_->copy_gb_s, measured_copy(*session.env_));
  return session;
}

}  // namespace tersor::bench
