// The transports of this build. One that lacks its library is there as well, and says so.
#pragma once

#include "transfer/transports/channel.hpp"

namespace tersor::transfer {

[[nodiscard]] const transport& tcp_transport();
[[nodiscard]] const transport& mooncake_transport();
[[nodiscard]] const transport& nccl_transport();
[[nodiscard]] const transport& tls_transport();
[[nodiscard]] const transport& ucx_transport();

/// A transport whose control stream is TCP; its path carries the payloads.
class transport_beside_tcp : public transport {
 public:
  [[nodiscard]] result<std::unique_ptr<listener>> listen(const endpoint& at,
                                                         const tls_files& tls) const override {
    return tcp_transport().listen(at, tls);
  }
  [[nodiscard]] result<std::unique_ptr<channel>> connect(const endpoint& to, deadline until,
                                                         const tls_files& tls) const override {
    return tcp_transport().connect(to, until, tls);
  }
};

/// Stands in the table for a transport that was not built.
class missing_transport final : public transport {
 public:
  missing_transport(std::string_view name, std::string_view reason) : name_(name), reason_(reason) {}
  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  [[nodiscard]] transport_info probe() const override {
    return {std::string(name_), false, std::string(reason_)};
  }
  [[nodiscard]] result<std::unique_ptr<listener>> listen(const endpoint&, const tls_files&) const override {
    return fail(errc::backend_unavailable, std::string(reason_));
  }
  [[nodiscard]] result<std::unique_ptr<channel>> connect(const endpoint&, deadline,
                                                         const tls_files&) const override {
    return fail(errc::backend_unavailable, std::string(reason_));
  }

 private:
  std::string_view name_, reason_;
};

}  // namespace tersor::transfer
