/* Tersor's C ABI. Opaque handles, caller's buffers, numbered errors, no exceptions across.
 *
 *   tersor_context* ctx;
 *   if (tersor_context_create(0, NULL, &ctx) != TERSOR_OK) puts(tersor_last_message());
 *   uint64_t bound = tersor_encode_bound(TERSOR_CODEC_RANK, TERSOR_BF16, n);
 *   int code = tersor_encode(ctx, TERSOR_CODEC_RANK, TERSOR_BF16, shape, rank, data, n_bytes, NULL, dst,
 * bound, &size);
 *
 * Every function that can fail returns a code; 0 is success, the numbers are those of tersor::errc and never
 * change. Handles belong to the caller and may be used from any thread; calls on one context take turns on
 * its workers. */
#ifndef TERSOR_TERSOR_H_
#define TERSOR_TERSOR_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  TERSOR_OK = 0,
  TERSOR_INVALID_ARGUMENT = 1,
  TERSOR_DESTINATION_TOO_SMALL = 2,
  TERSOR_TRUNCATED = 3,
  TERSOR_BAD_MAGIC = 4,
  TERSOR_UNSUPPORTED_VERSION = 5,
  TERSOR_MALFORMED = 6,
  TERSOR_DIGEST_MISMATCH = 7,
  TERSOR_UNSUPPORTED = 8,
  TERSOR_SIZE_OVERFLOW = 9,
  TERSOR_OUT_OF_MEMORY = 10,
  TERSOR_IO_ERROR = 11,
  TERSOR_NOT_FOUND = 12,
  TERSOR_ALREADY_EXISTS = 13,
  TERSOR_BACKEND_UNAVAILABLE = 14,
  TERSOR_CANCELLED = 15,
  TERSOR_MISMATCH = 16,
  TERSOR_WRONG_KIND = 17,
  TERSOR_INTERNAL = 18
};

enum { TERSOR_CODEC_RAW = 0, TERSOR_CODEC_TOP16 = 1, TERSOR_CODEC_RANK = 2 };

/* dtype numbers of the frame header. */
enum {
  TERSOR_BYTES = 0,
  TERSOR_BF16 = 1,
  TERSOR_F16 = 2,
  TERSOR_F32 = 3,
  TERSOR_F8_E4M3 = 4,
  TERSOR_F8_E5M2 = 5,
  TERSOR_BOOL = 6,
  TERSOR_U8 = 7,
  TERSOR_I8 = 8,
  TERSOR_U16 = 9,
  TERSOR_I16 = 10,
  TERSOR_U32 = 11,
  TERSOR_I32 = 12,
  TERSOR_U64 = 13,
  TERSOR_I64 = 14,
  TERSOR_F64 = 15
};

typedef struct tersor_context tersor_context;

/* What a frame says of itself. */
typedef struct tersor_frame_info {
  int32_t codec;
  int32_t dtype;
  uint32_t n_dims;
  uint64_t shape[8];
  uint64_t n_values;
  uint64_t decoded_bytes;
  uint64_t frame_bytes;
  uint64_t n_chunks;
  uint64_t digest; /* the frame digest */
  uint8_t codebook[16];
} tersor_frame_info;

/* "0.1.0" */
const char* tersor_version(void);
/* Stable name of a code, e.g. "digest_mismatch". */
const char* tersor_error_name(int32_t code);
/* Message of the last failed call of the calling thread; "" if there was none. Valid until the thread's next
 * call. */
const char* tersor_last_message(void);

/* threads = 0: the cores this process may use. backend: "scalar", "avx2", "avx512", "neon" or NULL for the
 * best. On success *out is a handle that tersor_context_destroy frees. */
int32_t tersor_context_create(uint32_t threads, const char* backend, tersor_context** out);
void tersor_context_destroy(tersor_context* ctx);
uint32_t tersor_context_threads(const tersor_context* ctx);
const char* tersor_context_backend(const tersor_context* ctx);

/* Upper bound in bytes of a frame of n_values values; 0 if it leaves 64 bits. */
uint64_t tersor_encode_bound(int32_t codec, int32_t dtype, uint64_t n_values);

/* Canonical codebook of the data (16 symbols). */
int32_t tersor_calibrate(const tersor_context* ctx, int32_t dtype, const void* data, uint64_t n_bytes,
                         uint8_t codebook[16]);

/* Encodes a contiguous row-major tensor into dst, which must have tersor_encode_bound bytes. codebook: 16
 * symbols, or NULL for the tensor's own histogram. rank is the number of entries of shape (0 for a scalar,
 * shape may then be NULL). A tensor that does not shrink becomes a raw frame. *frame_bytes receives the size.
 * src and dst must not overlap. */
int32_t tersor_encode(const tersor_context* ctx, int32_t codec, int32_t dtype, const uint64_t* shape,
                      uint32_t rank, const void* data, uint64_t n_bytes, const uint8_t* codebook, void* dst,
                      uint64_t dst_bytes, uint64_t* frame_bytes);

/* Reads and verifies header and index of the frame at the start of `frame`. */
int32_t tersor_inspect(const void* frame, uint64_t n_bytes, tersor_frame_info* info);

/* Decodes the frame that fills `frame` into dst; every digest is compared. *decoded_bytes receives the size.
 */
int32_t tersor_decode(const tersor_context* ctx, const void* frame, uint64_t n_bytes, void* dst,
                      uint64_t dst_bytes, uint64_t* decoded_bytes);

/* Decodes chunks [first, first + count) into the start of dst. */
int32_t tersor_decode_chunks(const tersor_context* ctx, const void* frame, uint64_t n_bytes, uint64_t first,
                             uint64_t count, void* dst, uint64_t dst_bytes, uint64_t* decoded_bytes);

/* Whole .safetensors files or model directories; overwrite != 0 replaces an existing destination. */
int32_t tersor_compress_model(const tersor_context* ctx, int32_t codec, const char* src, const char* dst,
                              int32_t overwrite);
int32_t tersor_decompress_model(const tersor_context* ctx, const char* src, const char* dst,
                                int32_t overwrite);
/* TERSOR_OK: right. against: the original file or directory, or NULL. */
int32_t tersor_verify_model(const tersor_context* ctx, const char* src, const char* against);

#ifdef __cplusplus
}
#endif

#endif /* TERSOR_TERSOR_H_ */
