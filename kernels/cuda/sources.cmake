# Written in the words of simt.h: compiled for the GPU and, as C++, for the tests on the CPU.
set(DRYDOCK_SIMT_KERNELS
  attention_check.cu
  attention_combine.cu
  attention_work.cu
  block_copy.cu
  decode_attention.cu
  block_scales.cu
  gather_combine.cu
  grouped_gemm.cu
  index_score.cu
  mla_decode.cu
  mla_prefill.cu
  peer_all_reduce.cu
  permute.cu
  prefill_attention.cu
  rope_append.cu
  recurrent.cu
  route.cu
  sampling.cu
  small_gemm.cu
  small_ops.cu
  take_drawn.cu
)
# Need instructions or libraries that are not emulated.
set(DRYDOCK_CUDA_ONLY
  collective.cpp
  gemm.cpp
  grouped_gemm_sm90.cu
  grouped_products.cpp
  prefill_attention_sm90.cu
)
list(TRANSFORM DRYDOCK_SIMT_KERNELS PREPEND ${PROJECT_SOURCE_DIR}/kernels/cuda/)
list(TRANSFORM DRYDOCK_CUDA_ONLY PREPEND ${PROJECT_SOURCE_DIR}/kernels/cuda/)
