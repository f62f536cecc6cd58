// A whole sender under answers of any kind and order: it ends, and believes a publication only with its own
// totals.
#include "transfer_feed.hpp"

TERSOR_FUZZ_TARGET(transfer_sender) {
  namespace kv = tersor::transfer;
  using namespace std::chrono_literals;
  fuzz::reader in(data);
  const bool bare = in.byte() % 8 == 7;
  static const transfer_test::cache kCache = transfer_test::make_cache(1);
  std::unique_ptr<kv::channel> over;
  if (bare) {
    auto wire = std::make_shared<transfer_test::memory_wire>();
    wire->push(kv::role::sender, fuzz::as_bytes(in.rest()));
    wire->finish(kv::role::sender);
    over = transfer_test::memory_wire::end_of(wire, kv::role::sender);
  } else {
    over = std::make_unique<fuzz::fed_channel>(kv::role::sender, in.rest());
  }
  const auto from = kCache.source();
  const kv::sender_options options{.timeouts = {.handshake = 200ms, .message = 200ms, .idle = 200ms},
                                   .coding = kv::coding::rank,
                                   .part_bytes = 2048};
  const transfer_test::attempt a =
      transfer_test::send_once(std::move(over), options, kCache.manifest, *from, kv::nonce{});
  if (a.done) fuzz::require(a.report.parts <= 6);
}
