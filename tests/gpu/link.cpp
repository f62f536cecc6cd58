// Links: GPU to GPU (where there are two), GPU to pinned host memory and back, and values checked again where
// they lie.
#include <array>

#include "link_rig.hpp"
#include "sections.hpp"

namespace gpu_test {

using namespace tersor::transfer;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

namespace {

constexpr part_sizes kSmallParts = {.first_bytes = 64 << 10, .most_bytes = 512 << 10, .n_slots = 3};
constexpr std::array kMethods = {link_method::raw, link_method::copy, link_method::pull, link_method::push};

std::string at(const link_case& one, link_method method, std::string_view more = {}) {
  return one.label() + " " + std::string(to_string(method)) + std::string(more);
}

struct streams {
  side_stream source;
  cudaStream_t target = nullptr;
  explicit streams(int target_device) {
    const current_device there(target_device);
    must(cudaStreamCreateWithFlags(&target, cudaStreamNonBlocking), "stream");
  }
  streams(const streams&) = delete;
  streams& operator=(const streams&) = delete;
  ~streams() { cudaStreamDestroy(target); }
  void wait(const env& e, section& s, std::string_view what) const {
    e.wait(source.get(), s, what);
    e.wait(target, s, what);
  }
};

/// Several transfers one after the other without waiting, each with its own verdicts.
void send_many(const env& e, section& s, device_link& link, std::vector<link_case>& cases, link_method method,
               const streams& on) {
  std::vector<pinned_verdicts> verdicts;
  for (link_case& one : cases) {
    one.poison();
    const auto n = link.count_pieces(one.regions);
    if (!s.check(n.has_value(), "count_pieces", at(one, method))) return;
    auto pinned = pinned_verdicts::create(*n);
    if (!s.check(pinned.has_value(), "pinned memory", at(one, method))) return;
    verdicts.push_back(std::move(*pinned));
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto sent =
        link.send_async(cases[i].regions, method, verdicts[i].all(), on.source.get(), on.target);
    s.check(sent && *sent == method, sent ? "another method" : sent.error().describe(), at(cases[i], method));
  }
  on.wait(e, s, at(cases[0], method));
  for (std::size_t i = 0; i < cases.size(); ++i) {
    s.check(check_verdicts(verdicts[i].all()).has_value(), text_of(check_verdicts(verdicts[i].all())),
            at(cases[i], method));
    cases[i].expect_arrived(s, at(cases[i], method));
  }
}

void check_refusals(section& s, device_link& pull_only, const link_case& one, const streams& on) {
  const auto code = [&](link_method method, std::span<link_verdict> verdicts) {
    const auto sent = pull_only.send_async(one.regions, method, verdicts, on.source.get(), on.target);
    return sent ? errc::ok : sent.error().code;
  };
  s.check(code(link_method::pull, {}) == errc::invalid_argument, "no verdicts");
  auto many = pinned_verdicts::create(4096);
  s.check(many && code(link_method::push, many->all()) == errc::unsupported, "no staging memory");
  const auto same = device_link::create({.source_device = 0, .target_device = 0});
  s.check(!same && same.error().code == errc::invalid_argument, "one device twice");
}

}  // namespace

void check_peer_links(const env& e, section& s) {
  const streams on(1);
  std::uint64_t seed = 100;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      auto link = device_link::create({.codec = c,
                                       .type = type,
                                       .parts = kSmallParts,
                                       .recheck = seed % 2 == 0,
                                       .use_push = true,
                                       .use_copy = true});
      if (!s.check(link.has_value(), link ? "" : link.error().describe())) return;
      for (int round = 0; round < e.pick(1, 6); ++round) {
        std::vector<link_case> cases;
        for (const std::uint64_t n : {1U, 5U, 33U})
          cases.push_back(link_case::make(c, type, ++seed, n, 40'000 * n, 0, 1));
        for (const link_method method : kMethods) send_many(e, s, *link, cases, method, on);
      }
    }
  }
  // Pieces that are large enough for the copy engines.
  auto large = device_link::create({.use_copy = true});
  if (!s.check(large.has_value(), large ? "" : large.error().describe())) return;
  std::vector<link_case> one;
  one.push_back(
      link_case::make(codec::rank, dtype::bf16, 7, 2, e.pick<std::uint64_t>(10'000'000, 60'000'000), 0, 1));
  for (const link_method method : {link_method::copy, link_method::pull})
    send_many(e, s, *large, one, method, on);
  auto pull_only = device_link::create({.parts = kSmallParts});
  if (s.check(pull_only.has_value(), "a link that pulls")) check_refusals(s, *pull_only, one[0], on);
}

namespace {

struct pinned_bytes {
  void* data = nullptr;
  explicit pinned_bytes(std::uint64_t n) {
    must(cudaHostAlloc(&data, n, cudaHostAllocPortable), "pinned memory");
  }
  pinned_bytes(const pinned_bytes&) = delete;
  pinned_bytes& operator=(const pinned_bytes&) = delete;
  ~pinned_bytes() { cudaFreeHost(data); }
};

void store_and_load(const env& e, section& s, host_link& link, const link_case& one, link_method store,
                    link_method load, cudaStream_t stream) {
  const std::string where = at(one, store, " / ") + std::string(to_string(load));
  const auto n = link.count_pieces(one.regions), n_bytes = link.store_bytes(one.regions);
  if (!s.check(n && n_bytes, "sizes of a store", where)) return;
  auto verdicts = pinned_verdicts::create(*n);
  const pinned_bytes memory(*n_bytes);
  const host_store frames{memory.data, *n_bytes};
  one.poison();
  const auto early = link.load_async(one.regions, load, frames, verdicts->all(), stream);
  s.check(store == link_method::raw || !early, "frames that nobody stored were loaded", where);
  e.wait(stream, s, where);
  one.poison();
  const auto stored = link.store_async(one.regions, store, frames, verdicts->all(), stream);
  s.check(stored.has_value(), stored ? "" : stored.error().describe(), where);
  e.wait(stream, s, where);
  const tersor::status loaded = link.load_async(one.regions, load, frames, verdicts->all(), stream);
  s.check(loaded.has_value(), text_of(loaded), where);
  e.wait(stream, s, where);
  s.check(check_verdicts(verdicts->all()).has_value(), text_of(check_verdicts(verdicts->all())), where);
  one.expect_arrived(s, where);
  if (store == link_method::raw) return;
  // A byte of a frame that changed in host memory never becomes a value.
  prng random(one.n_values);
  const std::uint64_t bytes_used = verdicts->all()[0].sent.frame_bytes;
  for (int i = 0; i < e.pick(2, 8); ++i) {
    auto* byte = static_cast<std::uint8_t*>(memory.data) + random.below(bytes_used);
    *byte = static_cast<std::uint8_t>(*byte ^ 1U << random.below(8));
    const tersor::status again = link.load_async(one.regions, load, frames, verdicts->all(), stream);
    e.wait(stream, s, where);
    s.check(again && !check_verdicts(verdicts->all()), "a changed frame was accepted", where);
    const auto once_more = link.store_async(one.regions, store, frames, verdicts->all(), stream);
    s.check(once_more.has_value(), "storing again", where);
    e.wait(stream, s, where);
  }
}

}  // namespace

void check_host_links(const env& e, section& s) {
  const side_stream stream;
  std::uint64_t seed = 500;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      auto link = host_link::create({.codec = c, .type = type, .parts = kSmallParts, .recheck = true});
      if (!s.check(link.has_value(), link ? "" : link.error().describe())) return;
      for (const std::uint64_t n : {1U, 20U}) {
        const link_case one = link_case::make(c, type, ++seed, n, 60'000, 0, 0);
        store_and_load(e, s, *link, one, link_method::raw, link_method::raw, stream.get());
        store_and_load(e, s, *link, one, link_method::copy, link_method::copy, stream.get());
        store_and_load(e, s, *link, one, link_method::push, link_method::pull, stream.get());
      }
    }
  }
  auto large = host_link::create({});
  if (!s.check(large.has_value(), large ? "" : large.error().describe())) return;
  const link_case one =
      link_case::make(codec::rank, dtype::bf16, 9, 2, e.pick<std::uint64_t>(4'000'000, 30'000'000), 0, 0);
  store_and_load(e, s, *large, one, link_method::copy, link_method::copy, stream.get());
  store_and_load(e, s, *large, one, link_method::push, link_method::copy, stream.get());
}

void check_recheck(const env& e, section& s) {
  prng random(3);
  device_memory frame, values, result;
  work_memory work;
  result.grow(sizeof(tersor::cuda::frame_result));
  const side_stream stream;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      for (const std::uint64_t n : {1ULL, 1023ULL, 20'001ULL, 3'000'000ULL}) {
        const bytes data = make_data(type, n, kKinds[random.below(kKinds.size())], n);
        const bytes coded = cpu_frame(e.single, c, type, {&n, 1}, data, cpu_book(type, data));
        const std::uint64_t offset = tersor::value_bytes(type) * random.below(9);
        frame.grow(coded.size());
        frame.put(0, coded);
        values.grow(data.size() + 64);
        const auto code_of = [&](byte_view now) {
          values.put(offset, now);
          e.poison(result, 0, sizeof(tersor::cuda::frame_result));
          const tersor::cuda::recheck_task task{.type = type,
                                                .n_values = n,
                                                .values_dev = values.get() + offset,
                                                .frame_dev = frame.get(),
                                                .frame_bytes = coded.size(),
                                                .result_dev = result.as<tersor::cuda::frame_result>()};
          const tersor::status call = tersor::cuda::recheck_async(
              c, {&task, 1}, work.of(tersor::cuda::recheck_workspace_size()), stream.get());
          s.check(call.has_value(), text_of(call), label(c, type, n));
          e.wait(stream.get(), s, label(c, type, n));
          return take_result(result);
        };
        s.check(code_of(data).code == 0, "values that are right were refused", label(c, type, n));
        for (int i = 0; i < e.pick(2, 12); ++i) {
          bytes changed = data;
          const std::uint64_t byte = random.below(changed.size());
          changed[byte] ^= static_cast<std::byte>(1U << random.below(8));
          const auto got = code_of(changed);
          s.check(got.code == static_cast<int>(errc::digest_mismatch) &&
                      got.chunk == byte / tersor::value_bytes(type) / 8192,
                  "a changed value was not found in its chunk", label(c, type, n));
        }
        s.add_values(n);
      }
    }
  }
}

void run_link(const env& e, section& s) {
  check_recheck(e, s);
  check_host_links(e, s);
  int n_devices = 0;
  must(cudaGetDeviceCount(&n_devices), "cudaGetDeviceCount");
  if (n_devices < 2) {
    s.note("one GPU: links between two were not tested");
    return;
  }
  check_peer_links(e, s);
}

}  // namespace gpu_test
