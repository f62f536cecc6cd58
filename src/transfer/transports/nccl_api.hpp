// What is called of NCCL and of the CUDA driver, both opened at run time (TERSOR_NCCL names the first). Their
// binary interfaces are stable, so neither header is needed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include <tersor/error.hpp>

namespace tersor::transfer {

// The driver's handles.
struct cuda_context_tag;
struct cuda_stream_tag;
struct cuda_event_tag;
using cuda_context = cuda_context_tag*;
using cuda_stream = cuda_stream_tag*;
using cuda_event = cuda_event_tag*;
using cuda_pointer = unsigned long long;

inline constexpr int kCudaSuccess = 0, kCudaNotReady = 600;

struct cuda_driver {
  int (*init)(unsigned) = nullptr;
  int (*get_error_string)(int, const char**) = nullptr;
  int (*driver_version)(int*) = nullptr;
  int (*device_count)(int*) = nullptr;
  int (*device_get)(int*, int) = nullptr;
  int (*device_name)(char*, int, int) = nullptr;
  int (*retain_context)(cuda_context*, int) = nullptr;
  int (*release_context)(int) = nullptr;
  int (*push_context)(cuda_context) = nullptr;
  int (*pop_context)(cuda_context*) = nullptr;
  int (*allocate)(cuda_pointer*, std::size_t) = nullptr;
  int (*free)(cuda_pointer) = nullptr;
  int (*register_host)(void*, std::size_t, unsigned) = nullptr;
  int (*unregister_host)(void*) = nullptr;
  int (*copy_to_device)(cuda_pointer, const void*, std::size_t, cuda_stream) = nullptr;
  int (*copy_to_host)(void*, cuda_pointer, std::size_t, cuda_stream) = nullptr;
  int (*stream_create)(cuda_stream*, unsigned) = nullptr;
  int (*stream_synchronize)(cuda_stream) = nullptr;
  int (*stream_destroy)(cuda_stream) = nullptr;
  int (*stream_wait_event)(cuda_stream, cuda_event, unsigned) = nullptr;
  int (*event_create)(cuda_event*, unsigned) = nullptr;
  int (*event_destroy)(cuda_event) = nullptr;
  int (*event_record)(cuda_event, cuda_stream) = nullptr;
  int (*event_query)(cuda_event) = nullptr;
};

struct nccl_comm_tag;
using nccl_comm = nccl_comm_tag*;
struct nccl_unique_id {
  std::array<char, 128> bytes = {};
};
/// Of NCCL 2.14: newer ones take it by its size and version.
struct nccl_config {
  std::size_t size = sizeof(nccl_config);
  unsigned magic = 0xcafebeef, version = 21'400;
  int blocking = 0;
  int unused = INT32_MIN;
};

inline constexpr int kNcclSuccess = 0, kNcclInProgress = 7, kNcclBytes = 1;

struct nccl_library {
  int (*get_version)(int*) = nullptr;
  const char* (*get_error_string)(int) = nullptr;
  int (*get_unique_id)(nccl_unique_id*) = nullptr;
  int (*init_rank)(nccl_comm*, int, nccl_unique_id, int, nccl_config*) = nullptr;
  int (*abort)(nccl_comm) = nullptr;
  int (*async_error)(nccl_comm, int*) = nullptr;
  int (*send)(const void*, std::size_t, int, int, nccl_comm, cuda_stream) = nullptr;
  int (*receive)(void*, std::size_t, int, int, nccl_comm, cuda_stream) = nullptr;
};

struct nccl_api {
  cuda_driver cuda;
  nccl_library nccl;
  int version = 0;
  int n_devices = 0;
  std::string reason;  ///< why it cannot be used; empty if it can
};

/// Opened by the first call, for good.
[[nodiscard]] const nccl_api& find_nccl();

[[nodiscard]] status check_cuda(int code, std::string_view doing);

}  // namespace tersor::transfer
