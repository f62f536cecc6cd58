// The C ABI over the C++ API: translates types and errors, catches everything.
#include <algorithm>
#include <array>
#include <utility>

#include "c_api/call.hpp"
#include "c_api/handle.hpp"
#include <tersor/tersor.h>
#include <tersor/tersor.hpp>

namespace {

using tersor::errc;
using tersor::c_api::require;
using tersor::c_api::run;
using tersor::c_api::to_codec;
using tersor::c_api::to_dtype;
using tersor::c_api::to_span;

/// Fixed storage, so that reporting an out-of-memory needs no memory.
struct message_buffer {
  std::array<char, 512> text = {};
  void set(std::string_view message) noexcept {
    const std::size_t n = std::min(message.size(), text.size() - 1);
    std::copy_n(message.begin(), n, text.begin());
    text[n] = '\0';
  }
};
thread_local message_buffer last_message;

}  // namespace

namespace tersor::c_api {

std::int32_t report(errc code, std::string_view message) noexcept {
  last_message.set(message);
  return static_cast<std::int32_t>(code);
}

result<dtype> to_dtype(std::int32_t id) {
  if (id < TERSOR_BYTES || id > TERSOR_F64) return fail(errc::invalid_argument, "unknown dtype number");
  return static_cast<dtype>(id);
}

result<codec> to_codec(std::int32_t id) {
  if (id < TERSOR_CODEC_RAW || id > TERSOR_CODEC_RANK) {
    return fail(errc::invalid_argument, "unknown codec number");
  }
  return static_cast<codec>(id);
}

result<std::span<const std::byte>> to_span(const void* data, std::uint64_t n_bytes) {
  if (data == nullptr && n_bytes != 0) return fail(errc::invalid_argument, "null pointer with a size");
  return std::span<const std::byte>(static_cast<const std::byte*>(data), n_bytes);
}

result<std::span<std::byte>> to_span(void* data, std::uint64_t n_bytes) {
  if (data == nullptr && n_bytes != 0) return fail(errc::invalid_argument, "null pointer with a size");
  return std::span<std::byte>(static_cast<std::byte*>(data), n_bytes);
}

}  // namespace tersor::c_api

extern "C" {

const char* tersor_version(void) {
  return tersor::kVersion.data();
}

const char* tersor_error_name(std::int32_t code) {
  return tersor::to_string(static_cast<errc>(code)).data();
}

const char* tersor_last_message(void) {
  return last_message.text.data();
}

std::int32_t tersor_context_create(std::uint32_t threads, const char* backend, tersor_context** out) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(out));
    *out = nullptr;
    TERSOR_TRY(tersor::context ctx, tersor::context::create(threads, backend == nullptr ? "" : backend));
    *out = new tersor_context{std::move(ctx)};
    return {};
  });
}

void tersor_context_destroy(tersor_context* ctx) {
  delete ctx;
}

std::uint32_t tersor_context_threads(const tersor_context* ctx) {
  return ctx == nullptr ? 0 : ctx->ctx.threads();
}

const char* tersor_context_backend(const tersor_context* ctx) {
  return ctx == nullptr ? "" : ctx->ctx.backend().data();
}

std::uint64_t tersor_encode_bound(std::int32_t codec, std::int32_t dtype, std::uint64_t n_values) {
  const auto c = to_codec(codec);
  const auto type = to_dtype(dtype);
  return c && type ? tersor::encode_bound(*c, *type, n_values) : 0;
}

std::int32_t tersor_calibrate(const tersor_context* ctx, std::int32_t dtype, const void* data,
                              std::uint64_t n_bytes, std::uint8_t codebook[16]) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, codebook));
    TERSOR_TRY(const auto type, to_dtype(dtype));
    TERSOR_TRY(const auto bytes, to_span(data, n_bytes));
    TERSOR_TRY(const auto counts, tersor::count_symbols(type, bytes));
    TERSOR_TRY(const auto book, tersor::make_codebook(type, counts));
    std::ranges::copy(book.symbols, codebook);
    return {};
  });
}

std::int32_t tersor_encode(const tersor_context* ctx, std::int32_t codec, std::int32_t dtype,
                           const std::uint64_t* shape, std::uint32_t rank, const void* data,
                           std::uint64_t n_bytes, const std::uint8_t* codebook, void* dst,
                           std::uint64_t dst_bytes, std::uint64_t* frame_bytes) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, frame_bytes));
    if (shape == nullptr && rank != 0) return tersor::fail(errc::invalid_argument, "null shape");
    tersor::encode_options options;
    TERSOR_TRY(options.codec, to_codec(codec));
    if (codebook != nullptr) {
      options.book.emplace();
      std::copy_n(codebook, options.book->symbols.size(), options.book->symbols.begin());
    }
    tersor::tensor_view view{.shape = {shape, rank}};
    TERSOR_TRY(view.type, to_dtype(dtype));
    TERSOR_TRY(view.data, to_span(data, n_bytes));
    TERSOR_TRY(const auto out, to_span(dst, dst_bytes));
    TERSOR_TRY(*frame_bytes, tersor::encode_into(ctx->ctx, view, out, options));
    return {};
  });
}

std::int32_t tersor_inspect(const void* frame, std::uint64_t n_bytes, tersor_frame_info* info) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(info));
    TERSOR_TRY(const auto bytes, to_span(frame, n_bytes));
    TERSOR_TRY(const auto found, tersor::inspect(bytes));
    *info = {};
    info->codec = static_cast<std::int32_t>(found.codec);
    info->dtype = static_cast<std::int32_t>(found.type);
    info->n_dims = static_cast<std::uint32_t>(found.shape.size());
    std::ranges::copy(found.shape, info->shape);
    info->n_values = found.n_values;
    info->decoded_bytes = found.decoded_bytes;
    info->frame_bytes = found.frame_bytes;
    info->n_chunks = found.n_chunks;
    info->digest = found.digest;
    std::ranges::copy(found.book.symbols, info->codebook);
    return {};
  });
}

std::int32_t tersor_decode(const tersor_context* ctx, const void* frame, std::uint64_t n_bytes, void* dst,
                           std::uint64_t dst_bytes, std::uint64_t* decoded_bytes) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, decoded_bytes));
    TERSOR_TRY(const auto bytes, to_span(frame, n_bytes));
    TERSOR_TRY(const auto out, to_span(dst, dst_bytes));
    TERSOR_TRY(*decoded_bytes, tersor::decode_into(ctx->ctx, bytes, out));
    return {};
  });
}

std::int32_t tersor_decode_chunks(const tersor_context* ctx, const void* frame, std::uint64_t n_bytes,
                                  std::uint64_t first, std::uint64_t count, void* dst,
                                  std::uint64_t dst_bytes, std::uint64_t* decoded_bytes) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, decoded_bytes));
    TERSOR_TRY(const auto bytes, to_span(frame, n_bytes));
    TERSOR_TRY(const auto out, to_span(dst, dst_bytes));
    TERSOR_TRY(*decoded_bytes, tersor::decode_chunks(ctx->ctx, bytes, first, count, out));
    return {};
  });
}

std::int32_t tersor_compress_model(const tersor_context* ctx, std::int32_t codec, const char* src,
                                   const char* dst, std::int32_t overwrite) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, src, dst));
    tersor::model_options options;
    TERSOR_TRY(options.codec, to_codec(codec));
    options.overwrite = overwrite != 0;
    TERSOR_TRY(const auto report, tersor::compress(ctx->ctx, src, dst, options));
    static_cast<void>(report);
    return {};
  });
}

std::int32_t tersor_decompress_model(const tersor_context* ctx, const char* src, const char* dst,
                                     std::int32_t overwrite) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, src, dst));
    tersor::model_options options;
    options.overwrite = overwrite != 0;
    TERSOR_TRY(const auto report, tersor::decompress(ctx->ctx, src, dst, options));
    static_cast<void>(report);
    return {};
  });
}

std::int32_t tersor_verify_model(const tersor_context* ctx, const char* src, const char* against) {
  return run([&]() -> tersor::status {
    TERSOR_CHECK(require(ctx, src));
    std::optional<std::filesystem::path> original;
    if (against != nullptr) original = against;
    TERSOR_TRY(const auto report, tersor::verify(ctx->ctx, src, original));
    static_cast<void>(report);
    return {};
  });
}

}  // extern "C"
