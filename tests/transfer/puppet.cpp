#include "puppet.hpp"

#include "transfer/session/handshake.hpp"

namespace transfer_test {

prepared prepare_parts(const cache& c, tersor::codec with) {
  prepared p;
  const kv::part_plan plan = kv::part_plan::make(c.manifest, kPartBytes, {}).value();
  const auto from = c.source();
  bytes slot(kv::frame_bound(kPartBytes));
  for (std::uint64_t i = 0; i < plan.n_parts(); ++i) {
    p.parts.push_back(plan.at(i));
    const kv::part& what = p.parts.back();
    p.encoded.push_back(from->encode(c.manifest.regions[what.region], what, with, slot).value());
    p.frames.emplace_back(slot.begin(), slot.begin() + static_cast<std::ptrdiff_t>(p.encoded.back().n_bytes));
  }
  return p;
}

const prepared& prepared_parts(std::uint64_t request, tersor::codec with) {
  static const auto all = [] {
    std::vector<prepared> made;
    for (std::uint64_t i = 0; i < 24; ++i)
      made.push_back(prepare_parts(make_cache(i / 3), static_cast<tersor::codec>(i % 3)));
    return made;
  }();
  return all[request % 8 * 3 + static_cast<std::size_t>(with)];
}

status puppet_sender::shake() {
  TERSOR_TRY(const kv::accept terms, kv::shake_as_sender(link_, options_));
  return {};
}

void puppet_sender::begin(const cache& c, const kv::nonce& token, std::uint32_t epoch,
                          std::uint64_t part_bytes) {
  (void)link_.send({.type = kv::message_type::begin, .request = c.manifest.request, .epoch = epoch},
                   write(kv::beginning{.token = token, .part_bytes = part_bytes, .manifest = c.manifest}));
}

void puppet_sender::send_part(const cache& c, const prepared& what, std::size_t index, std::uint32_t epoch,
                              const std::function<void(kv::message_header&)>& change) {
  const kv::part& p = what.parts[index];
  const kv::region& r = c.manifest.regions[p.region];
  kv::message_header header{.type = kv::message_type::part,
                            .kind = static_cast<std::uint8_t>(r.kind),
                            .codec = static_cast<std::uint8_t>(what.encoded[index].codec),
                            .request = c.manifest.request,
                            .epoch = epoch,
                            .region = p.region,
                            .layer = r.layer,
                            .slot = static_cast<std::uint32_t>(index),
                            .first_page = p.first_page,
                            .n_pages = p.n_pages,
                            .payload_digest = what.encoded[index].digest};
  if (change) change(header);
  (void)link_.send(header, what.frames[index]);
}

void puppet_sender::end(const cache& c, const prepared& what, std::uint32_t epoch) {
  kv::totals sum;
  for (std::size_t i = 0; i < what.parts.size(); ++i) {
    ++sum.n_parts;
    sum.digest += kv::part_digest(i, what.encoded[i].digest);
  }
  (void)link_.send({.type = kv::message_type::end, .request = c.manifest.request, .epoch = epoch},
                   write(sum));
}

std::optional<answer> puppet_sender::next_answer(std::chrono::milliseconds patience) {
  const auto header = link_.receive_header(kv::clock::now() + patience);
  if (!header) return std::nullopt;
  const auto payload = link_.receive_payload(*header, 1 << 20);
  if (!payload) return std::nullopt;
  answer a{.header = *header, .payload = *payload, .why = {}};
  if (header->type == kv::message_type::fail) {
    a.why = kv::read_failure(*payload).value_or(kv::failure{});
    failure_ = a.why;
  }
  return a;
}

std::optional<answer> puppet_sender::wait_for(kv::message_type type, std::chrono::milliseconds patience) {
  while (true) {
    auto a = next_answer(patience);
    if (!a || a->header.type == type) return a;
    if (a->header.type == kv::message_type::fail) return std::nullopt;
  }
}

}  // namespace transfer_test
