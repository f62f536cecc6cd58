// Tensors in memory to a file: the header that the safetensors library would write, then compression.
#include <algorithm>
#include <array>

#include "core/checked.hpp"
#include "cpu/context_impl.hpp"
#include "model/file_jobs.hpp"
#include "safetensors/writer.hpp"
#include <tersor/tensor_file.hpp>

namespace tersor {
namespace {

using namespace model_detail;
using cpu::guarded;
using safetensors::atomic_file;
using safetensors::header;
using safetensors::tensor_entry;

constexpr std::uint64_t kHeaderAlignment = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

/// The order in which the safetensors library writes: widest first.
constexpr std::array<std::string_view, 22> kDtypeOrder = {
    "U64", "I64", "F64",     "C64",         "F32",         "U32",     "I32",     "BF16",
    "F16", "U16", "I16",     "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2",
    "I8",  "U8",  "F6_E3M2", "F6_E2M3",     "F4",          "BOOL"};

std::size_t rank_of(std::string_view dtype) noexcept {
  return static_cast<std::size_t>(std::ranges::find(kDtypeOrder, dtype) - kDtypeOrder.begin());
}

tl::unexpected<error> fail_tensor(errc code, std::string message, const std::string& name) {
  return tl::unexpected<error>(error{.code = code, .message = std::move(message), .tensor = name});
}

/// The tensors in the order of the file, with their places.
result<std::vector<tensor_entry>> lay_out(std::span<const named_tensor> tensors) {
  std::vector<const named_tensor*> order;
  for (const named_tensor& tensor : tensors) {
    if (rank_of(tensor.dtype) == kDtypeOrder.size())
      return fail_tensor(errc::unsupported, "no dtype of safetensors: '" + tensor.dtype + "'", tensor.name);
    if (tensor.name == kMetadataKey)
      return fail_tensor(errc::invalid_argument, "a tensor cannot have this name", tensor.name);
    order.push_back(&tensor);
  }
  std::ranges::sort(order, [](const named_tensor* a, const named_tensor* b) {
    const std::size_t rank_a = rank_of(a->dtype), rank_b = rank_of(b->dtype);
    return rank_a != rank_b ? rank_a < rank_b : a->name < b->name;
  });
  std::vector<tensor_entry> entries;
  std::uint64_t at = 0;
  for (const named_tensor* tensor : order) {
    const auto end = core::checked_add(at, tensor->data.size());
    if (!end) return fail(errc::size_overflow, "the tensors leave 64 bits");
    entries.push_back(
        {.name = tensor->name, .dtype = tensor->dtype, .shape = tensor->shape, .begin = at, .end = *end});
    at = *end;
  }
  return entries;
}

/// Compact, padded to a multiple of 8. Metadata that is there but empty is written too.
std::string header_text(const std::vector<tensor_entry>& entries, const tensor_metadata& metadata) {
  safetensors::metadata_list list;
  if (metadata) list.assign(metadata->begin(), metadata->end());
  std::string text = safetensors::build_header_json(entries, list, 1);
  if (metadata && metadata->empty())
    text.insert(1, entries.empty() ? "\"__metadata__\":{}" : "\"__metadata__\":{},");
  text.resize(static_cast<std::size_t>(core::align_up(text.size(), kHeaderAlignment)), ' ');
  return text;
}

/// The header as a strict reader takes it, which finds all that the arguments may have wrong.
result<header> make_header(std::span<const named_tensor> tensors, const tensor_metadata& metadata) {
  TERSOR_TRY(const auto entries, lay_out(tensors));
  const std::string text = header_text(entries, metadata);
  const std::uint64_t data_bytes = entries.empty() ? 0 : entries.back().end;
  auto head = safetensors::parse_header(std::as_bytes(std::span(text)), data_bytes);
  if (!head) {
    error e = std::move(head).error();
    if (e.code == errc::malformed) e.code = errc::invalid_argument;
    e.byte_offset.reset();
    return tl::unexpected<error>(std::move(e));
  }
  if (is_container(*head))
    return fail(errc::invalid_argument, "metadata with keys of Tersor's own ('tersor' or 'tersor.*')");
  return head;
}

memory_source::map by_name(std::span<const named_tensor> tensors) {
  memory_source::map data;
  for (const named_tensor& tensor : tensors) data.emplace(tensor.name, tensor.data);
  return data;
}

result<file_report> save(const context& ctx, std::span<const named_tensor> tensors,
                         const tensor_metadata& metadata, const std::filesystem::path& dst,
                         const model_options& options) {
  TERSOR_TRY(const header head, make_header(tensors, metadata));
  const memory_source::map data = by_name(tensors);
  memory_source source(data);
  session run(ctx, options);
  const std::string name = dst.filename().string();
  run.set_file(name);
  run.set_total(head.data_offset() + head.data_bytes);
  std::optional<atomic_file> out;
  if (!options.dry_run) {
    TERSOR_TRY(out, atomic_file::create(dst, options.overwrite));
  }
  TERSOR_TRY(file_report report, compress_tensors(run, head, source, out ? &*out : nullptr));
  report.name = name;
  if (out) TERSOR_CHECK(out->commit());
  return report;
}

status write_plain(std::span<const named_tensor> tensors, const tensor_metadata& metadata,
                   const std::filesystem::path& dst, bool overwrite) {
  TERSOR_TRY(const header head, make_header(tensors, metadata));
  const memory_source::map data = by_name(tensors);
  TERSOR_TRY(auto out, atomic_file::create(dst, overwrite));
  TERSOR_CHECK(safetensors::write_prefix(out, head.json));
  for (const tensor_entry& entry : head.tensors) TERSOR_CHECK(out.write(data.at(entry.name)));
  return out.commit();
}

}  // namespace

result<file_report> save_tensors(const context& ctx, std::span<const named_tensor> tensors,
                                 const tensor_metadata& metadata, const std::filesystem::path& dst,
                                 const model_options& options) {
  return guarded([&] { return save(ctx, tensors, metadata, dst, options); });
}

status save_plain(std::span<const named_tensor> tensors, const tensor_metadata& metadata,
                  const std::filesystem::path& dst, bool overwrite) {
  return guarded([&] { return write_plain(tensors, metadata, dst, overwrite); });
}

}  // namespace tersor
