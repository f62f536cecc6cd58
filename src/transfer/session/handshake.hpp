// The first four messages of a connection.
#pragma once

#include "transfer/session/message_link.hpp"
#include "transfer/session/payloads.hpp"

namespace tersor::transfer {

/// Sender's half. Errors: `mismatch` (refused; names the
/// field), `unsupported_version`, those of the link.
[[nodiscard]] result<accept> shake_as_sender(message_link& link, const sender_options& options);

/// Receiver's half. On a refusal the sender is told before the error is returned.
[[nodiscard]] status shake_as_receiver(message_link& link, const receiver_options& options,
                                       const accept& terms);

/// 16 bytes from the system's generator.
[[nodiscard]] result<nonce> fresh_nonce();

}  // namespace tersor::transfer
