// Payloads from GPU to GPU by ncclSend and ncclRecv, the control stream on TCP. The slots are host memory: a
// frame goes to the sender's GPU, to the receiver's, and to its slot, the copies under the transfers.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <thread>

#include "core/bytes.hpp"
#include "transfer/transports/nccl_device.hpp"
#include "transfer/transports/table.hpp"

namespace tersor::transfer {
namespace {

constexpr int kReceiver = 0, kSender = 1, kRanks = 2;
constexpr std::chrono::seconds kStart{60};

/// What `attach` gets: the id of the communicator, and the slots.
struct nccl_slots {
  nccl_unique_id id;
  std::uint64_t slot_bytes = 0;
  std::uint64_t n_slots = 0;
};
static_assert(sizeof(nccl_slots) == 144);

class nccl_path final : public payload_path {
 public:
  ~nccl_path() override {
    // Abort, not destroy: that would wait for a peer that may be gone. What was taken has arrived.
    if (comm_ != nullptr) {
      const current_context here(device_.context());
      (void)find_nccl().nccl.abort(comm_);
    }
  }

  [[nodiscard]] result<std::vector<std::byte>> open_slots(std::span<std::byte> memory,
                                                          std::uint32_t n_slots) override;
  [[nodiscard]] status attach(const_bytes description, std::span<std::byte> memory) override;
  [[nodiscard]] status put(std::uint32_t slot, const_bytes frame, deadline until) override;
  [[nodiscard]] status take(std::uint32_t slot, std::uint64_t n_bytes, deadline until) override;
  void shutdown() noexcept override { down_.store(true, std::memory_order_release); }

 private:
  [[nodiscard]] status join(const nccl_unique_id& id, int rank);
  [[nodiscard]] status accepted(int code, deadline until);
  [[nodiscard]] status finish_send(deadline until);
  [[nodiscard]] status reached(cuda_event e, deadline until);
  template <class Step>
  [[nodiscard]] status poll(Step step, deadline until);

  staging_device device_;
  nccl_comm comm_ = nullptr;
  std::span<std::byte> memory_;
  std::vector<bool> used_;
  std::optional<std::uint32_t> sending_;  ///< slot whose send NCCL may not have enqueued yet
  std::atomic<bool> down_ = false;
};

/// `step` says whether it is over, and the reason if it failed. Neither NCCL nor CUDA waits with a deadline.
template <class Step>
status nccl_path::poll(Step step, deadline until) {
  constexpr int kSpins = 2'000;
  for (int i = 0;; ++i) {
    std::string why;
    if (step(why)) {
      if (why.empty()) return {};
      return fail(errc::io_error, std::move(why));
    }
    if (down_.load(std::memory_order_acquire)) return fail(errc::io_error, "shut down on this side");
    if (clock::now() >= until) return fail(errc::io_error, "timed out");
    if (i < kSpins) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
}

/// Calls of a communicator that does not block go on in the background.
status nccl_path::accepted(int code, deadline until) {
  const nccl_library& nccl = find_nccl().nccl;
  return poll(
      [&](std::string& why) {
        int state = code;
        if (code == kNcclSuccess || code == kNcclInProgress) (void)nccl.async_error(comm_, &state);
        if (state == kNcclInProgress) return false;
        if (state != kNcclSuccess) why = std::string("NCCL: ") + nccl.get_error_string(state);
        return true;
      },
      until);
}

status nccl_path::reached(cuda_event e, deadline until) {
  return poll(
      [&](std::string& why) {
        const int code = find_nccl().cuda.event_query(e);
        if (code == kCudaNotReady) return false;
        if (const status checked = check_cuda(code, "move a frame"); !checked) why = checked.error().message;
        return true;
      },
      until);
}

status nccl_path::join(const nccl_unique_id& id, int rank) {
  const current_context here(device_.context());
  nccl_config config;
  const int code = find_nccl().nccl.init_rank(&comm_, kRanks, id, rank, &config);
  if (code == kNcclSuccess || code == kNcclInProgress) return {};
  return fail(errc::io_error, std::string("NCCL: ") + find_nccl().nccl.get_error_string(code));
}

result<std::vector<std::byte>> nccl_path::open_slots(std::span<std::byte> memory, std::uint32_t n_slots) {
  nccl_slots slots;
  slots.slot_bytes = memory.size() / n_slots;
  slots.n_slots = n_slots;
  memory_ = memory;
  TERSOR_CHECK(device_.open(memory, slots.slot_bytes, n_slots));
  if (const int code = find_nccl().nccl.get_unique_id(&slots.id); code != kNcclSuccess)
    return fail(errc::io_error, std::string("NCCL: ") + find_nccl().nccl.get_error_string(code));
  // The sender joins when it has read this; the first `take` waits for that.
  TERSOR_CHECK(join(slots.id, kReceiver));
  std::vector<std::byte> description(sizeof slots);
  std::memcpy(description.data(), slots.id.bytes.data(), sizeof slots.id);
  core::store_le<std::uint64_t>(description.data() + sizeof slots.id, slots.slot_bytes);
  core::store_le<std::uint64_t>(description.data() + sizeof slots.id + 8, slots.n_slots);
  return description;
}

status nccl_path::attach(const_bytes description, std::span<std::byte> memory) {
  constexpr std::uint64_t kMostSlots = 65'536;
  constexpr std::uint64_t kMostSlotBytes = std::uint64_t{1} << 40;
  if (description.size() != sizeof(nccl_slots)) return fail(errc::malformed, "not a description of slots");
  nccl_unique_id id;
  std::memcpy(id.bytes.data(), description.data(), sizeof id);
  const std::uint64_t slot_bytes = core::load_le<std::uint64_t>(description.data() + sizeof id);
  const std::uint64_t n_slots = core::load_le<std::uint64_t>(description.data() + sizeof id + 8);
  if (n_slots == 0 || n_slots > kMostSlots || slot_bytes == 0 || slot_bytes > kMostSlotBytes)
    return fail(errc::malformed, "not a description of slots");
  // Frames come from this memory: none is larger, whatever the receiver's slots are.
  TERSOR_CHECK(device_.open(memory, std::min<std::uint64_t>(slot_bytes, memory.size()),
                            static_cast<std::uint32_t>(n_slots)));
  used_.assign(n_slots, false);
  TERSOR_CHECK(join(id, kSender));
  const current_context here(device_.context());
  return accepted(kNcclSuccess, clock::now() + kStart);
}

/// The first send of a communicator is enqueued only when the receiver has asked for it, and the receiver
/// asks when it has read the message that follows `put`. So a send is finished by the next one.
status nccl_path::finish_send(deadline until) {
  if (!sending_) return {};
  TERSOR_CHECK(accepted(kNcclSuccess, until));
  const std::uint32_t slot = *sending_;
  sending_.reset();
  TERSOR_CHECK(
      check_cuda(find_nccl().cuda.event_record(device_.moved(slot), device_.messages()), "send a frame"));
  used_[slot] = true;
  return {};
}

status nccl_path::put(std::uint32_t slot, const_bytes frame, deadline until) {
  if (slot >= device_.n_slots() || frame.size() > device_.slot_bytes())
    return fail(errc::invalid_argument, "the frame does not fit the slot");
  const current_context here(device_.context());
  const cuda_driver& cuda = find_nccl().cuda;
  TERSOR_CHECK(finish_send(until));
  // The slot's last frame was taken, or there would be no credit; its event says so on this side.
  if (used_[slot]) TERSOR_CHECK(reached(device_.moved(slot), until));
  TERSOR_CHECK(check_cuda(
      cuda.copy_to_device(device_.slot(slot), frame.data(), frame.size(), device_.copies()), "copy a frame"));
  TERSOR_CHECK(check_cuda(cuda.event_record(device_.copied(slot), device_.copies()), "copy a frame"));
  TERSOR_CHECK(
      check_cuda(cuda.stream_wait_event(device_.messages(), device_.copied(slot), 0), "copy a frame"));
  const auto* const from = reinterpret_cast<const void*>(device_.slot(slot));
  const int code =
      find_nccl().nccl.send(from, frame.size(), kNcclBytes, kReceiver, comm_, device_.messages());
  if (code != kNcclSuccess && code != kNcclInProgress)
    return fail(errc::io_error, std::string("NCCL: ") + find_nccl().nccl.get_error_string(code));
  sending_ = slot;
  // The caller may use the frame's memory again; the transfer itself waits for `take`.
  return reached(device_.copied(slot), until);
}

status nccl_path::take(std::uint32_t slot, std::uint64_t n_bytes, deadline until) {
  if (slot >= device_.n_slots() || n_bytes > device_.slot_bytes())
    return fail(errc::invalid_argument, "the frame does not fit the slot");
  const current_context here(device_.context());
  const cuda_driver& cuda = find_nccl().cuda;
  TERSOR_CHECK(accepted(kNcclSuccess, until));
  auto* const into = reinterpret_cast<void*>(device_.slot(slot));
  TERSOR_CHECK(accepted(
      find_nccl().nccl.receive(into, n_bytes, kNcclBytes, kSender, comm_, device_.messages()), until));
  std::byte* const host = memory_.data() + slot * (memory_.size() / device_.n_slots());
  TERSOR_CHECK(
      check_cuda(cuda.copy_to_host(host, device_.slot(slot), n_bytes, device_.messages()), "copy a frame"));
  TERSOR_CHECK(check_cuda(cuda.event_record(device_.moved(slot), device_.messages()), "receive a frame"));
  return reached(device_.moved(slot), until);
}

std::string describe(const nccl_api& api) {
  const int v = api.version;
  std::string text = "NCCL " + std::to_string(v / 10'000) + "." + std::to_string(v / 100 % 100) + "." +
                     std::to_string(v % 100);
  for (int i = 0; i < api.n_devices; ++i) {
    std::array<char, 96> name = {};
    int device = 0;
    if (api.cuda.device_get(&device, i) == kCudaSuccess &&
        api.cuda.device_name(name.data(), static_cast<int>(name.size()) - 1, device) == kCudaSuccess)
      text += std::string(", ") + name.data();
  }
  return text;
}

class nccl final : public transport_beside_tcp {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "nccl"; }
  [[nodiscard]] transport_info probe() const override {
    const nccl_api& api = find_nccl();
    if (!api.reason.empty()) return {"nccl", false, api.reason};
    return {"nccl", true, describe(api)};
  }
  [[nodiscard]] result<std::unique_ptr<payload_path>> make_path() const override {
    return std::make_unique<nccl_path>();
  }
};

}  // namespace

const transport& nccl_transport() {
  static const nccl kTransport;
  return kTransport;
}

}  // namespace tersor::transfer
