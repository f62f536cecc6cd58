// Streams of all kinds, two host threads, a second GPU: work lands on the stream and the device that the
// caller named.
#include <chrono>
#include <thread>

#include "kernels.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;

constexpr std::uint64_t kBusyCycles = 200'000'000;  ///< some 100 ms

struct sample {
  std::uint64_t shape[1];
  bytes data;
  tersor::codebook book;
  encode_args args;

  sample(codec c, dtype type, std::uint64_t n, std::uint64_t seed)
      : shape{n}, data(make_data(type, n, kind::lognormal_columns, seed)), book(cpu_book(type, data)) {
    args = {.codec = c, .type = type, .shape = shape, .data = data, .book = book};
  }
  sample(const sample&) = delete;
  sample& operator=(const sample&) = delete;
};

void stream_kinds(const env& e, section& s) {
  const side_stream blocking(cudaStreamDefault), other;
  const std::pair<cudaStream_t, const char*> all[] = {{nullptr, "default stream"},
                                                      {cudaStreamLegacy, "legacy default stream"},
                                                      {cudaStreamPerThread, "the thread's default stream"},
                                                      {blocking.get(), "blocking stream"},
                                                      {other.get(), "non-blocking stream"}};
  for (const auto& [stream, name] : all) {
    rig r(e, s, stream);
    for (const codec c : kCodecs) check_tensor(r, sample(c, dtype::bf16, 50'001, 3).args, name);
  }
}

/// Source and destination travel on the stream behind a kernel that takes its time: work that ran elsewhere
/// or waited for the host would show.
void order_on_stream(const env& e, section& s) {
  const side_stream stream;
  const sample x(codec::rank, dtype::bf16, 30'000, 5);
  const std::uint64_t size = x.data.size(),
                      capacity = tersor::cuda::encode_bound(codec::rank, dtype::bf16, x.shape[0]);
  device_memory staged(size), src(size), frame(capacity), dst(size), out(size),
      results(2 * sizeof(tersor::cuda::frame_result));
  staged.put(0, x.data);
  for (device_memory* memory : {&src, &dst, &out}) memory->fill(0, size, kPoison);
  frame.fill(0, capacity, kPoison);
  auto* result = results.as<tersor::cuda::frame_result>();
  const tersor::cuda::encode_task coding{.shape = x.shape,
                                         .src_dev = src.get(),
                                         .book = x.book,
                                         .frame_dev = frame.get(),
                                         .capacity = capacity,
                                         .result_dev = result};
  const tersor::cuda::decode_task decoding{.n_values = x.shape[0],
                                           .frame_dev = frame.get(),
                                           .frame_bytes = capacity,
                                           .dst_dev = dst.get(),
                                           .result_dev = result + 1};
  work_memory a, b;
  const auto order = tersor::cuda::tail_order::free;
  const auto work = a.of(tersor::cuda::encode_workspace_size(codec::rank, order, {&coding, 1}));
  const auto more = b.of(tersor::cuda::decode_workspace_size({&decoding, 1}));
  // Loads the kernels, which may take long the first time.
  (void)tersor::cuda::encode_async(codec::rank, coding, order, work, as_stream(stream.get()));
  (void)tersor::cuda::decode_async(codec::rank, decoding, more, as_stream(stream.get()));
  e.wait(stream.get(), s, "before the delay");
  launch_busy(kBusyCycles, 1, stream.get());
  must(cudaMemcpyAsync(src.get(), staged.get(), size, cudaMemcpyDeviceToDevice, stream.get()),
       "cudaMemcpyAsync");
  const auto coded = tersor::cuda::encode_async(codec::rank, coding, order, work, as_stream(stream.get()));
  const auto restored = tersor::cuda::decode_async(codec::rank, decoding, more, as_stream(stream.get()));
  must(cudaMemcpyAsync(out.get(), dst.get(), size, cudaMemcpyDeviceToDevice, stream.get()),
       "cudaMemcpyAsync");
  // A sanitizer makes launches wait; the watchdog is set longer there.
  if (e.opt.watchdog_s <= 5)
    s.check(cudaStreamQuery(stream.get()) == cudaErrorNotReady, "the calls waited for the stream");
  e.wait(stream.get(), s, "work behind a delay");
  s.check(coded && restored && out.take(0, size) == x.data, "work did not stay on its stream");
}

void threads(const env& e, section& s) {
  const std::uint64_t rounds = e.pick<std::uint64_t>(2, 60);
  const auto work = [&](std::uint64_t id) {
    try {
      must(cudaSetDevice(0), "cudaSetDevice");
      const auto own = tersor::context::create(1);
      rig r(e, s);
      for (std::uint64_t i = 0; own && i < rounds; ++i) {
        const sample x(kCodecs[(i + id) % 2], kTypes[(i / 2 + id) % 4], 20'000 + 97 * i, i);
        const bytes frame = cpu_frame(*own, x.args.codec, x.args.type, x.shape, x.data, x.book);
        const encoded got = r.encode(x.args, "host thread");
        s.check(got.call && got.frame == frame,
                "another frame than the CPU's in host thread " + std::to_string(id));
        r.expect_data({.codec = x.args.codec, .type = x.args.type, .n_values = x.shape[0], .frame = frame},
                      x.data, "host thread");
        s.add_values(x.shape[0]);
      }
    } catch (const std::exception& error) {
      s.check(false, error.what(), "host thread");
    }
  };
  std::jthread first(work, 0), second(work, 1);
}

void list_devices(section& s) {
  int n_devices = 0;
  must(cudaGetDeviceCount(&n_devices), "cudaGetDeviceCount");
  const auto listed = tersor::cuda::devices();
  if (!s.check(listed.has_value() && !listed->empty(), "devices()")) return;
  s.check(listed->size() <= static_cast<std::size_t>(n_devices), "devices() lists more than there are");
  for (const auto& device : *listed) {
    cudaDeviceProp properties{};
    must(cudaGetDeviceProperties(&properties, device.index), "cudaGetDeviceProperties");
    s.check(device.name == properties.name && device.compute_major == properties.major &&
                device.compute_minor == properties.minor &&
                device.memory_bytes == properties.totalGlobalMem &&
                device.multiprocessors == static_cast<std::uint32_t>(properties.multiProcessorCount),
            "devices() describes another device", device.name);
  }
}

void check_current(section& s, int expected) {
  int current = -1;
  must(cudaGetDevice(&current), "cudaGetDevice");
  s.check(current == expected, "the current device was changed");
}

/// The last device works while the first one's context is there, and stays current; then the first one again.
void second_device(const env& e, section& s) {
  int n_devices = 0;
  must(cudaGetDeviceCount(&n_devices), "cudaGetDeviceCount");
  check_current(s, 0);
  if (n_devices < 2) return s.note("one GPU: no check of a second one");
  rig on_first(e, s);
  const sample x(codec::rank, dtype::f16, 70'003, 8), y(codec::top16, dtype::bf16, 40'003, 9);
  check_tensor(on_first, x.args, "first device");
  const int last = n_devices - 1;
  {
    must(cudaSetDevice(last), "cudaSetDevice");
    rig on_last(e, s);
    check_tensor(on_last, x.args, "last device");
    check_tensor(on_last, y.args, "last device");
    (void)tersor::cuda::devices();
    check_current(s, last);
    // Another thread begins on device 0 and is not drawn to this one.
    std::jthread([&] { threads(e, s); }).join();
    check_current(s, last);
    must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  must(cudaSetDevice(0), "cudaSetDevice");
  check_tensor(on_first, y.args, "first device again");
  check_current(s, 0);
  s.note("second device checked");
}

}  // namespace

void run_streams(const env& e, section& s) {
  list_devices(s);
  stream_kinds(e, s);
  order_on_stream(e, s);
  threads(e, s);
  second_device(e, s);
}

}  // namespace gpu_test
