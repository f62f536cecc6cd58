#include "tcp_proxy.hpp"

#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace transfer_test {
namespace {

void need(bool holds, const char* what) {
  if (holds) return;
  std::perror(what);
  std::abort();
}

::sockaddr_in loopback(std::uint16_t port) {
  ::sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return at;
}

bool send_all(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ::ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    data = data.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

int connect_loopback(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  need(fd >= 0, "socket");
  const ::sockaddr_in at = loopback(port);
  need(::connect(fd, reinterpret_cast<const ::sockaddr*>(&at), sizeof at) == 0, "connect");
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

tcp_proxy::tcp_proxy(const kv::endpoint& upstream) : upstream_(upstream) {
  door_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::sockaddr_in at = loopback(0);
  ::socklen_t size = sizeof at;
  need(::bind(door_, reinterpret_cast<const ::sockaddr*>(&at), size) == 0, "bind");
  need(::listen(door_, 64) == 0, "listen");
  need(::getsockname(door_, reinterpret_cast<::sockaddr*>(&at), &size) == 0, "getsockname");
  port_ = ntohs(at.sin_port);
  int ends[2] = {};
  need(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
  stop_read_ = ends[0];
  stop_write_ = ends[1];
  acceptor_ = std::thread([this] { accept_loop(); });
}

tcp_proxy::~tcp_proxy() {
  stopped_ = true;
  ::close(stop_write_);
  acceptor_.join();
  ::close(stop_read_);
  ::close(door_);
}

void tcp_proxy::cut_next(const cut& where) {
  const std::lock_guard lock(mutex_);
  next_ = where;
}

std::uint64_t tcp_proxy::passed(kv::role from) const {
  const std::lock_guard lock(mutex_);
  return passed_[static_cast<std::size_t>(from)];
}

void tcp_proxy::accept_loop() {
  std::list<std::thread> relays;
  while (true) {
    std::array<::pollfd, 2> wait = {{{door_, POLLIN, 0}, {stop_read_, POLLIN, 0}}};
    (void)::poll(wait.data(), wait.size(), -1);
    if (wait[1].revents != 0) break;
    const int client = ::accept4(door_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    cut where;
    {
      const std::lock_guard lock(mutex_);
      where = std::exchange(next_, cut{});
      passed_ = {};
    }
    ++n_connections_;
    relays.emplace_back([this, client, where] { relay(client, where); });
    if (relays.size() > 8) {
      relays.front().join();
      relays.pop_front();
    }
  }
  for (std::thread& t : relays) t.join();
}

void tcp_proxy::relay(int client, const cut& where) {
  const int server = connect_loopback(upstream_.port);
  const int on = 1;
  (void)::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const std::array<int, 2> ends = {client, server};  // by role of the peer there
  std::array<std::uint64_t, 2> done = {};
  std::vector<std::byte> buffer(64 << 10);
  bool silent = where.after == 0 && where.how == manner::silence;
  const bool closed_at_once = where.after == 0 && where.how == manner::close;
  while (!closed_at_once) {
    std::array<::pollfd, 3> wait = {{{client, POLLIN, 0}, {server, POLLIN, 0}, {stop_read_, POLLIN, 0}}};
    (void)::poll(wait.data(), wait.size(), -1);
    if (wait[2].revents != 0) break;
    bool over = false;
    for (std::size_t from = 0; from < 2 && !over; ++from) {
      if (wait[from].revents == 0) continue;
      const bool cut_here = where.from == static_cast<kv::role>(from);
      const std::uint64_t left = cut_here ? where.after - done[from] : buffer.size();
      const std::size_t want = silent ? buffer.size() : std::min<std::uint64_t>(buffer.size(), left);
      const ::ssize_t n = ::recv(ends[from], buffer.data(), want, 0);
      over = n <= 0;
      if (over || silent) continue;
      over = !send_all(ends[1 - from], std::span(buffer).first(static_cast<std::size_t>(n)));
      done[from] += static_cast<std::uint64_t>(n);
      {
        const std::lock_guard lock(mutex_);
        passed_[from] += static_cast<std::uint64_t>(n);
      }
      if (cut_here && done[from] == where.after) {
        silent = where.how == manner::silence;
        over = over || !silent;
      }
    }
    if (over) break;
  }
  ::close(client);
  ::close(server);
}

}  // namespace transfer_test
