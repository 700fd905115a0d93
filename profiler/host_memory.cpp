#include "profiler/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/element.h"

namespace drydock::profiler {
namespace {

constexpr int64_t kAlignment = 64, kPattern = 1 << 20;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t copies_of(int64_t bytes) { return 8 * last_level_cache_bytes() / std::max(aligned(bytes), kAlignment) + 1; }

// Of cache `index` as the kernel numbers them [bytes]; 0: there is none, or it holds no data.
int64_t cache_bytes(int index) {
  const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
  std::string type;
  if (std::ifstream(folder + "/type") >> type; type == "Instruction") return 0;
  std::ifstream in(folder + "/size");
  int64_t size = 0;
  char unit = 'B';
  if (!(in >> size)) return 0;
  in >> unit;
  return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
}

// Aligned to huge pages, so that all but the tail can be in some.
char* huge_pages(size_t bytes, size_t& mapped) {
  constexpr size_t kHuge = size_t{2} << 20;
  mapped = bytes + kHuge;
  void* const all = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  auto* const first = static_cast<char*>(all);
  const size_t skipped = (kHuge - reinterpret_cast<uintptr_t>(all) % kHuge) % kHuge;
  if (skipped > 0) ::munmap(first, skipped);
  mapped -= skipped;
  ::madvise(first + skipped, mapped, MADV_HUGEPAGE);
  return first + skipped;
}

// Bytes of one line of /proc/meminfo.
double meminfo(const std::string& field) {
  std::ifstream in("/proc/meminfo");
  std::string name, unit;
  for (double kib = 0; in >> name >> kib && std::getline(in, unit);)
    if (name == field + ":") return kib * 1024;
  return 0;
}

void put(core::Dtype dtype, float value, char* to) {
  if (dtype == core::Dtype::fp32) {
    std::memcpy(to, &value, sizeof value);
  } else if (dtype == core::Dtype::bf16) {
    const kernels::Bf16 rounded = kernels::to_bf16(value);
    std::memcpy(to, &rounded, sizeof rounded);
  } else {
    const kernels::Fp8 rounded = kernels::to_fp8(value);
    std::memcpy(to, &rounded, sizeof rounded);
  }
}

// Blocks that no rotation uses. A process measures one op at a time, in one thread.
std::vector<RandomMemory>& spare_blocks() {
  static std::vector<RandomMemory> blocks;
  return blocks;
}

RandomMemory take(core::Dtype dtype, int64_t bytes) {
  constexpr size_t kMostSpare = 3;
  auto& blocks = spare_blocks();
  for (auto it = blocks.begin(); it != blocks.end(); ++it) {
    if (it->dtype() != dtype || it->bytes() < bytes) continue;
    RandomMemory out = std::move(*it);
    blocks.erase(it);
    return out;
  }
  if (blocks.size() >= kMostSpare) blocks.erase(blocks.begin());
  return RandomMemory(dtype, bytes);
}

int64_t element_width(core::Dtype dtype) { return dtype == core::Dtype::fp32 ? 4 : dtype == core::Dtype::bf16 ? 2 : 1; }

}  // namespace

int64_t last_level_cache_bytes() {
  static const int64_t bytes = [] {
    constexpr int64_t kUsual = 32 << 20;
    constexpr int kMostCaches = 8;
    int64_t most = 0;
    for (int index = 0; index < kMostCaches; ++index) most = std::max(most, cache_bytes(index));
    if (most > 0) return most;
    // Of processors with several last-level caches this may be the sum.
    for (const int name : {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE})
      most = std::max<int64_t>(most, ::sysconf(name));
    return most > 0 ? most : kUsual;
  }();
  return bytes;
}

double host_memory_bytes() { return meminfo("MemTotal"); }
double free_memory_bytes() { return meminfo("MemAvailable"); }

void RandomMemory::Free::operator()(char* p) const {
  if (mapped > 0)
    ::munmap(p, mapped);
  else
    std::free(p);
}

RandomMemory::RandomMemory(core::Dtype dtype, int64_t bytes)
    : dtype_(dtype), bytes_(std::max(aligned(bytes), kAlignment)) {
  constexpr int64_t kOwnPages = 1 << 20;
  const int64_t size = bytes_;
  if (size >= kOwnPages) {
    size_t mapped = 0;
    char* const pages = huge_pages(static_cast<size_t>(size), mapped);
    data_ = std::unique_ptr<char, Free>(pages, Free{mapped});
  } else {
    data_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, static_cast<size_t>(size))));
    if (!data_) throw std::bad_alloc();
  }
  core::Random random(static_cast<uint64_t>(dtype) + 1);
  const int64_t first = std::min(size, kPattern), step = element_width(dtype);
  for (int64_t i = 0; i < first; i += step) put(dtype, static_cast<float>(2 * random.uniform() - 1), data_.get() + i);
  for (int64_t i = first; i < size; i += kPattern)
    std::memcpy(data_.get() + i, data_.get(), static_cast<size_t>(std::min(kPattern, size - i)));
}

Rotation::Rotation(core::Dtype dtype, int64_t bytes)
    : stride_(std::max(aligned(bytes), kAlignment)),
      copies_(copies_of(bytes)),
      memory_(take(dtype, stride_ * copies_)) {}

Rotation::~Rotation() {
  if (memory_.data() != nullptr) spare_blocks().push_back(std::move(memory_));
}

int64_t rotated_bytes(int64_t bytes) { return copies_of(bytes) * std::max(aligned(bytes), kAlignment); }

}  // namespace drydock::profiler
