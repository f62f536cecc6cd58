// The calls of libucp, opened at run time (TERSOR_UCX names it): its headers are needed to build, the library
// is not needed to link or to start.
#pragma once

#include <memory>
#include <string>

#include <ucp/api/ucp.h>

#include <tersor/error.hpp>

namespace tersor::transfer {

struct ucx_api {
  decltype(&::ucp_get_version_string) get_version_string = nullptr;
  decltype(&::ucp_init_version) init_version = nullptr;
  decltype(&::ucp_cleanup) cleanup = nullptr;
  decltype(&::ucp_context_print_info) context_print_info = nullptr;
  decltype(&::ucp_worker_create) worker_create = nullptr;
  decltype(&::ucp_worker_destroy) worker_destroy = nullptr;
  decltype(&::ucp_worker_progress) worker_progress = nullptr;
  decltype(&::ucp_worker_get_efd) worker_get_efd = nullptr;
  decltype(&::ucp_worker_arm) worker_arm = nullptr;
  decltype(&::ucp_worker_signal) worker_signal = nullptr;
  decltype(&::ucp_worker_set_am_recv_handler) worker_set_am_recv_handler = nullptr;
  decltype(&::ucp_listener_create) listener_create = nullptr;
  decltype(&::ucp_listener_destroy) listener_destroy = nullptr;
  decltype(&::ucp_listener_query) listener_query = nullptr;
  decltype(&::ucp_listener_reject) listener_reject = nullptr;
  decltype(&::ucp_conn_request_query) conn_request_query = nullptr;
  decltype(&::ucp_ep_create) ep_create = nullptr;
  decltype(&::ucp_ep_close_nbx) ep_close_nbx = nullptr;
  decltype(&::ucp_am_send_nbx) am_send_nbx = nullptr;
  decltype(&::ucp_am_recv_data_nbx) am_recv_data_nbx = nullptr;
  decltype(&::ucp_am_data_release) am_data_release = nullptr;
  decltype(&::ucp_request_check_status) request_check_status = nullptr;
  decltype(&::ucp_request_free) request_free = nullptr;
  decltype(&::ucs_status_string) status_string = nullptr;

  std::string reason;  ///< why it cannot be used; empty if it can
};

/// Opened by the first call, for good.
[[nodiscard]] const ucx_api& find_ucx();

[[nodiscard]] tl::unexpected<error> fail_ucx(ucs_status_t code, std::string_view doing);

struct destroy_ucx_context {
  void operator()(::ucp_context* context) const noexcept { find_ucx().cleanup(context); }
};
using ucx_context = std::shared_ptr<::ucp_context>;
[[nodiscard]] result<ucx_context> make_ucx_context();

struct destroy_ucx_worker {
  void operator()(::ucp_worker* worker) const noexcept { find_ucx().worker_destroy(worker); }
};
using ucx_worker = std::unique_ptr<::ucp_worker, destroy_ucx_worker>;
/// To be used by one thread at a time.
[[nodiscard]] result<ucx_worker> make_ucx_worker(const ucx_context& context);
/// The descriptor that becomes readable when an armed worker has something to do.
[[nodiscard]] result<int> ucx_event_descriptor(const ucx_worker& worker);

}  // namespace tersor::transfer
