// A sender whose every message the test decides.
#pragma once

#include "support.hpp"

namespace transfer_test {

inline constexpr std::uint64_t kPartBytes = 2048;  ///< one page of make_cache

/// The parts of one content under one codec, encoded once.
struct prepared {
  std::vector<kv::part> parts;
  std::vector<bytes> frames;
  std::vector<kv::encoded_part> encoded;
};
[[nodiscard]] prepared prepare_parts(const cache& c, tersor::codec with);
/// Of make_cache(request) with its default sizes; kept.
[[nodiscard]] const prepared& prepared_parts(std::uint64_t request, tersor::codec with);

struct answer {
  kv::message_header header;
  std::vector<std::byte> payload;
  kv::failure why;  ///< of a fail message
};

class puppet_sender {
 public:
  puppet_sender(std::unique_ptr<kv::channel> over, kv::sender_options options)
      : options_(std::move(options)), link_(std::move(over), kv::role::sender, options_.timeouts) {}

  [[nodiscard]] status shake();
  void begin(const cache& c, const kv::nonce& token, std::uint32_t epoch,
             std::uint64_t part_bytes = kPartBytes);
  /// `change` may alter the header before it goes out.
  void send_part(const cache& c, const prepared& what, std::size_t index, std::uint32_t epoch,
                 const std::function<void(kv::message_header&)>& change = {});
  void end(const cache& c, const prepared& what, std::uint32_t epoch);
  void send(const kv::message_header& header, std::span<const std::byte> payload) {
    (void)link_.send(header, payload);
  }
  /// Nothing if none comes in time or the connection ends.
  [[nodiscard]] std::optional<answer> next_answer(std::chrono::milliseconds patience);
  /// The next answer of this type; nothing if the receiver gives up before, which `last_failure` then
  /// explains.
  [[nodiscard]] std::optional<answer> wait_for(kv::message_type type, std::chrono::milliseconds patience);
  [[nodiscard]] const std::optional<kv::failure>& last_failure() const { return failure_; }
  void leave() { link_.shutdown(); }

 private:
  kv::sender_options options_;
  kv::message_link link_;
  std::optional<kv::failure> failure_;
};

}  // namespace transfer_test
