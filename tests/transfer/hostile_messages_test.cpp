// Senders that keep to the form and mean no good: requests without end, impossible sizes, messages out of
// order.
#include "hostile.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;
using tersor::codec;
using tersor::errc;

const kv::nonce kToken = kv::fresh_nonce().value();

TEST_F(hostile, requests_that_are_never_finished) {
  kv::receiver_options options = hostile_receiving();
  options.max_pending = 8;
  options.resume = 800ms;
  listen(options);
  std::uint64_t begun = 0, refused = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    puppet_sender p(dial(*r), hostile_sending());
    ASSERT_TRUE(p.shake());
    p.begin(make_cache(i), kToken, 1);
    if (p.wait_for(kv::message_type::ready, kPatience)) {
      ++begun;
    } else {
      ASSERT_TRUE(p.last_failure());
      EXPECT_EQ(p.last_failure()->code, errc::out_of_memory);
      ++refused;
    }
  }
  EXPECT_EQ(begun, 8U);
  EXPECT_EQ(refused, 12U);
  EXPECT_LE(sink.n_open(), 8U);
  std::this_thread::sleep_for(1'500ms);
  EXPECT_EQ(sink.n_open(), 0U);
  auto s = kv::sender::connect(r->address(), hostile_sending());
  ASSERT_TRUE(s);
  const cache c = make_cache(3);
  EXPECT_TRUE(s->send(c.manifest, *c.source()));
  faults::publish(28, "requests never finished", begun + refused, begun == 8 ? 0 : 1, "requests");
}

TEST_F(hostile, manifests_of_any_size) {
  kv::receiver_options options = hostile_receiving();
  options.max_request_bytes = 1 << 20;
  listen(options);
  const kv::region sane = make_cache(1).manifest.regions[0];
  std::vector<kv::manifest> bad;
  kv::region r1 = sane;
  for (const std::uint64_t dim :
       {std::uint64_t{1} << 20, std::uint64_t{1} << 40, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    r1.shape = {dim};
    bad.push_back({.regions = {r1}, .note = {}});
    r1.shape = {dim, dim, 3};
    bad.push_back({.regions = {r1}, .note = {}});
    r1.shape = {0, dim, dim};
    bad.push_back({.regions = {r1}, .note = {}});
  }
  r1 = sane;
  for (const std::uint64_t page : {std::uint64_t{1}, std::uint64_t{3}, (std::uint64_t{1} << 63) + 1}) {
    r1.page_bytes = page;
    bad.push_back({.regions = {r1}, .note = {}});
  }
  r1 = sane;
  r1.page_bytes = std::uint64_t{1} << 62;  // one page, larger than a part may be
  r1.shape = {1 << 18};
  bad.push_back({.regions = {r1}, .note = {}});
  r1 = sane;
  r1.name.assign(1025, 'x');
  bad.push_back({.regions = {r1}, .note = {}});
  bad.push_back({.regions = std::vector<kv::region>(4097, sane), .note = {}});
  bad.push_back({.regions = std::vector<kv::region>(4096, sane), .note = {}});
  bad.push_back({.regions = {sane}, .note = std::vector<std::byte>((64 << 10) + 1)});
  faults::reset_peak();
  const std::uint64_t kib = faults::peak_kib();
  std::uint64_t accepted = 0;
  for (std::size_t i = 0; i < bad.size(); ++i) {
    for (const std::uint64_t part_bytes :
         {kPartBytes, std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      puppet_sender p(dial(*r), hostile_sending());
      ASSERT_TRUE(p.shake());
      cache c{.manifest = bad[i], .data = {}};
      c.manifest.request = i;
      p.begin(c, kToken, 1, part_bytes);
      // An empty region is no fault, whatever its other dimensions are, as long as their product can be told.
      if (p.wait_for(kv::message_type::ready, kPatience)) {
        const auto n = kv::region_bytes(bad[i].regions[0]);
        const bool harmless = n && *n == 0;
        if (!harmless) ADD_FAILURE() << "accepted: manifest " << i << ", parts of " << part_bytes;
        accepted += harmless ? 0U : 1U;
      }
    }
  }
  EXPECT_EQ(accepted, 0U);
  if (faults::slowness() == 1) {
    EXPECT_LT(faults::peak_kib(), kib + 32 * 1024);
  }
  faults::publish(28, "manifests of impossible sizes", bad.size() * 4, accepted, "manifests");
  // The largest that a receiver takes, as often as it takes them.
  faults::reset_peak();
  kv::region largest = sane;
  largest.name.assign(1024, 'n');
  largest.shape.assign(8, 1);
  largest.page_bytes = 0;
  cache c{.manifest = {.regions = std::vector<kv::region>(4096, largest),
                       .note = std::vector<std::byte>(64 << 10)},
          .data = {}};
  for (std::uint64_t i = 0; i < 80; ++i) {
    puppet_sender p(dial(*r), hostile_sending());
    ASSERT_TRUE(p.shake());
    c.manifest.request = 1000 + i;
    p.begin(c, kToken, 1);
    (void)p.wait_for(kv::message_type::ready, kPatience);
  }
  // 64 pending manifests of 5 MiB each, in the sizes that strings and vectors have.
  if (faults::slowness() == 1) {
    EXPECT_LT(faults::peak_kib(), kib + 64 * 8 * 1024);
  }
}

TEST_F(hostile, messages_that_break_the_order) {
  listen(hostile_receiving());
  const cache c = make_cache(1);
  const prepared& all = prepared_parts(1, codec::raw);
  using change = std::function<void(kv::message_header&)>;
  const std::vector<change> changes = {
      [](auto& h) { h.slot = 8; },
      [](auto& h) { h.slot = ~0U; },
      [](auto& h) { h.region = 2; },
      [](auto& h) { h.region = ~0U; },
      [](auto& h) { h.layer = 7; },
      [](auto& h) { h.kind = 9; },
      [](auto& h) { h.codec = 2; },
      [](auto& h) { h.codec = 200; },
      [](auto& h) { h.first_page = ~std::uint64_t{0}; },
      [](auto& h) { h.first_page = 3; },
      [](auto& h) { h.n_pages = 2; },
      [](auto& h) { h.n_pages = 0; },
      [](auto& h) { h.request = 2; },
      [](auto& h) { h.epoch = 2; },
      [](auto& h) { h.payload_digest ^= 1; },
      [](auto& h) { h.type = kv::message_type::hello; },
      [](auto& h) { h.type = kv::message_type::offer; },
      [](auto& h) { h.type = kv::message_type::begin; },
      [](auto& h) { h.type = kv::message_type::end; },
      [](auto& h) { h.type = kv::message_type::credit; },
      [](auto& h) { h.type = kv::message_type::ready; },
      [](auto& h) { h.type = kv::message_type::published; },
      [](auto& h) { h.type = kv::message_type::ping; },
      [](auto& h) { h.type = kv::message_type::accept; },
  };
  std::uint64_t n = 0, accepted = 0;
  const auto try_it = [&](const std::function<void(puppet_sender&)>& what, const char* name, std::size_t i) {
    puppet_sender p(dial(*r), hostile_sending());
    ASSERT_TRUE(p.shake());
    what(p);
    ++n;
    if (p.wait_for(kv::message_type::published, kPatience)) {
      ++accepted;
      ADD_FAILURE() << "accepted: " << name << ' ' << i;
    }
  };
  cache own = c;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    own.manifest.request += 8;
    try_it(
        [&](puppet_sender& p) {
          p.begin(own, kToken, 1);
          p.send_part(own, all, 0, 1, changes[i]);
          for (std::size_t k = 1; k < 6; ++k) p.send_part(own, all, k, 1);
          p.end(own, all, 1);
        },
        "change", i);
  }
  for (std::size_t i = 0; i < 6; ++i) {
    own.manifest.request += 8;
    try_it(
        [&](puppet_sender& p) {
          if (i != 0) p.begin(own, kToken, 1);
          if (i == 1) p.begin(own, kToken, 2);
          const std::size_t skipped = i == 2 ? 4 : 9;
          for (std::size_t k = 0; k < 6; ++k) {
            if (k != skipped) p.send_part(own, all, k, 1);
            if (i == 3 && k == 2) p.end(own, all, 1);
            if (i == 4 && k == 2) p.send_part(own, all, 1, 1);
          }
          prepared other = all;
          if (i == 5) other.encoded[3].digest ^= 1;
          p.end(own, other, 1);
        },
        "order", i);
  }
  EXPECT_EQ(accepted, 0U);
  EXPECT_EQ(sink.n_published(), 0U);
  faults::publish(28, "messages out of order", n, accepted, "sessions");
}

/// Decodes nothing before it may.
class waiting_sink final : public kv::sink {
 public:
  explicit waiting_sink(kv::sink& inner) : inner_(inner) {}
  status prepare(const kv::manifest& m) override { return inner_.prepare(m); }
  status decode(const kv::manifest& m, const kv::part& p, std::span<const std::byte> frame) override {
    while (!may_go_on) std::this_thread::sleep_for(1ms);
    return inner_.decode(m, p, frame);
  }
  status publish(const kv::manifest& m) override { return inner_.publish(m); }
  void discard(const kv::manifest& m) noexcept override { inner_.discard(m); }
  std::atomic<bool> may_go_on{false};

 private:
  kv::sink& inner_;
};

TEST_F(hostile, parts_without_credit) {
  waiting_sink slow(sink);
  kv::receiver_options options = hostile_receiving();
  options.n_slots = 2;
  auto made = kv::receiver::listen({}, options, slow);
  ASSERT_TRUE(made);
  const cache c = make_cache(1);
  const prepared& all = prepared_parts(1, codec::raw);
  puppet_sender p(dial(*made), hostile_sending());
  ASSERT_TRUE(p.shake());
  p.begin(c, kToken, 1);
  for (std::size_t i = 0; i < 6; ++i)
    p.send_part(c, all, i, 1, [&](kv::message_header& h) { h.slot = static_cast<std::uint32_t>(i % 2); });
  std::this_thread::sleep_for(50ms);
  slow.may_go_on = true;
  EXPECT_FALSE(p.wait_for(kv::message_type::published, kPatience));
  ASSERT_TRUE(p.last_failure());
  EXPECT_NE(p.last_failure()->message.find("without credit"), std::string::npos) << p.last_failure()->message;
  p.leave();
}

}  // namespace
}  // namespace transfer_test
