#include "kernels/cuda/grouped_products.h"

#include <algorithm>
#include <optional>

#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_gemm_sm90.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/product_operands.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOwn = "grouped_gemm";
constexpr const char* kHopper = "grouped_gemm_sm90";

std::string cublas_way() {
  int parts[3] = {};
  for (int i = 0; i < 3; ++i) {
    const libraryPropertyType part = i == 0 ? MAJOR_VERSION : i == 1 ? MINOR_VERSION : PATCH_LEVEL;
    check(cublasGetProperty(part, &parts[i]), "version");
  }
  return "cublas " + std::to_string(parts[0]) + "." + std::to_string(parts[1]) + "." + std::to_string(parts[2]);
}

// cublasGemmGroupedBatchedEx multiplies bf16 with bf16 into bf16 only (no fp8, no fp32 result; cuBLAS manual, table of
// its types), with dimensions on the host and addresses, multiples of 16 bytes, on the device.
bool fits_cublas(const GroupedGemm& op) {
  const bool bf16 =
      op.a.dtype == core::Dtype::bf16 && op.b.dtype == core::Dtype::bf16 && op.out.dtype == core::Dtype::bf16;
  return bf16 && op.starts != nullptr && op.a.rows <= INT32_MAX && has_whole_pieces(op.a) && has_whole_pieces(op.b) &&
         has_whole_pieces(op.out);
}

using Event = Owned<cudaEvent_t, cudaEventDestroy>;

Event new_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "an event");
  return Event(event);
}

// Neighbouring groups of equally many rows are one group of cuBLAS's, whose problems share their dimensions.
struct Dimensions {
  std::vector<cublasOperation_t> left, right;
  std::vector<int> m, n, k, lda, ldb, ldc, problems;
  std::vector<float> one, zero;

  void add(const GroupedGemm& op, int rows) {
    if (!n.empty() && n.back() == rows) {
      ++problems.back();
      return;
    }
    // out^T (n, rows) = b (n, k) a^T (k, rows) in cuBLAS's columns.
    left.push_back(CUBLAS_OP_T), right.push_back(CUBLAS_OP_N);
    m.push_back(static_cast<int>(op.out.cols)), n.push_back(rows), k.push_back(static_cast<int>(op.a.cols));
    lda.push_back(static_cast<int>(op.b.stride)), ldb.push_back(static_cast<int>(op.a.stride));
    ldc.push_back(static_cast<int>(op.out.stride));
    problems.push_back(1);
    one.push_back(1), zero.push_back(0);
  }
};

}  // namespace

// One handle, and addresses on both sides that calls share: the next one waits until the last one's are copied.
struct GroupedProducts::Cublas {
  cublasHandle_t handle = nullptr;
  int64_t groups = 0;             // that there is room for
  int32_t* starts = nullptr;      // pinned, (groups + 1)
  const void** host = nullptr;    // pinned, (3 groups): left, right, out
  const void** device = nullptr;  // the same
  Event copied = new_event();

  Cublas() { check(cublasCreate(&handle), "starting"); }
  ~Cublas() {
    release();
    if (handle != nullptr) cublasDestroy(handle);
  }
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  void release() {
    cudaFree(device);
    cudaFreeHost(host);
    cudaFreeHost(starts);
    device = nullptr, host = nullptr, starts = nullptr, groups = 0;
  }

  void reserve(int64_t wanted, Stream stream) {
    if (wanted <= groups) return;
    check(cudaStreamSynchronize(stream), "synchronising a stream");
    release();
    const auto count = static_cast<size_t>(wanted);
    check(cudaMallocHost(reinterpret_cast<void**>(&starts), (count + 1) * sizeof(int32_t)), "pinned memory");
    check(cudaMallocHost(reinterpret_cast<void**>(&host), 3 * count * sizeof(void*)), "pinned memory");
    check(cudaMalloc(reinterpret_cast<void**>(&device), 3 * count * sizeof(void*)), "memory for addresses");
    groups = wanted;
  }

  const int32_t* starts_of(const GroupedGemm& op, Stream stream) {
    if (op.host_starts != nullptr) return op.host_starts;
    const auto bytes = static_cast<size_t>(op.groups + 1) * sizeof(int32_t);
    check(cudaMemcpyAsync(starts, op.starts, bytes, cudaMemcpyDeviceToHost, stream), "reading groups' sizes");
    check(cudaStreamSynchronize(stream), "reading groups' sizes");
    return starts;
  }

  // Groups with rows; returns how many.
  int64_t fill(const GroupedGemm& op, const int32_t* from, Dimensions& dimensions) const {
    const auto at = [](const Matrix& matrix, int64_t row) {
      return static_cast<const char*>(matrix.data) + row * matrix.stride * 2;
    };
    int64_t count = 0;
    for (int64_t g = 0; g < op.groups; ++g) {
      if (from[g + 1] <= from[g]) continue;
      host[count] = at(op.b, g * op.out.cols);
      host[groups + count] = at(op.a, from[g]);
      host[2 * groups + count] = at(op.out, from[g]);
      dimensions.add(op, from[g + 1] - from[g]);
      ++count;
    }
    return count;
  }

  void run(const GroupedGemm& op, Stream stream) {
    reserve(op.groups, stream);
    const int32_t* const from = starts_of(op, stream);
    check(cudaEventSynchronize(copied.get()), "waiting for a copy");
    Dimensions d;
    if (fill(op, from, d) == 0) return;
    check(
        cudaMemcpyAsync(device, host, 3 * static_cast<size_t>(groups) * sizeof(void*), cudaMemcpyHostToDevice, stream),
        "copying addresses");
    check(cudaEventRecord(copied.get(), stream), "an event");
    check(cublasSetStream(handle, stream), "choosing a stream");
    check(cublasGemmGroupedBatchedEx(handle, d.left.data(), d.right.data(), d.m.data(), d.n.data(), d.k.data(),
                                     d.one.data(), device, CUDA_R_16BF, d.lda.data(), device + groups, CUDA_R_16BF,
                                     d.ldb.data(), d.zero.data(), const_cast<void**>(device + 2 * groups), CUDA_R_16BF,
                                     d.ldc.data(), static_cast<int>(d.n.size()), d.problems.data(), CUBLAS_COMPUTE_32F),
          "a grouped product");
  }
};

GroupedProducts::GroupedProducts() = default;
GroupedProducts::~GroupedProducts() = default;

std::vector<GroupedWay> GroupedProducts::ways(const GroupedGemm& op, bool with_sm90) const {
  std::vector<GroupedWay> out{kOwn};
  if (with_sm90 && can_group_sm90(op)) out.emplace_back(kHopper);
  if (fits_cublas(op)) out.push_back(cublas_way());
  return out;
}

bool GroupedProducts::needs_host(const GroupedWay& way) { return way.starts_with("cublas "); }

void GroupedProducts::run(const GroupedGemm& op, Stream stream, const GroupedWay& way) {
  if (op.a.rows <= 0 || op.groups <= 0 || op.out.cols <= 0) return;
  if (way == kHopper && can_group_sm90(op)) return grouped_gemm_sm90(op, stream);
  if (!needs_host(way) || !fits_cublas(op) || way != cublas_way()) return grouped_gemm(op, stream);
  if (!cublas_) cublas_ = std::make_unique<Cublas>();
  cublas_->run(op, stream);
}

std::vector<TimedWay> GroupedProducts::measure(const GroupedGemm& op, Stream stream, int repeats) {
  const auto timed = [&](const GroupedWay& way) -> std::optional<double> {
    std::vector<double> times_us;
    const Event begin = new_event(), end = new_event();
    for (int i = 0; i <= std::max(1, repeats); ++i) {
      check(cudaEventRecord(begin.get(), stream), "an event");
      try {
        run(op, stream, way);
      } catch (const core::Error&) {
        check(cudaStreamSynchronize(stream), "a grouped product");  // a device that is lost is another matter
        return std::nullopt;
      }
      check(cudaEventRecord(end.get(), stream), "an event");
      check(cudaEventSynchronize(end.get()), "a grouped product");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "time between events");
      if (i > 0) times_us.push_back(1e3 * double{milliseconds});
    }
    std::nth_element(times_us.begin(), times_us.begin() + static_cast<int64_t>(times_us.size() / 2), times_us.end());
    return times_us[times_us.size() / 2];
  };
  std::vector<TimedWay> out;
  for (const GroupedWay& way : ways(op))
    if (const auto us = timed(way)) out.push_back({way, *us});
  if (out.empty()) throw core::Error("grouped_gemm: no way to compute this product ran");
  std::stable_sort(out.begin(), out.end(), [](const TimedWay& x, const TimedWay& y) { return x.time_us < y.time_us; });
  return out;
}

}  // namespace drydock::kernels::cuda
