#include <array>

#include "codec/frame_codec.hpp"
#include "core/bytes.hpp"
#include "format/container_header.hpp"
#include "model/block_writer.hpp"
#include "model/container_text.hpp"
#include "model/file_jobs.hpp"

namespace tersor::model_detail {
namespace {

using safetensors::kLengthBytes;
using safetensors::tensor_entry;

constexpr std::uint64_t kPutBytes = std::uint64_t{64} << 20;

/// One compression: coded tensors first, then the stored ones, then the header before both.
class compression {
 public:
  compression(session& run, tensor_source& src, safetensors::header head)
      : run_(run),
        src_(src),
        head_(std::move(head)),
        selected_(head_.tensors.size()),
        coded_(head_.tensors.size()),
        entries_(head_.tensors.size()),
        digests_(head_.tensors.size()) {
    for (const tensor_entry& entry : head_.tensors) report_.tensors.push_back(stored_report(entry, 0));
  }

  result<file_report> write(safetensors::atomic_file* out) {
    for (std::size_t i = 0; i < head_.tensors.size(); ++i) selected_[i] = is_candidate(head_.tensors[i]);
    TERSOR_TRY(const std::uint64_t n_header, reserve_header(head_, selected_));
    const std::uint64_t data_at = kLengthBytes + n_header;
    block_writer writer(out, data_at);
    for (std::size_t i = 0; i < selected_.size(); ++i) {
      if (selected_[i]) TERSOR_CHECK(at_tensor(i, [&] { return try_coding(i, writer); }));
    }
    for (std::size_t i = 0; i < selected_.size(); ++i) {
      if (!coded_[i]) TERSOR_CHECK(at_tensor(i, [&] { return store(i, writer); }));
    }
    TERSOR_CHECK(writer.finish());
    TERSOR_TRY(const std::string text, container_text(run_.ctx(), head_, entries_, digests_, n_header));
    if (out != nullptr) TERSOR_CHECK(write_header(*out, text));
    TERSOR_CHECK(run_.advance(head_.data_offset()));
    report_.is_safetensors = true;
    report_.is_compressed = true;
    report_.original_bytes = head_.data_offset() + head_.data_bytes;
    report_.stored_bytes = data_at + writer.n_taken();
    return std::move(report_);
  }

 private:
  [[nodiscard]] bool is_candidate(const tensor_entry& entry) const {
    const auto type = parse_dtype(entry.dtype);
    return type && is_codable(*type) && entry.end > entry.begin &&
           (run_.options().codec != codec::raw || is_packable(entry)) && run_.is_selected(entry.name);
  }

  /// A matrix that is large enough and of a dtype that the layout takes.
  [[nodiscard]] bool is_packable(const tensor_entry& entry) const {
    const auto type = parse_dtype(entry.dtype);
    const auto& packing = run_.options().packing;
    return packing && type && entry.shape.size() == 2 && entry.shape[0] >= kMinPackedSide &&
           entry.shape[1] >= kMinPackedSide &&
           pack_bound(*type, entry.shape[0], entry.shape[1], *packing) != 0;
  }

  template <class Body>
  status at_tensor(std::size_t i, Body&& body) {
    const tensor_entry& entry = head_.tensors[i];
    status done = body();
    src_.release(entry);
    if (done) return done;
    error e = std::move(done).error();
    e.tensor = entry.name;
    return tl::unexpected<error>(std::move(e));
  }

  /// Codes a tensor; one that would not be smaller is left to the second pass.
  status try_coding(std::size_t i, block_writer& writer) {
    TERSOR_CHECK(run_.advance(0));
    const tensor_entry& entry = head_.tensors[i];
    TERSOR_TRY(const auto bytes, src_.bytes_of(entry));
    if (is_packable(entry)) TERSOR_CHECK(try_matrix(i, bytes, writer));
    if (coded_[i] || run_.options().codec == codec::raw) return {};
    return try_frame(i, bytes, writer);
  }

  status try_matrix(std::size_t i, std::span<const std::byte> bytes, block_writer& writer) {
    const tensor_entry& entry = head_.tensors[i];
    const matrix_view view{
        .type = *parse_dtype(entry.dtype), .rows = entry.shape[0], .cols = entry.shape[1], .data = bytes};
    // Room for a matrix that pays, and no more: one that does not fit stays as it is.
    TERSOR_TRY(const std::span<std::byte> to, writer.room(bytes.size()));
    auto size = pack_into(run_.ctx(), view, to.first(bytes.size() - 1), *run_.options().packing);
    if (!size && size.error().code == errc::destination_too_small) return {};
    if (!size) return tl::unexpected<error>(std::move(size).error());
    TERSOR_TRY(const matrix_info info, inspect_packed(to));
    return take_coded(i, *size, info.digest, {.matrix = info}, writer);
  }

  status try_frame(std::size_t i, std::span<const std::byte> bytes, block_writer& writer) {
    const tensor_entry& entry = head_.tensors[i];
    const dtype type = *parse_dtype(entry.dtype);
    const encode_options options{.codec = run_.options().codec,
                                 .book = run_.options().books.find(entry.name, type),
                                 .raw_fallback = false};
    const std::uint64_t bound = encode_bound(options.codec, type, bytes.size() / value_bytes(type));
    if (bound == 0) return fail(errc::size_overflow, "tensor size leaves 64 bits");
    TERSOR_TRY(const std::span<std::byte> to, writer.room(bound));
    TERSOR_TRY(const std::uint64_t n_frame,
               encode_into(run_.ctx(), {.type = type, .shape = entry.shape, .data = bytes}, to, options));
    if (n_frame >= bytes.size()) return {};
    TERSOR_TRY(const frame_info info, inspect(to.first(static_cast<std::size_t>(n_frame))));
    return take_coded(i, n_frame, info.digest, {.frame = info}, writer);
  }

  /// Notes a coded tensor that stands in the writer's room.
  status take_coded(std::size_t i, std::uint64_t n_bytes, std::uint64_t digest, const coded_info& info,
                    block_writer& writer) {
    const tensor_entry& entry = head_.tensors[i];
    coded_[i] = true;
    entries_[i] = frame_entry(entry.name, writer.n_taken(), n_bytes);
    digests_[i] = digest;
    report_.tensors[i] = coded_report(entry, info);
    TERSOR_CHECK(writer.take(n_bytes));
    return run_.advance(entry.end - entry.begin);
  }

  status store(std::size_t i, block_writer& writer) {
    const tensor_entry& entry = head_.tensors[i];
    TERSOR_TRY(auto bytes, src_.bytes_of(entry));
    digests_[i] = digest_bytes(run_.ctx(), format::kStoredDigestDomain, bytes);
    report_.tensors[i].digest = digests_[i];
    entries_[i] = entry;
    entries_[i].begin = writer.n_taken();
    entries_[i].end = entries_[i].begin + bytes.size();
    TERSOR_CHECK(run_.advance(0));
    while (!bytes.empty()) {
      const auto part = bytes.first(std::min<std::size_t>(bytes.size(), kPutBytes));
      TERSOR_CHECK(writer.put(part));
      TERSOR_CHECK(run_.advance(part.size()));
      bytes = bytes.subspan(part.size());
    }
    return {};
  }

  static status write_header(safetensors::atomic_file& out, const std::string& text) {
    std::array<std::byte, kLengthBytes> length{};
    core::store_le<std::uint64_t>(length.data(), text.size());
    TERSOR_CHECK(out.write_at(0, length));
    return out.write_at(kLengthBytes, std::as_bytes(std::span(text)));
  }

  session& run_;
  tensor_source& src_;
  safetensors::header head_;
  std::vector<bool> selected_;
  std::vector<bool> coded_;
  std::vector<tensor_entry> entries_;
  std::vector<std::uint64_t> digests_;
  file_report report_ = {};
};

}  // namespace

result<file_report> compress_file(session& run, const safetensors::input_file& src,
                                  safetensors::atomic_file* out) {
  auto written = [&]() -> result<file_report> {
    TERSOR_TRY(safetensors::header head, safetensors::read_header(src));
    if (is_container(head)) return fail(errc::wrong_kind, "the file is compressed already");
    file_source source(src, head.data_offset());
    return compression(run, source, std::move(head)).write(out);
  }();
  if (written) return written;
  error e = std::move(written).error();
  if (e.file.empty()) e.file = src.path().string();
  return tl::unexpected<error>(std::move(e));
}

result<file_report> compress_tensors(session& run, const safetensors::header& head, tensor_source& src,
                                     safetensors::atomic_file* out) {
  return compression(run, src, head).write(out);
}

}  // namespace tersor::model_detail
