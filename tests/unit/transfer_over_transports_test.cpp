// The whole protocol over every transport of this machine: what arrives is what was sent.
#include <future>

#include "transfer_transport_fixture.hpp"

namespace tersor::transfer::testing {
namespace {

using protocol_over = transport_test;

std::vector<std::byte> bell_curve(std::size_t n_values, std::uint32_t seed) {
  std::vector<std::byte> data;
  std::uint32_t state = seed;
  for (std::size_t i = 0; i < n_values; ++i) {
    std::uint32_t sum = 0;
    for (int k = 0; k < 4; ++k) sum += (state = state * 1664525U + 1013904223U) >> 26;
    data.push_back(static_cast<std::byte>(state >> 24));
    data.push_back(static_cast<std::byte>(0x3C + sum / 64));
  }
  return data;
}

manifest make_manifest(std::uint64_t request, std::span<const std::vector<std::byte>> regions) {
  manifest m = {.request = request};
  for (std::uint32_t i = 0; i < regions.size(); ++i) {
    m.regions.push_back({.name = "region " + std::to_string(i),
                         .layer = i / 2,
                         .kind = i % 2 == 0 ? part_kind::key : part_kind::value,
                         .type = dtype::bf16,
                         .shape = {regions[i].size() / 2},
                         .page_bytes = 4096});
  }
  return m;
}

TEST_P(protocol_over, requests_arrive_as_they_were_sent) {
  if (GetParam() == "nccl")
    GTEST_SKIP() << "two ranks in one process need two GPUs: see tersor_transport_bench";
  auto ctx = context::create(1);
  ASSERT_TRUE(ctx);
  std::vector<std::vector<std::byte>> regions;
  for (std::uint32_t i = 0; i < 6; ++i) regions.push_back(bell_curve(300'000 + 512 * i, i));
  std::vector<std::span<const std::byte>> spans(regions.begin(), regions.end());

  memory_sink sink(*ctx, std::uint64_t{1} << 28);
  receiver_options receiving;
  receiving.transport = GetParam();
  receiving.security.tls = test_certificates();
  receiving.max_part_bytes = std::uint64_t{1} << 20;
  auto to = receiver::listen({.host = "127.0.0.1", .port = 0}, receiving, sink);
  ASSERT_TRUE(to) << to.error().describe();

  sender_options sending;
  sending.transport = GetParam();
  sending.security.tls = test_certificates();
  sending.part_bytes = 256 << 10;
  auto from = sender::connect(to->address(), sending);
  ASSERT_TRUE(from) << from.error().describe();
  for (std::uint64_t request = 1; request <= 3; ++request) {
    const manifest m = make_manifest(request, regions);
    const auto source = make_host_source(*ctx, spans);
    const auto report = from->send(m, *source);
    ASSERT_TRUE(report) << report.error().describe();
    const auto got = sink.take(request, milliseconds(10'000));
    ASSERT_TRUE(got) << got.error().describe();
    EXPECT_TRUE(std::equal(got->regions.begin(), got->regions.end(), regions.begin(), regions.end()));
  }
}

using plain_tcp_against = transport_test;

TEST_P(plain_tcp_against, is_refused) {
  auto ctx = context::create(1);
  ASSERT_TRUE(ctx);
  memory_sink sink(*ctx, std::uint64_t{1} << 20);
  receiver_options receiving;
  receiving.transport = GetParam();
  receiving.security.tls = test_certificates();
  auto to = receiver::listen({.host = "127.0.0.1", .port = 0}, receiving, sink);
  ASSERT_TRUE(to) << to.error().describe();
  sender_options sending;
  sending.timeouts.handshake = milliseconds(1'000);
  const auto begun = clock::now();
  const auto from = sender::connect(to->address(), sending);
  EXPECT_FALSE(from);
  EXPECT_LT(clock::now() - begun, milliseconds(5'000));
}

std::vector<std::string> others_than_tcp() {
  auto names = available_transports();
  std::erase(names, "tcp");
  return names;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(plain_tcp_against);
INSTANTIATE_TEST_SUITE_P(every, plain_tcp_against, ::testing::ValuesIn(others_than_tcp()),
                         [](const auto& which) { return which.param; });
INSTANTIATE_TEST_SUITE_P(every, protocol_over, ::testing::ValuesIn(available_transports()),
                         [](const auto& which) { return which.param; });

}  // namespace
}  // namespace tersor::transfer::testing
