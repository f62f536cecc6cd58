// safetensors files over a transfer: the received file equals the sent one byte for byte, and appears under
// its name only when all of it was verified (spec/transfer-files.md).
//
//   file_sink sink(ctx, {.destination = "kv.safetensors"});               // one process
//   receiver r = receiver::listen(at, for_files(options), sink);
//   received_file f = sink.take(60s);
//   send_file(ctx, "kv.safetensors", to, options);                        // another
#pragma once

#include <filesystem>

#include <tersor/model.hpp>
#include <tersor/transfer.hpp>

namespace tersor::transfer {

/// geometry::layout of both ends, so that files and pages never meet.
inline constexpr std::string_view kFileLayout = "safetensors-file-1";

/// The options with what receiving files needs: the layout, and regions enough for any file.
[[nodiscard]] receiver_options for_files(receiver_options options);

/// A safetensors file as a request: region 0 holds the bytes before the data, the others one tensor each.
class file_source : public source {
 public:
  /// Reads and checks the header. `request` 0 takes a random number. `ctx` must outlive the source. Errors:
  /// those of reading and of a header (`malformed`, `truncated`, ...).
  [[nodiscard]] static result<std::unique_ptr<file_source>> open(const context& ctx,
                                                                 const std::filesystem::path& path,
                                                                 read_mode mode = read_mode::mmap,
                                                                 std::uint64_t request = 0);
  ~file_source() override;

  [[nodiscard]] const manifest& contents() const noexcept;
  [[nodiscard]] std::uint64_t file_bytes() const noexcept;

  [[nodiscard]] status wait_ready(std::uint32_t region_index) override;
  /// Errors beyond those of encoding: `io_error` (the file was changed while it was sent).
  [[nodiscard]] result<encoded_part> encode(const region& r, const part& p, codec c,
                                            std::span<std::byte> slot) override;

  struct impl;

 private:
  explicit file_source(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

/// Opens, connects and sends. Errors: those of file_source::open, sender::connect and sender::send.
[[nodiscard]] result<transfer_report> send_file(const context& ctx, const std::filesystem::path& path,
                                                const endpoint& to, sender_options options = {},
                                                read_mode mode = read_mode::mmap);

struct file_sink_options {
  /// The file, which is written once; or, with `into_directory`, where files appear under the names that
  /// their senders offer, reduced to harmless characters.
  std::filesystem::path destination = {};
  bool into_directory = false;
  bool overwrite = false;  ///< replace a file that is there already
  /// Called from the receiver's threads, several at once for several requests.
  std::function<void(const transfer_progress&)> on_progress = {};
};

struct received_file {
  std::filesystem::path path = {};
  std::uint64_t request = 0;
  std::uint64_t file_bytes = 0, frame_bytes = 0;  ///< on disk; as they came, without the messages around them
  std::uint64_t parts = 0, raw_parts = 0, top16_parts = 0, rank_parts = 0;
  double seconds = 0;         ///< from the request's admission to its publication
  double decode_seconds = 0;  ///< decoding and comparing digests
};

/// Requests into files. Each is decoded into a temporary beside its destination, whose space is taken before
/// the first byte comes; publication checks it against its own header, syncs it and gives it its name.
class file_sink : public sink {
 public:
  file_sink(const context& ctx, file_sink_options options);
  ~file_sink() override;

  /// The next published file. Errors: `not_found` (none in time).
  [[nodiscard]] result<received_file> take(std::chrono::milliseconds timeout);
  /// Decoded bytes since the sink was made: it grows as long as something arrives.
  [[nodiscard]] std::uint64_t decoded_bytes() const noexcept;

  /// Errors: `malformed` (not a file), `already_exists`, `io_error` (no space, ...).
  [[nodiscard]] status prepare(const manifest& m) override;
  [[nodiscard]] status decode(const manifest& m, const part& p, std::span<const std::byte> frame) override;
  [[nodiscard]] status publish(const manifest& m) override;
  void discard(const manifest& m) noexcept override;

  struct impl;

 private:
  std::unique_ptr<impl> impl_;
};

}  // namespace tersor::transfer
