#include "transfer/transports/table.hpp"

namespace tersor::transfer {

const transport& tls_transport() {
  static const missing_transport kTransport("tls", "built without OpenSSL");
  return kTransport;
}

}  // namespace tersor::transfer
