#include "transfer/transports/tcp_uring.hpp"

namespace tersor::transfer {

const uring_state& find_uring() {
  static const uring_state kState = {.used = false, .detail = "poll (built without liburing)"};
  return kState;
}

std::unique_ptr<channel> make_uring_channel(socket_fd&) {
  return nullptr;
}

}  // namespace tersor::transfer
