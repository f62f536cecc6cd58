#include "twin_device.hpp"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "cuda/runtime/plan.hpp"

namespace twin {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr int kGarbage = 0xa5;

device* the_current = nullptr;

}  // namespace

device::device(std::uint64_t seed, std::uint32_t multiprocessors)
    : seed_(seed), multiprocessors_(multiprocessors), before_(the_current) {
  the_current = this;
}
device::~device() {
  the_current = before_;
}

device* device::current() {
  return the_current;
}

std::byte* device::place(byte_view data, std::size_t n_bytes, simt::access allowed, std::string name,
                         std::size_t offset) {
  // Exactly to the end, so that a sanitizer sees what the twin's memory would miss.
  blocks_.push_back(std::make_unique<std::byte[]>(n_bytes + offset + kAlignment));
  std::byte* block = blocks_.back().get();
  const std::size_t past = reinterpret_cast<std::uintptr_t>(block) % kAlignment;
  std::byte* at = block + (kAlignment - past) % kAlignment + offset;
  if (!data.empty()) {
    std::memcpy(at, data.data(), data.size());
  } else if (n_bytes != 0) {
    std::memset(at, kGarbage, n_bytes);
  }
  memory_.add(at, n_bytes, allowed, std::move(name));
  return at;
}

std::byte* device::reserve(std::size_t n_bytes, std::string name, std::size_t offset) {
  return place({}, n_bytes, simt::access::uninitialized, std::move(name), offset);
}
std::byte* device::upload(byte_view data, std::string name, std::size_t offset) {
  return place(data, data.size(), simt::access::read, std::move(name), offset);
}
std::byte* device::upload_writable(byte_view data, std::string name) {
  return place(data, data.size(), simt::access::read_write, std::move(name), 0);
}

tersor::cuda::workspace device::reserve_workspace(std::uint64_t n_bytes) {
  tersor::cuda::workspace ws{reserve(n_bytes, "workspace"), n_bytes};
  clear(ws.data_dev, std::min(n_bytes, tersor::cuda::kScratchAt));
  return ws;
}

void device::read(const void* at, std::size_t n_bytes, void* out) {
  if (n_bytes == 0) return;
  std::memset(out, kGarbage, n_bytes);
  const simt::memory_error error = memory_.read(at, n_bytes, 1, out);
  if (error != simt::memory_error::none) {
    ADD_FAILURE() << (error == simt::memory_error::not_written ? "unwritten" : "not device memory") << ": "
                  << memory_.describe(at);
  }
}

void device::write(std::byte* at, byte_view data) {
  if (!data.empty() && memory_.write(at, data.size(), 1, data.data()) != simt::memory_error::none)
    ADD_FAILURE() << "not device memory: " << memory_.describe(at);
}

bytes device::download(const void* at, std::size_t n_bytes) {
  bytes out(n_bytes);
  read(at, n_bytes, out.data());
  return out;
}

bool device::is_written(const std::byte* at) {
  std::byte value{};
  return memory_.read(at, 1, 1, &value) == simt::memory_error::none;
}

void device::expect_ready(const tersor::cuda::workspace& ws) {
  const bytes kept = download(ws.data_dev, std::min(ws.n_bytes, tersor::cuda::kScratchAt));
  EXPECT_TRUE(std::ranges::all_of(kept, [](std::byte b) { return b == std::byte{0}; }))
      << "the workspace is not zero after the call";
}

int device::run(std::uint32_t n_ctas, std::size_t shared_bytes, const std::function<void(void*)>& body) {
  return run({.n_ctas = n_ctas, .n_threads = tersor::cuda::kCtaThreads, .shared_bytes = shared_bytes}, body);
}

int device::run(simt::grid size, const std::function<void(void*)>& body) {
  if (size.n_ctas == 0) {
    fault_ = "a launch of no CTAs";
    return 9;
  }
  size.seed = seed_ + 1000 * n_launches_++;
  size.resident = static_cast<std::uint32_t>(1 + size.seed % 3);
  try {
    simt::run(memory_, size, body);
  } catch (const simt::kernel_fault& fault) {
    fault_ = fault.what();
    return 1;
  }
  return 0;
}

int device::clear(void* at, std::size_t n_bytes) {
  const bytes zeros(n_bytes);
  if (n_bytes != 0 && memory_.write(at, n_bytes, 1, zeros.data()) != simt::memory_error::none) {
    fault_ = "clearing outside every region: " + memory_.describe(at);
    return 1;
  }
  return 0;
}

}  // namespace twin
