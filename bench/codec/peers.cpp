// zstd and lz4 in independent blocks, so that they use the same threads as Tersor and never meet a repetition
// that only tiling made. Neither writes a checksum here.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>

#ifdef TERSOR_BENCH_ZSTD
#include <zstd.h>
#endif
#ifdef TERSOR_BENCH_LZ4
#include <lz4.h>
#endif

#include "codec_bench.hpp"
#include "contender.hpp"

namespace tersor::bench {
namespace {

constexpr std::uint64_t kBlockBytes = std::uint64_t{1} << 20;

/// One worker's block functions; each returns the size written, 0 on failure.
struct block_coder {
  virtual ~block_coder() = default;
  virtual std::uint64_t encode(std::span<const std::byte> src, std::span<std::byte> dst) = 0;
  virtual std::uint64_t decode(std::span<const std::byte> src, std::span<std::byte> dst) = 0;
};

using coder_factory = std::function<std::unique_ptr<block_coder>()>;

/// Each block is encoded into a slot of its own: nothing has to be moved afterwards, which favours the peer.
class block_contender final : public contender {
 public:
  block_contender(std::string name, std::uint64_t slot_bytes, core::thread_pool& pool,
                  const coder_factory& make)
      : name_(std::move(name)), slot_bytes_(slot_bytes), pool_(pool) {
    for (unsigned i = 0; i < pool.size(); ++i) coders_.push_back(make());
  }

  std::string name() const override { return name_; }
  std::uint64_t bound(std::uint64_t n_bytes) const override { return n_blocks(n_bytes) * slot_bytes_; }

  result<std::uint64_t> encode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    sizes_.assign(n_blocks(src.size()), 0);
    TERSOR_CHECK(for_blocks(src.size(), "encode", [&](block_coder& coder, std::size_t i) {
      const auto block = src.subspan(i * kBlockBytes, std::min(kBlockBytes, src.size() - i * kBlockBytes));
      sizes_[i] = coder.encode(block, dst.subspan(i * slot_bytes_, slot_bytes_));
      return sizes_[i] != 0;
    }));
    std::uint64_t total = 0;
    for (const std::uint64_t size : sizes_) total += size;
    return total;
  }

  // `encoded` is as long as the sum of the blocks; the slots reach further, up to bound().
  status decode(std::span<const std::byte> encoded, std::span<std::byte> dst) override {
    return for_blocks(dst.size(), "decode", [&](block_coder& coder, std::size_t i) {
      const auto block = dst.subspan(i * kBlockBytes, std::min(kBlockBytes, dst.size() - i * kBlockBytes));
      return coder.decode({encoded.data() + i * slot_bytes_, sizes_[i]}, block) == block.size();
    });
  }

 private:
  static std::uint64_t n_blocks(std::uint64_t n_bytes) { return (n_bytes + kBlockBytes - 1) / kBlockBytes; }

  status for_blocks(std::uint64_t n_bytes, const char* doing,
                    const std::function<bool(block_coder&, std::size_t)>& work) {
    std::atomic<std::uint64_t> next{0};
    std::atomic<bool> good{true};
    const std::uint64_t count = n_blocks(n_bytes);
    pool_.run(pool_.size(), [&](unsigned worker) {
      for (std::uint64_t i = next++; i < count; i = next++) {
        if (!work(*coders_[worker], i)) good = false;
      }
    });
    if (!good) return fail(errc::internal, name_ + " failed to " + doing);
    return {};
  }

  std::string name_;
  std::uint64_t slot_bytes_;
  core::thread_pool& pool_;
  std::vector<std::unique_ptr<block_coder>> coders_;
  std::vector<std::uint64_t> sizes_;
};

#ifdef TERSOR_BENCH_ZSTD
class zstd_coder final : public block_coder {
 public:
  explicit zstd_coder(int level) : level_(level), encoder_(ZSTD_createCCtx()), decoder_(ZSTD_createDCtx()) {}
  ~zstd_coder() override {
    ZSTD_freeCCtx(encoder_);
    ZSTD_freeDCtx(decoder_);
  }
  zstd_coder(const zstd_coder&) = delete;
  zstd_coder& operator=(const zstd_coder&) = delete;

  std::uint64_t encode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return checked(ZSTD_compressCCtx(encoder_, dst.data(), dst.size(), src.data(), src.size(), level_));
  }
  std::uint64_t decode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return checked(ZSTD_decompressDCtx(decoder_, dst.data(), dst.size(), src.data(), src.size()));
  }

 private:
  static std::uint64_t checked(std::size_t size) { return ZSTD_isError(size) != 0 ? 0 : size; }
  int level_;
  ZSTD_CCtx* encoder_;
  ZSTD_DCtx* decoder_;
};
#endif

#ifdef TERSOR_BENCH_LZ4
class lz4_coder final : public block_coder {
 public:
  std::uint64_t encode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return checked(LZ4_compress_default(text(src.data()), reinterpret_cast<char*>(dst.data()),
                                        static_cast<int>(src.size()), static_cast<int>(dst.size())));
  }
  std::uint64_t decode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return checked(LZ4_decompress_safe(text(src.data()), reinterpret_cast<char*>(dst.data()),
                                       static_cast<int>(src.size()), static_cast<int>(dst.size())));
  }

 private:
  static const char* text(const std::byte* p) { return reinterpret_cast<const char*>(p); }
  static std::uint64_t checked(int size) { return size < 0 ? 0 : static_cast<std::uint64_t>(size); }
};
#endif

constexpr auto kPeers = std::to_array<std::string_view>({"zstd-1", "zstd-3", "lz4"});

}  // namespace

std::span<const std::string_view> peer_names() noexcept {
  return kPeers;
}

std::unique_ptr<contender> make_peer([[maybe_unused]] std::string_view name,
                                     [[maybe_unused]] core::thread_pool& pool) {
#ifdef TERSOR_BENCH_ZSTD
  if (name == "zstd-1" || name == "zstd-3") {
    const int level = name.back() - '0';
    return std::make_unique<block_contender>(std::string(name), ZSTD_compressBound(kBlockBytes), pool,
                                             [level] { return std::make_unique<zstd_coder>(level); });
  }
#endif
#ifdef TERSOR_BENCH_LZ4
  if (name == "lz4") {
    const auto slot = static_cast<std::uint64_t>(LZ4_compressBound(static_cast<int>(kBlockBytes)));
    return std::make_unique<block_contender>("lz4", slot, pool, [] { return std::make_unique<lz4_coder>(); });
  }
#endif
  return nullptr;
}

std::vector<std::pair<std::string, std::string>> peer_versions() {
  std::vector<std::pair<std::string, std::string>> versions;
#ifdef TERSOR_BENCH_ZSTD
  versions.emplace_back("zstd", ZSTD_versionString());
#endif
#ifdef TERSOR_BENCH_LZ4
  versions.emplace_back("lz4", LZ4_versionString());
#endif
  return versions;
}

}  // namespace tersor::bench
