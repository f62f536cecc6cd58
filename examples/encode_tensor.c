/* One tensor to a frame and back with the C ABI. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tersor/tersor.h>

static int failed(int32_t code) {
  if (code == TERSOR_OK) return 0;
  fprintf(stderr, "%s: %s\n", tersor_error_name(code), tersor_last_message());
  return 1;
}

int main(void) {
  const uint64_t shape[2] = {256, 256};
  const uint64_t n_values = shape[0] * shape[1];
  const uint64_t n_bytes = n_values * 2;
  uint16_t* values = malloc(n_bytes);
  uint16_t* back = malloc(n_bytes);
  const uint64_t bound = tersor_encode_bound(TERSOR_CODEC_RANK, TERSOR_BF16, n_values);
  void* frame = malloc(bound);
  tersor_context* ctx = NULL;
  tersor_frame_info info;
  uint64_t frame_bytes = 0;
  uint64_t decoded_bytes = 0;
  int result = 1;
  if (values == NULL || back == NULL || frame == NULL) goto done;
  for (uint64_t i = 0; i < n_values; ++i) values[i] = (uint16_t)(0x3f80 + 16 * (i % 40)); /* 1.0 upwards */

  if (failed(tersor_context_create(0, NULL, &ctx))) goto done;
  if (failed(tersor_encode(ctx, TERSOR_CODEC_RANK, TERSOR_BF16, shape, 2, values, n_bytes, NULL, frame, bound,
                           &frame_bytes)))
    goto done;
  if (failed(tersor_inspect(frame, frame_bytes, &info))) goto done;
  if (failed(tersor_decode(ctx, frame, frame_bytes, back, n_bytes, &decoded_bytes))) goto done;
  printf("%llu bytes -> %llu bytes, %llu chunks, %s\n", (unsigned long long)n_bytes,
         (unsigned long long)frame_bytes, (unsigned long long)info.n_chunks,
         memcmp(values, back, n_bytes) == 0 ? "identical" : "DIFFERENT");
  result = decoded_bytes == n_bytes && memcmp(values, back, n_bytes) == 0 ? 0 : 1;

done:
  tersor_context_destroy(ctx);
  free(frame);
  free(back);
  free(values);
  return result;
}
