#include "model/container_text.hpp"

#include "core/checked.hpp"
#include "format/container_header.hpp"
#include "model/container.hpp"
#include "safetensors/writer.hpp"

namespace tersor::model_detail {
namespace {

using safetensors::tensor_entry;

std::string build(const safetensors::header& original, const std::vector<tensor_entry>& entries,
                  const std::vector<std::uint64_t>& digests) {
  std::string list;
  list.reserve(digests.size() * format::kHexDigits);
  for (const std::uint64_t digest : digests) format::append_hex(list, digest);
  safetensors::metadata_list metadata = {
      {std::string(format::kContainerKey), std::string(format::kContainerVersion)},
      {std::string(format::kHeaderDigestKey), format::to_hex(0)},
      {std::string(format::kDigestsKey), std::move(list)},
      {std::string(format::kOriginalHeaderKey), original.json}};
  metadata.insert(metadata.end(), original.metadata.begin(), original.metadata.end());
  return safetensors::build_header_json(entries, metadata, 1);
}

}  // namespace

tensor_entry frame_entry(const std::string& name, std::uint64_t begin, std::uint64_t frame_bytes) {
  return {.name = name,
          .dtype = std::string(format::kFrameDtype),
          .shape = {frame_bytes},
          .begin = begin,
          .end = begin + frame_bytes};
}

result<std::uint64_t> reserve_header(const safetensors::header& original, const std::vector<bool>& selected) {
  std::vector<tensor_entry> longest = original.tensors;
  for (std::size_t i = 0; i < longest.size(); ++i) {
    tensor_entry& stored = longest[i];
    tensor_entry frame = frame_entry(stored.name, 0, stored.end - stored.begin);
    // No offset has more digits than the size of all data.
    stored.begin = stored.end = frame.begin = frame.end = original.data_bytes;
    if (!selected[i]) continue;
    if (safetensors::build_header_json({frame}, {}, 1).size() >
        safetensors::build_header_json({stored}, {}, 1).size()) {
      stored = std::move(frame);
    }
  }
  const std::uint64_t n_text = build(original, longest, std::vector<std::uint64_t>(longest.size())).size();
  const std::uint64_t end = core::align_up(safetensors::kLengthBytes + n_text, format::kContainerAlignment);
  if (end - safetensors::kLengthBytes > safetensors::kMaxHeaderBytes) {
    return fail(errc::unsupported, "the header is too long to stand in a container's header");
  }
  return end - safetensors::kLengthBytes;
}

result<std::string> container_text(const context& ctx, const safetensors::header& original,
                                   const std::vector<tensor_entry>& entries,
                                   const std::vector<std::uint64_t>& digests, std::uint64_t n_bytes) {
  std::string text = build(original, entries, digests);
  if (text.size() > n_bytes) return fail(errc::internal, "the header outgrew its reserved room");
  text.resize(static_cast<std::size_t>(n_bytes), ' ');
  const auto head = format::read_container_head(text);
  if (!head) return fail(errc::internal, "the header does not begin as a container's does");
  const std::string digest = format::to_hex(digest_of_text(ctx, format::kHeaderDigestDomain, text));
  text.replace(head->digest_at, format::kHexDigits, digest);
  return text;
}

}  // namespace tersor::model_detail
