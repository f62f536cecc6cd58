// The same stream by io_uring, where the build and the kernel have it.
#pragma once

#include "transfer/transports/tcp.hpp"

namespace tersor::transfer {

/// Whether channels use io_uring, and for people why, or why not.
struct uring_state {
  bool used = false;
  std::string detail;
};
[[nodiscard]] const uring_state& find_uring();

/// Null if a ring cannot be had (limits of the process): then poll() serves.
[[nodiscard]] std::unique_ptr<channel> make_uring_channel(socket_fd& fd);

}  // namespace tersor::transfer
