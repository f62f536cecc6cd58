// Defines TERSOR_SIMT_ASAN where AddressSanitizer has to be told about stacks.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define TERSOR_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TERSOR_SIMT_ASAN 1
#endif
#endif
