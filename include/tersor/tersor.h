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

/* ---- Packed matrices (tersor/packed.hpp has the whole contract) ---- */

enum { TERSOR_LAYOUT_PACKED = 1, TERSOR_LAYOUT_TCATBE = 2 };
enum { TERSOR_ROW_MAJOR = 0, TERSOR_COLUMN_MAJOR = 1 };

/* A plain BF16 or FP16 matrix in the caller's memory. stride: values from one row (row major) or column
 * (column major) to the next, 0 = dense. */
typedef struct tersor_matrix {
  int32_t dtype;
  int32_t order;
  uint64_t rows;
  uint64_t cols;
  uint64_t stride;
  const void* data;
  uint64_t n_bytes;
} tersor_matrix;

/* What the header of a packed matrix says; offsets count from its first byte. */
typedef struct tersor_matrix_info {
  int32_t layout;
  int32_t dtype;
  uint64_t rows;
  uint64_t cols;
  uint64_t n_bytes; /* of the packed matrix */
  uint32_t block_bytes;
  uint32_t inline_escapes;
  uint64_t n_overflow;
  uint64_t blocks_at;
  uint64_t overflow_at;
  uint64_t digests_at;
  uint64_t digest;
  uint32_t first_symbol;
  uint32_t reserved;
} tersor_matrix_info;

/* Upper bound of a packed matrix in bytes, more than the plain one; 0 if the layout does not take the dtype
 * or a size leaves 64 bits. inline_escapes: a multiple of 8 up to 1024, or 0 for the default. */
uint64_t tersor_pack_bound(int32_t layout, uint32_t inline_escapes, int32_t dtype, uint64_t rows,
                           uint64_t cols);
/* Packs into dst; TERSOR_DESTINATION_TOO_SMALL if the matrix does not fit (never with tersor_pack_bound
 * bytes). */
int32_t tersor_pack(const tersor_context* ctx, int32_t layout, uint32_t inline_escapes,
                    const tersor_matrix* src, void* dst, uint64_t dst_bytes, uint64_t* packed_bytes);
/* Reads and checks a header of at least 128 bytes. */
int32_t tersor_inspect_packed(const void* header, uint64_t n_bytes, tersor_matrix_info* info);
/* Unpacks the matrix that fills `packed`; every digest is compared. */
int32_t tersor_unpack(const tersor_context* ctx, const void* packed, uint64_t n_bytes, int32_t order,
                      uint64_t stride, void* dst, uint64_t dst_bytes);

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

/* ---- Products with packed matrices (tersor/gemm.hpp has the whole contract) ---- */

enum {
  TERSOR_CUDA_GEMM_AUTOMATIC = 0,
  TERSOR_CUDA_GEMM_WARP_MMA = 1,
  TERSOR_CUDA_GEMM_BULK_MMA = 2,
  TERSOR_CUDA_GEMM_WGMMA = 3,
  TERSOR_CUDA_GEMM_TCATBE = 4,
  TERSOR_CUDA_GEMM_LIBRARY = 5
};

/* How a product is made; all zero: chosen by the library. */
typedef struct tersor_cuda_gemm_plan {
  int32_t kernel;
  uint32_t n_tile;
  uint32_t row_blocks;
  uint32_t ctas;
  uint32_t split_k;
} tersor_cuda_gemm_plan;

typedef struct tersor_cuda_gemm_shape {
  int32_t layout;
  int32_t dtype;
  uint64_t rows;
  uint64_t cols;
  uint64_t n;      /* tokens */
  uint32_t groups; /* matrices; 1 for a plain product */
} tersor_cuda_gemm_shape;

typedef struct tersor_cuda_gemm_device {
  int32_t compute_major;
  int32_t compute_minor;
  uint32_t multiprocessors;
  uint32_t shared_bytes; /* shared memory that a CTA may have */
  int32_t has_library;   /* cuBLASLt was found */
} tersor_cuda_gemm_device;

typedef struct tersor_cuda_gemm_options {
  const void* bias_dev;     /* rows values (grouped: groups x rows), or NULL */
  int32_t accumulate;       /* 1: Y += instead of Y = */
  int32_t overlap_previous; /* 1: programmatic dependent launch */
  tersor_cuda_gemm_plan plan;
} tersor_cuda_gemm_options;

/* Verdict of packing or unpacking, 16 bytes. */
typedef struct tersor_cuda_matrix_result {
  int32_t code;     /* TERSOR_OK or the fault */
  uint32_t block;   /* first block that is not good, or 0xffffffff */
  uint64_t n_bytes; /* packing: size of the packed matrix */
} tersor_cuda_matrix_result;

/* Matrices of one info, each for its own run of tokens: group i takes rows first_token_dev[i] to
 * first_token_dev[i + 1] of X and Y. Both arrays are in device memory. */
typedef struct tersor_cuda_gemm_groups {
  uint32_t n_groups;
  const void* const* weights_dev;
  const int32_t* first_token_dev; /* n_groups + 1 numbers, ascending */
  uint64_t max_tokens;            /* the most tokens that a group may have */
  uint64_t n_tokens;              /* rows of X that may be read; 0 = not known */
} tersor_cuda_gemm_groups;

/* The current device as the planner sees it. */
int32_t tersor_cuda_current_gemm_device(tersor_cuda_gemm_device* device);
/* What this build would run; needs no GPU. */
int32_t tersor_cuda_plan_gemm(const tersor_cuda_gemm_shape* shape, const tersor_cuda_gemm_device* device,
                              tersor_cuda_gemm_plan* plan);
/* plan: NULL for the library's choice. */
uint64_t tersor_cuda_gemm_workspace_size(const tersor_cuda_gemm_shape* shape,
                                         const tersor_cuda_gemm_plan* plan,
                                         const tersor_cuda_gemm_device* device);

/* Y[n, rows] = X[n, cols] W^T (+ bias) (+ Y). ldx, ldy: values from row to row, 0 = dense. options: NULL for
 * none. */
int32_t tersor_cuda_gemm_async(const tersor_matrix_info* info, const void* packed_dev, const void* x_dev,
                               uint64_t ldx, void* y_dev, uint64_t ldy, uint64_t n,
                               const tersor_cuda_gemm_options* options, void* workspace_dev,
                               uint64_t workspace_bytes, void* stream);
int32_t tersor_cuda_grouped_gemm_async(const tersor_matrix_info* info, const tersor_cuda_gemm_groups* groups,
                                       const void* x_dev, uint64_t ldx, void* y_dev, uint64_t ldy,
                                       const tersor_cuda_gemm_options* options, void* workspace_dev,
                                       uint64_t workspace_bytes, void* stream);

/* The bytes that tersor_pack makes, from a matrix whose data is in device memory. */
uint64_t tersor_cuda_pack_workspace_size(int32_t layout, uint32_t inline_escapes, int32_t dtype,
                                         uint64_t rows, uint64_t cols);
int32_t tersor_cuda_pack_async(int32_t layout, uint32_t inline_escapes, const tersor_matrix* src_dev,
                               void* packed_dev, uint64_t capacity, tersor_cuda_matrix_result* result_dev,
                               void* workspace_dev, uint64_t workspace_bytes, void* stream);
/* dst_dev: NULL to compare the digests only. result_dev may be NULL. */
int32_t tersor_cuda_unpack_async(const tersor_matrix_info* info, const void* packed_dev, void* dst_dev,
                                 int32_t order, uint64_t stride, tersor_cuda_matrix_result* result_dev,
                                 void* stream);

#ifdef __cplusplus
}
#endif

#endif /* TERSOR_TERSOR_H_ */
