#include "scheduler.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <utility>

#include "arrival.hpp"
#include "words.hpp"

namespace simt {
namespace {

/// Ends kernels whose endless loop stores or counts.
constexpr std::uint64_t kMaxSteps = std::uint64_t{1} << 30;

}  // namespace

shared_memory::shared_memory(std::size_t n_bytes)
    : size_(n_bytes), bytes_(static_cast<std::byte*>(::operator new(n_bytes, kAlignment))) {
  std::memset(bytes_.get(), 0xa5, n_bytes);
}

scheduler::scheduler(memory& global, const grid& size, const std::function<void(void*)>& body)
    : global_(global), size_(size), body_(body), random_(size.seed), by_order_(random_.one_in(2)) {
  const std::uint32_t n_clusters = std::max(1u, std::min(size.resident, size.n_ctas) / size.cluster);
  const std::uint32_t n_slots = size.n_ctas == 0 ? 0 : n_clusters * size.cluster;
  for (std::uint32_t i = 0; i < n_slots; ++i) {
    slots_.push_back(std::make_unique<cta>(size.n_threads / kLanes));
    for (warp& w : slots_.back()->warps) {
      order_.push_back(&w);
    }
  }
  for (std::uint32_t i = 0; i < n_slots; ++i) {
    for (std::uint32_t k = 0; k < size.cluster; ++k) {
      slots_[i]->peers.push_back(slots_[i - i % size.cluster + k].get());
    }
  }
  for (std::size_t i = order_.size(); i > 1; --i) {
    std::swap(order_[i - 1], order_[random_.below(i)]);
  }
}

void scheduler::run() {
  for (std::size_t first = 0; first < slots_.size(); first += size_.cluster) {
    start_cluster(first);
  }
  while (n_live_ != 0) {
    if (n_bulk_copies_ != 0 && random_.one_in(4)) {
      land_bulk_copy();
    }
    warp* w = pick();
    if (w == nullptr && land_bulk_copy()) {
      continue;
    }
    if (w == nullptr) {
      throw kernel_fault("nothing can go on: " + standing());
    }
    run_warp(*w);
    for (std::size_t first = 0; first < slots_.size(); first += size_.cluster) {
      const bool all_ended = std::all_of(slots_[first]->peers.begin(), slots_[first]->peers.end(),
                                         [&](const cta* c) { return c->n_ended == size_.n_threads; });
      if (all_ended && next_cta_ < size_.n_ctas) {
        start_cluster(first);
      }
    }
  }
}

void scheduler::start_cluster(std::size_t first_slot) {
  for (cta* slot : slots_[first_slot]->peers) {
    start_next(*slot);
  }
}

void scheduler::start_next(cta& slot) {
  slot.index = next_cta_++;
  slot.n_at_barrier = slot.n_at_cluster_barrier = 0;
  slot.n_at_barrier_of = {};
  slot.bulk_copies.clear();
  slot.n_ended = 0;
  slot.shared = std::make_unique<shared_memory>(size_.shared_bytes);
  n_live_ += size_.n_threads;
  for (std::uint32_t i = 0; i < slot.warps.size(); ++i) {
    warp& w = slot.warps[i];
    w.group = &slot;
    w.index = i;
    w.ready = ~0u;
    w.gathering = w.at_barrier = w.ended = 0;
    w.at_barrier_of = {};
    for (std::uint32_t j = 0; j < kLanes; ++j) {
      lane& l = w.lanes[j];
      l.owner = this;
      l.group = &w;
      l.index = j;
      l.call = "start";
      l.where = {};
      l.copies.clear();
      l.n_copy_groups = 0;
      l.thread.start(&scheduler::enter, &l);
    }
  }
}

void scheduler::start_bulk_copy(bulk_copy copy) {
  current_->group->group->bulk_copies.push_back(std::move(copy));
  n_bulk_copies_ += 1;
}

/// Any copy of any CTA; false if there is none.
bool scheduler::land_bulk_copy() {
  const std::size_t first = random_.below(slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    auto& copies = slots_[(first + i) % slots_.size()]->bulk_copies;
    if (copies.empty()) {
      continue;
    }
    std::swap(copies[random_.below(copies.size())], copies.back());
    const bulk_copy& copy = copies.back();
    for (const bulk_copy::piece& piece : copy.pieces) {
      std::memcpy(piece.to, piece.value.data(), piece.value.size());
    }
    auto state = arrival_counter::from(*copy.counter);
    state.n_bytes -= copy.n_bytes;
    state.missing -= copy.n_arrivals;
    *copy.counter = state.settled().word();
    copies.pop_back();
    n_bulk_copies_ -= 1;
    progress();
    return true;
  }
  return false;
}

warp* scheduler::pick() {
  const std::size_t first = by_order_ ? 0 : random_.below(order_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) {
    warp* w = order_[(first + i) % order_.size()];
    if (w->ready != 0) {
      return w;
    }
  }
  return nullptr;
}

/// Gives the lanes that can go on, or some of them, a step each.
void scheduler::run_warp(warp& w) {
  std::uint32_t todo = w.ready;
  if (random_.one_in(4)) {
    const std::uint32_t some = todo & static_cast<std::uint32_t>(random_.next());
    todo = some != 0 ? some : todo;
  }
  polled_ = false;
  while (todo != 0) {
    const int from = static_cast<int>(random_.below(kLanes));
    const auto index = static_cast<std::uint32_t>(from + std::countr_zero(std::rotr(todo, from))) % kLanes;
    todo &= ~(1u << index);
    resume(w.lanes[index]);
  }
  // Without this, the first in the order would wait for the others forever.
  if (polled_ || random_.one_in(64)) {
    const auto at = std::find(order_.begin(), order_.end(), &w);
    std::rotate(at, at + 1, order_.end());
  }
}

void scheduler::resume(lane& l) {
  current_ = &l;
  l.thread.resume();
  current_ = nullptr;
  if (!fault_.empty()) {
    throw kernel_fault(fault_);
  }
  check_idle();
}

void scheduler::enter(void* one_lane) {
  lane& l = *static_cast<lane*>(one_lane);
  scheduler& self = *l.owner;
  bool has_thrown = true;
  try {
    self.body_(l.group->group->shared->begin());
    has_thrown = false;
  } catch (const std::exception& e) {
    self.report(std::string("the kernel threw: ") + e.what(), {});
  } catch (...) {
    self.report("the kernel threw", {});
  }
  if (has_thrown) {
    self.stop();
  }
  self.end_lane(l);
}

void scheduler::end_lane(lane& l) {
  warp& w = *l.group;
  if (w.gathering != 0) {
    report("ends while lanes " + hex(w.gathering) + " wait for it in " + place(w.call, w.where), {});
    stop();
  }
  if (w.group->n_at_barrier != 0) {
    report("ends while " + std::to_string(w.group->n_at_barrier) + " threads wait for it in a barrier", {});
    stop();
  }
  for (const cta* peer : w.group->peers) {
    if (peer->n_at_cluster_barrier != 0) {
      report("ends while threads wait for it in a barrier of the cluster", {});
      stop();
    }
  }
  if (w.group->n_ended + 1 == size_.n_threads && !w.group->bulk_copies.empty()) {
    report("ends its CTA while copies to its shared memory are under way", {});
    stop();
  }
  w.ready &= ~l.bit();
  w.ended |= l.bit();
  w.group->n_ended += 1;
  n_live_ -= 1;
  progress();
}

void scheduler::suspend(const char* call, site where) {
  lane& l = *current_;
  l.call = call;
  l.where = where;
  l.thread.suspend();
}

void scheduler::check_arrival(const lane& l, const char* call, site where) {
  const warp& w = *l.group;
  if (w.ended != 0) {
    report("waits in " + place(call, where) + " for lanes " + hex(w.ended) + ", which have ended", where);
    stop();
  }
  if (w.gathering != 0 && (std::strcmp(call, w.call) != 0 || !(where == w.where))) {
    report("is in " + place(call, where) + " while lanes " + hex(w.gathering) + " wait for it in " +
               place(w.call, w.where),
           where);
    stop();
  }
}

const lane_values& scheduler::gather(const char* call, std::uint64_t value, site where) {
  lane& l = *current_;
  warp& w = *l.group;
  check_arrival(l, call, where);
  if (w.at_barrier != 0) {
    report("is in " + place(call, where) + " while lanes " + hex(w.at_barrier) + " wait in a barrier", where);
    stop();
  }
  w.call = call;
  w.where = where;
  w.gathering |= l.bit();
  const lane_values& values = w.values[w.turn];
  w.values[w.turn][l.index] = value;
  if (w.gathering == ~0u) {
    w.gathering = 0;
    w.ready = ~0u;
    w.turn ^= 1u;
    return values;
  }
  w.ready &= ~l.bit();
  suspend(call, where);
  return values;
}

void scheduler::barrier(site where) {
  lane& l = *current_;
  cta& c = *l.group->group;
  check_arrival(l, "barrier", where);
  if (c.n_ended != 0) {
    report("waits in a barrier for " + std::to_string(c.n_ended) + " threads that have ended", where);
    stop();
  }
  l.group->at_barrier |= l.bit();
  c.n_at_barrier += 1;
  if (c.n_at_barrier == size_.n_threads) {
    c.n_at_barrier = 0;
    for (warp& w : c.warps) {
      w.at_barrier = 0;
      w.ready = ~0u;
    }
    return;
  }
  l.group->ready &= ~l.bit();
  suspend("barrier", where);
}

void scheduler::barrier_of(std::uint32_t id, std::uint32_t n_threads, site where) {
  lane& l = *current_;
  warp& own = *l.group;
  check_arrival(l, "barrier_of", where);
  if (id == 0 || id >= own.at_barrier_of.size() || n_threads % kLanes != 0) {
    report("a barrier of this number or of part of a warp", where);
    stop();
  }
  own.at_barrier |= l.bit();
  own.at_barrier_of[id] |= l.bit();
  std::uint32_t& n_arrived = own.group->n_at_barrier_of[id];
  n_arrived += 1;
  if (n_arrived == n_threads) {
    n_arrived = 0;
    for (warp& w : own.group->warps) {
      w.at_barrier &= ~w.at_barrier_of[id];
      w.ready |= w.at_barrier_of[id];
      w.at_barrier_of[id] = 0;
    }
    return;
  }
  own.ready &= ~l.bit();
  suspend("barrier_of", where);
}

void scheduler::cluster_barrier(site where) {
  if (size_.cluster == 1) {
    barrier(where);
    return;
  }
  lane& l = *current_;
  cta& c = *l.group->group;
  check_arrival(l, "cluster_barrier", where);
  l.group->at_barrier |= l.bit();
  c.n_at_cluster_barrier += 1;
  std::uint32_t n_arrived = 0;
  for (const cta* peer : c.peers) {
    if (peer->n_ended != 0) {
      report("waits in a barrier of the cluster for threads that have ended", where);
      stop();
    }
    n_arrived += peer->n_at_cluster_barrier;
  }
  if (n_arrived == size_.n_threads * size_.cluster) {
    for (cta* peer : c.peers) {
      peer->n_at_cluster_barrier = 0;
      for (warp& w : peer->warps) {
        w.at_barrier = 0;
        w.ready = ~0u;
      }
    }
    return;
  }
  l.group->ready &= ~l.bit();
  suspend("cluster_barrier", where);
}

void scheduler::poll(const char* call, site where) {
  polled_ = true;
  suspend(call, where);
}

void scheduler::crossing(const char* call, site where) {
  if (random_.one_in(16)) {
    suspend(call, where);
  }
}

void scheduler::report(const std::string& what, site where) {
  fault_ = name_of(*current_) + ": " + what;
  if (where.line != 0) {
    fault_ += " (" + place("", where) + ")";
  }
}

void scheduler::stop() {
  lane& l = *current_;
  for (;;) {
    l.thread.suspend();
  }
}

void scheduler::check_idle() {
  n_idle_ += 1;
  n_steps_ += 1;
  if (n_idle_ > size_.idle_rounds * n_live_ && n_live_ != 0) {
    throw kernel_fault("the kernel hangs: " + standing());
  }
  if (n_steps_ > kMaxSteps) {
    throw kernel_fault("the kernel does not end: " + standing());
  }
}

std::string scheduler::standing() const {
  std::string out;
  for (const auto& slot : slots_) {
    for (const warp& w : slot->warps) {
      out += standing_of(w);
    }
  }
  return out;
}

}  // namespace simt
