// KV caches from one machine to another: compressed, overlapped, verified (spec/transfer.md).
//
// A sender describes a request (its regions: K and V of each layer), and a receiver that has room for it
// decodes the parts, as they come, into the memory in which they will be used. A request is published once,
// when every part of it was verified there, and never before; a fault is an error or a resumption, never a
// value.
//
//   receiver r = receiver::listen({"127.0.0.1", 0}, options, my_sink);    // one process
//   sender s = sender::connect({"127.0.0.1", r.address().port}, options); // another
//   s.send(request, my_source);
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/codec.hpp>

namespace tersor::transfer {

inline constexpr std::uint16_t kProtocolVersion = 1;

/// Where to listen or connect: a name or address of IPv4 or IPv6, and a port; port 0 lets the system choose.
struct endpoint {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
};
/// "HOST:PORT", "[::1]:PORT". Errors: `invalid_argument`.
[[nodiscard]] result<endpoint> parse_endpoint(std::string_view text);
[[nodiscard]] std::string to_string(const endpoint& e);
/// True for 127.0.0.0/8, ::1 and "localhost".
[[nodiscard]] bool is_loopback(const endpoint& e) noexcept;

/// What both sides must mean by the bytes. A field that is empty or 0 is not said. A receiver refuses a
/// sender that does not say, or says otherwise, what the receiver says; the refusal names the field.
struct geometry {
  std::string model = {}, revision = {};
  std::string layout = {};    ///< storage order of the pages, e.g. "kv_blocks_nhd"
  dtype type = dtype::bytes;  ///< of K and V; `bytes`: not said
  std::uint32_t n_layers = 0, block_size = 0, kv_heads = 0, head_dim = 0;
  /// Calibrated codebooks in the order K of layer 0, V of layer 0, K of layer 1, ...; only digests travel.
  std::vector<codebook> codebooks = {};
};

/// PEM files of the transport "tls". Both ends present a certificate, and each must be signed by `ca_file`.
struct tls_files {
  std::string certificate_file = {}, key_file = {}, ca_file = {};
};

/// Without a pre-shared key or TLS the protocol notices faults but stops no attacker.
struct security {
  std::vector<std::byte> psk = {};  ///< at least 16 bytes; every message is then authenticated, not encrypted
  std::string tenant = {};          ///< salt that both sides must share; it never travels
  tls_files tls = {};               ///< used by the transport "tls" only
};

struct timeouts {
  std::chrono::milliseconds connect{5'000};
  std::chrono::milliseconds handshake{5'000};
  std::chrono::milliseconds message{
      30'000};  ///< for all of a message, once it has begun; for any wait for the peer
  std::chrono::milliseconds idle{120'000};  ///< between messages of a peer that owes nothing
};

enum class part_kind : std::uint8_t { key = 0, value = 1, other = 2 };
[[nodiscard]] std::string_view to_string(part_kind kind) noexcept;

/// One tensor of a request, e.g. K of a layer: whole pages, the last one possibly shorter.
struct region {
  std::string name = {};  ///< UTF-8, at most 1,024 bytes; never used as a path
  std::uint32_t layer = 0;
  part_kind kind = part_kind::other;
  dtype type = dtype::bytes;
  std::vector<std::uint64_t> shape = {};  ///< at most 8 dimensions
  std::uint64_t page_bytes = 0;           ///< whole values; 0: the region may be cut anywhere
  std::optional<codebook> book = {};      ///< for coded parts; none: the sender counts its own
};
/// Errors: `size_overflow`, `invalid_argument` (too many dimensions).
[[nodiscard]] result<std::uint64_t> region_bytes(const region& r);

/// What a request consists of.
struct manifest {
  std::uint64_t request = 0;  ///< unique among the requests of a receiver
  std::vector<region> regions = {};
  std::vector<std::byte> note =
      {};  ///< at most 64 KiB for the two ends, e.g. block ids; authenticated with the rest
};

/// Whole pages of one region.
struct part {
  std::uint32_t region = 0;
  std::uint64_t first_page = 0, n_pages = 0;
  std::uint64_t offset = 0, n_bytes = 0;  ///< in the region, in bytes
};

/// A frame that a source made.
struct encoded_part {
  std::uint64_t n_bytes = 0;
  std::uint64_t digest = 0;  ///< the frame digest
  tersor::codec codec = codec::raw;
};

/// Where a sender's parts come from. Called from one thread of the sender.
class source {
 public:
  source() = default;
  source(const source&) = delete;
  source& operator=(const source&) = delete;
  virtual ~source() = default;
  /// Waits until the bytes of a region may be read: prefill goes layer by layer. `cancelled` (see
  /// sender_options) ends the wait. Any error ends the request.
  [[nodiscard]] virtual status wait_ready(std::uint32_t region_index) = 0;
  /// Writes the part as one frame (a 1-dimensional tensor of the region's dtype) to the start of `slot`,
  /// which is at least `encode_bound` long. A frame that would not be smaller is a raw one.
  [[nodiscard]] virtual result<encoded_part> encode(const region& r, const part& p, codec c,
                                                    std::span<std::byte> slot) = 0;
};

/// Where a receiver's parts go. Calls for different requests may come from several threads at once, calls for
/// one request never do.
class sink {
 public:
  sink() = default;
  sink(const sink&) = delete;
  sink& operator=(const sink&) = delete;
  virtual ~sink() = default;
  /// The request's sizes were checked against the receiver's limits; here they meet the memory that waits for
  /// them. An error refuses the request.
  [[nodiscard]] virtual status prepare(const manifest& m) = 0;
  /// Decodes a frame into its final place and compares every digest. The protocol has already compared codec,
  /// dtype, size and codebook with the manifest.
  [[nodiscard]] virtual status decode(const manifest& m, const part& p, std::span<const std::byte> frame) = 0;
  /// Every part is there and verified: makes the request visible, all at once. Called once.
  [[nodiscard]] virtual status publish(const manifest& m) = 0;
  /// The request will not be completed. Called instead of publish.
  virtual void discard(const manifest& m) noexcept = 0;
};

/// Parts out of tensors in this process's memory; the spans are in the order of the manifest's regions.
[[nodiscard]] std::unique_ptr<source> make_host_source(const context& ctx,
                                                       std::vector<std::span<const std::byte>> regions);

/// A host source whose regions become ready one after another, in any order.
class layered_source : public source {
 public:
  layered_source(const context& ctx, std::vector<std::span<const std::byte>> regions);
  ~layered_source() override;
  void mark_ready(std::uint32_t region_index);
  void give_up(error why);  ///< ends every wait with this error
  [[nodiscard]] status wait_ready(std::uint32_t region_index) override;
  [[nodiscard]] result<encoded_part> encode(const region& r, const part& p, codec c,
                                            std::span<std::byte> slot) override;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

/// Decodes `frame` into `dst` (exactly its decoded size) and then compares the digests once more with what
/// `dst` holds: what the sinks of this library do with a part.
[[nodiscard]] status decode_and_recheck(const context& ctx, std::span<const std::byte> frame,
                                        std::span<std::byte> dst);

/// Memory of this process: owned, not initialised before it is written, in huge pages where the system has
/// them.
class host_bytes {
 public:
  /// Errors: `out_of_memory`.
  [[nodiscard]] static result<host_bytes> allocate(std::uint64_t n_bytes);
  host_bytes() = default;

  [[nodiscard]] std::byte* data() const noexcept { return data_.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return n_bytes_; }
  [[nodiscard]] std::byte* begin() const noexcept { return data(); }
  [[nodiscard]] std::byte* end() const noexcept { return data() + n_bytes_; }
  friend bool operator==(const host_bytes& a, std::span<const std::byte> b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  struct release {
    void operator()(std::byte* p) const noexcept;
  };
  std::unique_ptr<std::byte, release> data_;
  std::size_t n_bytes_ = 0;
};

/// Requests into memory of their own, kept until they are taken.
class memory_sink : public sink {
 public:
  /// `max_held_bytes` bounds what is pending and what is published but not taken.
  memory_sink(const context& ctx, std::uint64_t max_held_bytes);
  ~memory_sink() override;

  struct received {
    transfer::manifest manifest;
    std::vector<host_bytes> regions;
  };
  /// Waits for a published request and hands it over. Errors: `not_found` (not there in time).
  [[nodiscard]] result<received> take(std::uint64_t request, std::chrono::milliseconds timeout);
  /// The same for whichever request is published first.
  [[nodiscard]] result<received> take_any(std::chrono::milliseconds timeout);

  [[nodiscard]] status prepare(const manifest& m) override;
  [[nodiscard]] status decode(const manifest& m, const part& p, std::span<const std::byte> frame) override;
  [[nodiscard]] status publish(const manifest& m) override;
  void discard(const manifest& m) noexcept override;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

// ---- Sending ----

/// `automatic` measures the link and both ends as it goes, and takes what is fastest, raw included.
enum class coding : std::uint8_t { automatic = 0, raw = 1, top16 = 2, rank = 3 };
[[nodiscard]] std::optional<coding> parse_coding(std::string_view name) noexcept;
[[nodiscard]] std::string_view to_string(coding c) noexcept;

struct transfer_progress {
  std::uint64_t done_bytes = 0, total_bytes = 0;  ///< decoded bytes
};

struct sender_options {
  transfer::geometry geometry = {};
  transfer::security security = {};
  transfer::timeouts timeouts = {};
  transfer::coding coding = coding::automatic;
  std::string transport = "tcp";  ///< one of `transports()`
  std::uint64_t part_bytes =
      std::uint64_t{4} << 20;  ///< decoded bytes of a part at most; whole pages, so no page may be larger
  unsigned attempts = 3;       ///< connections per request, resumptions included
  bool pinned_slots = false;   ///< frames in pinned memory, for sources on a GPU
  std::function<void(const transfer_progress&)> on_progress = {};
  const std::atomic<bool>* cancel = nullptr;
};

/// What a request cost.
struct transfer_report {
  std::uint64_t raw_bytes = 0, sent_bytes = 0;  ///< decoded bytes; bytes of messages
  std::uint64_t parts = 0, raw_parts = 0, top16_parts = 0, rank_parts = 0;
  std::uint64_t bypassed_parts = 0;  ///< sent raw because the cost model said so
  std::uint64_t resumptions = 0;
  double seconds = 0;         ///< from the request's first message to its publication
  double encode_seconds = 0;  ///< the stages overlap: their sum may exceed `seconds`
  double send_seconds = 0;    ///< in the transport
  double credit_seconds = 0;  ///< waiting for the receiver's slots
  double decode_seconds = 0;  ///< as the receiver measured
};

class sender {
 public:
  /// Connects and shakes hands. Errors: `io_error` (no connection), `mismatch` (refused; the message names
  /// the field), `cancelled`, `unsupported` (a key in a build without OpenSSL), `backend_unavailable`
  /// (transport).
  [[nodiscard]] static result<sender> connect(const endpoint& to, const sender_options& options = {});
  sender(sender&&) noexcept;
  sender& operator=(sender&&) noexcept;
  ~sender();

  /// Sends one request and returns when the receiver has published it. A dropped connection is taken up again
  /// (`attempts`), parts that were verified are not sent twice. After an error nothing of the request is, or
  /// will be, published, except when the connection was lost between the last message and its answer
  /// (`io_error` with "may be published").
  [[nodiscard]] result<transfer_report> send(const manifest& m, source& from);

  struct impl;

 private:
  explicit sender(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

// ---- Receiving ----

struct receiver_options {
  transfer::geometry expected = {};
  transfer::security security = {};
  transfer::timeouts timeouts = {};
  std::string transport = "tcp";
  std::uint32_t n_slots =
      8;  ///< frames on their way per connection; memory: n_slots frames of max_part_bytes
  std::uint64_t max_part_bytes = std::uint64_t{4} << 20;     ///< decoded; larger parts are refused
  std::uint64_t max_request_bytes = std::uint64_t{1} << 36;  ///< decoded; larger requests are refused
  std::uint32_t max_regions = 4096;
  std::uint32_t max_connections = 16;
  std::uint32_t max_pending = 64;             ///< requests begun and not ended
  std::chrono::milliseconds resume{60'000};   ///< how long a request outlives its connection
  bool pinned_slots = false;                  ///< frames in pinned memory, for sinks on a GPU
  bool allow_unauthenticated_remote = false;  ///< listen beyond loopback without a key
};

/// Counters of a receiver or a sender since it was made.
struct transfer_counters {
  std::uint64_t connections = 0, refused = 0, failed_connections = 0;
  std::uint64_t requests_published = 0, requests_discarded = 0, resumptions = 0;
  std::uint64_t parts = 0, raw_parts = 0, rejected_parts = 0, bypassed_parts = 0;
  std::uint64_t raw_bytes = 0, wire_bytes = 0;
  double encode_seconds = 0, send_seconds = 0, receive_seconds = 0, decode_seconds = 0;
};

class receiver {
 public:
  /// Starts to listen, on threads of its own. `to` must outlive the receiver. Errors:
  /// `invalid_argument` (beyond loopback without a key), `io_error`, `unsupported`, `backend_unavailable`.
  [[nodiscard]] static result<receiver> listen(const endpoint& at, const receiver_options& options, sink& to);
  receiver(receiver&&) noexcept;
  receiver& operator=(receiver&&) noexcept;
  /// Ends every connection, discards what is pending and joins the threads.
  ~receiver();

  [[nodiscard]] endpoint address() const;
  [[nodiscard]] transfer_counters counters() const;
  /// The error that ended the newest failed connection, for people.
  [[nodiscard]] std::optional<error> last_error() const;
  /// Waits until every sender has left, e.g. with its answer, before a program ends. False: not in time.
  [[nodiscard]] bool wait_idle(std::chrono::milliseconds timeout) const;
  void stop();

  struct impl;

 private:
  explicit receiver(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

// ---- Transports and metrics ----

/// A way to move messages.
struct transport_info {
  std::string name;
  bool available = false;
  std::string detail;  ///< what was found (versions, io_uring, devices), or why it is not available
};
[[nodiscard]] std::vector<transport_info> transports();

/// `counters` in the Prometheus text format, each metric named tersor_transfer_*; `role` is a label.
[[nodiscard]] std::string prometheus_text(const transfer_counters& counters, std::string_view role);

/// Answers GET /metrics over HTTP/1.1 with what `text` returns, on a thread of its own.
class metrics_server {
 public:
  /// Errors: `invalid_argument` (not loopback), `io_error`.
  [[nodiscard]] static result<metrics_server> listen(const endpoint& at, std::function<std::string()> text);
  metrics_server(metrics_server&&) noexcept;
  metrics_server& operator=(metrics_server&&) noexcept;
  ~metrics_server();
  [[nodiscard]] endpoint address() const;

  struct impl;

 private:
  explicit metrics_server(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

}  // namespace tersor::transfer
