// The n-th allocation fails, for every n: an error code, nothing lost (LeakSanitizer looks in the asan
// preset), nothing broken.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "safetensors/header.hpp"
#include "support.hpp"
#include <tersor/model.hpp>

namespace {

/// Allocations until one fails; negative: none fails.
std::atomic<std::int64_t> g_countdown{-1};

bool fails_now() noexcept {
  if (g_countdown.load(std::memory_order_relaxed) < 0) return false;
  return g_countdown.fetch_sub(1) == 0;
}

void* allocate(std::size_t n) {
  void* p = fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(std::size_t n) {
  return allocate(n);
}
void* operator new[](std::size_t n) {
  return allocate(n);
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

/// Lets allocation 0, 1, 2, ... of `call` fail until the call gets through. `call` returns its error code.
template <class Call>
std::uint64_t fail_each(const char* what, const Call& call) {
  constexpr std::int64_t kLimit = 100'000;
  for (std::int64_t n = 0; n < kLimit; ++n) {
    g_countdown = n;
    const errc code = call();
    const bool injected = g_countdown.exchange(-1) < 0;
    if (!injected) {
      EXPECT_EQ(code, errc::ok) << what;
      return static_cast<std::uint64_t>(n);
    }
    // Some allocations may fail without harm: the call then did something else instead.
    if (code != errc::ok && code != errc::out_of_memory) {
      ADD_FAILURE() << what << ": allocation " << n << " failed with " << to_string(code);
      return static_cast<std::uint64_t>(n);
    }
  }
  ADD_FAILURE() << what << " never got through";
  return 0;
}

template <class T>
errc code_of(const tersor::result<T>& result) {
  return result ? errc::ok : result.error().code;
}

TEST(memory_faults, every_allocation_of_the_codec_calls) {
  const tersor::context ctx = faults::make_context(3);
  std::uint64_t n = 0;
  for (const codec c : {codec::rank, codec::raw}) {
    const bytes data = faults::mixed_values(dtype::bf16, 150'000, 1);
    const std::uint64_t shape[] = {150'000};
    const bytes frame = faults::encode_data(ctx, c, dtype::bf16, data);
    bytes damaged = frame;
    damaged[64] ^= std::byte{1};
    n += fail_each("encode", [&] {
      return code_of(tersor::encode(ctx, {.type = dtype::bf16, .shape = shape, .data = data}, {.codec = c}));
    });
    n += fail_each("decode", [&] { return code_of(tersor::decode(ctx, frame)); });
    n += fail_each("inspect", [&] { return code_of(tersor::inspect(frame)); });
    n += fail_each("decode of damage", [&] {
      const errc code = code_of(tersor::decode(ctx, damaged));
      return code == errc::digest_mismatch ? errc::ok : code;
    });
    n += fail_each("count", [&] { return code_of(tersor::count_symbols(dtype::bf16, data)); });
  }
  n += fail_each("context", [&] { return code_of(tersor::context::create(4)); });
  faults::publish(14, "failing allocations in the codec calls", n, 0, "places");
}

TEST(memory_faults, every_allocation_of_the_header_parser) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a long name of a tensor that is allocated":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
  const auto n = fail_each("parse_header", [&] {
    return code_of(tersor::safetensors::parse_header(std::as_bytes(std::span(json)), 24));
  });
  faults::publish(14, "failing allocations in the header parser", n, 0, "places");
}

TEST(memory_faults, every_allocation_of_the_file_calls) {
  const faults::temp_dir dir;
  const auto plain = dir.path() / "model.safetensors";
  const auto packed = dir.path() / "packed.safetensors";
  const auto back = dir.path() / "back.safetensors";
  faults::write_model(plain, 20'000);
  const tersor::context ctx = faults::make_context(2);
  ASSERT_TRUE(tersor::compress(ctx, plain, packed));
  // Built outside the calls: these allocations are the test's own.
  const std::optional<std::filesystem::path> against = plain;
  const tersor::model_options options{.overwrite = true};
  std::uint64_t n = fail_each("verify", [&] { return code_of(tersor::verify(ctx, packed, against)); });
  n += fail_each("inspect_model", [&] { return code_of(tersor::inspect_model(packed)); });
  const auto again = dir.path() / "again.safetensors";
  n += fail_each("compress", [&] { return code_of(tersor::compress(ctx, plain, again, options)); });
  EXPECT_EQ(faults::read_file(again), faults::read_file(packed));
  n += fail_each("decompress", [&] { return code_of(tersor::decompress(ctx, packed, back, options)); });
  EXPECT_EQ(faults::read_file(back), faults::read_file(plain));
  EXPECT_EQ(dir.names().size(), 4U) << "a temporary was left";
  faults::publish(14, "failing allocations in the file calls", n, 0, "places");
}

}  // namespace
