#include "profiler/cpu_device.h"

#include <sys/resource.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "kernels/cpu.h"
#include "profiler/cpu_launch.h"
#include "profiler/host_memory.h"

namespace drydock::profiler {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Value of the first line "`field` : value" of /proc/cpuinfo.
std::string cpuinfo(const std::string& field) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (!line.starts_with(field) || colon == std::string::npos || colon + 2 > line.size()) continue;
    return line.substr(colon + 2);
  }
  return "";
}

// The highest, to 100 MHz. Where the kernel tells only the current one, as most virtual machines do, it says nothing of
// the times and would part what belongs together.
std::string clock_text() {
  constexpr double kStep = 100;
  double mhz = 0;
  if (std::ifstream most("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"); most >> mhz) mhz /= 1000;
  if (mhz <= 0) return "unknown MHz";
  return std::to_string(std::lround(mhz / kStep) * std::lround(kStep)) + " MHz";
}

// "AMD EPYC (family 26, model 2)": virtual machines tell of several generations by one name.
std::string processor_name() {
  const std::string name = cpuinfo("model name");
  if (const std::string part = cpuinfo("CPU part"); name.empty())
    return part.empty() ? "unknown processor"
                        : "Arm processor (implementer " + cpuinfo("CPU implementer") + ", part " + part + ")";
  const std::string family = cpuinfo("cpu family"), model = cpuinfo("model\t");
  return family.empty() || model.empty() ? name : name + " (family " + family + ", model " + model + ")";
}

// What large operands lie in.
const char* page_text() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string choice;
  std::getline(in, choice);
  return choice.empty() || choice.find("[never]") != std::string::npos ? "small pages" : "huge pages";
}

// Jiffies that a hypervisor gave to others, all processors together; 0 on bare metal.
int64_t stolen_jiffies() {
  std::ifstream in("/proc/stat");
  std::string word;
  in >> word;
  int64_t value = 0;
  for (int column = 0; column < 8 && in >> value; ++column) continue;  // user nice system idle iowait irq softirq steal
  return value;
}

// How often the processors were taken from us: by the hypervisor, or by other processes.
int64_t disturbances() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return stolen_jiffies() + usage.ru_nivcsw;
}

class CpuExperiment : public Experiment {
 public:
  CpuExperiment(Launch launch, std::string kernel) : launch_(std::move(launch)), kernel_(std::move(kernel)) {
    constexpr double kWarmUp = 0.01, kSample = 0.001;  // [s]
    const Clock::time_point start = Clock::now();
    double once = 0;
    do {  // the last of these is warm
      const Clock::time_point begun = Clock::now();
      launch_(turn_++);
      once = seconds_since(begun);
    } while (seconds_since(start) < kWarmUp);
    launches_ = std::clamp<int64_t>(std::llround(kSample / std::max(once, 1e-7)), 1, 20'000);
  }

  Reading sample() override {
    const int64_t before = disturbances();
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < launches_; ++i) launch_(turn_++);
    const double seconds = seconds_since(start);
    const bool disturbed = disturbances() > before && seconds < kUndisturbed && disturbed_ < kPatience + 4 * clean_;
    (disturbed ? disturbed_ : clean_) += 1;
    return {seconds * 1e6 / static_cast<double>(launches_), disturbed};
  }

  std::string kernel() override { return kernel_; }

 private:
  Launch launch_;
  std::string kernel_;
  // Longer samples are disturbed on any host, and on a busy one all are: some truth is better than none.
  static constexpr double kUndisturbed = 0.02;  // [s]
  static constexpr int64_t kPatience = 20;
  int64_t turn_ = 0, launches_ = 1, disturbed_ = 0, clean_ = 0;
};

// Best of a few passes over 256 MiB [bytes/s].
double best_rate(double bytes, const std::function<void()>& pass) {
  constexpr int kPasses = 6;
  double best = 0;
  for (int i = 0; i < kPasses; ++i) {
    const Clock::time_point start = Clock::now();
    pass();
    best = std::max(best, bytes / seconds_since(start));
  }
  return best;
}

struct Bandwidth {
  double copy = 0, read = 0;  // [bytes/s]; copy: read and written
};

Bandwidth bandwidth(kernels::cpu::Threads& threads) {
  constexpr int64_t kBytes = 256 << 20, kLine = 64;
  const RandomMemory from(core::Dtype::bf16, kBytes), to(core::Dtype::bf16, kBytes);
  Bandwidth out;
  out.copy = best_rate(2.0 * kBytes, [&] {
    threads.parallel_for(kBytes / kLine, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin * kLine, from.data() + begin * kLine, static_cast<size_t>((end - begin) * kLine));
    });
  });
  uint64_t unused = 0;
  out.read = best_rate(kBytes, [&] {
    threads.parallel_for(kBytes / kLine, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t i = begin; i < end; ++i)
        for (int word = 0; word < 8; ++word) {
          uint64_t value;
          std::memcpy(&value, from.data() + i * kLine + word * 8, sizeof value);
          sums[word] += value;
        }
      const uint64_t sum = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
      __atomic_fetch_add(&unused, sum, __ATOMIC_RELAXED);
    });
  });
  return out;
}

double gemm_rate(core::Dtype dtype, kernels::cpu::Threads& threads) {
  constexpr int64_t kM = 512, kN = 1536, kK = 1536;
  const core::Op op = core::make_op(core::OpKind::gemm, dtype, dtype, {kM, kN, kK});
  const Launch launch = make_launch(op, threads);
  int64_t turn = 0;
  return best_rate(core::flops(op), [&] { launch(turn++); });
}

}  // namespace

CpuDevice::CpuDevice(int threads) : threads_(threads) {}

Identity CpuDevice::identity() {
  Identity out;
  out.gpu = processor_name();
  utsname system{};
  if (::uname(&system) == 0) out.driver = std::string(system.sysname) + " " + system.release;
  // All that makes other times.
  out.clocks = clock_text() + ", " + std::to_string(threads_.size()) + " threads, " + kernels::cpu::instruction_set() +
               ", " + page_text();
  out.units = threads_.size();
  out.version = std::string("cpu-1 ") + kernels::cpu::instruction_set();
  out.memory_bytes = host_memory_bytes();
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  out.other_processes = static_cast<int>(load + 0.5);
  if (load > 0.5)
    out.warnings.push_back("the load average is " + std::to_string(load).substr(0, 4) +
                           ": other processes share the processors, times will be too long");
  return out;
}

models::System CpuDevice::system() {
  const Bandwidth memory = bandwidth(threads_);
  models::System out;
  core::Hardware& h = out.hardware;
  h.name = kHostSystem;
  h.architecture = "cpu";
  h.sm_version = 999;  // no GPU's
  h.sms = threads_.size();
  h.memory_bytes_per_s = std::max(memory.copy, memory.read);
  for (const core::Dtype dtype : {core::Dtype::fp32, core::Dtype::bf16, core::Dtype::fp8})
    h.flops_per_s[static_cast<size_t>(dtype)] = gemm_rate(dtype, threads_);
  h.flops_per_s[static_cast<size_t>(core::Dtype::fp8_block)] = h.flops_per_s[static_cast<size_t>(core::Dtype::fp8)];
  constexpr double kNetwork = 1.25e9;
  h.pcie_bytes_per_s = memory.copy / 2;
  h.network_bytes_per_s = kNetwork;
  h.gpus_per_node = 1;
  out.gpus_per_rack = 1;
  out.gpu = processor_name();
  out.memory_bytes = host_memory_bytes();
  std::ostringstream source;
  source.precision(3);
  source << "measured by drydock profile on " << threads_.size() << " threads: copy " << memory.copy / 1e9
         << " GB/s, read " << memory.read / 1e9 << " GB/s; rates are those of GEMMs; network assumed";
  out.source = source.str();
  return out;
}

std::optional<std::string> CpuDevice::why_not(const core::Op& op) {
  if (auto reason = why_no_launch(op)) return reason;
  constexpr double kShare = 0.8;  // of free memory
  if (const double need = launch_bytes(op); need > kShare * free_memory_bytes())
    return "not enough memory: needs " + std::to_string(std::llround(need / 1e6)) + " MB, " +
           std::to_string(std::llround(free_memory_bytes() / 1e6)) + " MB are free";
  return std::nullopt;
}

std::unique_ptr<Experiment> CpuDevice::prepare(const core::Op& op) {
  return std::make_unique<CpuExperiment>(make_launch(op, threads_), launch_kernel(op));
}

}  // namespace drydock::profiler
