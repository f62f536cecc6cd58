// Takes one tensor out of a container, block by block, every digest compared.
#pragma once

#include <functional>

#include "model/byte_sink.hpp"
#include "model/container.hpp"
#include "model/session.hpp"

namespace tersor::model_detail {

/// Called after each block with the original bytes it held; an error stops the reading.
using step_hook = std::function<status(std::uint64_t n_bytes)>;

/// Decodes a coded tensor and returns what its header says, or copies a stored one, into `sink`. `scratch`
/// serves read_mode::pread, which reads the whole frame into memory. Rooms asked of the sink: at most max(16
/// MiB, a sixteenth of the tensor), or all of a tensor that is a matrix frame.
[[nodiscard]] result<std::optional<coded_info>> read_tensor(const context& ctx, const container& from,
                                                            const container_item& item,
                                                            std::vector<std::byte>& scratch, byte_sink& sink,
                                                            const step_hook& after_step);

/// The header of a coded tensor (of a frame, its index too), checked against the original's header and the
/// digest list.
[[nodiscard]] result<coded_info> check_coded(const container_item& item, std::span<const std::byte> frame);

}  // namespace tersor::model_detail
