// Two processes, one GPU each: the child encodes into staging memory that it shares, the parent decodes
// straight out of it. What they tell each other goes over a socket.
#include <chrono>
#include <cstdio>
#include <vector>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_input.hpp"
#include "gpu_link_bench.hpp"

namespace tersor::bench {

using namespace transfer;
using namespace transfer::device;

namespace {

constexpr std::uint64_t kRounds = 20, kRegions = 8;

struct hello {
  ipc_token memory, event;
  std::uint64_t n_bytes = 0;
};

template <class T>
status put(int fd, const T& value) {
  return ::send(fd, &value, sizeof value, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof value)
             ? status{}
             : fail(errc::io_error, "socket");
}
template <class T>
status take(int fd, T& value) {
  return ::recv(fd, &value, sizeof value, MSG_WAITALL) == static_cast<ssize_t>(sizeof value)
             ? status{}
             : fail(errc::io_error, "socket");
}

/// The input's first tensor on the current device, and its codebook.
struct tensor_on_device {
  memory values;
  std::vector<std::byte> bytes;
  codebook book;
};
result<tensor_on_device> first_tensor(const std::string& path) {
  TERSOR_TRY(std::vector<bench_tensor> all, load_bf16(path));
  tensor_on_device t;
  t.bytes = std::move(all.front().bytes);
  TERSOR_TRY(const histogram counts, count_symbols(dtype::bf16, t.bytes));
  TERSOR_TRY(t.book, make_codebook(dtype::bf16, counts));
  TERSOR_TRY(t.values, make_memory(t.bytes.size()));
  TERSOR_CHECK(
      ok(cudaMemcpy(t.values.get(), t.bytes.data(), t.bytes.size(), cudaMemcpyHostToDevice), "upload"));
  return t;
}

status encode_rounds(const std::string& path, int fd) {
  TERSOR_CHECK(ok(cudaSetDevice(0), "device"));
  TERSOR_TRY(const tensor_on_device t, first_tensor(path));
  const std::uint64_t n = t.bytes.size() / 2;
  const std::uint64_t bound = (cuda::encode_bound(codec::rank, dtype::bf16, n) + 127) / 128 * 128;
  TERSOR_TRY(const shared_staging staging, shared_staging::create(0, bound * kRegions));
  TERSOR_TRY(const shared_event encoded, shared_event::create(0));
  TERSOR_TRY(const memory work, make_memory(16384));
  TERSOR_TRY(const memory results, make_memory(kRegions * sizeof(cuda::frame_result)));
  TERSOR_TRY(const own_stream s, make_stream());
  hello greeting{.memory = {}, .event = {}, .n_bytes = staging.size()};
  TERSOR_TRY(greeting.memory, staging.token());
  TERSOR_TRY(greeting.event, encoded.token());
  TERSOR_CHECK(put(fd, greeting));
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    for (std::uint64_t i = 0; i < kRegions; ++i) {
      // Another part of the tensor each time, so that a frame of the round before would be noticed.
      const std::uint64_t values = n - 1000 * round - 100 * i;
      TERSOR_CHECK(cuda::encode_async(codec::rank,
                                      {.type = dtype::bf16,
                                       .shape = {&values, 1},
                                       .src_dev = static_cast<std::byte*>(t.values.get()) + 2000 * round,
                                       .book = t.book,
                                       .frame_dev = static_cast<std::byte*>(staging.data()) + i * bound,
                                       .capacity = bound,
                                       .result_dev = static_cast<cuda::frame_result*>(results.get()) + i},
                                      cuda::tail_order::free, {work.get(), 16384}, s.get()));
    }
    TERSOR_CHECK(encoded.record(s.get()));
    TERSOR_CHECK(put(fd, round));
    std::uint64_t done = 0;
    TERSOR_CHECK(take(fd, done));
  }
  return ok(cudaStreamSynchronize(s.get()), "encoding");
}

status decode_rounds(const std::string& path, int fd) {
  TERSOR_CHECK(ok(cudaSetDevice(1), "device"));
  TERSOR_TRY(const tensor_on_device t, first_tensor(path));
  const std::uint64_t n = t.bytes.size() / 2;
  const std::uint64_t bound = (cuda::encode_bound(codec::rank, dtype::bf16, n) + 127) / 128 * 128;
  hello greeting;
  TERSOR_CHECK(take(fd, greeting));
  if (greeting.n_bytes < bound * kRegions) return fail(errc::mismatch, "the other process shares too little");
  TERSOR_TRY(const shared_staging staging, shared_staging::open(1, greeting.memory, greeting.n_bytes));
  TERSOR_TRY(const shared_event encoded, shared_event::open(1, greeting.event));
  TERSOR_TRY(const memory work, make_memory(16384));
  TERSOR_TRY(const memory out, make_memory(t.bytes.size()));
  TERSOR_TRY(pinned_verdicts verdicts, pinned_verdicts::create(1));
  TERSOR_TRY(const own_stream s, make_stream());
  std::vector<std::byte> got(t.bytes.size());
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    std::uint64_t said = 0;
    TERSOR_CHECK(take(fd, said));
    TERSOR_CHECK(encoded.wait(s.get()));
    for (std::uint64_t i = 0; i < kRegions; ++i) {
      const std::uint64_t values = n - 1000 * round - 100 * i;
      verdicts.all()[0].received.code = static_cast<std::int32_t>(errc::internal);
      TERSOR_CHECK(cuda::decode_async(codec::rank,
                                      {.type = dtype::bf16,
                                       .n_values = values,
                                       .frame_dev = static_cast<std::byte*>(staging.data()) + i * bound,
                                       .frame_bytes = bound,
                                       .dst_dev = out.get(),
                                       .result_dev = &verdicts.all()[0].received},
                                      {work.get(), 16384}, s.get()));
      TERSOR_CHECK(ok(cudaMemcpyAsync(got.data(), out.get(), 2 * values, cudaMemcpyDeviceToHost, s.get()),
                      "download"));
      TERSOR_CHECK(ok(cudaStreamSynchronize(s.get()), "decoding"));
      if (const std::int32_t code = verdicts.all()[0].received.code; code != 0)
        return fail(static_cast<errc>(code), "a frame of the other process");
      if (!std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(2 * values),
                      t.bytes.begin() + static_cast<std::ptrdiff_t>(2000 * round)))
        return fail(errc::internal, "the other process's values differ");
    }
    TERSOR_CHECK(put(fd, round));
  }
  return {};
}

int finish(const char* who, const status& s) {
  if (s) return 0;
  std::fprintf(stderr, "gpu_link: processes: %s: %s\n", who, s.error().describe().c_str());
  return 1;
}

}  // namespace

int run_process_test(const link_bench_options& o) {
  int fds[2] = {};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return 1;
  const pid_t encoder = ::fork();
  if (encoder < 0) return 1;
  if (encoder == 0) {
    ::close(fds[1]);
    ::_exit(finish("encoder", encode_rounds(o.kv, fds[0])));
  }
  const pid_t decoder = ::fork();
  if (decoder == 0) {
    ::close(fds[0]);
    ::_exit(finish("decoder", decode_rounds(o.kv, fds[1])));
  }
  ::close(fds[0]);
  ::close(fds[1]);
  int bad = decoder < 0 ? 1 : 0;
  for (const pid_t child : {encoder, decoder}) {
    int code = 0;
    if (child > 0 && (::waitpid(child, &code, 0) != child || code != 0)) bad = 1;
  }
  std::printf("two processes: %s\n", bad == 0 ? "every frame decoded to the right values" : "FAILED");
  std::fflush(stdout);
  return bad;
}

}  // namespace tersor::bench
