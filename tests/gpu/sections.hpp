// The sections of the test program.
#pragma once

#include "device.hpp"

namespace gpu_test {

void run_conformance(const env& e, section& s);
void run_alignment(const env& e, section& s);
void run_codebook(const env& e, section& s);
void run_batch(const env& e, section& s);
void run_pages(const env& e, section& s);
void run_hostile(const env& e, section& s);
void run_graph(const env& e, section& s);
void run_determinism(const env& e, section& s);
void run_streams(const env& e, section& s);
void run_huge(const env& e, section& s);
void run_capacity(const env& e, section& s);
void run_errors(const env& e, section& s);
void run_matrices(const env& e, section& s);
void run_matrix_damage(const env& e, section& s);
void run_gemm(const env& e, section& s);
void run_gemm_groups(const env& e, section& s);
void run_gemm_repeat(const env& e, section& s);
void run_transfer(const env& e, section& s);
void run_link(const env& e, section& s);

}  // namespace gpu_test
