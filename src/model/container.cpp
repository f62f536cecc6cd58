#include "model/container.hpp"

#include <algorithm>
#include <map>

#include "format/container_header.hpp"

namespace tersor::model_detail {
namespace {

using safetensors::kLengthBytes;
using safetensors::tensor_entry;

[[nodiscard]] tl::unexpected<error> fail_tensor(std::string message, const std::string& name) {
  return tl::unexpected<error>(error{.code = errc::malformed, .message = std::move(message), .tensor = name});
}

/// Steps 2 and 3: the version, and the digest over the whole header.
status check_head(const context& ctx, const safetensors::header& head) {
  if (!is_container(head))
    return fail(errc::wrong_kind, "not a compressed file: its metadata has no key 'tersor'");
  const auto found = format::read_container_head(head.json);
  if (!found)
    return fail_at(errc::malformed, "the header does not begin as a container's does", kLengthBytes);
  const std::string blank = format::blank_header_digest(head.json, *found);
  if (digest_of_text(ctx, format::kHeaderDigestDomain, blank) != found->digest) {
    return fail_at(errc::digest_mismatch, "header digest differs", kLengthBytes + found->digest_at);
  }
  if (found->version != format::kContainerVersion) {
    return fail_at(errc::unsupported_version,
                   "container version " + std::string(found->version) +
                       " is not one that this Tersor reads (" + std::string(format::kContainerVersion) + ")",
                   kLengthBytes);
  }
  return {};
}

/// What the container's entry of a tensor says against the original's.
result<container_item> match(const tensor_entry& original, const tensor_entry& stored,
                             std::uint64_t data_offset) {
  container_item item{
      .original = original, .at = data_offset + stored.begin, .n_bytes = stored.end - stored.begin};
  if (item.n_bytes == item.original_bytes()) {
    if (stored.dtype != original.dtype || stored.shape != original.shape) {
      return fail_tensor("dtype or shape of a stored tensor differ from the original's", original.name);
    }
    return item;
  }
  item.coded = true;
  const auto type = parse_dtype(original.dtype);
  if (!type || !is_codable(*type) || item.n_bytes > item.original_bytes() ||
      stored.dtype != format::kFrameDtype || stored.shape != std::vector{item.n_bytes}) {
    return fail_tensor("the tensor is neither stored nor a frame of the original", original.name);
  }
  return item;
}

/// Coded tensors first, then stored ones, each in the order of the original's data. Empty tensors, which
/// share their place with a neighbour, keep the sum right wherever they are listed.
status check_order(const container& src, std::uint64_t data_offset) {
  std::uint64_t at = data_offset;
  for (const bool coded : {true, false}) {
    for (const container_item& item : src.items) {
      if (item.coded != coded || item.n_bytes == 0) continue;
      if (item.at != at) return fail_tensor("the tensor's data stands out of order", item.original.name);
      at += item.n_bytes;
    }
  }
  return {};
}

/// Step 4: the same tensors in both headers.
status match_all(container& out, const safetensors::header& head, const std::vector<std::uint64_t>& digests,
                 std::vector<tensor_entry> originals) {
  if (originals.size() != head.tensors.size()) {
    return fail(errc::malformed, "the container and its original have different numbers of tensors");
  }
  std::map<std::string_view, const tensor_entry*> stored;
  for (const tensor_entry& entry : head.tensors) stored.emplace(entry.name, &entry);
  for (std::size_t i = 0; i < originals.size(); ++i) {
    const auto found = stored.find(originals[i].name);
    if (found == stored.end())
      return fail_tensor("the tensor is missing from the container", originals[i].name);
    TERSOR_TRY(container_item item, match(originals[i], *found->second, head.data_offset()));
    item.digest = digests[i];
    out.items.push_back(std::move(item));
  }
  return check_order(out, head.data_offset());
}

status read_items(const context& ctx, container& out) {
  TERSOR_TRY(const safetensors::header head, safetensors::read_header(out.file));
  TERSOR_CHECK(check_head(ctx, head));
  if (head.data_offset() % format::kContainerAlignment != 0) {
    return fail_at(errc::malformed, "the data section does not begin at a multiple of 128", 0);
  }
  if (!format::has_container_layout(head.json, head.tensors.size())) {
    return fail_at(errc::malformed, "the header's first members are not those of a container", kLengthBytes);
  }
  // has_container_layout has seen the first four members, and metadata keeps the order of the file.
  TERSOR_TRY(const auto digests, format::parse_digests(head.metadata.at(2).second, head.tensors.size()));
  const std::string& json = head.metadata.at(3).second;
  auto original = safetensors::parse_header(std::as_bytes(std::span(json)));
  if (!original) {
    error e = std::move(original).error();
    e.message = "the original's header: " + e.message;
    // Positions inside the quoted text have no meaning in the container.
    e.byte_offset = kLengthBytes;
    return tl::unexpected<error>(std::move(e));
  }
  if (is_container(*original)) {
    return fail_at(errc::malformed, "the original is a compressed file itself", kLengthBytes);
  }
  out.header_bytes = head.json.size();
  out.original_json = json;
  out.original_bytes = out.original_data_offset() + original->data_bytes;
  return match_all(out, head, digests, std::move(original->tensors));
}

}  // namespace

bool is_container(const safetensors::header& head) noexcept {
  return std::ranges::any_of(head.metadata, [](const auto& m) { return format::is_container_key(m.first); });
}

result<container> open_container(const context& ctx, safetensors::input_file file) {
  container out{.file = std::move(file), .original_json = {}, .items = {}};
  if (auto read = read_items(ctx, out); !read) {
    error e = std::move(read).error();
    if (e.file.empty()) e.file = out.file.path().string();
    return tl::unexpected<error>(std::move(e));
  }
  return out;
}

result<safetensors::input_file> open_input(const std::filesystem::path& path, read_mode mode) {
  return safetensors::input_file::open(
      path, mode == read_mode::mmap ? safetensors::read_mode::mmap : safetensors::read_mode::pread);
}

std::uint64_t digest_of_text(const context& ctx, std::uint8_t domain, std::string_view text) {
  return digest_bytes(ctx, domain, std::as_bytes(std::span(text)));
}

}  // namespace tersor::model_detail
