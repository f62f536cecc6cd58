// Marks the per-value arithmetic that both host compilers and nvcc build.
#pragma once

#ifdef __CUDACC__
#define TERSOR_HD __host__ __device__
#else
#define TERSOR_HD
#endif
