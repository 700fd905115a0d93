#include "kernels/cuda/collective.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <exception>

#include "core/error.h"
#include "kernels/cuda/library.h"

namespace drydock::kernels::cuda {

// Beside those of library.h.
static void check(ncclResult_t result, const char* what) {
  if (result != ncclSuccess && result != ncclInProgress)
    throw core::Error(std::string("NCCL: ") + what + ": " + ncclGetErrorString(result));
}

namespace {

struct Element {
  ncclDataType_t type;
  int64_t bytes;
};
Element element_of(core::Dtype dtype) {
  switch (dtype) {
    case core::Dtype::fp32:
      return {ncclFloat32, 4};
    case core::Dtype::bf16:
      return {ncclBfloat16, 2};
    case core::Dtype::fp8:
      return {ncclFloat8e4m3, 1};
    case core::Dtype::int8:
      return {ncclInt8, 1};
    default:
      throw core::Error("NCCL: no " + std::string(core::name(dtype)) + "; fp32, bf16, fp8 or int8 is right");
  }
}

ncclComm_t native(void* communicator) { return static_cast<ncclComm_t>(communicator); }

}  // namespace

void Communicator::Closer::operator()(void* communicator) const { ncclCommDestroy(native(communicator)); }

Communicator::Communicator(void* communicator)
    : communicator_(communicator), aborted_(std::make_unique<std::atomic<bool>>(false)) {}

Communicator::~Communicator() {
  if (aborted_ && *aborted_) communicator_.release();  // ncclCommAbort has freed it
}

// As others that watch their ranks from a thread beside do it: a call that has just passed usable() meets NCCL's own
// flag.
void Communicator::abort() noexcept {
  if (!aborted_->exchange(true)) ncclCommAbort(native(communicator_.get()));
}

void* Communicator::usable() const {
  if (*aborted_) throw core::Error("NCCL: the group was given up, as it lost a rank");
  return communicator_.get();
}

std::string Communicator::new_id() {
  ncclUniqueId id;
  check(ncclGetUniqueId(&id), "making an id");
  return {id.internal, sizeof(id.internal)};
}

Communicator::Communicator(const std::string& id, int rank, int ranks) : Communicator(nullptr) {
  ncclUniqueId native_id;
  if (id.size() != sizeof(native_id.internal))
    throw core::Error("NCCL: an id of " + std::to_string(id.size()) + " bytes; what new_id() gave is right");
  std::memcpy(native_id.internal, id.data(), id.size());
  ncclComm_t made = nullptr;
  check(ncclCommInitRank(&made, ranks, native_id, rank), "joining a group");
  communicator_.reset(made);
}

std::vector<Communicator> Communicator::of_devices(const std::vector<int>& devices) {
  std::vector<ncclComm_t> made(devices.size());
  check(ncclCommInitAll(made.data(), static_cast<int>(devices.size()), devices.data()), "making a group");
  std::vector<Communicator> out;
  for (ncclComm_t one : made) out.push_back(Communicator(static_cast<void*>(one)));
  return out;
}

int Communicator::rank() const {
  int rank = 0;
  check(ncclCommUserRank(native(usable()), &rank), "rank");
  return rank;
}

int Communicator::ranks() const {
  int ranks = 0;
  check(ncclCommCount(native(usable()), &ranks), "ranks");
  return ranks;
}

void Communicator::all_reduce(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream) {
  check(ncclAllReduce(in, out, static_cast<size_t>(count), element_of(dtype).type, ncclSum, native(usable()), stream),
        "all-reduce");
}

void Communicator::all_gather(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream) {
  check(ncclAllGather(in, out, static_cast<size_t>(count), element_of(dtype).type, native(usable()), stream),
        "all-gather");
}

void Communicator::reduce_scatter(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream) {
  check(
      ncclReduceScatter(in, out, static_cast<size_t>(count), element_of(dtype).type, ncclSum, native(usable()), stream),
      "reduce-scatter");
}

void Communicator::all_to_all(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream) {
  const std::vector<int64_t> counts(static_cast<size_t>(ranks()), count);
  all_to_all(in, counts, out, counts, dtype, stream);
}

void Communicator::all_to_all(const void* in, const std::vector<int64_t>& sent, void* out,
                              const std::vector<int64_t>& received, core::Dtype dtype, Stream stream) {
  const auto ranks = static_cast<size_t>(this->ranks());
  if (sent.size() != ranks || received.size() != ranks)
    throw core::Error("NCCL: all-to-all counts for " + std::to_string(sent.size()) + " ranks; " +
                      std::to_string(ranks) + " is right");
  const int64_t bytes = element_of(dtype).bytes;
  const auto* from = static_cast<const char*>(in);
  auto* to = static_cast<char*>(out);
  const Group group;
  for (size_t peer = 0; peer < ranks; ++peer) {
    if (sent[peer] > 0) send(from, sent[peer], dtype, static_cast<int>(peer), stream);
    if (received[peer] > 0) receive(to, received[peer], dtype, static_cast<int>(peer), stream);
    from += sent[peer] * bytes;
    to += received[peer] * bytes;
  }
}

void Communicator::send(const void* in, int64_t count, core::Dtype dtype, int to, Stream stream) {
  check(ncclSend(in, static_cast<size_t>(count), element_of(dtype).type, to, native(usable()), stream), "send");
}

void Communicator::receive(void* out, int64_t count, core::Dtype dtype, int from, Stream stream) {
  check(ncclRecv(out, static_cast<size_t>(count), element_of(dtype).type, from, native(usable()), stream), "receive");
}

Communicator::Group::Group() { check(ncclGroupStart(), "starting a group"); }

Communicator::Group::~Group() noexcept(false) {
  const ncclResult_t result = ncclGroupEnd();
  if (std::uncaught_exceptions() == 0) check(result, "a group of operations");
}

std::string export_memory(void* memory) {
  cudaIpcMemHandle_t handle;
  check(cudaIpcGetMemHandle(&handle, memory), "sharing memory");
  return {handle.reserved, sizeof(handle.reserved)};
}

std::shared_ptr<void> open_memory(const std::string& handle) {
  cudaIpcMemHandle_t native_handle;
  if (handle.size() != sizeof(native_handle.reserved))
    throw core::Error("CUDA: a memory handle of " + std::to_string(handle.size()) +
                      " bytes; what export_memory gave is right");
  std::memcpy(native_handle.reserved, handle.data(), handle.size());
  void* memory = nullptr;
  check(cudaIpcOpenMemHandle(&memory, native_handle, cudaIpcMemLazyEnablePeerAccess), "opening shared memory");
  return {memory, [](void* opened) { cudaIpcCloseMemHandle(opened); }};
}

bool enable_peer(int peer) {
  int device = 0, can = 0;
  check(cudaGetDevice(&device), "current device");
  check(cudaDeviceCanAccessPeer(&can, device, peer), "access to a peer");
  if (can == 0) return false;
  const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
  if (status == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();  // not an error, but it would be reported by the next call
    return true;
  }
  check(status, "access to a peer");
  return true;
}

}  // namespace drydock::kernels::cuda
