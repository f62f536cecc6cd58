#include "memory.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace simt {
namespace {

constexpr std::align_val_t kAlignment{256};
constexpr int kGarbage = 0xa5;

std::uintptr_t address(const void* at) {
  return reinterpret_cast<std::uintptr_t>(at);
}

}  // namespace

struct memory::region {
  std::uintptr_t begin;
  std::uintptr_t end;
  access allowed;
  std::string name;
  std::vector<bool> written;
};

struct memory::block {
  struct release {
    void operator()(void* at) const { ::operator delete(at, kAlignment); }
  };
  std::unique_ptr<void, release> bytes;
};

memory::memory() = default;
memory::~memory() = default;

void memory::add(const void* begin, std::size_t n_bytes, access allowed, std::string name) {
  if (n_bytes == 0) {
    return;
  }
  region r{address(begin), address(begin) + n_bytes, allowed, std::move(name), {}};
  if (allowed == access::uninitialized) {
    r.written.resize(n_bytes);
  }
  const auto next = std::upper_bound(regions_.begin(), regions_.end(), r.begin,
                                     [](std::uintptr_t at, const region& x) { return at < x.begin; });
  const bool hits_next = next != regions_.end() && next->begin < r.end;
  const bool hits_previous = next != regions_.begin() && std::prev(next)->end > r.begin;
  if (hits_next || hits_previous) {
    throw std::invalid_argument("region " + r.name + " overlaps another");
  }
  regions_.insert(next, std::move(r));
}

void* memory::allocate(std::size_t n_bytes, std::string name, access allowed) {
  blocks_.push_back(block{decltype(block::bytes)(::operator new(n_bytes, kAlignment))});
  void* at = blocks_.back().bytes.get();
  std::memset(at, kGarbage, n_bytes);
  add(at, n_bytes, allowed, std::move(name));
  return at;
}

const memory::region* memory::below(std::uintptr_t at) const {
  const auto next = std::upper_bound(regions_.begin(), regions_.end(), at,
                                     [](std::uintptr_t value, const region& x) { return value < x.begin; });
  return next == regions_.begin() ? nullptr : &*std::prev(next);
}

memory::region* memory::find(std::uintptr_t at, std::size_t n_bytes) {
  region* r = const_cast<region*>(below(at));
  return r != nullptr && at <= r->end && r->end - at >= n_bytes ? r : nullptr;
}

memory_error memory::read(const void* at, std::size_t n_bytes, std::size_t alignment, void* out) {
  const std::uintptr_t from = address(at);
  const region* r = find(from, n_bytes);
  if (r == nullptr) {
    return memory_error::outside;
  }
  if (from % alignment != 0) {
    return memory_error::misaligned;
  }
  if (r->allowed == access::uninitialized) {
    const auto first = r->written.begin() + static_cast<std::ptrdiff_t>(from - r->begin);
    if (!std::all_of(first, first + static_cast<std::ptrdiff_t>(n_bytes), [](bool w) { return w; })) {
      return memory_error::not_written;
    }
  }
  std::memcpy(out, at, n_bytes);
  return memory_error::none;
}

memory_error memory::write(void* at, std::size_t n_bytes, std::size_t alignment, const void* value) {
  const std::uintptr_t to = address(at);
  region* r = find(to, n_bytes);
  if (r == nullptr) {
    return memory_error::outside;
  }
  if (to % alignment != 0) {
    return memory_error::misaligned;
  }
  if (r->allowed == access::read) {
    return memory_error::not_writable;
  }
  if (r->allowed == access::uninitialized) {
    const auto first = r->written.begin() + static_cast<std::ptrdiff_t>(to - r->begin);
    std::fill_n(first, n_bytes, true);
  }
  std::memcpy(at, value, n_bytes);
  return memory_error::none;
}

std::string memory::describe(const void* at) const {
  const region* r = below(address(at));
  if (r == nullptr) {
    return "below every region";
  }
  return "byte " + std::to_string(address(at) - r->begin) + " of " + r->name + ", which has " +
         std::to_string(r->end - r->begin);
}

}  // namespace simt
