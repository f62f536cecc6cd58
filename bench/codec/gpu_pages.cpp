#include <algorithm>

#include "gpu_cache.hpp"
#include "gpu_contiguous.hpp"

namespace tersor::bench {
namespace {

namespace kv = cuda::kv;

/// Everything that the runs over one storage order and one kind of values share.
struct page_setup {
  const gpu_env& env;
  const cache_content& content;
  const workload& gathered;  ///< the sent pages side by side, with codebooks
  std::string layout;
  paged_cache source, target;
  std::vector<std::int32_t> from, to;
  device_buffer from_dev, to_dev, books_dev;

  [[nodiscard]] std::uint32_t n_pages() const noexcept { return static_cast<std::uint32_t>(from.size()); }
  [[nodiscard]] std::uint64_t n_pools() const noexcept { return source.pools().pools.size(); }
  [[nodiscard]] kv::page_list sent() const noexcept {
    return {.ids_dev = reinterpret_cast<const std::int32_t*>(from_dev.data()), .n_pages = n_pages()};
  }
  [[nodiscard]] kv::page_list received() const noexcept {
    return {.ids_dev = reinterpret_cast<const std::int32_t*>(to_dev.data()), .n_pages = n_pages()};
  }
};

/// One codec and kind on a setup.
class page_run {
 public:
  page_run(page_setup& setup, codec which, kv::page_frames kind)
      : setup_(setup),
        codec_(which),
        kind_(kind),
        n_frames_(kind == kv::page_frames::gathered ? setup.n_pools() : setup.n_pools() * setup.n_pages()),
        name_(std::string(to_string(which)) + " pages, " + setup.layout +
              (kind == kv::page_frames::gathered ? ", gathered" : ", slots")) {}

  result<gpu_page_row> measure(const gpu_row& contiguous);

 private:
  status allocate();
  status choose_slots();
  status allocate_frames(std::uint64_t frame_stride, std::uint32_t overflow_places);
  status encode(cuda::tail_order order);
  status decode();
  status round_trip(cuda::tail_order order);
  status check_frames();
  status check_frame(std::uint64_t f);
  [[nodiscard]] std::uint64_t sent_bytes() const;

  page_setup& setup_;
  codec codec_;
  kv::page_frames kind_;
  std::uint64_t n_frames_;
  std::string name_;
  kv::page_store store_;
  device_buffer frames_, overflow_, used_, encoded_, decoded_;
  gpu_workspace free_ws_, canonical_ws_;
  std::vector<cuda::frame_result> results_;
};

status page_run::allocate() {
  const auto& pools = setup_.source.pools();
  const auto need = [&](cuda::tail_order order) {
    return kv::pages_workspace_size(codec_, pools, kind_, setup_.n_pages(), order);
  };
  TERSOR_CHECK(free_ws_.allocate(need(cuda::tail_order::free)));
  TERSOR_CHECK(canonical_ws_.allocate(need(cuda::tail_order::canonical)));
  TERSOR_TRY(encoded_, device_buffer::allocate(n_frames_ * sizeof(cuda::frame_result), 0xff));
  TERSOR_TRY(decoded_, device_buffer::allocate(n_frames_ * sizeof(cuda::frame_result), 0xff));
  TERSOR_TRY(used_, device_buffer::allocate(sizeof(std::uint32_t)));
  const std::uint64_t bound = kv::page_frame_bound(codec_, pools.layout, kind_, setup_.n_pages());
  return allocate_frames((bound + 127) / 128 * 128, 0);
}

status page_run::allocate_frames(std::uint64_t frame_stride, std::uint32_t overflow_places) {
  frames_ = {};
  TERSOR_TRY(frames_, device_buffer::allocate(n_frames_ * frame_stride, kPagePoison));
  store_ = {.kind = kind_, .frames_dev = frames_.data(), .frame_stride = frame_stride};
  if (overflow_places == 0) return {};
  const std::uint64_t place = kv::raw_frame_bytes(setup_.source.pools().layout);
  TERSOR_TRY(overflow_, device_buffer::allocate(overflow_places * place, kPagePoison));
  store_.overflow_dev = overflow_.data();
  store_.overflow_places = overflow_places;
  store_.overflow_used_dev = reinterpret_cast<std::uint32_t*>(used_.data());
  return {};
}

/// Slots as an engine would set them up: of the size that holds 99% of the pages seen, with room beside them.
status page_run::choose_slots() {
  constexpr double kCoverage = 0.99;
  TERSOR_CHECK(encode(cuda::tail_order::free));
  TERSOR_TRY(results_, good_results(setup_.env, encoded_, n_frames_, name_ + ": sizes"));
  std::vector<std::uint64_t> sizes;
  for (const auto& found : results_) sizes.push_back(found.frame_bytes);
  const std::uint64_t slot = kv::suggest_slot_bytes(sizes, kCoverage);
  if (slot == 0) return fail(errc::internal, name_ + ": no slot size");
  return allocate_frames(slot, static_cast<std::uint32_t>(n_frames_ / 50 + 16));
}

status page_run::encode(cuda::tail_order order) {
  const cudaStream_t s = setup_.env.stream.get();
  TERSOR_CHECK(cuda_ok(cudaMemsetAsync(used_.data(), 0, sizeof(std::uint32_t), s), "overflow count"));
  return kv::encode_pages_async(codec_, setup_.source.pools(), setup_.sent(),
                                reinterpret_cast<const std::uint8_t*>(setup_.books_dev.data()), store_,
                                reinterpret_cast<cuda::frame_result*>(encoded_.data()), order,
                                order == cuda::tail_order::free ? free_ws_.view() : canonical_ws_.view(), s);
}

status page_run::decode() {
  const auto* where =
      store_.overflow_dev == nullptr ? nullptr : reinterpret_cast<const cuda::frame_result*>(encoded_.data());
  return kv::decode_pages_async(codec_, setup_.target.pools(), setup_.received(), store_, where,
                                reinterpret_cast<cuda::frame_result*>(decoded_.data()), free_ws_.view(),
                                setup_.env.stream.get());
}

status page_run::round_trip(cuda::tail_order order) {
  TERSOR_CHECK(frames_.fill(kPagePoison));
  TERSOR_CHECK(encoded_.fill(0xff));
  TERSOR_CHECK(decoded_.fill(0xff));
  TERSOR_CHECK(setup_.target.poison());
  TERSOR_CHECK(encode(order));
  TERSOR_TRY(results_, good_results(setup_.env, encoded_, n_frames_, name_ + ": encode"));
  TERSOR_CHECK(decode());
  TERSOR_TRY([[maybe_unused]] const auto decoded,
             good_results(setup_.env, decoded_, n_frames_, name_ + ": decode"));
  return setup_.target.expect_pages(setup_.env.pool, setup_.content, setup_.from, setup_.to,
                                    name_ + ": decoded pages");
}

/// Frame f beside the CPU's of the same pages.
status page_run::check_frame(std::uint64_t f) {
  const bool gathered = kind_ == kv::page_frames::gathered;
  const std::uint64_t pool = gathered ? f : f / setup_.n_pages();
  const segment& part = setup_.gathered.segments[pool];
  std::vector<std::uint64_t> shape = {kPageTokens, kPageHeads, kPageDim};
  auto values = std::span(setup_.gathered.bytes).subspan(part.offset, part.n_bytes);
  if (gathered) {
    shape.insert(shape.begin(), setup_.n_pages());
  } else {
    const std::uint64_t page_bytes = part.n_bytes / setup_.n_pages();
    values = values.subspan(f % setup_.n_pages() * page_bytes, page_bytes);
  }
  const bool in_place = results_[f].overflow == cuda::kInPlace;
  const std::byte* frame =
      in_place ? frames_.data() + f * store_.frame_stride
               : overflow_.data() + results_[f].overflow * kv::raw_frame_bytes(setup_.source.pools().layout);
  return check_against_cpu(setup_.env, in_place ? codec_ : codec::raw,
                           {.type = dtype::bf16, .shape = shape, .data = values}, part.book, frame,
                           results_[f], name_ + ", frame " + std::to_string(f));
}

status page_run::check_frames() {
  constexpr std::uint64_t kSamples = 64;
  const std::uint64_t step = std::max<std::uint64_t>(1, n_frames_ / kSamples);
  std::uint64_t overflowed = 0;
  for (std::uint64_t f = 0; f < n_frames_; ++f) {
    const bool sample = kind_ == kv::page_frames::gathered ? f < 2 : f % step == 0;
    const bool early_overflow = results_[f].overflow != cuda::kInPlace && overflowed++ < kSamples;
    if (sample || early_overflow) TERSOR_CHECK(check_frame(f));
  }
  return {};
}

std::uint64_t page_run::sent_bytes() const {
  std::uint64_t total = 0;
  for (const auto& found : results_) {
    const bool in_place = found.overflow == cuda::kInPlace;
    if (kind_ == kv::page_frames::gathered) {
      total += found.frame_bytes;
    } else {
      total += store_.frame_stride + (in_place ? 0 : kv::raw_frame_bytes(setup_.source.pools().layout));
    }
  }
  return total;
}

result<gpu_page_row> page_run::measure(const gpu_row& contiguous) {
  const gpu_env& env = setup_.env;
  env.step("checking " + name_);
  TERSOR_CHECK(allocate());
  if (kind_ == kv::page_frames::slots) TERSOR_CHECK(choose_slots());
  TERSOR_CHECK(round_trip(cuda::tail_order::canonical));
  TERSOR_CHECK(check_frames());
  TERSOR_CHECK(round_trip(cuda::tail_order::free));
  env.step("timing " + name_);
  TERSOR_TRY(const double encode_us, device_us(env.stream, env.plan(), 1, [&](std::uint64_t) {
               return encode(cuda::tail_order::free);
             }));
  TERSOR_TRY(results_, good_results(env, encoded_, n_frames_, name_ + ": a timed encode"));
  TERSOR_CHECK(setup_.target.poison());
  TERSOR_TRY(const double decode_us,
             device_us(env.stream, env.plan(), 1, [&](std::uint64_t) { return decode(); }));
  TERSOR_TRY([[maybe_unused]] const auto decoded,
             good_results(env, decoded_, n_frames_, name_ + ": a timed decode"));
  TERSOR_CHECK(setup_.target.expect_pages(env.pool, setup_.content, setup_.from, setup_.to,
                                          name_ + ": pages after timing"));
  const std::uint64_t n_bytes = setup_.gathered.bytes.size();
  std::uint64_t frame_bytes = 0;
  for (const auto& found : results_) frame_bytes += found.frame_bytes;
  gpu_page_row row{.codec = std::string(to_string(codec_)),
                   .layout = setup_.layout,
                   .kind = kind_ == kv::page_frames::gathered ? "gathered" : "slots",
                   .data = setup_.content.data,
                   .pages = setup_.n_pages(),
                   .pools = setup_.n_pools(),
                   .n_bytes = n_bytes};
  row.slot_bytes = kind_ == kv::page_frames::slots ? store_.frame_stride : 0;
  row.overflow_pages = static_cast<std::uint64_t>(std::count_if(
      results_.begin(), results_.end(), [](const auto& r) { return r.overflow != cuda::kInPlace; }));
  row.ratio = static_cast<double>(n_bytes) / static_cast<double>(sent_bytes());
  row.encode_gb_s = gb_s(n_bytes, encode_us);
  row.decode_gb_s = gb_s(n_bytes, decode_us);
  row.encode_of_contiguous = row.encode_gb_s / contiguous.encode_gb_s;
  row.decode_of_contiguous = row.decode_gb_s / contiguous.decode_gb_s;
  row.encode_roofline = env.roofline(n_bytes + frame_bytes, encode_us);
  row.decode_roofline = env.roofline(n_bytes + frame_bytes, decode_us);
  return row;
}

result<cache_content> make_content(const gpu_env& env, const std::vector<bench_tensor>& tensors,
                                   const std::string& data_name, std::uint64_t n_pools) {
  cache_content content{.data = data_name, .values = {}};
  for (const bench_tensor& tensor : tensors) content.values.push_back(tensor.bytes);
  if (!content.values.empty()) return content;
  content.data = "row-scaled";
  const std::uint64_t rows = env.options.kv_tokens * kPageHeads;
  workload made = make_synthetic(env.pool, synthetic_kind::row_scaled, dtype::bf16, n_pools * rows, kPageDim);
  const std::uint64_t pool_bytes = made.bytes.size() / n_pools;
  for (std::uint64_t p = 0; p < n_pools; ++p) {
    const auto piece = std::span(made.bytes).subspan(p * pool_bytes, pool_bytes);
    content.values.emplace_back(piece.begin(), piece.end());
  }
  return content;
}

/// The exact codebooks as the GPU finds them through the page table, beside the host's.
status make_books(page_setup& setup, codec which) {
  const gpu_env& env = setup.env;
  gpu_workspace ws;
  TERSOR_CHECK(ws.allocate(kv::codebooks_workspace_size(setup.source.pools())));
  TERSOR_CHECK(setup.books_dev.fill(0xff));
  TERSOR_CHECK(kv::make_codebooks_async(which, setup.source.pools(), setup.sent(),
                                        reinterpret_cast<std::uint8_t*>(setup.books_dev.data()), ws.view(),
                                        env.stream.get()));
  TERSOR_CHECK(env.stream.wait());
  std::vector<codebook> got(setup.n_pools());
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(got)), setup.books_dev.data()));
  const std::ptrdiff_t n_symbols = which == codec::top16 ? 15 : 16;
  for (std::size_t p = 0; p < got.size(); ++p) {
    const segment& part = setup.gathered.segments[p];
    TERSOR_TRY(const histogram counts,
               count_symbols(env.cpu, dtype::bf16,
                             std::span(setup.gathered.bytes).subspan(part.offset, part.n_bytes)));
    TERSOR_TRY(codebook want, make_codebook(dtype::bf16, counts));
    if (!std::equal(want.symbols.begin(), want.symbols.begin() + n_symbols, got[p].symbols.begin())) {
      return fail(errc::internal,
                  "pages: the GPU's codebook of pool " + std::to_string(p) + " is not the CPU's");
    }
  }
  // What is timed takes the calibrated books, which are the exact ones unless another input gave them.
  for (std::size_t p = 0; p < got.size(); ++p) {
    got[p] = setup.gathered.segments[p].book;
    if (which == codec::top16) got[p].symbols.back() = 0;
  }
  return upload(setup.books_dev.data(), std::as_bytes(std::span(got)));
}

status measure_layout(page_setup& setup, const std::vector<gpu_row>& contiguous, gpu_bench_report& report) {
  for (std::size_t i = 0; i < setup.env.options.codecs.size(); ++i) {
    const codec which = setup.env.options.codecs[i];
    TERSOR_CHECK(make_books(setup, which));
    for (const auto kind : {kv::page_frames::gathered, kv::page_frames::slots}) {
      page_run run(setup, which, kind);
      TERSOR_TRY(gpu_page_row row, run.measure(contiguous[i]));
      report.pages.push_back(std::move(row));
    }
  }
  return {};
}

}  // namespace

status measure_pages(const gpu_env& env, const std::vector<bench_tensor>& tensors,
                     const std::string& data_name, gpu_bench_report& report) {
  const std::uint64_t n_pages = env.options.kv_tokens / kPageTokens;
  const std::uint64_t n_pools = 2 * std::uint64_t{env.options.kv_layers};
  const std::uint64_t n_blocks = 2 * n_pages;
  if (n_pages == 0 || n_pools == 0) return fail(errc::invalid_argument, "no pages to measure");
  env.step("preparing pages");
  TERSOR_TRY(const cache_content content, make_content(env, tensors, data_name, n_pools));
  const auto from = shuffled_ids(n_pages, n_blocks, 1), to = shuffled_ids(n_pages, n_blocks, 2);
  TERSOR_TRY(const workload gathered, gather(env, content, from, n_pools));
  std::vector<gpu_row> contiguous;
  for (const codec which : env.options.codecs) {
    TERSOR_TRY(gpu_row row, measure_row(env, which, gathered));
    contiguous.push_back(row);
    report.rows.push_back(std::move(row));
  }
  for (const auto& [order, name] : {std::pair{kv::pool_order::kv_blocks_nhd, "kv_blocks_nhd"},
                                    std::pair{kv::pool_order::blocks_kv_hnd, "blocks_kv_hnd"}}) {
    env.step(std::string("preparing pages, ") + name);
    TERSOR_TRY(paged_cache source, paged_cache::create(order, env.options.kv_layers, n_blocks));
    TERSOR_TRY(paged_cache target, paged_cache::create(order, env.options.kv_layers, n_blocks));
    TERSOR_CHECK(source.fill(env.pool, content));
    page_setup setup{.env = env,
                     .content = content,
                     .gathered = gathered,
                     .layout = name,
                     .source = std::move(source),
                     .target = std::move(target),
                     .from = from,
                     .to = to,
                     .from_dev = {},
                     .to_dev = {},
                     .books_dev = {}};
    TERSOR_TRY(setup.from_dev, device_buffer::allocate(from.size() * sizeof(std::int32_t)));
    TERSOR_TRY(setup.to_dev, device_buffer::allocate(to.size() * sizeof(std::int32_t)));
    TERSOR_TRY(setup.books_dev, device_buffer::allocate(n_pools * sizeof(codebook)));
    TERSOR_CHECK(upload(setup.from_dev.data(), std::as_bytes(std::span(from))));
    TERSOR_CHECK(upload(setup.to_dev.data(), std::as_bytes(std::span(to))));
    TERSOR_CHECK(measure_layout(setup, contiguous, report));
  }
  return {};
}

}  // namespace tersor::bench
