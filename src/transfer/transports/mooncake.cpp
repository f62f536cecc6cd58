// Payloads by one-sided writes of Mooncake's transfer engine into the receiver's slots, the control stream on
// TCP. The engines find each other by themselves ("P2PHANDSHAKE"): no metadata server.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "core/bytes.hpp"
#include "core/checked.hpp"
#include "transfer/transports/mooncake_api.hpp"
#include "transfer/transports/table.hpp"

namespace tersor::transfer {
namespace {

constexpr std::size_t kFixedBytes = 24;  // of a description: address, bytes of a slot, number of slots
constexpr std::size_t kMaxName = 256;

std::string from_environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

/// An engine with one block of memory registered.
class registered_engine {
 public:
  registered_engine() = default;
  registered_engine(const registered_engine&) = delete;
  registered_engine& operator=(const registered_engine&) = delete;
  ~registered_engine() {
    if (engine_ == nullptr) return;
    if (memory_ != nullptr) (void)find_mooncake().unregister_memory(engine_, memory_);
    find_mooncake().destroy(engine_);
  }

  [[nodiscard]] status open(std::span<std::byte> memory);
  [[nodiscard]] mooncake_engine get() const noexcept { return engine_; }

 private:
  mooncake_engine engine_ = nullptr;
  std::byte* memory_ = nullptr;
};

status registered_engine::open(std::span<std::byte> memory) {
  const mooncake_api& api = find_mooncake();
  // Its own address, as the other end reaches it; loopback unless it is told.
  const std::string host = from_environment("TERSOR_MOONCAKE_HOST", "127.0.0.1");
  const std::string protocol = from_environment("TERSOR_MOONCAKE_PROTOCOL", "tcp");
  const bool discover = protocol == "auto";
  engine_ = api.create("P2PHANDSHAKE", host.c_str(), host.c_str(), 0, discover ? 1 : 0);
  if (engine_ == nullptr) return fail(errc::io_error, "Mooncake: the engine does not start");
  if (!discover && api.install(engine_, protocol.c_str(), nullptr) == nullptr)
    return fail(errc::io_error, "Mooncake: no transport '" + protocol + "'");
  if (api.register_memory(engine_, memory.data(), memory.size(), "cpu:0", 1) != 0)
    return fail(errc::io_error, "Mooncake: the slots cannot be registered");
  memory_ = memory.data();
  return {};
}

class mooncake_path final : public payload_path {
 public:
  ~mooncake_path() override {
    if (segment_ >= 0) (void)find_mooncake().close_segment(engine_.get(), segment_);
  }

  [[nodiscard]] result<std::vector<std::byte>> open_slots(std::span<std::byte> memory,
                                                          std::uint32_t n_slots) override;
  [[nodiscard]] status attach(const_bytes description, std::span<std::byte> memory) override;
  [[nodiscard]] status put(std::uint32_t slot, const_bytes frame, deadline until) override;
  /// The frame lay in its slot before the message that announced it was sent.
  [[nodiscard]] status take(std::uint32_t slot, std::uint64_t n_bytes, deadline) override {
    if (slot >= n_slots_ || n_bytes > slot_bytes_)
      return fail(errc::invalid_argument, "the frame does not fit the slot");
    return {};
  }
  void shutdown() noexcept override { down_.store(true, std::memory_order_release); }

 private:
  [[nodiscard]] status finish(mooncake_batch batch, std::uint64_t n_bytes, deadline until);

  registered_engine engine_;
  std::int32_t segment_ = -1;
  std::uint64_t address_ = 0, slot_bytes_ = 0, n_slots_ = 0;
  std::atomic<bool> down_ = false;
};

result<std::vector<std::byte>> mooncake_path::open_slots(std::span<std::byte> memory, std::uint32_t n_slots) {
  TERSOR_CHECK(engine_.open(memory));
  address_ = reinterpret_cast<std::uintptr_t>(memory.data());
  slot_bytes_ = memory.size() / n_slots;
  n_slots_ = n_slots;
  std::array<char, kMaxName> name = {};
  if (find_mooncake().local_address(engine_.get(), name.data(), name.size()) != 0)
    return fail(errc::io_error, "Mooncake: the engine does not say its address");
  std::vector<std::byte> description(kFixedBytes);
  core::store_le<std::uint64_t>(description.data(), address_);
  core::store_le<std::uint64_t>(description.data() + 8, slot_bytes_);
  core::store_le<std::uint64_t>(description.data() + 16, n_slots_);
  const auto text = std::as_bytes(std::span(name)).first(std::strlen(name.data()));
  description.insert(description.end(), text.begin(), text.end());
  return description;
}

status mooncake_path::attach(const_bytes description, std::span<std::byte> memory) {
  if (description.size() <= kFixedBytes || description.size() >= kFixedBytes + kMaxName)
    return fail(errc::malformed, "not a description of slots");
  address_ = core::load_le<std::uint64_t>(description.data());
  slot_bytes_ = core::load_le<std::uint64_t>(description.data() + 8);
  n_slots_ = core::load_le<std::uint64_t>(description.data() + 16);
  const auto size = core::checked_mul(slot_bytes_, n_slots_);
  if (!size || !core::checked_add(address_, *size))
    return fail(errc::malformed, "not a description of slots");
  const const_bytes text = description.subspan(kFixedBytes);
  const std::string name(reinterpret_cast<const char*>(text.data()), text.size());
  TERSOR_CHECK(engine_.open(memory));
  segment_ = find_mooncake().open_segment(engine_.get(), name.c_str());
  if (segment_ < 0) return fail(errc::io_error, "Mooncake: no way to '" + name + "'");
  return {};
}

status mooncake_path::put(std::uint32_t slot, const_bytes frame, deadline until) {
  if (slot >= n_slots_ || frame.size() > slot_bytes_)
    return fail(errc::invalid_argument, "the frame does not fit the slot");
  const mooncake_api& api = find_mooncake();
  const mooncake_batch batch = api.allocate_batch(engine_.get(), 1);
  if (batch == kNoBatch) return fail(errc::io_error, "Mooncake: no room for a write");
  mooncake_request write = {};
  write.source = const_cast<std::byte*>(frame.data());
  write.target = segment_;
  write.target_offset = address_ + slot * slot_bytes_;
  write.length = frame.size();
  if (const int code = api.submit(engine_.get(), batch, &write, 1); code != 0) {
    (void)api.free_batch(engine_.get(), batch);
    return fail(errc::io_error, "Mooncake: the write is refused (" + std::to_string(code) + ")");
  }
  // A batch that is not over cannot be given back: then it goes with the engine, and the engine goes next.
  TERSOR_CHECK(finish(batch, frame.size(), until));
  (void)api.free_batch(engine_.get(), batch);
  return {};
}

/// The engine has no call that waits.
status mooncake_path::finish(mooncake_batch batch, std::uint64_t n_bytes, deadline until) {
  constexpr int kSpins = 500;
  for (int i = 0;; ++i) {
    mooncake_status now;
    const int code = find_mooncake().query(engine_.get(), batch, 0, &now);
    if (code != 0) return fail(errc::io_error, "Mooncake: the write is lost (" + std::to_string(code) + ")");
    if (now.state == kMooncakeCompleted) {
      if (now.transferred_bytes == n_bytes) return {};
      return fail(errc::io_error, "Mooncake: a part of the frame was written");
    }
    if (now.state > kMooncakePending)
      return fail(errc::io_error, "Mooncake: the write failed (state " + std::to_string(now.state) + ")");
    if (down_.load(std::memory_order_acquire)) return fail(errc::io_error, "shut down on this side");
    if (clock::now() >= until) return fail(errc::io_error, "timed out");
    if (i < kSpins) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
}

class mooncake final : public transport_beside_tcp {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "mooncake"; }
  [[nodiscard]] transport_info probe() const override {
    const mooncake_api& api = find_mooncake();
    if (!api.reason.empty()) return {"mooncake", false, api.reason};
    return {"mooncake", true,
            "transfer engine " + api.library + ", " + from_environment("TERSOR_MOONCAKE_PROTOCOL", "tcp")};
  }
  [[nodiscard]] result<std::unique_ptr<payload_path>> make_path() const override {
    return std::make_unique<mooncake_path>();
  }
};

}  // namespace

const transport& mooncake_transport() {
  static const mooncake kTransport;
  return kTransport;
}

}  // namespace tersor::transfer
