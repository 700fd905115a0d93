#include "profiler/cuda/cupti.h"

#include <cuda_runtime_api.h>
#include <cupti.h>
#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <mutex>

#include "core/error.h"
#include "profiler/cuda/runtime.h"

namespace drydock::profiler::cuda {
// Beside that of runtime.h.
static void check(CUptiResult result, const char* what) {
  if (result == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  throw core::Error(std::string("CUPTI: ") + what + ": " + (text != nullptr ? text : "unknown error"));
}

namespace {

// Of driver 580 (CUDA 13.0); later ones only append fields.
using Activity = CUpti_ActivityKernel10;

constexpr size_t kBufferBytes = size_t{4} << 20, kBufferAlignment = 8;

std::string demangle(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                         std::free);
  return text ? text.get() : name;
}

// CUPTI's callbacks carry no pointer of ours.
struct Collected {
  std::mutex mutex;
  std::vector<KernelRecord> records;
  size_t dropped = 0;
  bool failed = false;
};
Collected& collected() {
  static Collected all;
  return all;
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *size = *buffer == nullptr ? 0 : kBufferBytes;
  *most_records = 0;  // as many as fit
}

void read_records(uint8_t* buffer, size_t valid, Collected& into) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const Activity*>(record);
    into.records.push_back({demangle(kernel->name), kernel->start, kernel->end});
  }
}

// Called from CUPTI, which knows no exceptions.
void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t, size_t valid) noexcept {
  Collected& all = collected();
  const std::lock_guard lock(all.mutex);
  try {
    read_records(buffer, valid, all);
  } catch (...) {
    all.failed = true;
  }
  size_t dropped = 0;
  if (cuptiActivityGetNumDroppedRecords(context, stream, &dropped) == CUPTI_SUCCESS) all.dropped += dropped;
  std::free(buffer);
}

// Records while it lives, and leaves the process as it was, so that what is timed later runs without CUPTI.
class Recording {
 public:
  Recording() {
    {
      const std::lock_guard lock(collected().mutex);
      collected().records.clear();
      collected().dropped = 0;
      collected().failed = false;
    }
    check(cuptiActivityRegisterCallbacks(give_buffer, take_buffer), "buffers");
    // Not KERNEL, which runs one kernel at a time.
    check(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL), "recording kernels");
  }
  ~Recording() {
    cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiFinalize();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  std::vector<KernelRecord> take() {
    check(cuptiActivityFlushAll(0), "reading records");
    const std::lock_guard lock(collected().mutex);
    if (collected().dropped > 0)
      throw core::Error("CUPTI: " + std::to_string(collected().dropped) +
                        " records were dropped; fewer runs would fit");
    if (collected().failed) throw core::Error("CUPTI: no memory for its records");
    return std::move(collected().records);
  }
};

}  // namespace

std::vector<KernelSum> name_kernels(const std::function<void()>& launch, int runs) {
  launch();  // what runs once only is over
  check(cudaDeviceSynchronize(), "running an op");
  Recording recording;
  for (int i = 0; i < runs; ++i) launch();
  check(cudaDeviceSynchronize(), "running an op");
  const std::vector<KernelRecord> records = recording.take();
  if (records.empty()) throw core::Error("CUPTI: no kernel was recorded");
  return sums_of(records, runs);
}

}  // namespace drydock::profiler::cuda
