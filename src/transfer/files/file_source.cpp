#include <array>
#include <atomic>

#include <sys/random.h>
#include <sys/stat.h>

#include "cpu/context_impl.hpp"
#include "safetensors/header.hpp"
#include "transfer/files/file_regions.hpp"
#include <tersor/transfer_file.hpp>

namespace tersor::transfer {
namespace {

/// What changes when somebody writes into the file.
struct file_state {
  std::uint64_t n_bytes = 0;
  std::int64_t seconds = 0, nanoseconds = 0;
  friend bool operator==(const file_state&, const file_state&) = default;
};

[[nodiscard]] file_state state_of(const std::filesystem::path& path) noexcept {
  struct ::stat info {};
  if (::stat(path.c_str(), &info) != 0) return {};
  return {.n_bytes = static_cast<std::uint64_t>(info.st_size),
          .seconds = info.st_mtim.tv_sec,
          .nanoseconds = info.st_mtim.tv_nsec};
}

[[nodiscard]] result<std::uint64_t> random_request() {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != static_cast<::ssize_t>(sizeof number)) {
    return fail(errc::io_error, "the system has no random numbers");
  }
  return number;
}

}  // namespace

receiver_options for_files(receiver_options options) {
  options.expected.layout = kFileLayout;
  options.max_regions = std::max(options.max_regions, static_cast<std::uint32_t>(kMaxFileRegions));
  return options;
}

struct file_source::impl {
  const context& ctx;
  safetensors::input_file file;
  file_state state;  ///< before the header was read
  transfer::manifest manifest = {};
  std::vector<std::uint64_t> begins = {};
  std::vector<std::optional<codebook>> books = {};  ///< one a region, from its first coded part
  std::vector<std::byte> scratch = {};

  [[nodiscard]] static result<std::unique_ptr<impl>> make(const context& ctx,
                                                          const std::filesystem::path& path, read_mode mode,
                                                          std::uint64_t request);
  [[nodiscard]] result<encoded_part> encode(const region& r, const part& p, codec c,
                                            std::span<std::byte> slot);
  /// Counting every part anew would be a second pass over all of the file.
  [[nodiscard]] result<std::optional<codebook>> book_for(const region& r, std::uint32_t index,
                                                         std::span<const std::byte> bytes) {
    if (r.book) return r.book;
    if (!books[index] && is_codable(r.type)) {
      TERSOR_TRY(const histogram counts, count_symbols(ctx, r.type, bytes));
      TERSOR_TRY(books[index], make_codebook(r.type, counts));
    }
    return books[index];
  }

  [[nodiscard]] status check_unchanged() const {
    if (state_of(file.path()) == state) return {};
    return tl::unexpected(error{.code = errc::io_error,
                                .message = "the file was changed while it was sent",
                                .file = file.path().string()});
  }
};

file_source::file_source(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
file_source::~file_source() = default;

result<std::unique_ptr<file_source>> file_source::open(const context& ctx, const std::filesystem::path& path,
                                                       read_mode mode, std::uint64_t request) {
  return cpu::guarded([&]() -> result<std::unique_ptr<file_source>> {
    TERSOR_TRY(auto made, impl::make(ctx, path, mode, request));
    return std::unique_ptr<file_source>(new file_source(std::move(made)));
  });
}

result<std::unique_ptr<file_source::impl>> file_source::impl::make(const context& ctx,
                                                                   const std::filesystem::path& path,
                                                                   read_mode mode, std::uint64_t request) {
  const file_state state = state_of(path);
  const auto how = mode == read_mode::mmap ? safetensors::read_mode::mmap : safetensors::read_mode::pread;
  TERSOR_TRY(auto file, safetensors::input_file::open(path, how));
  TERSOR_TRY(const auto header, safetensors::read_header(file));
  if (request == 0) {
    TERSOR_TRY(request, random_request());
  }
  std::unique_ptr<impl> p(new impl{.ctx = ctx, .file = std::move(file), .state = state});
  p->manifest.request = request;
  p->manifest.note =
      write_note({.file_bytes = p->file.size(), .name = harmless_name(path.filename().string())});
  for (file_region& r : regions_of(header)) {
    p->begins.push_back(r.begin);
    p->manifest.regions.push_back(std::move(r.what));
  }
  p->books.resize(p->begins.size());
  TERSOR_CHECK(p->check_unchanged());
  return p;
}

const manifest& file_source::contents() const noexcept {
  return impl_->manifest;
}

std::uint64_t file_source::file_bytes() const noexcept {
  return impl_->file.size();
}

status file_source::wait_ready(std::uint32_t) {
  return {};
}

result<encoded_part> file_source::impl::encode(const region& r, const part& p, codec c,
                                               std::span<std::byte> slot) {
  if (p.region >= begins.size()) return fail(errc::invalid_argument, "there is no such region");
  TERSOR_TRY(const auto bytes, file.view(begins[p.region] + p.offset, p.n_bytes, scratch));
  encode_options options{.codec = c};
  if (c != codec::raw) {
    TERSOR_TRY(options.book, book_for(r, p.region, bytes));
  }
  const std::array<std::uint64_t, 1> shape = {p.n_bytes / value_bytes(r.type)};
  const tensor_view view{.type = r.type, .shape = shape, .data = bytes};
  TERSOR_TRY(const std::uint64_t n_bytes, encode_into(ctx, view, slot, options));
  TERSOR_TRY(const frame_info info, inspect(slot.first(n_bytes)));
  file.drop(begins[p.region] + p.offset, p.n_bytes);
  TERSOR_CHECK(check_unchanged());
  return encoded_part{.n_bytes = n_bytes, .digest = info.digest, .codec = info.codec};
}

result<encoded_part> file_source::encode(const region& r, const part& p, codec c, std::span<std::byte> slot) {
  return cpu::guarded([&] { return impl_->encode(r, p, c, slot); });
}

result<transfer_report> send_file(const context& ctx, const std::filesystem::path& path, const endpoint& to,
                                  sender_options options, read_mode mode) {
  return cpu::guarded([&]() -> result<transfer_report> {
    TERSOR_TRY(const auto file, file_source::open(ctx, path, mode));
    options.geometry.layout = kFileLayout;
    TERSOR_TRY(sender connection, sender::connect(to, options));
    return connection.send(file->contents(), *file);
  });
}

}  // namespace tersor::transfer
