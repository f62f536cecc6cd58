#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include <sys/statvfs.h>

#include "core/bytes.hpp"
#include "core/checked.hpp"
#include "cpu/context_impl.hpp"
#include "safetensors/atomic_file.hpp"
#include "safetensors/header.hpp"
#include "transfer/files/file_regions.hpp"
#include <tersor/transfer_file.hpp>

namespace tersor::transfer {
namespace {

using clock = std::chrono::steady_clock;

/// A file on its way. Used by one thread at a time, as the calls for one request are.
struct pending_file {
  safetensors::atomic_file file;
  std::span<std::byte> bytes;
  std::vector<std::uint64_t> begins;
  received_file report;
  clock::time_point start = clock::now();
};

[[nodiscard]] double seconds_since(clock::time_point start) {
  return std::chrono::duration<double>(clock::now() - start).count();
}

/// Where each region begins, if together they are the file that the note tells of.
[[nodiscard]] result<std::vector<std::uint64_t>> layout_of(const manifest& m, const file_note& note) {
  std::vector<std::uint64_t> begins;
  std::uint64_t at = 0;
  for (const region& r : m.regions) {
    begins.push_back(at);
    TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
    const auto end = core::checked_add(at, n_bytes);
    if (!end) return fail(errc::size_overflow, "the regions leave 64 bits");
    at = *end;
  }
  if (begins.empty() || at != note.file_bytes) {
    return fail(errc::malformed, "the regions do not make up the file that is announced");
  }
  const std::uint64_t head = begins.size() > 1 ? begins[1] : at;
  if (head <= safetensors::kLengthBytes || head > safetensors::kLengthBytes + safetensors::kMaxHeaderBytes) {
    return fail(errc::malformed, "the first region is no header of a safetensors file");
  }
  return begins;
}

/// Asks before the disk is filled for others.
[[nodiscard]] status check_space(const std::filesystem::path& file, std::uint64_t n_bytes) {
  struct ::statvfs disk {};
  const std::filesystem::path directory = file.parent_path();
  if (::statvfs(directory.c_str(), &disk) != 0) {
    return safetensors::fail_errno(errno, "look at the free space", directory);
  }
  const auto free = core::checked_mul(disk.f_bavail, disk.f_frsize);
  if (!free || n_bytes <= *free) return {};
  return tl::unexpected(error{.code = errc::io_error,
                              .message = "no space left: the file has " + std::to_string(n_bytes) +
                                         " bytes, the disk has " + std::to_string(*free),
                              .file = file.string()});
}

[[nodiscard]] bool same_region(const region& a, const region& b) {
  return a.name == b.name && a.layer == b.layer && a.kind == b.kind && a.type == b.type &&
         a.shape == b.shape && a.page_bytes == b.page_bytes;
}

/// The received header is a strict one, and it says what the manifest said.
[[nodiscard]] status check_header(const manifest& m, std::span<const std::byte> file, std::uint64_t head) {
  const auto json = file.subspan(safetensors::kLengthBytes, head - safetensors::kLengthBytes);
  if (core::load_le<std::uint64_t>(file.data()) != json.size()) {
    return fail(errc::malformed, "the first region is no header of a safetensors file");
  }
  TERSOR_TRY(const auto header, safetensors::parse_header(json, file.size() - head));
  const auto regions = regions_of(header);
  bool same = regions.size() == m.regions.size();
  for (std::size_t i = 0; same && i < regions.size(); ++i) same = same_region(regions[i].what, m.regions[i]);
  if (same) return {};
  return fail(errc::malformed, "the file's header does not say what was announced");
}

}  // namespace

struct file_sink::impl {
  const context& ctx;
  file_sink_options options;
  std::mutex mutex = {};
  std::condition_variable changed = {};
  std::map<std::uint64_t, std::shared_ptr<pending_file>> pending = {};
  std::deque<received_file> published = {};
  bool claimed = false;  ///< a destination that is a file is written, or about to be
  std::atomic<std::uint64_t> decoded_bytes{0};

  [[nodiscard]] std::shared_ptr<pending_file> find(std::uint64_t request) {
    const std::scoped_lock lock(mutex);
    const auto at = pending.find(request);
    return at == pending.end() ? nullptr : at->second;
  }

  /// A file is written once; of several senders the first to be complete has it.
  [[nodiscard]] status check_free(bool claim) {
    const std::scoped_lock lock(mutex);
    if (options.into_directory) return {};
    if (claimed) {
      return tl::unexpected(error{.code = errc::already_exists,
                                  .message = "the file was received already",
                                  .file = options.destination.string()});
    }
    claimed = claim;
    return {};
  }

  [[nodiscard]] status decode(const manifest& m, const part& p, std::span<const std::byte> frame);
  [[nodiscard]] status publish(const manifest& m);
  [[nodiscard]] result<std::shared_ptr<pending_file>> make(const manifest& m) {
    TERSOR_TRY(const file_note note, read_note(m.note));
    TERSOR_TRY(auto begins, layout_of(m, note));
    const auto path =
        options.into_directory ? options.destination / harmless_name(note.name) : options.destination;
    TERSOR_TRY(auto file, safetensors::atomic_file::create(path, options.overwrite));
    TERSOR_CHECK(check_space(file.final_path(), note.file_bytes));
    TERSOR_TRY(const auto bytes, file.map(note.file_bytes));
    received_file report{.path = path, .request = m.request, .file_bytes = note.file_bytes};
    return std::make_shared<pending_file>(pending_file{
        .file = std::move(file), .bytes = bytes, .begins = std::move(begins), .report = std::move(report)});
  }
};

file_sink::file_sink(const context& ctx, file_sink_options options)
    : impl_(new impl{.ctx = ctx, .options = std::move(options)}) {}
file_sink::~file_sink() = default;

std::uint64_t file_sink::decoded_bytes() const noexcept {
  return impl_->decoded_bytes.load(std::memory_order_relaxed);
}

result<received_file> file_sink::take(std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  if (!impl_->changed.wait_for(lock, timeout, [&] { return !impl_->published.empty(); })) {
    return fail(errc::not_found, "no file came in time");
  }
  received_file first = std::move(impl_->published.front());
  impl_->published.pop_front();
  return first;
}

status file_sink::prepare(const manifest& m) {
  return cpu::guarded([&]() -> status {
    TERSOR_CHECK(impl_->check_free(false));
    TERSOR_TRY(auto made, impl_->make(m));
    const std::scoped_lock lock(impl_->mutex);
    if (!impl_->pending.emplace(m.request, std::move(made)).second) {
      return fail(errc::already_exists, "the request is under way already");
    }
    return {};
  });
}

status file_sink::impl::decode(const manifest& m, const part& p, std::span<const std::byte> frame) {
  const auto file = find(m.request);
  if (!file || p.region >= file->begins.size()) return fail(errc::invalid_argument, "there is no such part");
  const auto begin = core::checked_add(file->begins[p.region], p.offset);
  if (!begin || *begin > file->bytes.size() || p.n_bytes > file->bytes.size() - *begin) {
    return fail(errc::invalid_argument, "the part is outside the file");
  }
  const auto start = clock::now();
  TERSOR_CHECK(decode_and_recheck(ctx, frame, file->bytes.subspan(*begin, p.n_bytes)));
  received_file& report = file->report;
  report.decode_seconds += seconds_since(start);
  TERSOR_TRY(const frame_info info, inspect(frame));
  report.frame_bytes += frame.size();
  ++report.parts;
  ++(info.codec == codec::rank    ? report.rank_parts
     : info.codec == codec::top16 ? report.top16_parts
                                  : report.raw_parts);
  decoded_bytes.fetch_add(p.n_bytes, std::memory_order_relaxed);
  if (options.on_progress) {
    options.on_progress({.done_bytes = *begin + p.n_bytes, .total_bytes = report.file_bytes});
  }
  return {};
}

status file_sink::decode(const manifest& m, const part& p, std::span<const std::byte> frame) {
  return cpu::guarded([&] { return impl_->decode(m, p, frame); });
}

status file_sink::impl::publish(const manifest& m) {
  const auto file = find(m.request);
  if (!file) return fail(errc::invalid_argument, "there is no such request");
  TERSOR_CHECK(check_header(m, file->bytes, file->begins.size() > 1 ? file->begins[1] : file->bytes.size()));
  TERSOR_CHECK(check_free(true));
  file->bytes = {};
  if (auto done = file->file.commit(); !done) {
    const std::scoped_lock lock(mutex);
    claimed = false;
    return done;
  }
  file->report.seconds = seconds_since(file->start);
  const std::scoped_lock lock(mutex);
  published.push_back(file->report);
  pending.erase(m.request);
  changed.notify_all();
  return {};
}

status file_sink::publish(const manifest& m) {
  return cpu::guarded([&] { return impl_->publish(m); });
}

void file_sink::discard(const manifest& m) noexcept {
  const std::scoped_lock lock(impl_->mutex);
  impl_->pending.erase(m.request);
}

}  // namespace tersor::transfer
