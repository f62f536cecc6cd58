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

/* ---- NVIDIA GPUs (tersor/cuda.hpp has the whole contract) ----
 *
 * The *_async calls enqueue work on `stream` (a cudaStream_t) of the current device and return; nothing on
 * the device is allocated and nothing is waited for. Verdicts on data land in tersor_cuda_frame_result, in
 * memory that the device can write. Pointers that end in _dev are such memory; others are the host's.
 * Workspaces have the size that the *_workspace_size functions give (0: these arguments are not possible),
 * are 16-byte aligned and zeroed once before their first use. Calls on many tensors or pools allocate host
 * memory while they run. Without CUDA the calls return TERSOR_BACKEND_UNAVAILABLE. */

/* Order of the tails in a frame: as they finish, or the bytes that the CPU makes. */
enum { TERSOR_CUDA_TAILS_FREE = 0, TERSOR_CUDA_TAILS_CANONICAL = 1 };

/* One frame's verdict, 32 bytes. */
typedef struct tersor_cuda_frame_result {
  int32_t code;         /* TERSOR_OK or the fault */
  uint32_t chunk;       /* first chunk that is not good, or 0xffffffff */
  uint64_t frame_bytes; /* size of the frame */
  uint64_t digest;      /* frame digest */
  uint32_t overflow;    /* slots: place in the overflow area, or 0xffffffff: in its own slot */
  uint32_t reserved;
} tersor_cuda_frame_result;

typedef struct tersor_cuda_device {
  int32_t index;
  int32_t compute_major;
  int32_t compute_minor;
  uint32_t multiprocessors;
  uint64_t memory_bytes;
  uint64_t l2_bytes;
  char name[256];
  char driver[32];
} tersor_cuda_device;

int32_t tersor_cuda_device_count(uint32_t* count);
/* The GPU at `position` (from 0) of those that can be used; its CUDA number is device->index. */
int32_t tersor_cuda_device_info(uint32_t position, tersor_cuda_device* device);

/* A contiguous row-major tensor to encode. */
typedef struct tersor_cuda_encode_task {
  int32_t dtype;
  uint32_t rank; /* entries of shape */
  const uint64_t* shape;
  const void* src_dev;
  const uint8_t* codebook_dev; /* 16 symbols, 16-byte aligned, or NULL to take `codebook` */
  uint8_t codebook[16];
  void* frame_dev; /* 16-byte aligned */
  uint64_t capacity;
  tersor_cuda_frame_result* result_dev;
} tersor_cuda_encode_task;

/* A frame to decode and what it must hold. */
typedef struct tersor_cuda_decode_task {
  int32_t dtype;
  uint64_t n_values;
  const void* frame_dev;
  uint64_t frame_bytes;
  void* dst_dev;
  tersor_cuda_frame_result* result_dev;
  uint8_t* chunk_codes_dev; /* one code per chunk, or NULL */
} tersor_cuda_decode_task;

uint64_t tersor_cuda_encode_bound(int32_t codec, int32_t dtype, uint64_t n_values);
uint64_t tersor_cuda_encode_workspace_size(int32_t codec, int32_t tail_order,
                                           const tersor_cuda_encode_task* tasks, uint64_t n_tasks);
int32_t tersor_cuda_encode_async(int32_t codec, const tersor_cuda_encode_task* task, int32_t tail_order,
                                 void* workspace_dev, uint64_t workspace_bytes, void* stream);
int32_t tersor_cuda_encode_batch_async(int32_t codec, const tersor_cuda_encode_task* tasks, uint64_t n_tasks,
                                       int32_t tail_order, void* workspace_dev, uint64_t workspace_bytes,
                                       void* stream);

uint64_t tersor_cuda_decode_workspace_size(const tersor_cuda_decode_task* tasks, uint64_t n_tasks);
int32_t tersor_cuda_decode_async(int32_t codec, const tersor_cuda_decode_task* task, void* workspace_dev,
                                 uint64_t workspace_bytes, void* stream);
int32_t tersor_cuda_decode_batch_async(int32_t codec, const tersor_cuda_decode_task* tasks, uint64_t n_tasks,
                                       void* workspace_dev, uint64_t workspace_bytes, void* stream);

/* The exact codebook of the data, into 16 bytes of device memory. */
uint64_t tersor_cuda_codebook_workspace_size(void);
int32_t tersor_cuda_make_codebook_async(int32_t codec, int32_t dtype, const void* src_dev, uint64_t n_values,
                                        uint8_t* codebook_dev, void* workspace_dev, uint64_t workspace_bytes,
                                        void* stream);

/* ---- Paged KV caches ---- */

/* One layer's K or V pages; strides in values. */
typedef struct tersor_cuda_page_layout {
  int32_t dtype;
  uint32_t block_size;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint64_t n_blocks;
  uint64_t page_stride;
  uint64_t token_stride;
  uint64_t head_stride;
  uint64_t value_stride;
} tersor_cuda_page_layout;

/* Addresses of page 0: K of layer 0, V of layer 0, K of layer 1, ... (MLA: one per layer). */
typedef struct tersor_cuda_page_pools {
  tersor_cuda_page_layout layout;
  void* const* pools; /* an array in host memory */
  uint64_t n_pools;
} tersor_cuda_page_pools;

/* Orders of one layer's cache tensor. */
enum {
  TERSOR_CUDA_KV_BLOCKS_NHD = 0, /* [2, blocks, block_size, heads, dim] */
  TERSOR_CUDA_BLOCKS_KV_NHD = 1, /* [blocks, 2, block_size, heads, dim] */
  TERSOR_CUDA_KV_BLOCKS_HND = 2, /* [2, blocks, heads, block_size, dim] */
  TERSOR_CUDA_BLOCKS_KV_HND = 3, /* [blocks, 2, heads, block_size, dim] */
  TERSOR_CUDA_MLA = 4            /* [blocks, block_size, latent], kv_heads = 1 */
};

/* Layout and pools of cache tensors in such an order. pools: room for 2 * n_layers addresses (MLA: n_layers);
 * *out points into it. */
int32_t tersor_cuda_make_pools(int32_t order, int32_t dtype, void* const* layers_dev, uint64_t n_layers,
                               uint64_t n_blocks, uint32_t block_size, uint32_t kv_heads, uint32_t head_dim,
                               void** pools, uint64_t pools_capacity, tersor_cuda_page_pools* out);

typedef struct tersor_cuda_page_list {
  const int32_t* ids_dev;
  uint32_t n_pages;
} tersor_cuda_page_list;

/* One frame per pool with all pages, or one per pool and page. */
enum { TERSOR_CUDA_GATHERED = 0, TERSOR_CUDA_SLOTS = 1 };

/* Frame f = pool (gathered) or pool * n_pages + page (slots) begins at frames_dev + f * frame_stride. */
typedef struct tersor_cuda_page_store {
  int32_t kind;
  uint32_t overflow_places;
  void* frames_dev;
  uint64_t frame_stride;       /* a multiple of 128 */
  void* overflow_dev;          /* places of tersor_cuda_raw_frame_bytes, or NULL */
  uint32_t* overflow_used_dev; /* zeroed by the caller */
} tersor_cuda_page_store;

/* Sizes; 0 if the arguments are not possible or the size leaves 64 bits. */
uint64_t tersor_cuda_raw_frame_bytes(const tersor_cuda_page_layout* layout);
uint64_t tersor_cuda_page_frame_bound(int32_t codec, const tersor_cuda_page_layout* layout, int32_t kind,
                                      uint32_t n_pages);
uint64_t tersor_cuda_suggest_slot_bytes(const uint64_t* frame_bytes, uint64_t n_frames, double coverage);
uint64_t tersor_cuda_pages_workspace_size(int32_t codec, const tersor_cuda_page_pools* pools, int32_t kind,
                                          uint32_t n_pages, int32_t tail_order);
uint64_t tersor_cuda_codebooks_workspace_size(const tersor_cuda_page_pools* pools);

/* codebooks_dev: 16 symbols per pool; results_dev: one per frame. */
int32_t tersor_cuda_make_codebooks_async(int32_t codec, const tersor_cuda_page_pools* pools,
                                         const tersor_cuda_page_list* pages, uint8_t* codebooks_dev,
                                         void* workspace_dev, uint64_t workspace_bytes, void* stream);
int32_t tersor_cuda_encode_pages_async(int32_t codec, const tersor_cuda_page_pools* pools,
                                       const tersor_cuda_page_list* pages, const uint8_t* codebooks_dev,
                                       const tersor_cuda_page_store* store,
                                       tersor_cuda_frame_result* results_dev, int32_t tail_order,
                                       void* workspace_dev, uint64_t workspace_bytes, void* stream);
/* where_dev: the results of encoding, if slots have an overflow area; else NULL. */
int32_t tersor_cuda_decode_pages_async(int32_t codec, const tersor_cuda_page_pools* pools,
                                       const tersor_cuda_page_list* pages,
                                       const tersor_cuda_page_store* store,
                                       const tersor_cuda_frame_result* where_dev,
                                       tersor_cuda_frame_result* results_dev, void* workspace_dev,
                                       uint64_t workspace_bytes, void* stream);

/* Speed of a codec on a GPU: encoding n bytes takes encode_us + n / encode_gb_s. */
typedef struct tersor_cuda_codec_speed {
  double encode_gb_s;
  double decode_gb_s;
  double encode_us;
  double decode_us;
  double ratio;
} tersor_cuda_codec_speed;

/* Figures built in for a GPU's name; TERSOR_NOT_FOUND if there are none. */
int32_t tersor_cuda_known_speed(int32_t codec, const char* device_name, tersor_cuda_codec_speed* speed);
/* 1 if encoding makes a transfer of n_bytes over a link of link_gb_s (1e9 bytes a second) faster, else 0. */
int32_t tersor_cuda_worth_it(uint64_t n_bytes, double link_gb_s, const tersor_cuda_codec_speed* speed);

#ifdef __cplusplus
}
#endif

#endif /* TERSOR_TERSOR_H_ */
