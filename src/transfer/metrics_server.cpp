// A page of counters over HTTP: loopback only, one thread, a bounded number of connections, each with a
// deadline and a bounded request. A peer that is slow, silent or chatty holds up nobody.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transfer/http_request.hpp"
#include "transfer/transports/socket.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

constexpr std::size_t kMaxConnections = 16;
constexpr std::chrono::seconds kRequestTime{5};   // from the connection to the end of the answer
constexpr std::chrono::seconds kClosingTime{1};   // for the peer to close after the answer
constexpr std::chrono::milliseconds kPause{100};  // after accept() found no descriptor free

// A name that is said to be loopback may lead elsewhere, so the address itself is looked at.
[[nodiscard]] result<socket_fd> open_listener(const endpoint& at) {
  if (!is_loopback(at)) {
    return fail(errc::invalid_argument,
                "metrics are not protected, so they are served on loopback only, not on " + to_string(at));
  }
  TERSOR_TRY(socket_fd fd, listen_socket(at));
  if (!is_loopback(local_address(fd.get()))) {
    return fail(errc::invalid_argument, at.host + " is not a loopback address of this machine");
  }
  return fd;
}

struct visitor {
  enum class state { reading, writing, closing, done };
  socket_fd fd;
  clock::time_point until;
  state now = state::reading;
  std::string request = {};
  std::string answer = {};
  std::size_t sent = 0;
};

// What the peer sends after the request is read and dropped: closing over unread bytes would reset the
// connection, and the answer could be lost.
void take_in(visitor& v, const std::function<std::string()>& page) {
  char bytes[2048];
  const ::ssize_t n = ::recv(v.fd.get(), bytes, sizeof bytes, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    v.now = visitor::state::done;
    return;
  }
  if (v.now != visitor::state::reading) return;
  v.request.append(bytes, static_cast<std::size_t>(n));
  if (!request_complete(v.request)) return;
  v.answer = answer_to(v.request, page);
  v.now = visitor::state::writing;
}

void put_out(visitor& v) {
  const ::ssize_t n =
      ::send(v.fd.get(), v.answer.data() + v.sent, v.answer.size() - v.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) v.now = visitor::state::done;
    return;
  }
  v.sent += static_cast<std::size_t>(n);
  if (v.sent < v.answer.size()) return;
  (void)::shutdown(v.fd.get(), SHUT_WR);
  v.now = visitor::state::closing;
  v.until = std::min(v.until, clock::now() + kClosingTime);
}

// No memory for one visitor ends that visitor, not the thread.
void step(visitor& v, const std::function<std::string()>& page) {
  try {
    if (v.now != visitor::state::writing) take_in(v, page);
    if (v.now == visitor::state::writing) put_out(v);
  } catch (const std::exception&) {
    v.now = visitor::state::done;
  }
}

}  // namespace

struct metrics_server::impl {
  socket_fd listener;
  socket_fd wake;
  endpoint at;
  std::function<std::string()> page;
  std::vector<visitor> visitors = {};
  clock::time_point accept_after = {};
  std::thread thread = {};

  ~impl() {
    if (!thread.joinable()) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ::ssize_t written = ::write(wake.get(), &one, sizeof one);
    thread.join();
  }

  [[nodiscard]] int wait_milliseconds(clock::time_point now) const {
    clock::time_point next = clock::time_point::max();
    for (const visitor& v : visitors) next = std::min(next, v.until);
    if (accept_after > now) next = std::min(next, accept_after);
    if (next == clock::time_point::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now);
    return static_cast<int>(std::max<std::chrono::milliseconds::rep>(left.count(), 0));
  }

  void welcome() {
    socket_fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    const auto now = clock::now();
    if (fd.valid()) {
      visitors.push_back({.fd = std::move(fd), .until = now + kRequestTime});
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      accept_after = now + kPause;
    }
  }

  void serve() {
    std::vector<::pollfd> watched;
    for (;;) {
      const auto now = clock::now();
      const bool accepting = visitors.size() < kMaxConnections && accept_after <= now;
      watched.assign({{wake.get(), POLLIN, 0}, {accepting ? listener.get() : -1, POLLIN, 0}});
      for (const visitor& v : visitors) {
        const bool writing = v.now == visitor::state::writing;
        watched.push_back({v.fd.get(), static_cast<short>(writing ? POLLOUT : POLLIN), 0});
      }
      if (::poll(watched.data(), watched.size(), wait_milliseconds(now)) < 0 && errno != EINTR) return;
      if (watched[0].revents != 0) return;
      for (std::size_t i = 0; i < visitors.size(); ++i) {
        const auto events = watched[i + 2].revents;
        if (events != 0) step(visitors[i], page);
      }
      const auto after = clock::now();
      std::erase_if(visitors,
                    [&](const visitor& v) { return v.now == visitor::state::done || v.until <= after; });
      if (watched[1].revents != 0) welcome();
    }
  }
};

metrics_server::metrics_server(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
metrics_server::metrics_server(metrics_server&&) noexcept = default;
metrics_server& metrics_server::operator=(metrics_server&&) noexcept = default;
metrics_server::~metrics_server() = default;

result<metrics_server> metrics_server::listen(const endpoint& at, std::function<std::string()> text) {
  if (!text) return fail(errc::invalid_argument, "the metrics page has no source");
  TERSOR_TRY(socket_fd listener, open_listener(at));
  socket_fd wake(::eventfd(0, EFD_CLOEXEC));
  if (!wake.valid()) return fail_socket(errno, "make an event");
  endpoint bound{.host = at.host, .port = local_address(listener.get()).port};
  std::unique_ptr<impl> state(new impl{.listener = std::move(listener),
                                       .wake = std::move(wake),
                                       .at = std::move(bound),
                                       .page = std::move(text)});
  try {
    state->thread = std::thread([s = state.get()] { s->serve(); });
  } catch (const std::system_error& e) {
    return fail_socket(e.code().value(), "start a thread");
  }
  return metrics_server(std::move(state));
}

endpoint metrics_server::address() const {
  return impl_->at;
}

}  // namespace tersor::transfer
