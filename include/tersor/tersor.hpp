// Tersor: lossless compression of LLM weights and KV caches. Read this header first; it goes from the
// one-shot calls to whole models:
//
//   #include <tersor/tersor.hpp>
//   auto ctx = tersor::context::create();                      // threads and instruction set
//   auto frame = tersor::encode(*ctx, view);                   // tensor_view -> frame bytes
//   auto back = tersor::decode(*ctx, *frame);                  // frame bytes -> tensor, every digest
//   compared
//
// Every call returns tersor::result<T>: a value, or an error with a stable number and the place of the fault.
#pragma once

#include <tersor/version.hpp>

// 1. Errors.
#include <tersor/error.hpp>
// 2. What goes in and comes out.
#include <tersor/tensor.hpp>
// 3. Which exponents get the short codes: per tensor by default, calibrated and shared on request.
#include <tersor/codebook.hpp>
// 4. Contexts, encode, decode, inspect.
#include <tersor/codec.hpp>
// 5. Weight matrices that stay compressed, for the products of <tersor/gemm.hpp>.
#include <tersor/packed.hpp>
// On an NVIDIA GPU, in device memory and on your stream: <tersor/cuda.hpp>, which this header leaves to those
// who use it.
// 6. Whole safetensors files and model directories.
#include <tersor/model.hpp>
// 7. One file, tensor by tensor.
#include <tersor/tensor_file.hpp>
// 8. For programs: signals and small output files.
#include <tersor/program.hpp>
