#include "transfer/transports/tcp.hpp"

#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

#include "transfer/transports/gather.hpp"
#include "transfer/transports/table.hpp"
#include "transfer/transports/tcp_uring.hpp"

namespace tersor::transfer {
namespace {

std::unique_ptr<channel> make_channel(socket_fd fd) {
  auto by_ring = make_uring_channel(fd);
  return by_ring != nullptr ? std::move(by_ring) : std::make_unique<tcp_channel>(std::move(fd));
}

class tcp final : public transport {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "tcp"; }
  [[nodiscard]] transport_info probe() const override {
    return {.name = "tcp", .available = true, .detail = "sockets, " + find_uring().detail};
  }
  [[nodiscard]] result<std::unique_ptr<listener>> listen(const endpoint& at,
                                                         const tls_files&) const override {
    TERSOR_TRY(socket_fd fd, listen_socket(at));
    return std::make_unique<tcp_listener>(std::move(fd));
  }
  [[nodiscard]] result<std::unique_ptr<channel>> connect(const endpoint& to, deadline until,
                                                         const tls_files&) const override {
    TERSOR_TRY(socket_fd fd, connect_socket(to, until));
    return make_channel(std::move(fd));
  }
};

bool would_block(int reason) noexcept {
  return reason == EAGAIN || reason == EWOULDBLOCK;
}

}  // namespace

tcp_channel::tcp_channel(socket_fd fd) : fd_(std::move(fd)), peer_(peer_address(fd_.get())) {}

status tcp_channel::send(std::span<const const_bytes> parts, deadline until) {
  gather_list list(parts);
  while (!list.done()) {
    if (is_down()) return fail_shut_down();
    const std::span<::iovec> vectors = list.next();
    ::msghdr message = {};
    message.msg_iov = vectors.data();
    message.msg_iovlen = vectors.size();
    const ::ssize_t n = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (n >= 0) {
      list.advance(static_cast<std::size_t>(n));
      // A peer that reads without pause, but slowly, never makes the socket block for long.
      if (!list.done() && clock::now() >= until) return fail_timed_out();
      continue;
    }
    if (errno == EINTR || is_down()) continue;
    if (errno == EPIPE || errno == ECONNRESET) return fail_closed();
    if (!would_block(errno)) return fail_socket(errno, "send");
    TERSOR_CHECK(wait_for(fd(), POLLOUT, until));
  }
  return {};
}

status tcp_channel::receive(std::span<std::byte> dst, deadline until) {
  const std::size_t size = dst.size();
  while (!dst.empty()) {
    if (is_down()) return fail_shut_down();
    const ::ssize_t n = ::recv(fd(), dst.data(), dst.size(), 0);
    if (n > 0) {
      dst = dst.subspan(static_cast<std::size_t>(n));
      if (!dst.empty() && clock::now() >= until) return fail_timed_out();
      continue;
    }
    const int reason = n == 0 ? 0 : errno;
    if (reason == EINTR || is_down()) continue;
    if (n == 0 && dst.size() == size) return fail(errc::not_found, "closed by the peer");
    if (n == 0 || reason == ECONNRESET) return fail_closed();
    if (!would_block(reason)) return fail_socket(reason, "receive");
    TERSOR_CHECK(wait_for(fd(), POLLIN, until));
  }
  return {};
}

void tcp_channel::shutdown() noexcept {
  down_.store(true, std::memory_order_release);
  (void)::shutdown(fd(), SHUT_RDWR);
}

tcp_listener::tcp_listener(socket_fd fd) : fd_(std::move(fd)), address_(local_address(fd_.get())) {}

result<socket_fd> tcp_listener::accept_one(deadline until) {
  auto fd = accept_socket(fd_.get(), until);
  if (closed_.load(std::memory_order_acquire)) return fail(errc::cancelled, "the listener is closed");
  return fd;
}

result<std::unique_ptr<channel>> tcp_listener::accept(deadline until) {
  TERSOR_TRY(socket_fd fd, accept_one(until));
  return make_channel(std::move(fd));
}

void tcp_listener::close() noexcept {
  closed_.store(true, std::memory_order_release);
  // Frees the port and wakes accept(); the descriptor itself stays until nobody can be waiting on it.
  (void)::shutdown(fd_.get(), SHUT_RDWR);
}

const transport& tcp_transport() {
  static const tcp kTransport;
  return kTransport;
}

}  // namespace tersor::transfer
