// Time of a KV transfer over a real link, beside a plain TCP copy of the same bytes (netns.sh makes the
// link):
//   tersor_netns_bench serve HOST MAX_BYTES
//   tersor_netns_bench measure HOST KV.safetensors BYTES ROUNDS     one JSON object a line; "-": values of
//   its own
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "safetensors/header.hpp"
#include <tersor/transfer.hpp>

namespace {

using namespace tersor;
using clock_type = std::chrono::steady_clock;

constexpr std::uint16_t kTransferPort = 7001, kCopyPort = 7002;
constexpr std::uint64_t kRegionBytes = std::uint64_t{16} << 20;
constexpr std::uint64_t kTokens = 16;  ///< of a page

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "netns_bench: %s\n", why.c_str());
  std::exit(1);
}

template <class T>
T must(result<T> value) {
  if (!value) give_up(value.error().describe());
  return std::move(*value);
}

double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

// ---- Server ----

/// Every request goes to the same memory, which is there before the first one.
class one_place final : public transfer::sink {
 public:
  one_place(const context& ctx, std::span<std::byte> memory) : ctx_(ctx), memory_(memory) {}
  status prepare(const transfer::manifest& m) override {
    std::vector<std::uint64_t> at;
    std::uint64_t total = 0;
    for (const transfer::region& r : m.regions) {
      at.push_back(total);
      total += must(transfer::region_bytes(r));
    }
    if (total > memory_.size())
      return fail(errc::out_of_memory, "the request is larger than the server's memory");
    const std::lock_guard lock(mutex_);
    begins_[m.request] = std::move(at);
    return {};
  }
  status decode(const transfer::manifest& m, const transfer::part& p,
                std::span<const std::byte> frame) override {
    std::uint64_t begin = 0;
    {
      const std::lock_guard lock(mutex_);
      begin = begins_.at(m.request)[p.region] + p.offset;
    }
    return transfer::decode_and_recheck(ctx_, frame, memory_.subspan(begin, p.n_bytes));
  }
  status publish(const transfer::manifest& m) override {
    discard(m);
    return {};
  }
  void discard(const transfer::manifest& m) noexcept override {
    const std::lock_guard lock(mutex_);
    begins_.erase(m.request);
  }

 private:
  const context& ctx_;
  std::span<std::byte> memory_;
  std::mutex mutex_;
  std::map<std::uint64_t, std::vector<std::uint64_t>> begins_;
};

::sockaddr_in address_of(const char* host, std::uint16_t port) {
  ::sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  if (::inet_pton(AF_INET, host, &at.sin_addr) != 1) give_up(std::string("not an IPv4 address: ") + host);
  return at;
}

void receive_all(int fd, std::byte* data, std::uint64_t n) {
  while (n > 0) {
    const ::ssize_t got = ::recv(fd, data, n, 0);
    if (got <= 0) give_up("the copy's connection broke");
    data += got;
    n -= static_cast<std::uint64_t>(got);
  }
}

/// Copies: eight bytes of length, the bytes, one byte back.
void serve_copies(const char* host, std::span<std::byte> memory) {
  const int door = ::socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  (void)::setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const ::sockaddr_in at = address_of(host, kCopyPort);
  if (::bind(door, reinterpret_cast<const ::sockaddr*>(&at), sizeof at) != 0 || ::listen(door, 4) != 0)
    give_up("cannot listen");
  while (true) {
    const int fd = ::accept(door, nullptr, nullptr);
    if (fd < 0) continue;
    std::uint64_t n = 0;
    receive_all(fd, reinterpret_cast<std::byte*>(&n), sizeof n);
    receive_all(fd, memory.data(), std::min<std::uint64_t>(n, memory.size()));
    (void)::send(fd, "k", 1, MSG_NOSIGNAL);
    ::close(fd);
  }
}

int serve(const char* host, std::uint64_t max_bytes) {
  std::vector<std::byte> memory(max_bytes, std::byte{1});
  const context ctx = must(context::create(1));
  one_place sink(ctx, memory);
  const transfer::receiver r = must(transfer::receiver::listen({.host = host, .port = kTransferPort},
                                                               {.allow_unauthenticated_remote = true}, sink));
  std::printf("ready\n");
  std::fflush(stdout);
  serve_copies(host, memory);
  return 0;
}

// ---- Client ----

struct cache {
  std::vector<std::vector<std::byte>> data;
  transfer::manifest manifest;
  std::uint64_t n_bytes = 0;
};

std::vector<std::byte> read_file(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) give_up(std::string("cannot open ") + path);
  std::vector<std::byte> all;
  std::vector<std::byte> block(1 << 20);
  for (std::size_t n = 0; (n = std::fread(block.data(), 1, block.size(), file)) > 0;)
    all.insert(all.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(n));
  std::fclose(file);
  return all;
}

/// Normally distributed BF16 values, where no cache is at hand.
std::vector<std::byte> made_up_file() {
  constexpr std::size_t kRows = 1024, kColumns = 1024;
  std::string json = R"({"kv":{"dtype":"BF16","shape":[1024,1024],"data_offsets":[0,2097152]}})";
  std::vector<std::byte> all(8);
  const std::uint64_t json_bytes = json.size();
  std::memcpy(all.data(), &json_bytes, 8);
  for (const char c : json) all.push_back(static_cast<std::byte>(c));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < kRows * kColumns; ++i) {
    const float value = normal(random);
    std::array<std::byte, 4> bytes{};
    std::memcpy(bytes.data(), &value, 4);
    all.push_back(bytes[2]);
    all.push_back(bytes[3]);
  }
  return all;
}

/// Regions of 16 MiB, each out of one BF16 tensor of the file: copies of it whose pages are rotated, every
/// copy by another distance, so that what follows in memory is never what came before.
cache tile(const char* path, std::uint64_t n_bytes) {
  const std::vector<std::byte> all = std::strcmp(path, "-") == 0 ? made_up_file() : read_file(path);
  std::uint64_t json_bytes = 0;
  if (all.size() < 8) give_up("not a safetensors file");
  std::memcpy(&json_bytes, all.data(), 8);
  if (json_bytes > all.size() - 8) give_up("not a safetensors file");
  const auto header =
      must(safetensors::parse_header(std::span(all).subspan(8, json_bytes), all.size() - 8 - json_bytes));
  cache c;
  std::vector<const safetensors::tensor_entry*> tensors;
  for (const auto& t : header.tensors) {
    if (t.dtype == "BF16" && t.shape.size() > 1 && t.end - t.begin >= 4096) tensors.push_back(&t);
  }
  if (tensors.empty()) give_up("no BF16 tensors in the file");
  for (std::uint64_t r = 0; c.n_bytes < n_bytes; ++r) {
    const safetensors::tensor_entry& t = *tensors[r % tensors.size()];
    const auto values = std::span(all).subspan(header.data_offset() + t.begin, t.end - t.begin);
    const std::uint64_t page = std::min<std::uint64_t>(values.size(), kTokens * values.size() / t.shape[0]);
    const std::uint64_t n_pages = values.size() / page;
    const std::uint64_t size = std::min(kRegionBytes, n_bytes - c.n_bytes) / page * page;
    if (size == 0) break;
    std::vector<std::byte> region(size);
    for (std::uint64_t at = 0, copy = 0; at < size; at += page) {
      const std::uint64_t of_copy = at / page % n_pages;
      if (of_copy == 0 && at > 0) ++copy;
      const std::uint64_t from = (of_copy * (2 * (copy % 16) + 1) + copy * 37 + r * 11) % n_pages;
      std::memcpy(&region[at], &values[from * page], page);
    }
    c.manifest.regions.push_back({.name = t.name + "." + std::to_string(r),
                                  .layer = static_cast<std::uint32_t>(r / 2),
                                  .kind = r % 2 == 0 ? transfer::part_kind::key : transfer::part_kind::value,
                                  .type = dtype::bf16,
                                  .shape = {size / 2},
                                  .page_bytes = page});
    c.n_bytes += size;
    c.data.push_back(std::move(region));
  }
  return c;
}

double copy_once(const char* host, const cache& c) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const ::sockaddr_in at = address_of(host, kCopyPort);
  if (::connect(fd, reinterpret_cast<const ::sockaddr*>(&at), sizeof at) != 0) give_up("cannot connect");
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto start = clock_type::now();
  const auto send_all = [fd](const void* data, std::uint64_t n) {
    const auto* p = static_cast<const std::byte*>(data);
    while (n > 0) {
      const ::ssize_t sent = ::send(fd, p, n, MSG_NOSIGNAL);
      if (sent <= 0) give_up("the copy's connection broke");
      p += sent;
      n -= static_cast<std::uint64_t>(sent);
    }
  };
  send_all(&c.n_bytes, sizeof c.n_bytes);
  for (const auto& region : c.data) send_all(region.data(), region.size());
  std::byte done{};
  receive_all(fd, &done, 1);
  const double seconds = seconds_since(start);
  ::close(fd);
  return seconds;
}

double cpu_seconds() {
  ::rusage used = {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto of = [](const ::timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return of(used.ru_utime) + of(used.ru_stime);
}

struct run {
  double seconds = 0, cpu = 0;
  transfer::transfer_report report;
};

run send_once(const char* host, const context& ctx, const cache& c, transfer::coding how,
              std::uint64_t request) {
  transfer::sender s =
      must(transfer::sender::connect({.host = host, .port = kTransferPort}, {.coding = how}));
  transfer::manifest m = c.manifest;
  m.request = request;
  const auto from = transfer::make_host_source(ctx, {c.data.begin(), c.data.end()});
  run r;
  const double cpu = cpu_seconds();
  const auto start = clock_type::now();
  r.report = must(s.send(m, *from));
  r.seconds = seconds_since(start);
  r.cpu = cpu_seconds() - cpu;
  return r;
}

void print(const char* mode, std::uint64_t bytes, std::vector<run> runs) {
  std::sort(runs.begin(), runs.end(), [](const run& a, const run& b) { return a.seconds < b.seconds; });
  const run& mid = runs[runs.size() / 2];
  const transfer::transfer_report& r = mid.report;
  std::printf(
      "{\"mode\":\"%s\",\"bytes\":%llu,\"seconds\":%.6f,\"fastest\":%.6f,\"slowest\":%.6f,\"sender_cpu_"
      "seconds\":%.4f,"
      "\"sent_bytes\":%llu,\"parts\":%llu,\"raw_parts\":%llu,\"top16_parts\":%llu,\"rank_parts\":%llu,"
      "\"encode_seconds\":%.4f,\"send_seconds\":%.4f,\"credit_seconds\":%.4f,\"decode_seconds\":%.4f}\n",
      mode, static_cast<unsigned long long>(bytes), mid.seconds, runs.front().seconds, runs.back().seconds,
      mid.cpu, static_cast<unsigned long long>(r.sent_bytes), static_cast<unsigned long long>(r.parts),
      static_cast<unsigned long long>(r.raw_parts), static_cast<unsigned long long>(r.top16_parts),
      static_cast<unsigned long long>(r.rank_parts), r.encode_seconds, r.send_seconds, r.credit_seconds,
      r.decode_seconds);
  std::fflush(stdout);
}

int measure(const char* host, const char* path, std::uint64_t bytes, unsigned rounds) {
  const cache c = tile(path, bytes);
  const context ctx = must(context::create(1));
  constexpr std::array kCodings = {transfer::coding::raw, transfer::coding::top16, transfer::coding::rank,
                                   transfer::coding::automatic};
  std::vector<run> copies;
  std::array<std::vector<run>, kCodings.size()> sent;
  auto request = static_cast<std::uint64_t>(::getpid()) << 32;
  // Round by round, so that a busy moment of the machine meets all of them. A sender each time: `auto` knows
  // nothing of the link when it begins.
  for (unsigned round = 0; round < rounds; ++round) {
    run copy{.report = {}};
    copy.seconds = copy_once(host, c);
    copy.report.sent_bytes = c.n_bytes;
    copies.push_back(copy);
    for (std::size_t i = 0; i < kCodings.size(); ++i)
      sent[i].push_back(send_once(host, ctx, c, kCodings[i], ++request));
  }
  print("copy", c.n_bytes, std::move(copies));
  for (std::size_t i = 0; i < kCodings.size(); ++i)
    print(std::string(to_string(kCodings[i])).c_str(), c.n_bytes, std::move(sent[i]));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "serve" && argc == 4) return serve(argv[2], std::strtoull(argv[3], nullptr, 10));
  if (verb == "measure" && argc == 6) {
    return measure(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10),
                   std::max(1U, static_cast<unsigned>(std::strtoul(argv[5], nullptr, 10))));
  }
  std::fprintf(stderr, "usage: tersor_netns_bench serve HOST MAX_BYTES | measure HOST FILE BYTES ROUNDS\n");
  return 2;
}
