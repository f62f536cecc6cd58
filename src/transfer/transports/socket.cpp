#include "transfer/transports/socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tersor::transfer {
namespace {

constexpr int kBacklog = 128;

struct free_addresses {
  void operator()(::addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};
using address_list = std::unique_ptr<::addrinfo, free_addresses>;

result<address_list> resolve(const endpoint& e, int family, int flags) {
  ::addrinfo hints = {};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  ::addrinfo* list = nullptr;
  const int rc = ::getaddrinfo(e.host.c_str(), std::to_string(e.port).c_str(), &hints, &list);
  if (rc != 0) {
    const std::string why = rc == EAI_SYSTEM ? std::generic_category().message(errno) : ::gai_strerror(rc);
    return fail(errc::io_error, "cannot resolve '" + e.host + "': " + why);
  }
  return address_list(list);
}

template <class Call>
endpoint address_by(Call call, int fd) {
  ::sockaddr_storage address = {};
  ::socklen_t length = sizeof address;
  if (call(fd, reinterpret_cast<::sockaddr*>(&address), &length) != 0) return {.host = "?", .port = 0};
  return endpoint_of(address, length);
}

// Buffer sizes stay the kernel's: fixing them ends its autotuning, and the limits for fixed sizes are lower
// than those of autotuning nearly everywhere.
void set_stream_options(int fd) noexcept {
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/// A connection to a port of the ephemeral range that nobody listens on may meet itself.
bool is_connected_to_itself(int fd) {
  const endpoint here = address_by(::getsockname, fd);
  const endpoint there = address_by(::getpeername, fd);
  return here.port == there.port && here.host == there.host;
}

status finish_connect(int fd, deadline until) {
  TERSOR_CHECK(wait_for(fd, POLLOUT, until));
  int reason = 0;
  ::socklen_t length = sizeof reason;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &length) != 0) reason = errno;
  if (reason != 0) return fail_socket(reason, "connect");
  return {};
}

result<socket_fd> connect_one(const ::addrinfo& address, deadline until) {
  socket_fd fd(
      ::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!fd.valid()) return fail_socket(errno, "make a socket");
  if (::connect(fd.get(), address.ai_addr, address.ai_addrlen) != 0) {
    // An interrupted connect goes on in the background, like one in progress.
    if (errno != EINPROGRESS && errno != EINTR) return fail_socket(errno, "connect");
    TERSOR_CHECK(finish_connect(fd.get(), until));
  }
  if (is_connected_to_itself(fd.get())) return fail_socket(ECONNREFUSED, "connect");
  set_stream_options(fd.get());
  return fd;
}

result<socket_fd> listen_one(const ::addrinfo& address) {
  socket_fd fd(
      ::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!fd.valid()) return fail_socket(errno, "make a socket");
  const int on = 1;
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return fail_socket(errno, "set SO_REUSEADDR");
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) return fail_socket(errno, "bind");
  if (::listen(fd.get(), kBacklog) != 0) return fail_socket(errno, "listen");
  return fd;
}

/// Faults of the one connection that was about to be accepted, not of the listener.
bool is_passing(int reason) noexcept {
  switch (reason) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
      return true;
    default:
      return false;
  }
}

error at_endpoint(error e, const endpoint& where) {
  e.message += " (" + to_string(where) + ")";
  return e;
}

}  // namespace

void socket_fd::close() noexcept {
  if (fd_ >= 0) (void)::close(std::exchange(fd_, -1));
}

tl::unexpected<error> fail_socket(int error_number, std::string_view doing) {
  return fail(errc::io_error,
              "cannot " + std::string(doing) + ": " + std::generic_category().message(error_number));
}

tl::unexpected<error> fail_timed_out() {
  return fail(errc::io_error, "timed out");
}

tl::unexpected<error> fail_closed() {
  return fail(errc::io_error, "closed by the peer");
}

tl::unexpected<error> fail_shut_down() {
  return fail(errc::io_error, "shut down on this side");
}

int poll_timeout(deadline until) noexcept {
  constexpr auto kLongest = std::chrono::milliseconds(60'000);
  const auto now = clock::now();
  if (until <= now) return 0;
  // Compared before the conversion: the difference to deadline::max() does not fit every duration.
  if (until - now >= kLongest) return static_cast<int>(kLongest.count());
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(until - now).count());
}

status wait_for(int fd, short events, deadline until) {
  for (;;) {
    ::pollfd entry = {.fd = fd, .events = events, .revents = 0};
    const int n = ::poll(&entry, 1, poll_timeout(until));
    if (n > 0) return {};
    if (n < 0 && errno != EINTR) return fail_socket(errno, "wait for a socket");
    if (clock::now() >= until) return fail_timed_out();
  }
}

result<socket_fd> connect_socket(const endpoint& to, deadline until) {
  TERSOR_TRY(const address_list list, resolve(to, AF_UNSPEC, 0));
  error why = {.code = errc::io_error, .message = "no address"};
  for (const ::addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    auto fd = connect_one(*a, until);
    if (fd) return fd;
    why = std::move(fd).error();
    if (clock::now() >= until) break;
  }
  return tl::unexpected(at_endpoint(std::move(why), to));
}

result<socket_fd> listen_socket(const endpoint& at) {
  TERSOR_TRY(const address_list list, resolve(at, AF_UNSPEC, AI_PASSIVE));
  error why = {.code = errc::io_error, .message = "no address"};
  for (const ::addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    auto fd = listen_one(*a);
    if (fd && at.host == "localhost" && !is_loopback(local_address(fd->get()))) {
      // Without a key a receiver may listen under this name, so it must mean what it says.
      why = {.code = errc::io_error, .message = "localhost is not a loopback address here"};
      continue;
    }
    if (fd) return fd;
    why = std::move(fd).error();
  }
  return tl::unexpected(at_endpoint(std::move(why), at));
}

result<socket_fd> accept_socket(int listening, deadline until) {
  for (;;) {
    socket_fd fd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.valid()) {
      set_stream_options(fd.get());
      return fd;
    }
    if (is_passing(errno)) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return fail_socket(errno, "accept");
    if (auto waited = wait_for(listening, POLLIN, until); !waited) {
      if (clock::now() >= until) return fail(errc::not_found, "no connection came in time");
      return tl::unexpected(std::move(waited).error());
    }
  }
}

socket_address::socket_address(const ::sockaddr* address, ::socklen_t size) noexcept
    : size_(std::min<::socklen_t>(size, sizeof storage_)) {
  std::memcpy(&storage_, address, size_);
}

result<socket_address> resolve_one(const endpoint& e, int family, bool to_listen) {
  TERSOR_TRY(const address_list list, resolve(e, family, to_listen ? AI_PASSIVE : 0));
  const socket_address found(list->ai_addr, list->ai_addrlen);
  if (to_listen && e.host == "localhost" &&
      !is_loopback(endpoint_of(*reinterpret_cast<const ::sockaddr_storage*>(found.get()), found.size())))
    return fail(errc::io_error, "localhost is not a loopback address here");
  return found;
}

endpoint endpoint_of(const ::sockaddr_storage& address, ::socklen_t length) {
  char host[NI_MAXHOST] = {};
  char port[NI_MAXSERV] = {};
  const int rc = ::getnameinfo(reinterpret_cast<const ::sockaddr*>(&address), length, host, sizeof host, port,
                               sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  if (rc != 0) return {.host = "?", .port = 0};
  return {.host = host, .port = static_cast<std::uint16_t>(std::stoul(port))};
}

endpoint local_address(int fd) {
  return address_by(::getsockname, fd);
}

std::string peer_address(int fd) {
  return to_string(address_by(::getpeername, fd));
}

}  // namespace tersor::transfer
