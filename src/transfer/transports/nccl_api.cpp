#include "transfer/transports/nccl_api.hpp"

#include "transfer/transports/library.hpp"

namespace tersor::transfer {
namespace {

constexpr std::array<const char*, 2> kNcclNames = {"libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2"};
constexpr std::array<const char*, 1> kCudaNames = {"libcuda.so.1"};

std::string load_cuda(cuda_driver& c) {
  open_library library("TERSOR_CUDA_DRIVER", kCudaNames);
  if (!library.valid()) return library.reason();
  library.load("cuInit", c.init);
  library.load("cuGetErrorString", c.get_error_string);
  library.load("cuDriverGetVersion", c.driver_version);
  library.load("cuDeviceGetCount", c.device_count);
  library.load("cuDeviceGet", c.device_get);
  library.load("cuDeviceGetName", c.device_name);
  library.load("cuDevicePrimaryCtxRetain", c.retain_context);
  library.load("cuDevicePrimaryCtxRelease_v2", c.release_context);
  library.load("cuCtxPushCurrent_v2", c.push_context);
  library.load("cuCtxPopCurrent_v2", c.pop_context);
  library.load("cuMemAlloc_v2", c.allocate);
  library.load("cuMemFree_v2", c.free);
  library.load("cuMemHostRegister_v2", c.register_host);
  library.load("cuMemHostUnregister", c.unregister_host);
  library.load("cuMemcpyHtoDAsync_v2", c.copy_to_device);
  library.load("cuMemcpyDtoHAsync_v2", c.copy_to_host);
  library.load("cuStreamCreate", c.stream_create);
  library.load("cuStreamSynchronize", c.stream_synchronize);
  library.load("cuStreamDestroy_v2", c.stream_destroy);
  library.load("cuStreamWaitEvent", c.stream_wait_event);
  library.load("cuEventCreate", c.event_create);
  library.load("cuEventDestroy_v2", c.event_destroy);
  library.load("cuEventRecord", c.event_record);
  library.load("cuEventQuery", c.event_query);
  return library.reason();
}

std::string load_nccl(nccl_library& n) {
  open_library library("TERSOR_NCCL", kNcclNames);
  if (!library.valid()) return library.reason();
  library.load("ncclGetVersion", n.get_version);
  library.load("ncclGetErrorString", n.get_error_string);
  library.load("ncclGetUniqueId", n.get_unique_id);
  library.load("ncclCommInitRankConfig", n.init_rank);
  library.load("ncclCommAbort", n.abort);
  library.load("ncclCommGetAsyncError", n.async_error);
  library.load("ncclSend", n.send);
  library.load("ncclRecv", n.receive);
  return library.reason();
}

nccl_api open_api() {
  nccl_api api;
  api.reason = load_nccl(api.nccl);
  if (!api.reason.empty()) return api;
  api.reason = load_cuda(api.cuda);
  if (!api.reason.empty()) return api;
  if (api.nccl.get_version(&api.version) != kNcclSuccess) api.reason = "NCCL does not say its version";
  if (api.cuda.init(0) != kCudaSuccess || api.cuda.device_count(&api.n_devices) != kCudaSuccess ||
      api.n_devices == 0)
    api.reason = "no CUDA device";
  return api;
}

}  // namespace

const nccl_api& find_nccl() {
  static const nccl_api kApi = open_api();
  return kApi;
}

status check_cuda(int code, std::string_view doing) {
  if (code == kCudaSuccess) return {};
  const char* reason = nullptr;
  if (find_nccl().cuda.get_error_string(code, &reason) != kCudaSuccess || reason == nullptr) reason = "?";
  return fail(errc::io_error, "cannot " + std::string(doing) + ": CUDA: " + reason);
}

}  // namespace tersor::transfer
