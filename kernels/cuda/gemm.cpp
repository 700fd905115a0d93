#include "kernels/cuda/gemm.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "kernels/cuda/block_scales.h"
#include "kernels/cuda/library.h"

namespace drydock::kernels::cuda {
namespace {

using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;

cudaDataType_t type_of(const Matrix& matrix) {
  switch (matrix.dtype) {
    case core::Dtype::fp32:
      return CUDA_R_32F;
    case core::Dtype::bf16:
      return CUDA_R_16BF;
    case core::Dtype::fp8:
      return CUDA_R_8F_E4M3;
    default:
      throw core::Error("gemm: a matrix is " + std::string(core::name(matrix.dtype)) + "; fp32, bf16 or fp8 is right");
  }
}

// A row-major matrix, which cuBLASLt, column-major, sees transposed.
Layout layout_of(const Matrix& matrix) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type_of(matrix), static_cast<uint64_t>(matrix.cols),
                                   static_cast<uint64_t>(matrix.rows), matrix.stride),
        "layout of a matrix");
  return Layout(layout);
}

template <typename T>
void set(const Description& description, cublasLtMatmulDescAttributes_t attribute, T value) {
  check(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof(value)), "attribute of a product");
}

// Everything cuBLASLt is told of one product. out^T (n, m) = b (n, k) a^T (k, m): its left operand is our b.
struct Product {
  Description description;
  Layout left, right, out;
};

void check_scales(const Gemm& op) {
  const bool fp8 = op.a.dtype == core::Dtype::fp8;
  if (op.a.dtype != op.b.dtype) throw core::Error("gemm: a and b have different dtypes; equal ones are right on a GPU");
  if (fp8 != (op.a.scaling != Scaling::none) || op.a.scaling != op.b.scaling)
    throw core::Error("gemm: fp8 needs scales, of the same kind for a and b, and nothing else has any");
}

Product product_of(const Gemm& op, const float* left_scales, const float* right_scales) {
  check_scales(op);
  cublasLtMatmulDesc_t description = nullptr;
  check(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description of a product");
  Product product{Description(description), layout_of(op.b), layout_of(op.a), layout_of(op.out)};
  set(product.description, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(product.description, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  if (op.a.scaling == Scaling::none) return product;
  int32_t left = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, right = left;
  if (op.a.scaling == Scaling::row) left = right = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  if (op.a.scaling == Scaling::block) {
    left = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    right = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
  }
  set(product.description, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, left);
  set(product.description, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, right);
  set(product.description, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, left_scales);
  set(product.description, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, right_scales);
  return product;
}

std::string text_of(const cublasLtMatmulAlgo_t& algorithm) {
  static_assert(sizeof(algorithm.data) == 64);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<unsigned char, 64> bytes{};
  std::memcpy(bytes.data(), algorithm.data, bytes.size());
  std::string text = CublasGemm::version() + ":";
  for (const unsigned char byte : bytes) {
    text += kDigits[byte / 16];
    text += kDigits[byte % 16];
  }
  return text;
}

std::optional<unsigned char> digit_of(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned char>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned char>(c - 'a' + 10);
  return std::nullopt;
}

std::optional<cublasLtMatmulAlgo_t> parse(const GemmAlgorithm& text) {
  const std::string prefix = CublasGemm::version() + ":";
  if (text.size() != prefix.size() + 128 || text.compare(0, prefix.size(), prefix) != 0) return std::nullopt;
  std::array<unsigned char, 64> bytes{};
  for (size_t i = 0; i < 64; ++i) {
    const auto high = digit_of(text[prefix.size() + 2 * i]), low = digit_of(text[prefix.size() + 2 * i + 1]);
    if (!high || !low) return std::nullopt;
    bytes[i] = static_cast<unsigned char>(*high * 16 + *low);
  }
  cublasLtMatmulAlgo_t algorithm;
  std::memcpy(algorithm.data, bytes.data(), bytes.size());
  return algorithm;
}

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

struct CublasGemm::Implementation {
  cublasLtHandle_t handle = nullptr;
  size_t workspace_bytes = 0;
  void* workspace = nullptr;
  size_t scale_bytes = 0;
  float* scales = nullptr;  // block scales in cuBLASLt's order

  ~Implementation() {
    cudaFree(scales);
    cudaFree(workspace);
    if (handle != nullptr) cublasLtDestroy(handle);
  }

  void reserve_scales(size_t bytes, Stream stream) {
    if (bytes <= scale_bytes) return;
    check(cudaStreamSynchronize(stream), "synchronising a stream");
    check(cudaFree(scales), "freeing memory");
    scales = nullptr;
    scale_bytes = 0;
    check(cudaMalloc(reinterpret_cast<void**>(&scales), bytes), "memory for scales");
    scale_bytes = bytes;
  }

  // cuBLASLt (PyTorch's aten/src/ATen/native/cuda/Blas.cpp checks the same) wants the scales of 128-element blocks with
  // rows adjacent, and those of 128 x 128 blocks with each row padded to a multiple of 4.
  Product describe(const Gemm& op, Stream stream) {
    if (op.a.scaling != Scaling::block) return product_of(op, op.b.scales, op.a.scales);
    const int64_t blocks = (op.a.cols + 127) / 128, padded = round_up(blocks, 4);
    const int64_t weight_rows = (op.b.rows + 127) / 128, a_stride = op.a.rows;
    const int64_t weight_numbers = round_up(weight_rows * padded, 64);
    reserve_scales(static_cast<size_t>(weight_numbers + blocks * a_stride) * sizeof(float), stream);
    pad_scales(op.b.scales, scales, weight_rows, blocks, padded, stream);
    transpose_scales(op.a.scales, scales + weight_numbers, op.a.rows, blocks, a_stride, stream);
    return product_of(op, scales, scales + weight_numbers);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> candidates(const Product& product, int most) const {
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "preference");
    const Preference preference(made);
    check(cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                               sizeof(workspace_bytes)),
          "preference");
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, product.description.get(), product.left.get(), product.right.get(),
                                       product.out.get(), product.out.get(), made, most, results.data(), &found);
    results.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(found) : 0);
    if (results.empty()) throw core::Error("gemm: cuBLASLt has no algorithm for this shape and dtype on this GPU");
    return results;
  }

  // Whether cuBLASLt takes the algorithm for this product within the workspace.
  bool is_usable(const Product& product, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result = {};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle, product.description.get(), product.left.get(), product.right.get(),
                                product.out.get(), product.out.get(), &algorithm, &result);
    return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= workspace_bytes;
  }

  cublasStatus_t start(const Gemm& op, const Product& product, const cublasLtMatmulAlgo_t& algorithm, Stream stream) {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, product.description.get(), &one, op.b.data, product.left.get(), op.a.data,
                          product.right.get(), &zero, op.out.data, product.out.get(), op.out.data, product.out.get(),
                          &algorithm, workspace, workspace_bytes, stream);
  }

  // Median time of a launch [us]; nullopt when it fails.
  std::optional<double> time(const Gemm& op, const Product& product, const cublasLtMatmulAlgo_t& algorithm,
                             Stream stream, int repeats) {
    if (start(op, product, algorithm, stream) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
    std::vector<Event> events;
    for (int i = 0; i <= repeats; ++i) {
      cudaEvent_t event = nullptr;
      check(cudaEventCreate(&event), "an event");
      events.emplace_back(event);
      check(cudaEventRecord(event, stream), "an event");
      if (i < repeats && start(op, product, algorithm, stream) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
    }
    check(cudaStreamSynchronize(stream), "synchronising a stream");
    std::vector<float> times_ms(static_cast<size_t>(repeats));
    for (size_t i = 0; i < times_ms.size(); ++i)
      check(cudaEventElapsedTime(&times_ms[i], events[i].get(), events[i + 1].get()), "time between events");
    std::sort(times_ms.begin(), times_ms.end());
    return 1e3 * double{times_ms[times_ms.size() / 2]};
  }
};

CublasGemm::CublasGemm(size_t workspace_bytes) : implementation_(std::make_unique<Implementation>()) {
  check(cublasLtCreate(&implementation_->handle), "starting");
  check(cudaMalloc(&implementation_->workspace, workspace_bytes), "memory for cuBLASLt's workspace");
  implementation_->workspace_bytes = workspace_bytes;
}

CublasGemm::~CublasGemm() = default;

std::string CublasGemm::version() {
  const size_t version = cublasLtGetVersion();  // 130002 is 13.0.2
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

void CublasGemm::run(const Gemm& op, Stream stream, const GemmAlgorithm& algorithm) {
  if (op.out.rows <= 0 || op.out.cols <= 0) return;
  const Product product = implementation_->describe(op, stream);
  std::optional<cublasLtMatmulAlgo_t> chosen = parse(algorithm);
  if (!chosen || !implementation_->is_usable(product, *chosen))
    chosen = implementation_->candidates(product, 1).front().algo;
  check(implementation_->start(op, product, *chosen, stream), "a product");
}

std::vector<TimedAlgorithm> CublasGemm::measure(const Gemm& op, Stream stream, int candidates, int repeats) {
  const Product product = implementation_->describe(op, stream);
  std::vector<TimedAlgorithm> out;
  for (const cublasLtMatmulHeuristicResult_t& candidate : implementation_->candidates(product, candidates)) {
    if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
    const std::optional<double> time_us =
        implementation_->time(op, product, candidate.algo, stream, std::max(1, repeats));
    if (time_us) out.push_back({text_of(candidate.algo), *time_us});
  }
  if (out.empty()) throw core::Error("gemm: none of cuBLASLt's algorithms ran for this shape");
  std::stable_sort(out.begin(), out.end(), [](const auto& x, const auto& y) { return x.time_us < y.time_us; });
  return out;
}

}  // namespace drydock::kernels::cuda
