#include "transfer/transports/ucx_api.hpp"

#include <array>

#include <ucs/debug/log_def.h>

#include "transfer/transports/library.hpp"

namespace tersor::transfer {
namespace {

constexpr std::array<const char*, 2> kNames = {"libucp.so.0", "libucp.so"};

// Errors are returned, and the library prints nothing.
::ucs_log_func_rc_t swallow(const char*, unsigned, const char*, ::ucs_log_level_t,
                            const ::ucs_log_component_config_t*, const char*, va_list) {
  return ::UCS_LOG_FUNC_RC_STOP;
}

void silence(open_library& library) {
  // Whoever set a level wants to read it. The call is not part of UCX's API: it may be missing.
  if (std::getenv("UCX_LOG_LEVEL") != nullptr) return;
  open_library optional = library;
  void (*push)(::ucs_log_func_t) = nullptr;
  optional.load("ucs_log_push_handler", push);
  if (push != nullptr) push(swallow);
}

ucx_api open_api() {
  ucx_api api;
  open_library library("TERSOR_UCX", kNames);
  if (!library.valid()) {
    api.reason = library.reason();
    return api;
  }
  library.load("ucp_get_version_string", api.get_version_string);
  library.load("ucp_init_version", api.init_version);
  library.load("ucp_cleanup", api.cleanup);
  library.load("ucp_context_print_info", api.context_print_info);
  library.load("ucp_worker_create", api.worker_create);
  library.load("ucp_worker_destroy", api.worker_destroy);
  library.load("ucp_worker_progress", api.worker_progress);
  library.load("ucp_worker_get_efd", api.worker_get_efd);
  library.load("ucp_worker_arm", api.worker_arm);
  library.load("ucp_worker_signal", api.worker_signal);
  library.load("ucp_worker_set_am_recv_handler", api.worker_set_am_recv_handler);
  library.load("ucp_listener_create", api.listener_create);
  library.load("ucp_listener_destroy", api.listener_destroy);
  library.load("ucp_listener_query", api.listener_query);
  library.load("ucp_listener_reject", api.listener_reject);
  library.load("ucp_conn_request_query", api.conn_request_query);
  library.load("ucp_ep_create", api.ep_create);
  library.load("ucp_ep_close_nbx", api.ep_close_nbx);
  library.load("ucp_am_send_nbx", api.am_send_nbx);
  library.load("ucp_am_recv_data_nbx", api.am_recv_data_nbx);
  library.load("ucp_am_data_release", api.am_data_release);
  library.load("ucp_request_check_status", api.request_check_status);
  library.load("ucp_request_free", api.request_free);
  library.load("ucs_status_string", api.status_string);
  api.reason = library.reason();
  if (library.complete()) silence(library);
  return api;
}

}  // namespace

const ucx_api& find_ucx() {
  static const ucx_api kApi = open_api();
  return kApi;
}

tl::unexpected<error> fail_ucx(ucs_status_t code, std::string_view doing) {
  return fail(errc::io_error,
              "cannot " + std::string(doing) + ": UCX: " + std::string(find_ucx().status_string(code)));
}

result<ucx_context> make_ucx_context() {
  ::ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 1;  // its workers belong to different threads
  ::ucp_context_h context = nullptr;
  const ::ucs_status_t code =
      find_ucx().init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, nullptr, &context);
  if (code != UCS_OK) return fail_ucx(code, "start");
  return ucx_context(context, destroy_ucx_context());
}

result<ucx_worker> make_ucx_worker(const ucx_context& context) {
  ::ucp_worker_params_t params = {};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ::ucp_worker_h worker = nullptr;
  const ::ucs_status_t code = find_ucx().worker_create(context.get(), &params, &worker);
  if (code != UCS_OK) return fail_ucx(code, "make a worker");
  return ucx_worker(worker);
}

result<int> ucx_event_descriptor(const ucx_worker& worker) {
  int fd = -1;
  const ::ucs_status_t code = find_ucx().worker_get_efd(worker.get(), &fd);
  if (code != UCS_OK) return fail_ucx(code, "wait for events");
  return fd;
}

}  // namespace tersor::transfer
