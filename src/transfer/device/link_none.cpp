// In a build without CUDA.
#include <tersor/device_link.hpp>

namespace tersor::transfer {
namespace {

tl::unexpected<error> none() {
  return fail(errc::backend_unavailable, "this build has no CUDA backend");
}

}  // namespace

// Nothing here can be created, so no member function is ever called on an object.
struct device_link::impl {};
struct host_link::impl {};

result<pinned_verdicts> pinned_verdicts::create(std::uint64_t) {
  return none();
}
pinned_verdicts::pinned_verdicts(pinned_verdicts&&) noexcept = default;
pinned_verdicts& pinned_verdicts::operator=(pinned_verdicts&&) noexcept = default;
pinned_verdicts::~pinned_verdicts() = default;

result<device_link> device_link::create(const device_link_options&) {
  return none();
}
device_link::device_link(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
device_link::device_link(device_link&&) noexcept = default;
device_link& device_link::operator=(device_link&&) noexcept = default;
device_link::~device_link() = default;
link_method device_link::choose(std::uint64_t) const noexcept {
  return link_method::raw;
}
result<std::uint64_t> device_link::count_pieces(std::span<const link_region>) const {
  return none();
}
result<link_method> device_link::send_async(std::span<const link_region>, link_method,
                                            std::span<link_verdict>, cuda::stream, cuda::stream) {
  return none();
}

result<host_link> host_link::create(const host_link_options&) {
  return none();
}
host_link::host_link(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
host_link::host_link(host_link&&) noexcept = default;
host_link& host_link::operator=(host_link&&) noexcept = default;
host_link::~host_link() = default;
link_method host_link::choose(std::uint64_t) const noexcept {
  return link_method::raw;
}
result<std::uint64_t> host_link::count_pieces(std::span<const link_region>) const {
  return none();
}
result<std::uint64_t> host_link::store_bytes(std::span<const link_region>) const {
  return none();
}
result<link_method> host_link::store_async(std::span<const link_region>, link_method, const host_store&,
                                           std::span<link_verdict>, cuda::stream) {
  return none();
}
status host_link::load_async(std::span<const link_region>, link_method, const host_store&,
                             std::span<link_verdict>, cuda::stream) {
  return none();
}

result<shared_staging> shared_staging::create(int, std::uint64_t) {
  return none();
}
result<shared_staging> shared_staging::open(int, const ipc_token&, std::uint64_t) {
  return none();
}
shared_staging::shared_staging(shared_staging&&) noexcept = default;
shared_staging& shared_staging::operator=(shared_staging&&) noexcept = default;
shared_staging::~shared_staging() = default;
result<ipc_token> shared_staging::token() const {
  return none();
}

result<shared_event> shared_event::create(int) {
  return none();
}
result<shared_event> shared_event::open(int, const ipc_token&) {
  return none();
}
shared_event::shared_event(shared_event&&) noexcept = default;
shared_event& shared_event::operator=(shared_event&&) noexcept = default;
shared_event::~shared_event() = default;
result<ipc_token> shared_event::token() const {
  return none();
}
status shared_event::record(cuda::stream) const {
  return none();
}
status shared_event::wait(cuda::stream) const {
  return none();
}

}  // namespace tersor::transfer
