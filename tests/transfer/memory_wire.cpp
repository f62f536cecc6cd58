#include "support.hpp"

namespace transfer_test {

using tersor::errc;
using tersor::fail;

class memory_channel final : public kv::channel {
 public:
  memory_channel(std::shared_ptr<memory_wire> wire, kv::role own, message_hook hook)
      : wire_(std::move(wire)),
        hook_(std::move(hook)),
        peer_(own == kv::role::sender ? kv::role::receiver : kv::role::sender),
        in_(wire_->into(own)),
        out_(wire_->into(peer_)) {}
  ~memory_channel() override { shutdown(); }

  status send(std::span<const kv::const_bytes> parts, kv::deadline) override {
    bytes message;
    for (const kv::const_bytes p : parts) message.insert(message.end(), p.begin(), p.end());
    {
      const std::lock_guard lock(out_.mutex);
      if (out_.closed || out_.finished) return fail(errc::io_error, "closed by the peer");
    }
    if (!hook_) {
      wire_->push(peer_, message);
    } else {
      for (const bytes& m : hook_(std::move(message))) {
        if (m.empty()) {
          wire_->finish(peer_);
        } else {
          wire_->push(peer_, m);
        }
      }
    }
    return {};
  }

  status receive(std::span<std::byte> dst, kv::deadline until) override {
    std::unique_lock lock(in_.mutex);
    std::size_t filled = 0;
    while (filled < dst.size()) {
      if (in_.closed) return fail(errc::io_error, "shut down");
      const std::size_t n = std::min(dst.size() - filled, in_.data.size() - in_.taken);
      if (n > 0) {
        std::copy_n(in_.data.begin() + static_cast<std::ptrdiff_t>(in_.taken), n,
                    dst.begin() + static_cast<std::ptrdiff_t>(filled));
        in_.taken += n;
        filled += n;
        if (in_.taken == in_.data.size()) {
          in_.data.clear();
          in_.taken = 0;
        }
        continue;
      }
      if (in_.finished) return fail(filled == 0 ? errc::not_found : errc::io_error, "closed by the peer");
      if (in_.wake.wait_until(lock, until) == std::cv_status::timeout && kv::clock::now() >= until &&
          in_.data.size() == in_.taken && !in_.finished && !in_.closed) {
        return fail(errc::io_error, "timed out");
      }
    }
    return {};
  }

  void shutdown() noexcept override {
    {
      const std::lock_guard lock(in_.mutex);
      in_.closed = true;
    }
    in_.wake.notify_all();
    wire_->finish(peer_);
  }
  std::string peer() const override { return "memory"; }

 private:
  std::shared_ptr<memory_wire> wire_;
  message_hook hook_;
  kv::role peer_;
  memory_wire::direction& in_;
  memory_wire::direction& out_;
};

std::unique_ptr<kv::channel> memory_wire::end_of(std::shared_ptr<memory_wire> wire, kv::role own,
                                                 message_hook hook) {
  return std::make_unique<memory_channel>(std::move(wire), own, std::move(hook));
}

void memory_wire::push(kv::role to, std::span<const std::byte> data) {
  direction& way = into(to);
  {
    const std::lock_guard lock(way.mutex);
    way.data.insert(way.data.end(), data.begin(), data.end());
  }
  way.wake.notify_all();
}

void memory_wire::finish(kv::role to) {
  direction& way = into(to);
  {
    const std::lock_guard lock(way.mutex);
    way.finished = true;
  }
  way.wake.notify_all();
}

}  // namespace transfer_test
