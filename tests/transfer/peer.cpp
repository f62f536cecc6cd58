// One side of transfers, to be killed by a test: `transfer_peer send PORT FIRST_REQUEST` sends one request
// after another, `transfer_peer receive PORT` prints its port and then each request that it publishes.
#include <cstdio>
#include <string>
#include <thread>

#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using namespace transfer_test;

constexpr std::uint32_t kLayers = 2;
constexpr std::uint64_t kPages = 40;

int send_for_ever(std::uint16_t port, std::uint64_t first) {
  const kv::sender_options options{.part_bytes = 8192};
  auto s = kv::sender::connect({.host = "127.0.0.1", .port = port}, options);
  if (!s) return 1;
  for (std::uint64_t request = first;; ++request) {
    const cache c = make_cache(request, kLayers, kPages);
    if (!s->send(c.manifest, *c.source())) return 1;
  }
}

int receive_for_ever(std::uint16_t port) {
  checking_sink sink;
  sink.on_publish = [&](std::uint64_t request) {
    std::printf(sink.n_wrong() == 0 ? "%llu\n" : "wrong %llu\n", static_cast<unsigned long long>(request));
    std::fflush(stdout);
  };
  const kv::receiver_options options{.max_part_bytes = 8192};
  auto r = kv::receiver::listen({.host = "127.0.0.1", .port = port}, options, sink);
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().describe().c_str());
    return 1;
  }
  std::printf("port %u\n", unsigned{r->address().port});
  std::fflush(stdout);
  std::this_thread::sleep_for(60s);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto port = static_cast<std::uint16_t>(std::stoul(argv[2]));
  if (std::string(argv[1]) == "send" && argc == 4) return send_for_ever(port, std::stoull(argv[3]));
  return receive_for_ever(port);
}
