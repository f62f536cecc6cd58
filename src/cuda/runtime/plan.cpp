#include "cuda/runtime/plan.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "codec/frame_codec.hpp"
#include "core/bytes.hpp"
#include "core/checked.hpp"
#include "cuda/kv/bounds.hpp"

namespace tersor::cuda {
namespace {

constexpr std::uint64_t kMaxValues = std::uint64_t{1} << 42;
/// Large launches have this many times the CTAs that run at once, so that those that end early make room for
/// others.
constexpr std::uint64_t kWaves = 4;
/// Chunks for each CTA that runs at once from which on a launch is large.
constexpr std::uint64_t kManyTurns = 16;

result<std::uint64_t> product_of(std::span<const std::uint64_t> shape) {
  std::uint64_t product = 1;
  for (const std::uint64_t dim : shape) {
    const auto next = core::checked_mul(product, dim);
    if (!next) return fail(errc::size_overflow, "product of the shape leaves 64 bits");
    product = *next;
  }
  return product;
}

void fill_header(frame_plan& plan, codec c, dtype type, std::span<const std::uint64_t> shape,
                 std::uint64_t n_values) {
  format::frame_header header;
  header.codec = static_cast<std::uint8_t>(c);
  header.dtype = static_cast<std::uint8_t>(type);
  header.level_widths =
      codec_detail::pack_widths(codec_detail::make_plan(c, codec_detail::find_planes(type)->symbol_bits));
  header.n_values = n_values;
  if (shape.size() > format::kMaxDims) {
    header.n_dims = 1;
    header.shape[0] = n_values;
  } else {
    header.n_dims = static_cast<std::uint8_t>(shape.size());
    std::ranges::copy(shape, header.shape.begin());
  }
  std::array<std::uint8_t, format::kFrameHeaderBytes> bytes = {};
  format::write_frame_header(header, bytes);
  for (std::size_t i = 0; i < kHeaderWords; ++i)
    plan.header[i] = core::load_le<std::uint64_t>(bytes.data() + 8 * i);
}

}  // namespace

result<frame_plan> plan_frame(codec c, dtype type, std::span<const std::uint64_t> shape,
                              std::uint64_t n_bytes) {
  if (!is_gpu_codec(c) || !is_gpu_dtype(type)) {
    return fail(errc::unsupported, "the GPU codes bf16, f16, f8_e4m3 and f8_e5m2 with rank and top16");
  }
  TERSOR_TRY(const std::uint64_t n_values, product_of(shape));
  if (n_values > kMaxValues) return fail(errc::unsupported, "more than 2^42 values in one frame");
  const auto worst = largest_layout(c, type, n_values);
  if (!worst) return fail(errc::size_overflow, "tensor size leaves 64 bits");
  frame_plan plan;
  frame_shape& s = plan.shape;
  s.rest = worst->byte_planes[0];
  s.fields[0] = worst->field_planes[0];
  s.fields[1] = worst->field_planes[1];
  s.code = worst->code_plane;
  s.tails = worst->tails;
  s.n_bytes = n_bytes & ~std::uint64_t{3};
  s.n_values = n_values;
  s.n_tiles = static_cast<std::uint32_t>(worst->n_tiles);
  s.n_chunks = static_cast<std::uint32_t>(worst->n_chunks);
  s.last_values =
      n_values == 0 ? 0 : static_cast<std::uint32_t>((n_values - 1) % codec_detail::kTileValues + 1);
  plan.worst_tail_words = (worst->tails_end - worst->tails) / 4;
  fill_header(plan, c, type, shape, n_values);
  return plan;
}

void share_ctas(tensor_launch& launch, std::uint64_t at_once) {
  std::uint64_t chunks = 0;
  for (std::uint32_t g = 0; g < launch.n_groups; ++g) chunks += launch.groups[g].shape.n_chunks;
  // Never a few CTAs more than run at once: those few would take as long again.
  const bool many = chunks >= kManyTurns * at_once;
  launch.first_cta[0] = 0;
  for (std::uint32_t g = 0; g < launch.n_groups; ++g) {
    const std::uint64_t mine = launch.groups[g].shape.n_chunks;
    const std::uint64_t share = many ? core::ceil_div(kWaves * at_once * mine, chunks)
                                     : at_once * mine / std::max<std::uint64_t>(chunks, 1);
    launch.first_cta[g + 1] = launch.first_cta[g] + static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
                                                        share, 1, std::max<std::uint64_t>(mine, 1)));
  }
}

std::uint32_t ctas_of_group(std::uint64_t at_once, std::uint32_t n_groups, std::uint64_t chunks) noexcept {
  const bool many = n_groups * chunks >= kManyTurns * at_once;
  const std::uint64_t share = many ? core::ceil_div(kWaves * at_once, n_groups) : at_once / n_groups;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, 1, chunks));
}

order_scratch place_order_scratch(std::span<const frame_plan> plans, std::byte* scratch,
                                  tensor_launch* launch) noexcept {
  constexpr std::uint64_t kAlignment = 128;
  order_scratch sizes;
  for (std::size_t g = 0; g < plans.size(); ++g) {
    if (launch != nullptr) launch->order_words[g] = reinterpret_cast<std::uint32_t*>(scratch + sizes.n_bytes);
    sizes.n_bytes += core::align_up(4 * core::ceil_div(plans[g].shape.n_chunks, kOrderChunks), kAlignment);
  }
  sizes.cleared_bytes = sizes.n_bytes;
  for (std::size_t g = 0; g < plans.size(); ++g) {
    if (launch != nullptr) launch->waiting[g] = reinterpret_cast<std::uint32_t*>(scratch + sizes.n_bytes);
    sizes.n_bytes += core::align_up(4 * plans[g].worst_tail_words, kAlignment);
  }
  return sizes;
}

divider make_divider(std::uint32_t divisor) noexcept {
  if (divisor <= 1) return {.divisor = 1, .factor = 0, .shift = 0};
  // ceil(2^(31 + bits) / divisor) fits 32 bits and is exact for numbers below 2^31.
  const auto bits = static_cast<std::uint32_t>(std::bit_width(divisor - 1));
  const std::uint64_t factor = core::ceil_div(std::uint64_t{1} << (31 + bits), divisor);
  return {.divisor = divisor, .factor = static_cast<std::uint32_t>(factor), .shift = bits - 1};
}

result<page_geometry> plan_pages(const kv::page_layout& layout, std::uint64_t frame_values,
                                 std::span<void* const> pools) {
  const std::uint64_t bytes = value_bytes(layout.type);
  page_geometry g;
  const auto values = core::checked_mul(std::uint64_t{layout.block_size} * layout.kv_heads, layout.head_dim);
  if (!values || *values == 0 || *values >= (std::uint64_t{1} << 31)) {
    return fail(errc::invalid_argument, "a page has between 1 and 2^31 - 1 values");
  }
  if (layout.n_blocks == 0 || layout.n_blocks > 0x7fffffff) {
    return fail(errc::invalid_argument, "a pool has between 1 and 2^31 - 1 pages");
  }
  g.page_stride = layout.page_stride * bytes;
  g.token_stride = layout.token_stride * bytes;
  g.head_stride = layout.head_stride * bytes;
  g.value_stride = layout.value_stride * bytes;
  g.page_values = static_cast<std::uint32_t>(*values);
  g.n_blocks = static_cast<std::uint32_t>(layout.n_blocks);
  const std::uint64_t eight = 8 * bytes;
  g.in_eights = layout.value_stride == 1 && layout.head_dim % 8 == 0 && g.page_stride % eight == 0 &&
                g.token_stride % eight == 0 && g.head_stride % eight == 0;
  for (const void* pool : pools)
    g.in_eights = g.in_eights && reinterpret_cast<std::uintptr_t>(pool) % eight == 0;
  g.tile_in_page = *values % codec_detail::kTileValues == 0;
  const bool together = layout.head_stride == layout.head_dim &&
                        layout.token_stride == std::uint64_t{layout.kv_heads} * layout.head_dim;
  g.whole_tiles = g.in_eights &&
                  (together || (layout.kv_heads == 1 && layout.token_stride == layout.head_dim)) &&
                  g.tile_in_page && g.page_stride % 16 == 0;
  for (const void* pool : pools)
    g.whole_tiles = g.whole_tiles && reinterpret_cast<std::uintptr_t>(pool) % 16 == 0;
  const std::uint32_t unit = g.in_eights ? 8 : 1;
  if (frame_values / unit >= (std::uint64_t{1} << 31)) {
    return fail(errc::unsupported, "more values in one frame of pages than its addresses count");
  }
  g.by_page = make_divider(g.page_values / unit);
  g.by_dim = make_divider(layout.head_dim / unit);
  g.by_heads = make_divider(layout.kv_heads);
  return g;
}

}  // namespace tersor::cuda
