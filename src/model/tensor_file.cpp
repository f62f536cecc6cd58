#include "cpu/context_impl.hpp"
#include "model/tensor_file_range.hpp"
#include <tersor/tensor_file.hpp>

namespace tersor {

struct tensor_file::impl {
  model_detail::container source;  ///< of a plain file: all items stored
  bool is_container = false;
  std::map<std::string, std::string> metadata = {};
  std::vector<file_tensor> tensors = {};
  std::map<std::string_view, std::size_t> places = {};  ///< names in `tensors`
};

namespace {

using model_detail::container_item;
using model_detail::read_range;

using cpu::guarded;

tl::unexpected<error> fail_tensor(errc code, std::string message, const tensor_file::impl& file,
                                  std::string_view name) {
  return tl::unexpected<error>(error{.code = code,
                                     .message = std::move(message),
                                     .file = file.source.file.path().string(),
                                     .tensor = std::string(name)});
}

void fill_plain(tensor_file::impl& file, safetensors::header head) {
  file.source.original_bytes = file.source.file.size();
  file.metadata = {head.metadata.begin(), head.metadata.end()};
  for (safetensors::tensor_entry& entry : head.tensors) {
    container_item item{.original = std::move(entry)};
    item.at = head.data_offset() + item.original.begin;
    item.n_bytes = item.original_bytes();
    file.source.items.push_back(std::move(item));
  }
}

status fill_container(tensor_file::impl& file) {
  TERSOR_TRY(const context ctx, context::create(1));
  TERSOR_TRY(file.source, model_detail::open_container(ctx, std::move(file.source.file)));
  file.is_container = true;
  TERSOR_TRY(const auto original,
             safetensors::parse_header(std::as_bytes(std::span(file.source.original_json))));
  file.metadata = {original.metadata.begin(), original.metadata.end()};
  return {};
}

result<file_tensor> describe(const model_detail::container& source, const container_item& item) {
  file_tensor tensor{.name = item.original.name,
                     .dtype = item.original.dtype,
                     .shape = item.original.shape,
                     .original_bytes = item.original_bytes(),
                     .file_offset = item.at,
                     .stored_bytes = item.n_bytes,
                     .is_stored = !item.coded,
                     .digest = item.digest};
  if (!item.coded) return tensor;
  TERSOR_TRY(const auto info, check_coded_head(source, item));
  if (info.matrix) {
    tensor.layout = info.matrix->layout;
  } else {
    tensor.codec = info.frame.codec;
  }
  return tensor;
}

result<std::unique_ptr<tensor_file::impl>> open_file(const std::filesystem::path& path, read_mode mode) {
  auto file = [&]() -> result<std::unique_ptr<tensor_file::impl>> {
    TERSOR_TRY(auto input, model_detail::open_input(path, mode));
    return std::make_unique<tensor_file::impl>(
        tensor_file::impl{.source = {.file = std::move(input), .original_json = {}, .items = {}}});
  }();
  if (!file) return file;
  tensor_file::impl& f = **file;
  TERSOR_TRY(auto head, safetensors::read_header(f.source.file));
  if (model_detail::is_container(head)) {
    TERSOR_CHECK(fill_container(f));
  } else {
    fill_plain(f, std::move(head));
  }
  f.tensors.reserve(f.source.items.size());
  for (const container_item& item : f.source.items) {
    TERSOR_TRY(auto tensor, describe(f.source, item));
    f.tensors.push_back(std::move(tensor));
  }
  for (std::size_t i = 0; i < f.tensors.size(); ++i) f.places.emplace(f.tensors[i].name, i);
  return file;
}

result<const container_item*> item_of(const tensor_file::impl& file, std::string_view name) {
  const auto found = file.places.find(name);
  if (found == file.places.end())
    return fail_tensor(errc::not_found, "no such tensor in the file", file, name);
  return &file.source.items[found->second];
}

/// Bytes [begin, begin + n_bytes) of a tensor to the start of `dst`.
status read_part(const context& ctx, const tensor_file::impl& file, const container_item& item,
                 std::uint64_t begin, std::uint64_t n_bytes, std::span<std::byte> dst) {
  if (dst.size() < n_bytes) {
    return fail_tensor(errc::destination_too_small,
                       "destination has " + std::to_string(dst.size()) + " bytes, " +
                           std::to_string(n_bytes) + " are to be read",
                       file, item.original.name);
  }
  if (n_bytes == 0) return {};
  return read_range(ctx, file.source, item, file.is_container, begin,
                    dst.first(static_cast<std::size_t>(n_bytes)));
}

}  // namespace

tensor_file::tensor_file(std::unique_ptr<const impl> p) noexcept : impl_(std::move(p)) {}
tensor_file::tensor_file(tensor_file&&) noexcept = default;
tensor_file& tensor_file::operator=(tensor_file&&) noexcept = default;
tensor_file::~tensor_file() = default;

result<tensor_file> tensor_file::open(const std::filesystem::path& path, read_mode mode) {
  return guarded([&]() -> result<tensor_file> {
    TERSOR_TRY(auto file, open_file(path, mode));
    return tensor_file(std::move(file));
  });
}

const std::filesystem::path& tensor_file::path() const noexcept {
  return impl_->source.file.path();
}

bool tensor_file::is_container() const noexcept {
  return impl_->is_container;
}

std::uint64_t tensor_file::original_bytes() const noexcept {
  return impl_->source.original_bytes;
}

const std::map<std::string, std::string>& tensor_file::metadata() const noexcept {
  return impl_->metadata;
}

const std::vector<file_tensor>& tensor_file::tensors() const noexcept {
  return impl_->tensors;
}

const file_tensor* tensor_file::find(std::string_view name) const noexcept {
  const auto found = impl_->places.find(name);
  return found == impl_->places.end() ? nullptr : &impl_->tensors[found->second];
}

status tensor_file::read_into(const context& ctx, std::string_view name, std::span<std::byte> dst) const {
  return guarded([&]() -> status {
    TERSOR_TRY(const container_item* item, item_of(*impl_, name));
    return read_part(ctx, *impl_, *item, 0, item->original_bytes(), dst);
  });
}

status tensor_file::read_rows(const context& ctx, std::string_view name, std::uint64_t first,
                              std::uint64_t count, std::span<std::byte> dst) const {
  return guarded([&]() -> status {
    TERSOR_TRY(const container_item* item, item_of(*impl_, name));
    const auto& shape = item->original.shape;
    if (shape.empty()) return fail_tensor(errc::invalid_argument, "a scalar has no rows", *impl_, name);
    if (first > shape[0] || count > shape[0] - first) {
      return fail_tensor(errc::invalid_argument, "the tensor has " + std::to_string(shape[0]) + " rows",
                         *impl_, name);
    }
    if (count == 0) return {};
    if (item->original_bytes() % shape[0] != 0)
      return fail_tensor(errc::unsupported, "the tensor's rows are not whole bytes", *impl_, name);
    const std::uint64_t row_bytes = item->original_bytes() / shape[0];
    return read_part(ctx, *impl_, *item, first * row_bytes, count * row_bytes, dst);
  });
}

status tensor_file::read_raw(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const {
  return guarded([&]() -> status {
    TERSOR_TRY(const container_item* item, item_of(*impl_, name));
    if (offset > item->n_bytes || dst.size() > item->n_bytes - offset) {
      return fail_tensor(errc::invalid_argument,
                         "the file has " + std::to_string(item->n_bytes) + " bytes of the tensor", *impl_,
                         name);
    }
    auto read = impl_->source.file.read_at(item->at + offset, dst);
    if (!read) read.error().tensor = std::string(name);
    return read;
  });
}

result<std::uint64_t> tensor_file::read_stored(const context& ctx, std::string_view name,
                                               std::uint64_t offset, std::span<std::byte> dst) const {
  return guarded([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const container_item* item, item_of(*impl_, name));
    if (item->coded) return fail_tensor(errc::invalid_argument, "the tensor is coded", *impl_, name);
    if (offset % kStoredStep != 0 || offset > item->n_bytes || dst.size() > item->n_bytes - offset) {
      return fail_tensor(errc::invalid_argument, "not a part of the stored tensor", *impl_, name);
    }
    auto read = impl_->source.file.read_at(item->at + offset, dst);
    if (!read) {
      read.error().tensor = std::string(name);
      return tl::unexpected<error>(std::move(read).error());
    }
    return model_detail::stored_share(ctx, offset, dst);
  });
}

}  // namespace tersor
