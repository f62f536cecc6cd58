// The interface behind which every transport stands: an ordered stream of bytes between two ends, and, for
// engines that place payloads themselves, a path beside it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <tersor/error.hpp>
#include <tersor/transfer.hpp>

namespace tersor::transfer {

using clock = std::chrono::steady_clock;
using deadline = clock::time_point;
using const_bytes = std::span<const std::byte>;

/// Both directions may be used at the same time by one thread each; `shutdown` by any thread at any time.
class channel {
 public:
  channel() = default;
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;
  virtual ~channel() = default;

  /// Sends all bytes of `parts`, in order. Errors: `io_error` ("timed out", "closed by the peer", the
  /// system's reason); the stream cannot be used afterwards.
  [[nodiscard]] virtual status send(std::span<const const_bytes> parts, deadline until) = 0;
  /// Fills `dst`. Errors as above; `not_found` if the peer closed the stream before the first byte.
  [[nodiscard]] virtual status receive(std::span<std::byte> dst, deadline until) = 0;
  /// Ends both directions, waiting calls of other threads included.
  virtual void shutdown() noexcept = 0;
  [[nodiscard]] virtual std::string peer() const = 0;
};

/// Payloads beside the stream, e.g. one-sided writes into the receiver's slots. A channel without one carries
/// payloads itself.
class payload_path {
 public:
  payload_path() = default;
  payload_path(const payload_path&) = delete;
  payload_path& operator=(const payload_path&) = delete;
  virtual ~payload_path() = default;

  /// Receiver: registers the memory of the slots, equally long, and returns what the sender's `attach` needs
  /// (at most 4 KiB).
  [[nodiscard]] virtual result<std::vector<std::byte>> open_slots(std::span<std::byte> memory,
                                                                  std::uint32_t n_slots) = 0;
  /// Sender: learns the receiver's slots; `memory` is where its own frames will lie.
  [[nodiscard]] virtual status attach(const_bytes description, std::span<std::byte> memory) = 0;
  /// Sender: returns when `frame` lies in the receiver's slot, or is sure to once the receiver takes it.
  [[nodiscard]] virtual status put(std::uint32_t slot, const_bytes frame, deadline until) = 0;
  /// Receiver: returns when `n_bytes` lie in the slot. Called after the message that announces them.
  [[nodiscard]] virtual status take(std::uint32_t slot, std::uint64_t n_bytes, deadline until) = 0;
  virtual void shutdown() noexcept = 0;
};

class listener {
 public:
  listener() = default;
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;
  virtual ~listener() = default;
  /// The next connection. Errors: `cancelled` after close, `io_error`; `not_found` if none came in time.
  [[nodiscard]] virtual result<std::unique_ptr<channel>> accept(deadline until) = 0;
  [[nodiscard]] virtual endpoint address() const = 0;
  virtual void close() noexcept = 0;
};

/// One transport; a table of them is in transports.cpp.
class transport {
 public:
  transport() = default;
  transport(const transport&) = delete;
  transport& operator=(const transport&) = delete;
  virtual ~transport() = default;
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
  [[nodiscard]] virtual transport_info probe() const = 0;
  /// True if both ends prove who they are, so that no other key is needed beyond loopback.
  [[nodiscard]] virtual bool is_authenticated() const noexcept { return false; }
  /// `tls` matters to the transport "tls" only.
  [[nodiscard]] virtual result<std::unique_ptr<listener>> listen(const endpoint& at,
                                                                 const tls_files& tls = {}) const = 0;
  [[nodiscard]] virtual result<std::unique_ptr<channel>> connect(const endpoint& to, deadline until,
                                                                 const tls_files& tls = {}) const = 0;
  /// Null if the channel carries payloads. A sender and a receiver of the same transport agree on it.
  [[nodiscard]] virtual result<std::unique_ptr<payload_path>> make_path() const;
};

/// The transport of this name. Errors: `invalid_argument` (unknown, the message lists the known ones),
/// `backend_unavailable` (not in this build or on this machine, with the reason).
[[nodiscard]] result<const transport*> find_transport(std::string_view name);

}  // namespace tersor::transfer
