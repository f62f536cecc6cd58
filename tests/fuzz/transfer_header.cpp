// A message's header: what is read is what is written, and nothing that was changed is read.
#include <algorithm>

#include "../transfer/support.hpp"
#include "codec/digest.hpp"
#include "fuzz_target.hpp"

TERSOR_FUZZ_TARGET(transfer_header) {
  namespace kv = tersor::transfer;
  using namespace tersor::codec_detail;
  fuzz::reader in(data);
  const bool sealed = (in.byte() & 1U) != 0;
  kv::header_bytes bytes = {};
  const auto rest = fuzz::as_bytes(in.rest());
  std::copy_n(rest.begin(), std::min(rest.size(), bytes.size()), bytes.begin());
  const kv::digest_key key{.salt = 3, .direction = 1};
  if (sealed) {
    std::uint64_t hash = chain_next(chain_start(digest_domain::message_header, key.direction), key.salt);
    for (std::size_t at = 0; at < bytes.size() - 8; at += 8)
      hash = chain_next(hash, tersor::core::load_le<std::uint64_t>(&bytes[at]));
    tersor::core::store_le(&bytes[bytes.size() - 8], hash);
  }
  const auto header = kv::read_header(bytes, key);
  if (!header) return;
  fuzz::require(kv::write_header(*header, key) == bytes);
  fuzz::require(!kv::read_header(bytes, {.salt = 3, .direction = 0}) &&
                !kv::read_header(bytes, {.salt = 2, .direction = 1}));
}
