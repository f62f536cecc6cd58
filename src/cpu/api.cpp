// The public codec calls: argument checks, then the frame algorithm on the context's backend and threads.
#include "core/checked.hpp"
#include "cpu/backends.hpp"
#include "cpu/context_impl.hpp"
#include <tersor/codec.hpp>

namespace tersor {
namespace {

using codec_detail::engine;
using cpu::as_u8;
using cpu::engine_of;
using cpu::guarded;

result<std::uint64_t> checked_values(const tensor_view& src) {
  std::uint64_t product = 1;
  for (const std::uint64_t dim : src.shape) {
    const auto next = core::checked_mul(product, dim);
    if (!next) return fail(errc::size_overflow, "product of the shape leaves 64 bits");
    product = *next;
  }
  const auto bytes = core::checked_mul(product, value_bytes(src.type));
  if (!bytes || *bytes != src.data.size()) {
    return fail(errc::invalid_argument,
                "shape and dtype do not give " + std::to_string(src.data.size()) + " bytes");
  }
  return product;
}

result<std::uint64_t> encode_checked(const context& ctx, const tensor_view& src, std::span<std::byte> dst,
                                     const encode_options& options) {
  TERSOR_TRY(const std::uint64_t n_values, checked_values(src));
  const bool coded = options.codec != codec::raw && is_codable(src.type);
  if (options.codec != codec::raw && !coded && !options.raw_fallback) {
    return fail(errc::unsupported, std::string(to_string(src.type)) + " has no exponent to code");
  }
  const std::uint64_t bound = encode_bound(options.codec, src.type, n_values);
  if (bound == 0) return fail(errc::size_overflow, "tensor size leaves 64 bits");
  if (dst.size() < bound) {
    return fail(errc::destination_too_small, "destination has " + std::to_string(dst.size()) + " bytes, " +
                                                 std::to_string(bound) + " may be needed");
  }
  const engine e = engine_of(ctx);
  if (!coded) return codec_detail::encode_raw(e, src, as_u8(dst));
  codebook book;
  if (options.book) {
    book = *options.book;
  } else {
    TERSOR_TRY(book, make_codebook(src.type, codec_detail::count_all(e, src.type, as_u8(src.data))));
  }
  TERSOR_TRY(const std::uint64_t size, codec_detail::encode_coded(e, options.codec, src, book, as_u8(dst)));
  if (options.raw_fallback && size >= encode_bound(codec::raw, src.type, n_values)) {
    return codec_detail::encode_raw(e, src, as_u8(dst));
  }
  return size;
}

result<histogram> count_checked(const engine& e, dtype type, std::span<const std::byte> data) {
  if (!is_codable(type))
    return fail(errc::unsupported, std::string(to_string(type)) + " has no exponent to code");
  if (data.size() % value_bytes(type) != 0) return fail(errc::invalid_argument, "bytes are not whole values");
  return codec_detail::count_all(e, type, as_u8(data));
}

frame_info info_of(const codec_detail::open_frame& frame) {
  frame_info info;
  info.codec = frame.codec;
  info.type = frame.type;
  info.shape.assign(frame.header.shape.begin(), frame.header.shape.begin() + frame.header.n_dims);
  info.n_values = frame.header.n_values;
  info.decoded_bytes = frame.decoded_bytes;
  info.frame_bytes = frame.layout.frame_bytes;
  info.digest = frame.header.header_digest;
  info.book.symbols = frame.header.codebook;
  info.n_chunks = frame.layout.n_chunks;
  info.tail_words = frame.header.tail_words;
  if (frame.codec == codec::raw) return info;
  for (std::uint64_t chunk = 0; chunk < info.n_chunks; ++chunk) {
    const auto record =
        format::read_chunk_record(frame.base + frame.layout.index + chunk * format::kChunkRecordBytes);
    info.raw_tiles += static_cast<std::uint64_t>(std::popcount(record.raw));
    info.escape_tiles += static_cast<std::uint64_t>(std::popcount(record.escapes));
  }
  return info;
}

}  // namespace

context::context(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
context::context(context&&) noexcept = default;
context& context::operator=(context&&) noexcept = default;
context::~context() = default;

result<context> context::create(unsigned threads, std::string_view backend) {
  return guarded([&]() -> result<context> {
    constexpr unsigned kMaxThreads = 1024;
    if (threads > kMaxThreads) return fail(errc::invalid_argument, "more than 1024 threads");
    TERSOR_TRY(const codec_detail::tile_ops* ops, cpu::choose_backend(backend));
    return context(std::make_unique<impl>(ops, threads == 0 ? core::usable_cores() : threads));
  });
}

unsigned context::threads() const noexcept {
  return impl_->pool.size();
}

std::string_view context::backend() const noexcept {
  return impl_->ops->name;
}

std::vector<backend_info> backends() {
  std::vector<backend_info> list;
  const auto chosen = cpu::choose_backend({});
  for (const cpu::backend& candidate : cpu::all_backends()) {
    backend_info info{.name = candidate.ops->name, .supported = candidate.supported, .reason = {}};
    info.chosen = chosen && *chosen == candidate.ops;
    const std::string needs = std::string("needs ") + candidate.needs;
    info.reason = !candidate.supported ? needs + ", which this CPU lacks"
                  : info.chosen        ? needs + "; the fastest this CPU runs, or forced by TERSOR_BACKEND"
                                       : needs + "; a faster one is chosen, or TERSOR_BACKEND forces another";
    list.push_back(std::move(info));
  }
  return list;
}

std::uint64_t encode_bound(codec c, dtype type, std::uint64_t n_values) noexcept {
  const auto size_of = [&](codec which) -> std::uint64_t {
    std::uint64_t tail_words = 0;
    if (which != codec::raw) {
      const auto plan = codec_detail::make_plan(which, codec_detail::find_planes(type)->symbol_bits);
      const auto words =
          core::checked_mul(core::ceil_div(n_values, codec_detail::kTileValues), plan.raw_words());
      if (!words) return 0;
      tail_words = *words;
    }
    const auto layout =
        format::make_layout(codec_detail::plane_sizes_of(which, type, n_values), n_values, tail_words);
    return layout ? layout->frame_bytes : 0;
  };
  const std::uint64_t raw = size_of(codec::raw);
  if (raw == 0 || c == codec::raw || !is_codable(type)) return raw;
  const std::uint64_t coded = size_of(c);
  return coded == 0 ? 0 : std::max(raw, coded);
}

result<histogram> count_symbols(dtype type, std::span<const std::byte> data) {
  return guarded([&]() -> result<histogram> {
    TERSOR_TRY(const codec_detail::tile_ops* ops, cpu::choose_backend({}));
    core::thread_pool pool(1);
    return count_checked(engine{.ops = ops, .pool = &pool}, type, data);
  });
}

result<histogram> count_symbols(const context& ctx, dtype type, std::span<const std::byte> data) {
  return guarded([&] { return count_checked(engine_of(ctx), type, data); });
}

result<std::uint64_t> encode_into(const context& ctx, const tensor_view& src, std::span<std::byte> dst,
                                  const encode_options& options) {
  return guarded([&] { return encode_checked(ctx, src, dst, options); });
}

result<std::vector<std::byte>> encode(const context& ctx, const tensor_view& src,
                                      const encode_options& options) {
  return guarded([&]() -> result<std::vector<std::byte>> {
    TERSOR_TRY(const std::uint64_t n_values, checked_values(src));
    std::vector<std::byte> frame(encode_bound(options.codec, src.type, n_values));
    TERSOR_TRY(const std::uint64_t size, encode_checked(ctx, src, frame, options));
    frame.resize(size);
    return frame;
  });
}

result<frame_info> inspect(std::span<const std::byte> frame) {
  return guarded([&]() -> result<frame_info> {
    TERSOR_TRY(const auto opened, codec_detail::open(as_u8(frame), false));
    return info_of(opened);
  });
}

result<std::uint64_t> decode_into(const context& ctx, std::span<const std::byte> frame,
                                  std::span<std::byte> dst) {
  return guarded([&]() -> result<std::uint64_t> {
    const engine e = engine_of(ctx);
    TERSOR_TRY(const auto opened, codec_detail::open(as_u8(frame), true));
    if (dst.size() < opened.decoded_bytes) {
      return fail(errc::destination_too_small, "destination has " + std::to_string(dst.size()) +
                                                   " bytes, the tensor " +
                                                   std::to_string(opened.decoded_bytes));
    }
    TERSOR_CHECK(codec_detail::decode_range(e, opened, 0, opened.layout.n_chunks, as_u8(dst).data()));
    return opened.decoded_bytes;
  });
}

status compare_digests(const context& ctx, std::span<const std::byte> frame,
                       std::span<const std::byte> decoded) {
  return guarded([&]() -> status {
    TERSOR_TRY(const auto opened, codec_detail::open(as_u8(frame), true));
    if (decoded.size() != opened.decoded_bytes) {
      return fail(errc::invalid_argument, "the frame decodes to " + std::to_string(opened.decoded_bytes) +
                                              " bytes, not " + std::to_string(decoded.size()));
    }
    return codec_detail::compare_chunks(engine_of(ctx), opened, as_u8(decoded).data());
  });
}

result<tensor> decode(const context& ctx, std::span<const std::byte> frame) {
  return guarded([&]() -> result<tensor> {
    const engine e = engine_of(ctx);
    TERSOR_TRY(const auto opened, codec_detail::open(as_u8(frame), true));
    frame_info info = info_of(opened);
    tensor out{.type = info.type,
               .shape = std::move(info.shape),
               .data = std::vector<std::byte>(opened.decoded_bytes)};
    TERSOR_CHECK(codec_detail::decode_range(e, opened, 0, opened.layout.n_chunks,
                                            reinterpret_cast<std::uint8_t*>(out.data.data())));
    return out;
  });
}

result<std::uint64_t> decode_chunks(const context& ctx, std::span<const std::byte> frame, std::uint64_t first,
                                    std::uint64_t count, std::span<std::byte> dst) {
  return guarded([&]() -> result<std::uint64_t> {
    const engine e = engine_of(ctx);
    TERSOR_TRY(const auto opened, codec_detail::open(as_u8(frame), false));
    if (first > opened.layout.n_chunks || count > opened.layout.n_chunks - first) {
      return fail(errc::invalid_argument,
                  "the frame has " + std::to_string(opened.layout.n_chunks) + " chunks");
    }
    const std::uint64_t chunk_bytes =
        opened.codec == codec::raw ? codec_detail::kRawChunkBytes
                                   : std::uint64_t{codec_detail::kChunkValues} * value_bytes(opened.type);
    const std::uint64_t begin = std::min(first * chunk_bytes, opened.decoded_bytes);
    const std::uint64_t bytes = std::min((first + count) * chunk_bytes, opened.decoded_bytes) - begin;
    if (dst.size() < bytes) {
      return fail(errc::destination_too_small, "the chunks hold " + std::to_string(bytes) + " bytes");
    }
    TERSOR_CHECK(codec_detail::decode_range(e, opened, first, count, as_u8(dst).data()));
    return bytes;
  });
}

std::uint64_t digest_bytes(const context& ctx, std::uint8_t domain, std::span<const std::byte> data) {
  return codec_detail::digest_of(*ctx.get().ops, as_u8(data),
                                 static_cast<codec_detail::digest_domain>(domain));
}

}  // namespace tersor
