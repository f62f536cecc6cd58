// A whole receiver under messages of any kind and order: only requests whose bytes are right are published.
#include "transfer_feed.hpp"

TERSOR_FUZZ_TARGET(transfer_receiver) {
  namespace kv = tersor::transfer;
  using namespace std::chrono_literals;
  fuzz::reader in(data);
  const bool bare = in.byte() % 8 == 7;
  transfer_test::checking_sink sink(1 << 20);
  kv::receiver_options options{
      .n_slots = 8, .max_part_bytes = 4096, .max_request_bytes = 1 << 20, .max_regions = 64};
  transfer_test::bare_receiver receiver(options, sink);
  std::unique_ptr<kv::channel> over;
  if (bare) {
    auto wire = std::make_shared<transfer_test::memory_wire>();
    wire->push(kv::role::receiver, fuzz::as_bytes(in.rest()));
    wire->finish(kv::role::receiver);
    over = transfer_test::memory_wire::end_of(wire, kv::role::receiver);
  } else {
    over = std::make_unique<fuzz::fed_channel>(kv::role::receiver, in.rest());
  }
  (void)receiver.serve(std::move(over));
  receiver.discard_all();
  fuzz::require(sink.n_open() == 0 && sink.n_published() == receiver.counters().requests_published);
}
