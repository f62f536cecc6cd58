#include <array>
#include <cstdio>
#include <deque>
#include <mutex>

#include <netinet/in.h>
#include <poll.h>

#include "transfer/transports/socket.hpp"
#include "transfer/transports/table.hpp"
#include "transfer/transports/ucx_channel.hpp"

namespace tersor::transfer {
namespace {

// Over IPv6 UCX 1.13 writes beyond the end of its own memory.
constexpr int kFamily = AF_INET;

class ucx_listener final : public listener {
 public:
  [[nodiscard]] static result<std::unique_ptr<listener>> open(const endpoint& at);
  ~ucx_listener() override { close(); }
  [[nodiscard]] result<std::unique_ptr<channel>> accept(deadline until) override;
  [[nodiscard]] endpoint address() const override { return address_; }
  void close() noexcept override;

 private:
  ucx_listener(ucx_context context, ucx_worker worker, int event_fd)
      : context_(std::move(context)), worker_(std::move(worker)), event_fd_(event_fd) {}
  [[nodiscard]] status start(const endpoint& at);
  static void on_request(::ucp_conn_request_h request, void* self) {
    static_cast<ucx_listener*>(self)->waiting_.push_back(request);
  }
  [[nodiscard]] result<std::unique_ptr<channel>> open_next();

  ucx_context context_;
  ucx_worker worker_;
  int event_fd_;
  std::mutex mutex_;  // the worker takes one thread at a time
  ::ucp_listener_h listener_ = nullptr;
  std::deque<::ucp_conn_request_h> waiting_;
  endpoint address_;
};

result<std::unique_ptr<listener>> ucx_listener::open(const endpoint& at) {
  TERSOR_TRY(ucx_context context, make_ucx_context());
  TERSOR_TRY(ucx_worker worker, make_ucx_worker(context));
  TERSOR_TRY(const int event_fd, ucx_event_descriptor(worker));
  auto opened =
      std::unique_ptr<ucx_listener>(new ucx_listener(std::move(context), std::move(worker), event_fd));
  TERSOR_CHECK(opened->start(at));
  return opened;
}

status ucx_listener::start(const endpoint& at) {
  TERSOR_TRY(const socket_address address, resolve_one(at, kFamily, true));
  ::ucp_listener_params_t params = {};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr = {.addr = address.get(), .addrlen = address.size()};
  params.conn_handler = {.cb = &ucx_listener::on_request, .arg = this};
  ::ucs_status_t code = find_ucx().listener_create(worker_.get(), &params, &listener_);
  if (code != UCS_OK) {
    listener_ = nullptr;
    return fail_ucx(code, "listen on " + to_string(at));
  }
  ::ucp_listener_attr_t attributes = {};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  code = find_ucx().listener_query(listener_, &attributes);
  if (code != UCS_OK) return fail_ucx(code, "learn the port");
  address_ = endpoint_of(attributes.sockaddr, sizeof attributes.sockaddr);
  return {};
}

void ucx_listener::close() noexcept {
  const std::lock_guard lock(mutex_);
  if (listener_ == nullptr) return;
  for (const ::ucp_conn_request_h request : waiting_) (void)find_ucx().listener_reject(listener_, request);
  waiting_.clear();
  find_ucx().listener_destroy(listener_);
  listener_ = nullptr;
  (void)find_ucx().worker_signal(worker_.get());
}

result<std::unique_ptr<channel>> ucx_listener::open_next() {
  const ::ucp_conn_request_h request = waiting_.front();
  waiting_.pop_front();
  ::ucp_conn_request_attr_t attributes = {};
  attributes.field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR;
  std::string peer = "?";
  if (find_ucx().conn_request_query(request, &attributes) == UCS_OK)
    peer = to_string(endpoint_of(attributes.client_address, sizeof attributes.client_address));
  ::ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  TERSOR_TRY(auto opened, ucx_channel::open(context_, params, std::move(peer)));
  opened->greet();
  return opened;
}

result<std::unique_ptr<channel>> ucx_listener::accept(deadline until) {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (listener_ == nullptr) return fail(errc::cancelled, "the listener is closed");
      while (find_ucx().worker_progress(worker_.get()) != 0) {
      }
      if (!waiting_.empty()) return open_next();
      if (find_ucx().worker_arm(worker_.get()) != UCS_OK) continue;
    }
    if (auto waited = wait_for(event_fd_, POLLIN, until); !waited) {
      if (clock::now() >= until) return fail(errc::not_found, "no connection came in time");
      return tl::unexpected(std::move(waited).error());
    }
  }
}

/// "tcp/lo sysv/memory ...", from the text that UCX prints for people: there is no other list.
std::string list_devices(const ucx_context& context) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* const stream = ::open_memstream(&text, &size);
  if (stream == nullptr) return {};
  find_ucx().context_print_info(context.get(), stream);
  (void)std::fclose(stream);
  const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
  std::string found;
  std::string_view rest(text, size);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const std::size_t at = line.find("-- ");
    if (line.find("resource") == std::string_view::npos || at == std::string_view::npos) continue;
    std::string_view name = line.substr(at + 3);
    name = name.substr(0, name.find(' '));
    found += (found.empty() ? "" : " ") + std::string(name);
  }
  return found;
}

class ucx final : public transport {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "ucx"; }
  [[nodiscard]] transport_info probe() const override {
    if (!find_ucx().reason.empty()) return {"ucx", false, find_ucx().reason};
    const auto context = make_ucx_context();
    if (!context) return {"ucx", false, context.error().message};
    return {"ucx", true,
            "UCX " + std::string(find_ucx().get_version_string()) + ", " + list_devices(*context)};
  }
  [[nodiscard]] result<std::unique_ptr<listener>> listen(const endpoint& at,
                                                         const tls_files&) const override {
    return ucx_listener::open(at);
  }
  [[nodiscard]] result<std::unique_ptr<channel>> connect(const endpoint& to, deadline until,
                                                         const tls_files&) const override {
    TERSOR_TRY(const socket_address address, resolve_one(to, kFamily, false));
    TERSOR_TRY(ucx_context context, make_ucx_context());
    ::ucp_ep_params_t params = {};
    params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
    params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.sockaddr = {.addr = address.get(), .addrlen = address.size()};
    TERSOR_TRY(auto opened, ucx_channel::open(std::move(context), params, to_string(to)));
    TERSOR_CHECK(opened->wait_for_greeting(until));
    return opened;
  }
};

}  // namespace

const transport& ucx_transport() {
  static const ucx kTransport;
  return kTransport;
}

}  // namespace tersor::transfer
