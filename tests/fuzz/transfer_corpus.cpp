// Seeds of the transfer targets: an honest session each, and the payloads in it.
#include "transfer_corpus.hpp"

#include "../transfer/puppet.hpp"
#include "transfer_feed.hpp"

namespace {

namespace fs = std::filesystem;
namespace kv = tersor::transfer;
using faults::bytes;
using transfer_test::cache;

void save(const fs::path& dir, const std::string& name, const bytes& data) {
  fs::create_directories(dir);
  faults::write_file(dir / name, data);
}

struct fields {
  kv::message_type type = kv::message_type::ping;
  unsigned kind = 0, codec = 0, request = 1, epoch = 1, region = 0, layer = 0, slot = 0, first_page = 0,
           n_pages = 0;
};

void add(bytes& seed, const fields& f, std::span<const std::byte> payload) {
  const std::size_t n = payload.size();
  for (const std::size_t field :
       {static_cast<std::size_t>(f.type), std::size_t{f.kind}, std::size_t{f.codec}, std::size_t{f.request},
        std::size_t{f.epoch}, std::size_t{f.region}, std::size_t{f.layer}, std::size_t{f.slot},
        std::size_t{f.first_page}, std::size_t{f.n_pages}, n % 256, n / 256}) {
    seed.push_back(static_cast<std::byte>(field));
  }
  for (const std::byte b : payload) seed.push_back(b);
}

void sessions(const fs::path& root) {
  const cache c = transfer_test::make_cache(1, 1, 1);
  for (const tersor::codec with : {tersor::codec::raw, tersor::codec::top16, tersor::codec::rank}) {
    const transfer_test::prepared all = transfer_test::prepare_parts(c, with);
    bytes seed(1);
    add(seed, {.type = kv::message_type::offer}, write(kv::offer{}));
    add(seed, {.type = kv::message_type::begin},
        write(kv::beginning{.part_bytes = transfer_test::kPartBytes, .manifest = c.manifest}));
    kv::totals sum;
    for (unsigned i = 0; i < all.parts.size(); ++i) {
      add(seed,
          {.type = kv::message_type::part,
           .kind = i,
           .codec = static_cast<unsigned>(all.encoded[i].codec),
           .region = i,
           .slot = i,
           .n_pages = 1},
          all.frames[i]);
      ++sum.n_parts;
      sum.digest += kv::part_digest(i, all.encoded[i].digest);
    }
    add(seed, {.type = kv::message_type::end}, write(sum));
    save(root / "transfer_receiver", std::string(tersor::to_string(with)), seed);
  }
}

void answers(const fs::path& root) {
  const cache c = transfer_test::make_cache(1);
  const transfer_test::prepared all = transfer_test::prepare_parts(c, tersor::codec::rank);
  const kv::accept terms{.n_slots = 8,
                         .slot_bytes = kv::frame_bound(4096),
                         .max_part_bytes = 4096,
                         .max_request_bytes = 1 << 20,
                         .max_regions = 16,
                         .slots = {}};
  bytes seed(1);
  add(seed, {.type = kv::message_type::accept}, write(terms));
  add(seed, {.type = kv::message_type::ready}, kv::write_ready(std::vector<bool>(6)));
  bytes refused = seed;
  kv::totals sum;
  for (unsigned i = 0; i < 6; ++i) {
    add(seed, {.type = kv::message_type::credit, .slot = i}, {});
    ++sum.n_parts;
    sum.digest += kv::part_digest(i, all.encoded[i].digest);
  }
  add(seed, {.type = kv::message_type::published}, write(sum));
  save(root / "transfer_sender", "published", seed);
  add(refused, {.type = kv::message_type::fail},
      write(kv::failure{.code = tersor::errc::mismatch, .may_resume = false, .message = "no"}));
  save(root / "transfer_sender", "refused", refused);
}

void payloads(const fs::path& root) {
  const auto one = [&](unsigned which, const char* name, std::span<const std::byte> payload) {
    bytes seed = {static_cast<std::byte>(which)};
    for (const std::byte b : payload) seed.push_back(b);
    save(root / "transfer_payloads", name, seed);
  };
  one(0, "hello", write(kv::hello{.transport = "tcp"}));
  one(1, "welcome", write(kv::welcome{}));
  kv::geometry g{.model = "m",
                 .revision = "r",
                 .layout = "l",
                 .n_layers = 2,
                 .codebooks = {{.symbols = {1, 2}}, {.symbols = {3}}}};
  one(2, "offer", write(kv::make_offer(g, 5)));
  one(3, "accept", write(kv::accept{.n_slots = 2, .slot_bytes = 4096, .slots = bytes(7)}));
  cache c = transfer_test::make_cache(1, 2);
  c.manifest.regions[0].book = g.codebooks[0];
  c.manifest.note = bytes(3);
  one(4, "begin", write(kv::beginning{.part_bytes = 4096, .manifest = c.manifest}));
  one(5, "ready", kv::write_ready(std::vector<bool>(8 * 6 % 1000)));
  one(6, "totals", write(kv::totals{.n_parts = 3, .digest = 4}));
  one(7, "failure",
      write(kv::failure{.code = tersor::errc::io_error, .may_resume = true, .message = "text"}));
  bytes header = {std::byte{1}};
  for (const std::byte b : kv::write_header(
           {.type = kv::message_type::part, .sequence = 4, .n_pages = 1, .payload_bytes = 10}, {}))
    header.push_back(b);
  save(root / "transfer_header", "part", header);
}

}  // namespace

void write_transfer_seeds(const fs::path& root) {
  sessions(root);
  answers(root);
  payloads(root);
}
