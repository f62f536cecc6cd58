// The transport "nccl" on a stand-in for CUDA and NCCL (fake_nccl.cpp): the order of its calls, its waits and
// its clean-up. The real libraries are met by tersor_transport_bench on a machine with two GPUs.
#include <cstdlib>
#include <cstring>
#include <future>

#include <gtest/gtest.h>

#include "transfer/transports/channel.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

using std::chrono::milliseconds;

deadline in(int ms) {
  return clock::now() + milliseconds(ms);
}

struct path_pair {
  std::vector<std::byte> slots = std::vector<std::byte>(4 * 8192), frames = std::vector<std::byte>(2 * 8192);
  std::unique_ptr<payload_path> receiver, sender;
  std::vector<std::byte> description;
};

class nccl_test : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::setenv("TERSOR_NCCL", TERSOR_FAKE_NCCL, 1), 0);
    ASSERT_EQ(::setenv("TERSOR_CUDA_DRIVER", TERSOR_FAKE_NCCL, 1), 0);
    auto found = find_transport("nccl");
    ASSERT_TRUE(found) << found.error().describe();
    nccl_ = *found;
  }

  /// Both ends, the sender attached unless it is left out.
  void open(path_pair& p, bool attach = true) const {
    p.receiver = std::move(*nccl_->make_path());
    auto description = p.receiver->open_slots(p.slots, 4);
    ASSERT_TRUE(description) << description.error().describe();
    EXPECT_LE(description->size(), 4096U);
    p.description = *description;
    if (!attach) return;
    p.sender = std::move(*nccl_->make_path());
    const status attached = p.sender->attach(p.description, p.frames);
    ASSERT_TRUE(attached) << attached.error().describe();
  }

  const transport* nccl_ = nullptr;
};

TEST_F(nccl_test, frames_reach_their_slots_in_the_order_of_the_messages) {
  path_pair p;
  open(p);
  for (unsigned i = 0; i < 40; ++i) {
    const std::uint32_t slot = i * 7 % 4;
    const std::size_t size = 1 + i * 200;
    std::memset(p.frames.data(), static_cast<int>(i + 1), size);
    ASSERT_TRUE(p.sender->put(slot, const_bytes(p.frames).first(size), in(5'000)));
    // The frame's memory belongs to the caller again.
    std::memset(p.frames.data(), 0, size);
    ASSERT_TRUE(p.receiver->take(slot, size, in(5'000)));
    EXPECT_EQ(p.slots[slot * 8192], static_cast<std::byte>(i + 1));
    EXPECT_EQ(p.slots[slot * 8192 + size - 1], static_cast<std::byte>(i + 1));
  }
}

TEST_F(nccl_test, several_frames_are_under_way_at_once) {
  path_pair p;
  open(p);
  for (std::uint32_t slot = 0; slot < 4; ++slot) {
    std::memset(p.frames.data(), static_cast<int>(slot + 1), 8192);
    ASSERT_TRUE(p.sender->put(slot, const_bytes(p.frames).first(8192), in(5'000)));
  }
  for (std::uint32_t slot = 0; slot < 4; ++slot) {
    ASSERT_TRUE(p.receiver->take(slot, 8192, in(5'000)));
    EXPECT_EQ(p.slots[slot * 8192 + 8191], static_cast<std::byte>(slot + 1));
  }
}

TEST_F(nccl_test, a_frame_that_never_comes_ends_at_the_deadline) {
  path_pair p;
  open(p);
  const auto begun = clock::now();
  const status taken = p.receiver->take(0, 100, in(200));
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().message, "timed out");
  EXPECT_LT(clock::now() - begun, milliseconds(2'000));
}

TEST_F(nccl_test, a_sender_that_never_comes_ends_at_the_deadline) {
  path_pair p;
  open(p, false);
  const status taken = p.receiver->take(0, 100, in(200));
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().message, "timed out");
}

TEST_F(nccl_test, shutdown_wakes_take) {
  path_pair p;
  open(p);
  auto waiting = std::async(std::launch::async, [&] { return p.receiver->take(0, 100, in(20'000)); });
  std::this_thread::sleep_for(milliseconds(50));
  p.receiver->shutdown();
  EXPECT_FALSE(waiting.get());
}

TEST_F(nccl_test, frames_and_slots_out_of_range_are_refused) {
  path_pair p;
  open(p);
  EXPECT_FALSE(p.sender->put(4, const_bytes(p.frames).first(1), in(100)));
  EXPECT_FALSE(p.sender->put(0, const_bytes(p.frames), in(100)));
  EXPECT_FALSE(p.receiver->take(4, 1, in(100)));
  EXPECT_FALSE(p.receiver->take(0, 8193, in(100)));
}

TEST_F(nccl_test, descriptions_that_are_none_are_refused) {
  path_pair p;
  open(p, false);
  const auto refused = [&](std::vector<std::byte> description) {
    auto path = std::move(*nccl_->make_path());
    return !path->attach(description, p.frames);
  };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused(std::vector<std::byte>(143)));
  EXPECT_TRUE(refused(std::vector<std::byte>(144)));
  std::vector<std::byte> many = p.description;
  std::memset(many.data() + 136, 0xFF, 8);
  EXPECT_TRUE(refused(many));
}

TEST_F(nccl_test, carries_whole_requests) {
  auto ctx = context::create(1);
  ASSERT_TRUE(ctx);
  memory_sink sink(*ctx, std::uint64_t{1} << 26);
  receiver_options receiving;
  receiving.transport = "nccl";
  auto to = receiver::listen({.host = "127.0.0.1", .port = 0}, receiving, sink);
  ASSERT_TRUE(to) << to.error().describe();
  sender_options sending;
  sending.transport = "nccl";
  sending.part_bytes = 65'536;
  auto from = sender::connect(to->address(), sending);
  ASSERT_TRUE(from) << from.error().describe();
  std::vector<std::byte> data(3'000'000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 2654435761U >> 24);
  for (std::uint64_t request = 1; request <= 2; ++request) {
    manifest m = {.request = request};
    m.regions.push_back({.name = "r", .type = dtype::bf16, .shape = {data.size() / 2}, .page_bytes = 4096});
    const auto source = make_host_source(*ctx, {data});
    const auto report = from->send(m, *source);
    ASSERT_TRUE(report) << report.error().describe();
    const auto got = sink.take(request, milliseconds(5'000));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->regions.at(0), data);
  }
}

}  // namespace
}  // namespace tersor::transfer
