// One request after another through the whole protocol between two processes of this machine, over any
// transport: transport_bench TRANSPORT CODING MIB [REQUESTS]. The sender runs in a child process.
//
// Over NCCL the two processes take two GPUs: TERSOR_NCCL_DEVICE is 0 in the receiver, 1 in the sender.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <tersor/transfer.hpp>

namespace {

namespace tt = tersor::transfer;

constexpr std::uint32_t kRegions = 16;

struct task {
  std::string transport;
  tt::coding coding = tt::coding::automatic;
  std::uint64_t n_bytes = 0;
  unsigned n_requests = 0;
};

/// BF16 values with the exponents of a bell curve, as K and V have.
std::vector<std::byte> make_region(std::uint64_t n_bytes, std::uint32_t seed) {
  std::vector<std::byte> data(n_bytes);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
  for (std::uint64_t at = 0; at + 2 <= n_bytes; at += 2) {
    float value = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      value += static_cast<float>(state >> 40) / static_cast<float>(1 << 24) - 0.5F;
    }
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(data.data() + at, &half, sizeof half);
  }
  return data;
}

tt::manifest make_manifest(const task& t, std::uint64_t request) {
  tt::manifest m{.request = request};
  for (std::uint32_t i = 0; i < kRegions; ++i) {
    m.regions.push_back({.name = "layer " + std::to_string(i / 2),
                         .layer = i / 2,
                         .kind = i % 2 == 0 ? tt::part_kind::key : tt::part_kind::value,
                         .type = tersor::dtype::bf16,
                         .shape = {t.n_bytes / kRegions / 2},
                         .page_bytes = 32'768});
  }
  return m;
}

int fail(const tersor::error& e) {
  std::fprintf(stderr, "%s\n", e.describe().c_str());
  return 1;
}

int send_all(const task& t, std::uint16_t port) {
  ::setenv("TERSOR_NCCL_DEVICE", "1", 0);
  auto ctx = tersor::context::create();
  if (!ctx) return fail(ctx.error());
  std::vector<std::vector<std::byte>> data;
  std::vector<std::span<const std::byte>> regions;
  for (std::uint32_t i = 0; i < kRegions; ++i) data.push_back(make_region(t.n_bytes / kRegions, i));
  for (const auto& d : data) regions.emplace_back(d);
  tt::sender_options options;
  options.transport = t.transport;
  options.coding = t.coding;
  auto sender = tt::sender::connect({"127.0.0.1", port}, options);
  if (!sender) return fail(sender.error());
  for (unsigned i = 0; i < t.n_requests; ++i) {
    const auto source = tt::make_host_source(*ctx, regions);
    const auto r = sender->send(make_manifest(t, i + 1), *source);
    if (!r) return fail(r.error());
    std::printf(
        "{\"transport\": \"%s\", \"coding\": \"%s\", \"raw_bytes\": %llu, \"sent_bytes\": %llu, "
        "\"seconds\": %.6f, \"raw_gb_per_s\": %.3f, \"encode_s\": %.4f, \"send_s\": %.4f, "
        "\"credit_s\": %.4f, \"decode_s\": %.4f}\n",
        t.transport.c_str(), std::string(to_string(t.coding)).c_str(),
        static_cast<unsigned long long>(r->raw_bytes), static_cast<unsigned long long>(r->sent_bytes),
        r->seconds, static_cast<double>(r->raw_bytes) / r->seconds / 1e9, r->encode_seconds, r->send_seconds,
        r->credit_seconds, r->decode_seconds);
  }
  return 0;
}

/// The sender's exit status, after every region was compared with what was sent.
int receive_all(const task& t, int port_pipe, ::pid_t sender) {
  auto ctx = tersor::context::create();
  if (!ctx) return fail(ctx.error());
  tt::memory_sink sink(*ctx, 3 * t.n_bytes);
  tt::receiver_options options;
  options.transport = t.transport;
  auto receiver = tt::receiver::listen({"127.0.0.1", 0}, options, sink);
  if (!receiver) return fail(receiver.error());
  const std::uint16_t port = receiver->address().port;
  if (::write(port_pipe, &port, sizeof port) != sizeof port) return 1;
  for (unsigned i = 0; i < t.n_requests; ++i) {
    const auto got = sink.take(i + 1, std::chrono::milliseconds(120'000));
    if (!got) return fail(receiver->last_error().value_or(got.error()));
    for (std::uint32_t r = 0; i == 0 && r < kRegions; ++r) {
      if (!(got->regions[r] == make_region(t.n_bytes / kRegions, r))) {
        std::fprintf(stderr, "region %u differs\n", r);
        return 1;
      }
    }
  }
  int status = 0;
  ::waitpid(sender, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    for (const auto& t : tt::transports())
      std::printf("%-9s %s  %s\n", t.name.c_str(), t.available ? "yes" : "no ", t.detail.c_str());
    std::printf("usage: %s TRANSPORT auto|raw|top16|rank MIB [REQUESTS]\n", argv[0]);
    return 2;
  }
  task t{.transport = argv[1]};
  const auto coding = tt::parse_coding(argv[2]);
  if (!coding) return 2;
  t.coding = *coding;
  t.n_bytes = std::strtoull(argv[3], nullptr, 10) << 20;
  t.n_requests = argc > 4 ? static_cast<unsigned>(std::strtoul(argv[4], nullptr, 10)) : 3;
  std::array<int, 2> pipe = {};
  if (::pipe(pipe.data()) != 0) return 1;
  // Before any library has threads: neither CUDA nor UCX survives a fork.
  const ::pid_t child = ::fork();
  if (child < 0) return 1;
  if (child > 0) return receive_all(t, pipe[1], child);
  std::uint16_t port = 0;
  ::close(pipe[1]);
  if (::read(pipe[0], &port, sizeof port) != sizeof port) return 1;
  return send_all(t, port);
}
