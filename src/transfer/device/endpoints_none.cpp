// Builds without CUDA.
#include "transfer/device/pinned_bytes.hpp"
#include <tersor/device_transfer.hpp>

namespace tersor::transfer {
namespace {

tl::unexpected<error> no_cuda() {
  return fail(errc::backend_unavailable, "this build has no CUDA backend");
}

}  // namespace

result<std::unique_ptr<device_source>> device_source::create(const context&, const device_endpoint_options&,
                                                             std::vector<device_region>) {
  return no_cuda();
}

result<std::unique_ptr<sink>> make_device_sink(const context&, const device_endpoint_options&,
                                               device_places) {
  return no_cuda();
}

namespace device {

result<std::byte*> allocate_pinned(std::uint64_t) {
  return no_cuda();
}

void free_pinned(std::byte*) noexcept {}

}  // namespace device
}  // namespace tersor::transfer
