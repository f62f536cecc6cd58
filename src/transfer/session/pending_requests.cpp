#include "transfer/session/pending_requests.hpp"

#include "cpu/context_impl.hpp"

namespace tersor::transfer {
namespace {

/// Published requests whose numbers and tokens are remembered, so that a late resumption is answered and a
/// repeated one refused.
constexpr std::size_t kRemembered = 4096;

}  // namespace

status pending_requests::check_codebooks(const manifest& m) const {
  const auto& agreed = options_.expected.codebooks;
  if (agreed.empty()) return {};
  for (const region& r : m.regions) {
    if (r.kind == part_kind::other) continue;
    const std::uint64_t place = 2 * std::uint64_t{r.layer} + static_cast<std::uint64_t>(r.kind);
    if (place >= agreed.size() || r.book != agreed[place]) {
      return fail(errc::mismatch, "codebooks: region '" + r.name + "' does not use the one agreed on");
    }
  }
  return {};
}

result<std::shared_ptr<pending_request>> pending_requests::start(std::uint64_t request, std::uint32_t epoch,
                                                                 beginning said, std::uint64_t digest,
                                                                 message_link* owner) {
  auto facts = std::make_shared<request_facts>();
  TERSOR_TRY(facts->plan, part_plan::make(said.manifest, said.part_bytes,
                                          {.max_request_bytes = options_.max_request_bytes,
                                           .max_part_bytes = options_.max_part_bytes}));
  TERSOR_CHECK(check_codebooks(said.manifest));
  facts->manifest = std::move(said.manifest);
  auto r = std::make_shared<pending_request>();
  r->number = request;
  r->facts = facts;
  r->token = said.token;
  r->begin_digest = digest;
  r->epoch = epoch;
  r->verified.resize(facts->plan.n_parts());
  r->owner = owner;
  // Whoever finds the request from now on waits until it is prepared.
  const std::lock_guard working(r->work);
  {
    const std::lock_guard lock(mutex_);
    if (requests_.size() - published_.size() >= options_.max_pending) {
      return fail(errc::out_of_memory, "the receiver has " + std::to_string(options_.max_pending) +
                                           " unfinished requests already");
    }
    if (!requests_.emplace(request, r).second)
      return fail(errc::already_exists, "the request is being begun");
  }
  status prepared = cpu::guarded([&] { return sink_.prepare(facts->manifest); });
  if (!prepared) {
    r->epoch = 0;
    drop(request);
    return tl::unexpected<error>(std::move(prepared).error());
  }
  return r;
}

status pending_requests::resume(pending_request& r, std::uint32_t epoch, const beginning& said,
                                std::uint64_t digest, message_link* owner) {
  {
    const std::lock_guard lock(mutex_);
    if (r.token != said.token) return fail(errc::already_exists, "the request's number was used before");
    if (r.begin_digest != digest)
      return fail(errc::mismatch, "manifest: it differs from the request's first one");
    if (epoch <= r.epoch) return fail(errc::mismatch, "epoch: stale");
    r.epoch = epoch;
    if (r.owner != nullptr) r.owner->shutdown();
    r.owner = owner;
    r.expires = deadline::max();
  }
  // The older connection may be decoding its last part.
  const std::lock_guard working(r.work);
  if (r.epoch != epoch) return fail(errc::mismatch, "epoch: stale");
  return {};
}

result<std::shared_ptr<pending_request>> pending_requests::begin(std::uint64_t request, std::uint32_t epoch,
                                                                 const_bytes payload, message_link* owner) {
  const std::uint64_t digest = payload_digest(payload, {});
  TERSOR_TRY(beginning said, read_beginning(payload, options_.max_regions));
  said.manifest.request = request;
  std::shared_ptr<pending_request> known;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = requests_.find(request); found != requests_.end()) known = found->second;
  }
  if (known == nullptr) return start(request, epoch, std::move(said), digest, owner);
  TERSOR_CHECK(resume(*known, epoch, said, digest, owner));
  return known;
}

void pending_requests::detach(const std::shared_ptr<pending_request>& r, std::uint32_t epoch) {
  const std::lock_guard lock(mutex_);
  if (r->epoch != epoch) return;
  r->owner = nullptr;
  if (!r->is_published) r->expires = clock::now() + options_.resume;
}

void pending_requests::discard(const std::shared_ptr<pending_request>& r) {
  const std::lock_guard working(r->work);
  if (r->is_published || r->epoch == 0) return;
  r->epoch = 0;
  sink_.discard(r->facts->manifest);
  drop(r->number);
}

status pending_requests::publish(pending_request& r) {
  // Before the sink publishes: what follows it cannot fail.
  std::list<std::uint64_t> one(1, r.number);
  TERSOR_CHECK(sink_.publish(r.facts->manifest));
  const std::lock_guard lock(mutex_);
  r.is_published = true;
  r.facts.reset();
  r.verified = std::vector<bool>();
  published_.splice(published_.end(), one);
  if (published_.size() > kRemembered) {
    requests_.erase(published_.front());
    published_.pop_front();
  }
  return {};
}

void pending_requests::drop(std::uint64_t request) {
  const std::lock_guard lock(mutex_);
  requests_.erase(request);
}

std::uint64_t pending_requests::sweep(deadline now) {
  std::vector<std::shared_ptr<pending_request>> late;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [request, r] : requests_) {
      if (r->owner == nullptr && r->expires <= now) late.push_back(r);
    }
    // Nobody can take them up any more.
    for (const auto& r : late) r->expires = deadline::max();
  }
  for (const auto& r : late) discard(r);
  return late.size();
}

std::uint64_t pending_requests::discard_all() {
  std::vector<std::shared_ptr<pending_request>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [request, r] : requests_) {
      if (!r->is_published) all.push_back(r);
    }
  }
  for (const auto& r : all) discard(r);
  return all.size();
}

bool pending_requests::is_known(std::uint64_t request) const {
  const std::lock_guard lock(mutex_);
  return requests_.contains(request);
}

}  // namespace tersor::transfer
