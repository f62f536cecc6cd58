#include "gpu_link_nccl.hpp"

#include <dlfcn.h>

#include "transfer/device/side.hpp"

namespace tersor::bench {

using namespace transfer;
using namespace transfer::device;

namespace {

// NCCL's C ABI, as far as it is used here.
using nccl_comm = void*;
constexpr int kNcclUint8 = 1;

}  // namespace

struct nccl_pair::impl {
  void* library = nullptr;
  int (*comm_init_all)(nccl_comm*, int, const int*) = nullptr;
  int (*comm_destroy)(nccl_comm) = nullptr;
  int (*send)(const void*, std::size_t, int, int, nccl_comm, cudaStream_t) = nullptr;
  int (*recv)(void*, std::size_t, int, int, nccl_comm, cudaStream_t) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  const char* (*error_text)(int) = nullptr;
  int (*get_version)(int*) = nullptr;
  nccl_comm comms[2] = {};

  [[nodiscard]] status good(int code, const char* what) const {
    if (code == 0) return {};
    return fail(errc::internal, std::string("NCCL: ") + what + ": " + error_text(code));
  }
  template <class F>
  [[nodiscard]] bool find(F& f, const char* name) const {
    f = reinterpret_cast<F>(dlsym(library, name));
    return f != nullptr;
  }
  ~impl() {
    for (nccl_comm comm : comms) {
      if (comm != nullptr) static_cast<void>(comm_destroy(comm));
    }
  }
};

nccl_pair::nccl_pair(std::unique_ptr<impl> p) : impl_(std::move(p)) {}
nccl_pair::nccl_pair(nccl_pair&&) noexcept = default;
nccl_pair::~nccl_pair() = default;

result<nccl_pair> nccl_pair::open(const std::string& library, int source_device, int target_device) {
  auto n = std::make_unique<impl>();
  n->library = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (n->library == nullptr) return fail(errc::backend_unavailable, std::string("NCCL: ") + dlerror());
  const bool found = n->find(n->comm_init_all, "ncclCommInitAll") &&
                     n->find(n->comm_destroy, "ncclCommDestroy") && n->find(n->send, "ncclSend") &&
                     n->find(n->recv, "ncclRecv") && n->find(n->group_start, "ncclGroupStart") &&
                     n->find(n->group_end, "ncclGroupEnd") && n->find(n->error_text, "ncclGetErrorString") &&
                     n->find(n->get_version, "ncclGetVersion");
  if (!found) return fail(errc::backend_unavailable, "NCCL: a function is missing in " + library);
  const int devices[2] = {source_device, target_device};
  TERSOR_CHECK(n->good(n->comm_init_all(n->comms, 2, devices), "communicators"));
  return nccl_pair(std::move(n));
}

std::string nccl_pair::version() const {
  int v = 0;
  static_cast<void>(impl_->get_version(&v));
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

status nccl_pair::send(std::span<const message> messages, cudaStream_t source, cudaStream_t target) const {
  TERSOR_CHECK(impl_->good(impl_->group_start(), "group"));
  for (const message& m : messages) {
    TERSOR_CHECK(impl_->good(impl_->send(m.src, m.n_bytes, kNcclUint8, 1, impl_->comms[0], source), "send"));
    TERSOR_CHECK(
        impl_->good(impl_->recv(m.dst, m.n_bytes, kNcclUint8, 0, impl_->comms[1], target), "receive"));
  }
  return impl_->good(impl_->group_end(), "group");
}

struct nccl_link::impl {
  const nccl_pair& nccl;
  part_rule rule;
  std::uint64_t slot = 0;
  memory source_memory, target_memory;
  side source, target;
  std::vector<own_event> encoded, sent;   // source
  std::vector<own_event> arrived, freed;  // target
  std::uint64_t turns = 0;

  [[nodiscard]] status encode(const job& j, const part& p, std::uint64_t turn);
  [[nodiscard]] status move(const job& j, const part& p, std::uint64_t turn);
};

nccl_link::nccl_link(std::unique_ptr<impl> p) : impl_(std::move(p)) {}
nccl_link::nccl_link(nccl_link&&) noexcept = default;
nccl_link::~nccl_link() = default;

result<nccl_link> nccl_link::create(const nccl_pair& nccl, codec c, const part_sizes& sizes,
                                    int source_device, int target_device) {
  auto n = std::make_unique<impl>(impl{.nccl = nccl,
                                       .rule = rule_of(link_method::copy, c, dtype::bf16, sizes),
                                       .source_memory = {},
                                       .target_memory = {},
                                       .source = {},
                                       .target = {},
                                       .encoded = {},
                                       .sent = {},
                                       .arrived = {},
                                       .freed = {}});
  n->slot = slot_bytes(c, dtype::bf16, sizes);
  TERSOR_TRY(n->source, side::create(source_device));
  TERSOR_TRY(n->target, side::create(target_device));
  {
    const on_device here(source_device);
    TERSOR_CHECK(here.good());
    TERSOR_TRY(n->source_memory, make_memory(n->slot * sizes.n_slots));
    TERSOR_TRY(n->encoded, make_events(sizes.n_slots));
    TERSOR_TRY(n->sent, make_events(sizes.n_slots));
  }
  const on_device here(target_device);
  TERSOR_CHECK(here.good());
  TERSOR_TRY(n->target_memory, make_memory(n->slot * sizes.n_slots));
  TERSOR_TRY(n->arrived, make_events(sizes.n_slots));
  TERSOR_TRY(n->freed, make_events(sizes.n_slots));
  return nccl_link(std::move(n));
}

status nccl_link::impl::encode(const job& j, const part& p, std::uint64_t turn) {
  const std::uint64_t at = turn % rule.sizes.n_slots;
  const on_device here(source.device());
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(wait(source.lane(0), sent[at]));
  TERSOR_CHECK(encode_part(j, p, {static_cast<std::byte*>(source_memory.get()) + at * slot}, source, 0));
  return record(encoded[at], source.lane(0));
}

status nccl_link::impl::move(const job& j, const part& p, std::uint64_t turn) {
  const std::uint64_t at = turn % rule.sizes.n_slots;
  // The size of a message must be known to the host; the link is busy with the part before meanwhile.
  TERSOR_CHECK(ok(cudaEventSynchronize(encoded[at].get()), "encoding"));
  std::vector<nccl_pair::message> messages;
  for (std::size_t i = 0; i < p.n_pieces; ++i) {
    const piece& one = j.pieces(p)[i];
    const cuda::frame_result& result = j.verdict_of(p)[i].sent;
    if (result.code != 0) return fail(static_cast<errc>(result.code), "encoding for NCCL");
    messages.push_back({static_cast<std::byte*>(source_memory.get()) + at * slot + one.slot_at,
                        static_cast<std::byte*>(target_memory.get()) + at * slot + one.slot_at,
                        result.frame_bytes});
  }
  TERSOR_CHECK(wait(source.lane(1), encoded[at]));
  TERSOR_CHECK(wait(target.lane(1), freed[at]));
  TERSOR_CHECK(nccl.send(messages, source.lane(1), target.lane(1)));
  {
    const on_device here(source.device());
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(record(sent[at], source.lane(1)));
  }
  const on_device here(target.device());
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(record(arrived[at], target.lane(1)));
  TERSOR_CHECK(wait(target.lane(0), arrived[at]));
  TERSOR_CHECK(
      decode_part(j, p, {static_cast<std::byte*>(target_memory.get()) + at * slot}, false, target, 0));
  return record(freed[at], target.lane(0));
}

std::uint64_t nccl_link::count_pieces(std::span<const link_region> regions) const {
  const auto plan = plan_parts(regions, impl_->rule);
  return plan ? plan->pieces.size() : 0;
}

status nccl_link::send(std::span<const link_region> regions, std::span<link_verdict> verdicts,
                       cudaStream_t source, cudaStream_t target) {
  impl& n = *impl_;
  TERSOR_TRY(const part_plan plan, plan_parts(regions, n.rule));
  if (verdicts.size() < plan.pieces.size()) return fail(errc::invalid_argument, "too few verdicts");
  reset_sent(verdicts, plan.pieces.size());
  reset_received(verdicts, plan.pieces.size(), false);
  const job j{.regions = regions,
              .plan = plan,
              .verdicts = verdicts.first(plan.pieces.size()),
              .code = n.rule.code,
              .type = dtype::bf16};
  const auto both = [&](const auto& step) -> status {
    for (side* s : {&n.source, &n.target}) {
      const on_device here(s->device());
      TERSOR_CHECK(here.good());
      TERSOR_CHECK(step(*s));
    }
    return {};
  };
  TERSOR_CHECK(both([&](side& s) { return s.begin(&s == &n.source ? source : target); }));
  // Two parts ahead.
  for (std::size_t k = 0; k < plan.parts.size() + 2; ++k) {
    if (k < plan.parts.size()) TERSOR_CHECK(n.encode(j, plan.parts[k], n.turns + k));
    if (k >= 2) TERSOR_CHECK(n.move(j, plan.parts[k - 2], n.turns + k - 2));
  }
  n.turns += plan.parts.size();
  return both([](side& s) { return s.end(); });
}

}  // namespace tersor::bench
