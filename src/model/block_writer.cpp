#include "model/block_writer.hpp"

#include <algorithm>
#include <cstring>

namespace tersor::model_detail {

block_writer::block_writer(safetensors::atomic_file* file, std::uint64_t offset)
    : file_(file), next_offset_(offset) {
  if (file_ != nullptr) thread_ = std::thread([this] { loop(); });
}

block_writer::~block_writer() {
  stop();
}

void block_writer::stop() noexcept {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void block_writer::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return pending_ != nullptr || stop_; });
    if (pending_ == nullptr) return;
    const block& full = *pending_;
    lock.unlock();
    status written = file_->write_at(full.offset, {full.bytes.get(), static_cast<std::size_t>(full.used)});
    lock.lock();
    if (!written && !failure_) failure_ = std::move(written).error();
    pending_ = nullptr;
    changed_.notify_all();
  }
}

status block_writer::wait_idle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return pending_ == nullptr; });
  if (failure_) return tl::unexpected<error>(*failure_);
  return {};
}

status block_writer::hand_over() {
  block& full = blocks_[filling_];
  if (full.used == 0) return {};
  full.offset = next_offset_;
  next_offset_ += full.used;
  if (file_ == nullptr) {
    full.used = 0;
    return {};
  }
  TERSOR_CHECK(wait_idle());
  {
    const std::lock_guard lock(mutex_);
    pending_ = &full;
  }
  changed_.notify_all();
  filling_ = 1 - filling_;
  blocks_[filling_].used = 0;
  return {};
}

result<std::span<std::byte>> block_writer::room(std::uint64_t n_min) {
  if (block& now = blocks_[filling_]; now.used > 0 && now.capacity - now.used < n_min)
    TERSOR_CHECK(hand_over());
  block& now = blocks_[filling_];
  const std::uint64_t wanted = std::max(n_min, kBlockBytes);
  if (now.used == 0 && now.capacity < wanted) {
    block& other = blocks_[1 - filling_];
    if (wanted > kMaxOverlapBytes || other.capacity > kMaxOverlapBytes) {
      TERSOR_CHECK(wait_idle());
      if (wanted > kMaxOverlapBytes && other.capacity >= wanted) {
        // The other block is large enough and written by now: no second one of this size.
        filling_ = 1 - filling_;
        other.used = 0;
        return std::span(other.bytes.get(), static_cast<std::size_t>(other.capacity));
      }
      if (other.capacity > kMaxOverlapBytes) other = {};
    }
    now = {};
    now.bytes = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(wanted));
    now.capacity = wanted;
  }
  return std::span(now.bytes.get() + now.used, static_cast<std::size_t>(now.capacity - now.used));
}

status block_writer::take(std::uint64_t n) {
  block& now = blocks_[filling_];
  now.used += n;
  n_taken_ += n;
  return now.used >= kBlockBytes ? hand_over() : status{};
}

status block_writer::put(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  if (bytes.size() >= kBlockBytes) {
    // Large enough to be written from where it lies.
    TERSOR_CHECK(hand_over());
    if (file_ != nullptr) {
      TERSOR_CHECK(wait_idle());
      TERSOR_CHECK(file_->write_at(next_offset_, bytes));
    }
    next_offset_ += bytes.size();
    n_taken_ += bytes.size();
    return {};
  }
  TERSOR_TRY(const std::span<std::byte> to, room(bytes.size()));
  std::memcpy(to.data(), bytes.data(), bytes.size());
  return take(bytes.size());
}

status block_writer::finish() {
  TERSOR_CHECK(hand_over());
  status done = wait_idle();
  stop();
  return done;
}

}  // namespace tersor::model_detail
