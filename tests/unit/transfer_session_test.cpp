// Sender and receiver of the transfer protocol over loopback.
#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

const context& shared_context() {
  static const context ctx = context::create(2).value();
  return ctx;
}

/// BF16 values with a bell-shaped exponent histogram.
std::vector<std::byte> make_values(std::size_t n_values, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(n_values * 2);
  for (std::size_t i = 0; i < n_values; ++i) {
    const float x = normal(random);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, 4);
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(&bytes[2 * i], &half, 2);
  }
  return bytes;
}

struct cache {
  transfer::manifest manifest;
  std::vector<std::vector<std::byte>> data;
  [[nodiscard]] std::vector<std::span<const std::byte>> spans() const { return {data.begin(), data.end()}; }
};

/// K and V of `layers` layers, [tokens, 8, 64] each, pages of 16 tokens.
cache make_cache(std::uint64_t request, std::uint32_t layers, std::uint64_t tokens) {
  cache c;
  c.manifest.request = request;
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    for (const part_kind kind : {part_kind::key, part_kind::value}) {
      c.manifest.regions.push_back(
          {.name = "layers." + std::to_string(layer) + (kind == part_kind::key ? ".k" : ".v"),
           .layer = layer,
           .kind = kind,
           .type = dtype::bf16,
           .shape = {tokens, 8, 64},
           .page_bytes = 16 * 8 * 64 * 2});
      c.data.push_back(make_values(tokens * 8 * 64, 100 * layer + static_cast<std::uint32_t>(kind)));
    }
  }
  return c;
}

bool same(const std::vector<host_bytes>& got, const std::vector<std::vector<std::byte>>& sent) {
  return std::equal(got.begin(), got.end(), sent.begin(), sent.end());
}

std::vector<std::byte> key_of(const char* text) {
  const auto bytes = std::as_bytes(std::span(text, std::strlen(text)));
  return {bytes.begin(), bytes.end()};
}

class transfer_session : public testing::TestWithParam<coding> {};

TEST_P(transfer_session, sends_a_cache) {
  memory_sink sink(shared_context(), 256 * kMiB);
  auto r = receiver::listen({}, {}, sink);
  ASSERT_TRUE(r) << r.error().describe();
  sender_options options{.coding = GetParam(), .part_bytes = 128 << 10};
  auto s = sender::connect(r->address(), options);
  ASSERT_TRUE(s) << s.error().describe();
  for (std::uint64_t request = 1; request <= 3; ++request) {
    const cache c = make_cache(request, 3, 1000);
    const auto from = make_host_source(shared_context(), c.spans());
    const auto report = s->send(c.manifest, *from);
    ASSERT_TRUE(report) << report.error().describe();
    EXPECT_EQ(report->raw_bytes, 6 * 1000 * 8 * 64 * 2U);
    if (GetParam() == coding::rank) {
      EXPECT_GT(report->raw_bytes * 10, report->sent_bytes * 13);
    }
    const auto got = sink.take(request, 0ms);
    ASSERT_TRUE(got) << got.error().describe();
    EXPECT_TRUE(same(got->regions, c.data));
    EXPECT_EQ(got->manifest.regions[5].name, "layers.2.v");
  }
  EXPECT_EQ(r->counters().requests_published, 3U);
}

TEST_P(transfer_session, with_a_key) {
  memory_sink sink(shared_context(), 256 * kMiB);
  const security secret{.psk = key_of("0123456789abcdef0123456789abcdef"), .tenant = "someone"};
  auto r = receiver::listen({}, {.security = secret}, sink);
  ASSERT_TRUE(r) << r.error().describe();
  auto s = sender::connect(r->address(), {.security = secret, .coding = GetParam()});
  ASSERT_TRUE(s) << s.error().describe();
  const cache c = make_cache(7, 2, 4096);
  const auto report = s->send(c.manifest, *make_host_source(shared_context(), c.spans()));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_TRUE(same(sink.take(7, 0ms)->regions, c.data));
}

TEST_P(transfer_session, with_agreed_codebooks) {
  memory_sink sink(shared_context(), 256 * kMiB);
  cache c = make_cache(9, 2, 1000);
  geometry said;
  for (std::size_t i = 0; i < c.data.size(); ++i) {
    const auto counts = count_symbols(shared_context(), dtype::bf16, c.data[i]);
    ASSERT_TRUE(counts);
    said.codebooks.push_back(make_codebook(dtype::bf16, *counts).value());
    c.manifest.regions[i].book = said.codebooks[i];
  }
  auto r = receiver::listen({}, {.expected = said}, sink);
  ASSERT_TRUE(r);
  auto s = sender::connect(r->address(), {.geometry = said, .coding = GetParam()});
  ASSERT_TRUE(s) << s.error().describe();
  const auto report = s->send(c.manifest, *make_host_source(shared_context(), c.spans()));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_TRUE(same(sink.take(9, 0ms)->regions, c.data));
  std::swap(c.manifest.regions[0].book->symbols[0], c.manifest.regions[0].book->symbols[1]);
  c.manifest.request = 10;
  const auto wrong = s->send(c.manifest, *make_host_source(shared_context(), c.spans()));
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("codebooks"), std::string::npos) << wrong.error().message;
}

INSTANTIATE_TEST_SUITE_P(codings, transfer_session,
                         testing::Values(coding::automatic, coding::raw, coding::top16, coding::rank),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

TEST(transfer_session, layer_by_layer) {
  memory_sink sink(shared_context(), 256 * kMiB);
  auto r = receiver::listen({}, {}, sink);
  ASSERT_TRUE(r);
  auto s = sender::connect(r->address());
  ASSERT_TRUE(s);
  const cache c = make_cache(1, 8, 512);
  layered_source from(shared_context(), c.spans());
  std::thread prefill([&] {
    for (std::uint32_t i = 0; i < c.data.size(); ++i) {
      std::this_thread::sleep_for(2ms);
      from.mark_ready(i);
    }
  });
  const auto report = s->send(c.manifest, from);
  prefill.join();
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_TRUE(same(sink.take(1, 0ms)->regions, c.data));
}

TEST(transfer_session, a_source_that_gives_up_leaves_nothing) {
  memory_sink sink(shared_context(), 256 * kMiB);
  auto r = receiver::listen({}, {}, sink);
  ASSERT_TRUE(r);
  auto s = sender::connect(r->address());
  ASSERT_TRUE(s);
  const cache c = make_cache(1, 8, 512);
  {
    layered_source from(shared_context(), c.spans());
    from.mark_ready(0);
    from.give_up({.code = errc::cancelled, .message = "prefill failed"});
    const auto report = s->send(c.manifest, from);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, errc::cancelled);
  }
  EXPECT_FALSE(sink.take(1, 0ms));
  const auto again = s->send(c.manifest, *make_host_source(shared_context(), c.spans()));
  ASSERT_TRUE(again) << again.error().describe();
  EXPECT_TRUE(same(sink.take(1, 0ms)->regions, c.data));
}

TEST(transfer_session, refuses_by_name) {
  memory_sink sink(shared_context(), 256 * kMiB);
  const geometry said{.model = "llama",
                      .revision = "r1",
                      .layout = "kv_blocks_nhd",
                      .type = dtype::bf16,
                      .n_layers = 2,
                      .block_size = 16,
                      .kv_heads = 8,
                      .head_dim = 64,
                      .codebooks = {{.symbols = {1, 2, 3}}, {.symbols = {4, 5, 6}}}};
  auto r = receiver::listen({}, {.expected = said, .security = {.tenant = "a"}}, sink);
  ASSERT_TRUE(r);
  const auto refusal = [&](geometry g, std::string tenant = "a") {
    const auto s =
        sender::connect(r->address(), {.geometry = std::move(g), .security = {.tenant = std::move(tenant)}});
    return s ? std::string("accepted") : s.error().message;
  };
  EXPECT_EQ(refusal(said), "accepted");
  geometry g = said;
  g.model = "qwen";
  EXPECT_NE(refusal(g).find("model"), std::string::npos) << refusal(g);
  g = said;
  g.revision.clear();
  EXPECT_NE(refusal(g).find("revision"), std::string::npos);
  g = said;
  g.layout = "mla";
  EXPECT_NE(refusal(g).find("layout"), std::string::npos);
  g = said;
  g.type = dtype::f16;
  EXPECT_NE(refusal(g).find("dtype"), std::string::npos);
  for (std::uint32_t geometry::*field :
       {&geometry::n_layers, &geometry::block_size, &geometry::kv_heads, &geometry::head_dim}) {
    g = said;
    g.*field += 1;
    EXPECT_NE(refusal(g).find(": the receiver has"), std::string::npos);
  }
  g = said;
  std::swap(g.codebooks[0], g.codebooks[1]);
  EXPECT_NE(refusal(g).find("codebooks: that of K of layer 0"), std::string::npos) << refusal(g);
  EXPECT_NE(refusal(said, "b").find("tenant"), std::string::npos);
}

TEST(transfer_session, refuses_another_key) {
  memory_sink sink(shared_context(), kMiB);
  auto r = receiver::listen({}, {.security = {.psk = key_of("0123456789abcdef")}}, sink);
  ASSERT_TRUE(r) << r.error().describe();
  auto s = sender::connect(r->address(), {.security = {.psk = key_of("0123456789abcdeX")}});
  ASSERT_FALSE(s);
  EXPECT_NE(s.error().message.find("authentication"), std::string::npos);
  s = sender::connect(r->address(), {});
  ASSERT_FALSE(s);
  EXPECT_NE(s.error().message.find("authentication"), std::string::npos);
  EXPECT_FALSE(receiver::listen({.host = "0.0.0.0"}, {}, sink));
}

TEST(transfer_session, refuses_what_does_not_fit) {
  memory_sink sink(shared_context(), kMiB);
  auto r = receiver::listen({}, {.max_request_bytes = 8 * kMiB}, sink);
  ASSERT_TRUE(r);
  for (const std::uint64_t tokens : {4096U, 16384U}) {
    auto s = sender::connect(r->address());
    ASSERT_TRUE(s);
    const cache c = make_cache(1, 1, tokens);
    const auto report = s->send(c.manifest, *make_host_source(shared_context(), c.spans()));
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, tokens == 4096 ? errc::out_of_memory : errc::destination_too_small);
  }
}

TEST(transfer_session, empty_regions_and_empty_requests) {
  memory_sink sink(shared_context(), kMiB);
  auto r = receiver::listen({}, {}, sink);
  ASSERT_TRUE(r);
  auto s = sender::connect(r->address());
  ASSERT_TRUE(s);
  ASSERT_TRUE(s->send({.request = 1}, *make_host_source(shared_context(), {})));
  EXPECT_TRUE(sink.take(1, 0ms));
  const manifest m{.request = 2, .regions = {{.name = "none", .type = dtype::bf16, .shape = {0, 5}}}};
  ASSERT_TRUE(s->send(m, *make_host_source(shared_context(), {std::span<const std::byte>{}})));
  EXPECT_EQ(sink.take(2, 0ms)->regions.at(0).size(), 0U);
}

}  // namespace
}  // namespace tersor::transfer
