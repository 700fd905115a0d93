#include "profiler/cuda/device.h"

#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <sstream>

#include "core/error.h"
#include "models/catalogue.h"
#include "profiler/cuda/random_fill.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;

constexpr const char* kKernels = "cuda-1";  // counted up when kernels change so that times do

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "attribute of the device");
  return value;
}

std::string gpu_name(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "properties of the device");
  return properties.name;
}

double memory_of(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "properties of the device");
  return static_cast<double>(properties.totalGlobalMem);
}

// The driver must be there before CUDA's runtime is asked anything: it would only say that there is no device.
void require_driver() {
  if (::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr)
    throw core::Error("libcuda.so.1 can't be opened: is the NVIDIA driver installed?");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "version of the driver");
  check(cudaRuntimeGetVersion(&runtime), "version of the runtime");
  if (const auto reason = why_too_old(driver, runtime)) throw core::Error(*reason);
}

int count_of_gpus(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0)
    throw core::Error("no GPU: " +
                      std::string(status == cudaSuccess ? "the driver lists none" : cudaGetErrorString(status)));
  if (index < 0 || index >= count)
    throw core::Error(
        "GPU " + std::to_string(index) + " is not there; " +
        (count == 1 ? std::string("0 is the only one") : "0 to " + std::to_string(count - 1) + " are here"));
  return count;
}

std::string pci_bus_id(int device) {
  std::array<char, 32> text{};
  check(cudaDeviceGetPCIBusId(text.data(), static_cast<int>(text.size()), device), "address of the device");
  return text.data();
}

Gpu facts_of(int device, int count) {
  Gpu out;
  out.sm_version =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, device) + attribute(cudaDevAttrComputeCapabilityMinor, device);
  out.sms = attribute(cudaDevAttrMultiProcessorCount, device);
  out.l2_bytes = attribute(cudaDevAttrL2CacheSize, device);
  out.gpus = count;
  return out;
}

std::string clock_text(const Nvml& nvml, int device) {
  constexpr int kKiloHertz = 1000;
  const int mhz = nvml.max_clock_mhz().value_or(attribute(cudaDevAttrClockRate, device) / kKiloHertz);
  const int memory = nvml.max_memory_clock_mhz().value_or(attribute(cudaDevAttrMemoryClockRate, device) / kKiloHertz);
  return std::to_string(mhz) + " MHz, memory " + std::to_string(memory) + " MHz";
}

std::string version_text(const Gpu& gpu) {
  constexpr int kMajor = 10'000, kMinor = 100;
  int nccl = 0;
  ncclGetVersion(&nccl);
  return std::string(kKernels) + " sm_" + std::to_string(gpu.sm_version) + ", cublasLt " +
         kernels::cuda::CublasGemm::version() + ", nccl " + std::to_string(nccl / kMajor) + "." +
         std::to_string(nccl % kMajor / kMinor) + "." + std::to_string(nccl % kMinor);
}

std::vector<std::string> warnings_of(const Identity& identity, const Nvml& nvml) {
  std::vector<std::string> out;
  if (!nvml.is_open())
    out.push_back(std::string(Nvml::kLibrary) + " can't be used: throttling, power and other processes are not seen");
  if (identity.mig) out.push_back("the GPU is cut into MIG slices: times stand for a slice, not for a whole GPU");
  if (identity.other_processes > 0)
    out.push_back(std::to_string(identity.other_processes) + " other processes use the GPU: times will be too long");
  const uint64_t reasons = nvml.clock_reasons().value_or(0);
  if (clocks_of(reasons) == Clocks::slowed) out.push_back("clocks are held down now: " + describe_reasons(reasons));
  return out;
}

// "NVIDIA RTX A6000" -> "nvidia_rtx_a6000".
std::string system_name(const std::string& gpu) {
  std::string out;
  for (const char c : gpu) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else if (!out.empty() && out.back() != '_')
      out += '_';
  }
  return out;
}

// Read and written by a copy on the device [bytes/s].
double copy_rate(Bench& bench) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  constexpr int kRuns = 5;
  const auto memory = bench.memory();
  void* const from = memory->random(Dtype::bf16, kBytes);
  void* const to = memory->zeros(kBytes);
  const Launch copy = [&](int64_t) {
    check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, bench.lane().stream), "a copy");
  };
  Replay replay({bench.lane()}, copy, 4);
  double best = 0;
  for (int i = 0; i < kRuns; ++i) best = std::max(best, 2.0 * kBytes / replay.run() * 1e6);
  return best;
}

void list_links(const Nvml& nvml, core::Hardware& h) {
  constexpr double kLinkRate = 25e9, kFastLinkRate = 50e9;  // of NVLink 2 to 4, and 5, one direction
  constexpr double kPcie = 32e9, kNetwork = 12.5e9;         // where nobody tells
  const int links = nvml.nvlinks();
  h.nvlink_bytes_per_s = links * (nvml.nvlink_version().value_or(4) >= 5 ? kFastLinkRate : kLinkRate);
  h.nvlink_domain = links > 0 ? h.gpus_per_node : 1;
  h.pcie_bytes_per_s = nvml.pcie_bytes_per_s().value_or(kPcie);
  h.network_bytes_per_s = kNetwork;
}

}  // namespace

CudaDevice::CudaDevice(int index) : index_(index) {
  require_driver();
  const int count = count_of_gpus(index);
  // Before this process has a context there, and so is no other one itself.
  nvml_ = std::make_unique<Nvml>(pci_bus_id(index));
  if (const auto processes = nvml_->compute_processes()) others_ = static_cast<int>(processes->size());
  check(cudaSetDevice(index), "choosing a device");
  const Gpu gpu = facts_of(index, count);
  if (!has_machine_code())
    throw core::Error("this build has no kernels for sm_" + std::to_string(gpu.sm_version) + " (" + gpu_name(index) +
                      "); want sm_80, 89, 90 or 100, or a build with -DCMAKE_CUDA_ARCHITECTURES for it");
  bench_ = std::make_unique<Bench>(index, gpu);
}

Identity CudaDevice::identity() {
  Identity out;
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "version of the driver");
  out.gpu = gpu_name(index_);
  out.driver =
      nvml_->driver().value_or("CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10));
  out.clocks = clock_text(*nvml_, index_);
  out.version = version_text(bench_->gpu());
  out.units = bench_->gpu().sms;
  out.memory_bytes = memory_of(index_);
  out.mig = nvml_->mig().value_or(false) || out.gpu.find(" MIG ") != std::string::npos;
  out.ecc = nvml_->ecc().value_or(attribute(cudaDevAttrEccEnabled, index_) != 0);
  out.other_processes = others_.value_or(0);
  out.power_w = nvml_->power_w().value_or(0);
  out.celsius = nvml_->celsius().value_or(0);
  out.warnings = warnings_of(out, *nvml_);
  return out;
}

models::System CudaDevice::system() {
  const std::string_view known = known_system(gpu_name(index_), memory_of(index_));
  return known.empty() ? measured_system() : models::find_system(known);
}

void CudaDevice::measure_rates(core::Hardware& h) {
  constexpr int64_t kExtent = 8192;
  h.memory_bytes_per_s = copy_rate(*bench_);
  for (const Dtype dtype : {Dtype::bf16, Dtype::fp8, Dtype::fp8_block}) {
    const Op op = core::make_op(core::OpKind::gemm, dtype, dtype, {kExtent, kExtent, kExtent});
    if (why_not(op)) continue;
    h.flops_per_s[static_cast<size_t>(dtype)] = core::flops(op) / prepare(op)->sample().us * 1e6;
  }
}

models::System CudaDevice::measured_system() {
  models::System out;
  core::Hardware& h = out.hardware;
  out.gpu = gpu_name(index_);
  h.name = system_name(out.gpu);
  h.sm_version = bench_->gpu().sm_version;
  h.architecture = architecture_of(h.sm_version);
  h.sms = static_cast<int>(bench_->gpu().sms);
  h.gpus_per_node = static_cast<int>(bench_->gpu().gpus);
  measure_rates(h);
  list_links(*nvml_, h);
  out.gpus_per_rack = h.gpus_per_node;
  out.memory_bytes = memory_of(index_);
  out.power_w = nvml_->power_limit_w().value_or(0);
  std::ostringstream source;
  source.precision(3);
  source << "measured by drydock profile: copy " << h.memory_bytes_per_s / 1e9
         << " GB/s; rates are those of GEMMs; links as the driver lists them; network assumed";
  out.source = source.str();
  return out;
}

std::optional<std::string> CudaDevice::why_not(const Op& op) {
  constexpr double kShare = 0.95;  // of free memory: allocations are rounded up
  if (auto reason = why_no_kernel(op, bench_->gpu())) return reason;
  size_t free = 0, all = 0;
  check(cudaMemGetInfo(&free, &all), "free memory");
  if (const double need = bytes_needed(op, bench_->gpu()); need > kShare * static_cast<double>(free))
    return "not enough memory: needs " + std::to_string(std::llround(need / 1e6)) + " MB, " +
           std::to_string(free / 1'000'000) + " MB are free";
  return std::nullopt;
}

std::unique_ptr<CudaExperiment> CudaDevice::experiment(const Op& op) {
  return std::make_unique<CudaExperiment>(make_candidates(op, *bench_), *nvml_);
}

std::unique_ptr<Experiment> CudaDevice::prepare(const Op& op) { return experiment(op); }

std::vector<KernelPart> CudaDevice::parts(const Op& op) {
  const std::vector<KernelSum> sums = experiment(op)->sums();
  double all_us = 0;
  for (const KernelSum& sum : sums) all_us += sum.us;
  std::vector<KernelPart> out;
  for (const KernelSum& sum : sums) out.push_back({sum.name, sum.us / all_us});
  return out;
}

}  // namespace drydock::profiler::cuda
