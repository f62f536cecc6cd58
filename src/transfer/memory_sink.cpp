// Requests into memory that the sink allocates.
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>

#include <sys/mman.h>

#include "core/checked.hpp"
#include "cpu/context_impl.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {

status decode_and_recheck(const context& ctx, std::span<const std::byte> frame, std::span<std::byte> dst) {
  TERSOR_TRY(const std::uint64_t n_bytes, decode_into(ctx, frame, dst));
  if (n_bytes != dst.size()) return fail(errc::mismatch, "a frame has another size than its place");
  return compare_digests(ctx, frame, dst);
}

result<host_bytes> host_bytes::allocate(std::uint64_t n_bytes) {
  constexpr std::size_t kPage = 4096, kHugePage = std::size_t{2} << 20;
  const std::size_t alignment = n_bytes >= kHugePage ? kHugePage : kPage;
  if (n_bytes > ~std::size_t{0} - alignment) return fail(errc::out_of_memory, "no memory for a region");
  host_bytes made;
  made.data_.reset(
      static_cast<std::byte*>(std::aligned_alloc(alignment, core::align_up(n_bytes + 1, alignment))));
  if (made.data_ == nullptr) return fail(errc::out_of_memory, "no memory for a region");
  made.n_bytes_ = n_bytes;
  // A request: where it is refused, pages are small.
  if (alignment == kHugePage) (void)::madvise(made.data_.get(), n_bytes, MADV_HUGEPAGE);
  return made;
}

void host_bytes::release::operator()(std::byte* p) const noexcept {
  std::free(p);
}

struct memory_sink::impl {
  struct held {
    received content;
    std::uint64_t n_bytes = 0;
    bool is_published = false;
  };
  impl(const context& c, std::uint64_t limit) : ctx(c), max_bytes(limit) {}

  [[nodiscard]] result<held*> find(std::uint64_t request);
  [[nodiscard]] received hand_over(std::map<std::uint64_t, held>::iterator at);

  const context& ctx;
  std::uint64_t max_bytes;
  std::mutex mutex;
  std::condition_variable published;
  std::map<std::uint64_t, held> requests;
  std::uint64_t held_bytes = 0;
};

result<memory_sink::impl::held*> memory_sink::impl::find(std::uint64_t request) {
  const std::lock_guard lock(mutex);
  const auto at = requests.find(request);
  if (at == requests.end()) return fail(errc::internal, "no such request");
  return &at->second;
}

memory_sink::received memory_sink::impl::hand_over(std::map<std::uint64_t, held>::iterator at) {
  received r = std::move(at->second.content);
  held_bytes -= at->second.n_bytes;
  requests.erase(at);
  return r;
}

memory_sink::memory_sink(const context& ctx, std::uint64_t max_held_bytes)
    : impl_(std::make_unique<impl>(ctx, max_held_bytes)) {}
memory_sink::~memory_sink() = default;

status memory_sink::prepare(const manifest& m) {
  return cpu::guarded([&]() -> status {
    std::uint64_t total = 0;
    for (const region& r : m.regions) {
      TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
      total += n_bytes;
    }
    const std::lock_guard lock(impl_->mutex);
    if (total > impl_->max_bytes - std::min(impl_->max_bytes, impl_->held_bytes)) {
      return fail(errc::out_of_memory, "the receiver has no room for " + std::to_string(total) + " bytes");
    }
    if (impl_->requests.contains(m.request))
      return fail(errc::already_exists, "the request was not taken yet");
    impl::held h{.content = {.manifest = m, .regions = {}}, .n_bytes = total};
    for (const region& r : m.regions) {
      TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
      TERSOR_TRY(host_bytes memory, host_bytes::allocate(n_bytes));
      h.content.regions.push_back(std::move(memory));
    }
    impl_->requests.emplace(m.request, std::move(h));
    impl_->held_bytes += total;
    return {};
  });
}

status memory_sink::decode(const manifest& m, const part& p, std::span<const std::byte> frame) {
  TERSOR_TRY(impl::held* const h, impl_->find(m.request));
  // Nobody else touches the request's memory before it is published.
  return decode_and_recheck(impl_->ctx, frame,
                            std::span<std::byte>(h->content.regions[p.region]).subspan(p.offset, p.n_bytes));
}

status memory_sink::publish(const manifest& m) {
  {
    TERSOR_TRY(impl::held* const h, impl_->find(m.request));
    const std::lock_guard lock(impl_->mutex);
    h->is_published = true;
  }
  impl_->published.notify_all();
  return {};
}

void memory_sink::discard(const manifest& m) noexcept {
  const std::lock_guard lock(impl_->mutex);
  if (const auto at = impl_->requests.find(m.request); at != impl_->requests.end()) {
    impl_->held_bytes -= at->second.n_bytes;
    impl_->requests.erase(at);
  }
}

result<memory_sink::received> memory_sink::take(std::uint64_t request, std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  auto at = impl_->requests.end();
  const bool came = impl_->published.wait_for(lock, timeout, [&] {
    at = impl_->requests.find(request);
    return at != impl_->requests.end() && at->second.is_published;
  });
  if (!came) return fail(errc::not_found, "request " + std::to_string(request) + " did not come in time");
  return impl_->hand_over(at);
}

result<memory_sink::received> memory_sink::take_any(std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  auto at = impl_->requests.end();
  const bool came = impl_->published.wait_for(lock, timeout, [&] {
    for (at = impl_->requests.begin(); at != impl_->requests.end(); ++at) {
      if (at->second.is_published) return true;
    }
    return false;
  });
  if (!came) return fail(errc::not_found, "no request came in time");
  return impl_->hand_over(at);
}

}  // namespace tersor::transfer
