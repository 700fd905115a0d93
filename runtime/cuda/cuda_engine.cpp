// The CUDA engine, and the plug-in's entry point for it (runtime/cuda_engine.h).
#include "runtime/cuda_engine.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>

#include "core/error.h"
#include "kernels/cuda/block_copy.h"
#include "runtime/cuda/cuda_kernels.h"
#include "runtime/cuda/graph_cache.h"
#include "runtime/cuda/rank_group.h"
#include "runtime/logprobs.h"

namespace drydock::runtime::cuda {
namespace {

constexpr size_t kAlignment = 256;
size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The driver must be there before CUDA's runtime is asked anything: it would only say that there is no device.
void check_there(int device) {
  if (::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr)
    throw core::Error("libcuda.so.1 can't be opened: is the NVIDIA driver installed?");
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0)
    throw core::Error("no GPU: " + std::string(status == cudaSuccess ? "none is listed" : cudaGetErrorString(status)));
  if (device < 0 || device >= count)
    throw core::Error("GPU " + std::to_string(device) + " is not there; below " + std::to_string(count) + " is right");
}

int usable_device(int device) {
  check_there(device);
  check(cudaSetDevice(device), "choosing the GPU");
  return device;
}

class StreamOwner {
 public:
  StreamOwner() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"); }
  ~StreamOwner() { cudaStreamDestroy(stream_); }
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class DeviceWeights : public WeightMemory {
 public:
  void* put(size_t bytes, const std::function<void(std::byte*)>& write) override {
    if (staging_.size() < bytes) staging_.resize(bytes);
    write(staging_.data());
    blocks_.emplace_back(bytes);
    if (bytes > 0)
      check(cudaMemcpy(blocks_.back().data(), staging_.data(), bytes, cudaMemcpyHostToDevice), "copying weights");
    return blocks_.back().data();
  }
  void loaded() { std::vector<std::byte>().swap(staging_); }

 private:
  std::vector<std::byte> staging_;
  std::vector<DeviceBuffer> blocks_;
};

class CudaEngine : public Engine {
 public:
  CudaEngine(const std::filesystem::path& model_dir, const EngineOptions& options)
      : device_(usable_device(options.device)), kv_blocks_(options.kv_blocks), graphs_(stream_.get()) {
    if (options.dtype != core::Dtype::bf16)
      throw core::Error("engine: GPUs compute in bf16, not " + std::string(core::name(options.dtype)));
    if (options.kv_blocks <= 0 || options.kv_blocks >= INT32_MAX)
      throw core::Error("engine: kv_blocks has to be above 0");
    if (options.ranks > 1)
      group_ = std::make_unique<RankGroup>(options.rank, options.ranks, options.id_file, stream_.get());
    kernels_ = std::make_unique<CudaKernels>(stream_.get(), group_ ? &group_->communicator() : nullptr);
    const ModelConfig whole = read_model_config(model_dir);
    const WeightShare share{options.rank, options.ranks};
    model_.config = share_of(whole, share);
    model_.dtype = core::Dtype::bf16;
    model_.block_tokens = options.block_tokens;
    const auto source =
        options.random_weights ? random_weights(*options.random_weights) : checkpoint_weights(model_dir);
    kernels::cpu::Threads threads(options.threads);
    model_.weights = load_weights(whole, share, core::Dtype::bf16, *source, weights_, threads);
    weights_.loaded();
    lay_out_cache();
  }

  ~CudaEngine() override {
    try {
      if (group_ && group_->leads()) group_->send({.extents = {}, .last = 1}, nullptr);
      cudaStreamSynchronize(stream_.get());
    } catch (const std::exception&) {
      // The device is lost; the others learn it from NCCL.
    }
  }

  int64_t vocabulary() const override { return model_.config.vocabulary; }

  void step(std::span<const RankWork> ranks, StepResult& result) override {
    check(cudaSetDevice(device_), "choosing the GPU");
    const auto begin = std::chrono::steady_clock::now();
    result.tokens.clear();
    if (group_ && !group_->leads())
      follow();
    else
      lead(ranks, result);
    result.us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
  }

  size_t kv_block_bytes() const override { return piece_bytes_ * pools_; }

  void read_kv(int, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    move_blocks(blocks, out.size(), [&](const kernels::BlockCopy& copy, size_t pool) {
      kernels::cuda::gather_blocks(copy, stream_.get());
      check(cudaMemcpy2DAsync(out.data() + pool * piece_bytes_, kv_block_bytes(), copy.buffer, piece_bytes_,
                              piece_bytes_, blocks.size(), cudaMemcpyDeviceToHost, stream_.get()),
            "copying KV blocks");
    });
  }

  void write_kv(int, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    move_blocks(blocks, in.size(), [&](const kernels::BlockCopy& copy, size_t pool) {
      check(cudaMemcpy2DAsync(copy.buffer, piece_bytes_, in.data() + pool * piece_bytes_, kv_block_bytes(),
                              piece_bytes_, blocks.size(), cudaMemcpyHostToDevice, stream_.get()),
            "copying KV blocks");
      kernels::cuda::scatter_blocks(copy, stream_.get());
    });
  }

 private:
  // One block more than is given out: padding's KV goes there.
  void lay_out_cache() {
    const ModelConfig& c = model_.config;
    piece_bytes_ = static_cast<size_t>(model_.block_tokens * c.kv_width()) * 2;
    pools_ = 2 * c.layers.size();
    const size_t pool = aligned(piece_bytes_ * static_cast<size_t>(kv_blocks_ + 1));
    cache_ = DeviceBuffer(pool * pools_);
    // Attention reads whole tiles: what was never written must not be NaN, which 0 times is NaN.
    check(cudaMemset(cache_.data(), 0, cache_.size()), "zeroing the cache");
    for (size_t i = 0; i < c.layers.size(); ++i)
      model_.cache.push_back({cache_.data() + 2 * i * pool, cache_.data() + (2 * i + 1) * pool});
  }

  // ---- a step of rank 0 -------------------------------------------------------------------------------------------

  void lead(std::span<const RankWork> ranks, StepResult& result) {
    if (ranks.size() != 1) throw core::Error("engine: a CUDA engine has one rank of attention");
    const StepExtents exact =
        extents_of(ranks[0], vocabulary(), kv_blocks_, model_.block_tokens, model_.config.longest);
    if (exact.tokens() == 0) return;
    const bool decodes = exact.chunks == 0 && exact.outputs == exact.singles;
    StepHeader header{.extents = decodes ? padded_extents(exact, model_.block_tokens) : exact, .padded = decodes};
    size_t array_bytes = 0;
    StepArrays::at(nullptr, header.extents, array_bytes);
    header.array_bytes = static_cast<int64_t>(array_bytes);
    make_room(header);
    fill_step(ranks[0], header.extents, static_cast<int32_t>(kv_blocks_),
              StepArrays::at(host_arrays_.data(), header.extents, array_bytes));
    check(cudaMemcpyAsync(arrays_.data(), host_arrays_.data(), array_bytes, cudaMemcpyHostToDevice, stream_.get()),
          "copying to the GPU");
    if (group_) group_->send(header, arrays_.data());
    launch(header);
    tell(ranks[0], header.extents, result);
  }

  void follow() {
    const StepHeader header = group_->receive_header();
    if (header.last != 0) throw core::Error("engine: rank 0 has ended");
    make_room(header);
    group_->receive_arrays(arrays_.data(), header.array_bytes);
    launch(header);
    check(cudaStreamSynchronize(stream_.get()), "a step");
  }

  // Grows what the step needs, which is idle then; graphs hold pointers to it.
  void make_room(const StepHeader& header) {
    const auto array_bytes = static_cast<size_t>(header.array_bytes);
    size_t activation_bytes = 0;
    Activations::at(nullptr, model_.config, model_.dtype, header.extents.tokens(), header.extents.outputs,
                    activation_bytes);
    bool moved = false;
    const auto grow = [&](auto& buffer, size_t bytes) {
      if (buffer.size() >= bytes) return;
      buffer = {};
      buffer = std::remove_reference_t<decltype(buffer)>(bytes + bytes / 2);
      moved = true;
    };
    grow(host_arrays_, array_bytes);
    grow(arrays_, array_bytes);
    grow(activations_, activation_bytes);
    grow(host_drawn_, static_cast<size_t>(header.extents.outputs) * sizeof(int32_t));
    if (moved) graphs_.clear();
    if (header.padded != 0 && graphs_.knows(header.extents)) return;  // its kernels have what they need
    kernels_->begin_measuring();
    enqueue(header);
    if (kernels_->reserve()) graphs_.clear();
  }

  void launch(const StepHeader& header) {
    if (header.padded != 0)
      graphs_.run(header.extents, [&] { enqueue(header); });
    else
      enqueue(header);
  }

  void enqueue(const StepHeader& header) {
    size_t bytes = 0;
    const StepArrays arrays = StepArrays::at(arrays_.data(), header.extents, bytes);
    forward(model_, header.extents, arrays, activations_of(header.extents), *kernels_);
  }

  Activations activations_of(const StepExtents& extents) const {
    size_t bytes = 0;
    return Activations::at(activations_.data(), model_.config, model_.dtype, extents.tokens(), extents.outputs, bytes);
  }

  void tell(const RankWork& work, const StepExtents& extents, StepResult& result) {
    const Activations activations = activations_of(extents);
    const auto outputs = static_cast<size_t>(extents.outputs);
    if (outputs > 0)
      check(cudaMemcpyAsync(host_drawn_.data(), activations.drawn, outputs * sizeof(int32_t), cudaMemcpyDeviceToHost,
                            stream_.get()),
            "copying from the GPU");
    check(cudaStreamSynchronize(stream_.get()), "a step");
    const auto* drawn = reinterpret_cast<const int32_t*>(host_drawn_.data());
    const auto* logits = static_cast<const float*>(activations.logits.data);
    int64_t output = 0;
    for_each_sequence(work, [&](const SequenceWork& s) {
      const int32_t alternatives = s.sampling != nullptr ? s.sampling->logprobs : -1;
      for (int64_t i = 0; i < s.outputs; ++i, ++output)
        result.tokens.push_back(told(drawn[output], logits + output * vocabulary(), alternatives));
    });
  }

  // Logits leave the GPU only for answers that ask for log-probabilities.
  GeneratedToken told(Token token, const float* device_logits, int32_t alternatives) {
    if (alternatives < 0) return {token, 0, {}};
    host_logits_.resize(static_cast<size_t>(vocabulary()));
    check(cudaMemcpy(host_logits_.data(), device_logits, host_logits_.size() * sizeof(float), cudaMemcpyDeviceToHost),
          "copying logits");
    return with_logprobs(token, host_logits_.data(), vocabulary(), alternatives);
  }

  // ---- KV blocks --------------------------------------------------------------------------------------------------

  // copy(blocks of one pool to or from their own buffer, the pool's place among a block's pieces).
  template <typename Copy>
  void move_blocks(std::span<const int32_t> blocks, size_t bytes, Copy&& copy) {
    check(cudaSetDevice(device_), "choosing the GPU");
    if (bytes != blocks.size() * kv_block_bytes())
      throw core::Error("engine: " + std::to_string(bytes) + " bytes for " + std::to_string(blocks.size()) +
                        " KV blocks of " + std::to_string(kv_block_bytes()));
    for (const int32_t block : blocks)
      if (block < 0 || block >= kv_blocks_) throw core::Error("engine: a KV block is not in the cache");
    if (blocks.empty()) return;
    const DeviceBuffer ids(blocks.size_bytes()), staging(bytes);
    check(cudaMemcpyAsync(ids.data(), blocks.data(), blocks.size_bytes(), cudaMemcpyHostToDevice, stream_.get()),
          "copying to the GPU");
    for (size_t pool = 0; pool < pools_; ++pool) {
      const LayerCache& layer = model_.cache[pool / 2];
      copy(kernels::BlockCopy{.pool = pool % 2 == 0 ? layer.k : layer.v,
                              .buffer = staging.data() + pool * blocks.size() * piece_bytes_,
                              .blocks = reinterpret_cast<const int32_t*>(ids.data()),
                              .count = static_cast<int64_t>(blocks.size()),
                              .block_bytes = static_cast<int64_t>(piece_bytes_)},
           pool);
    }
    check(cudaStreamSynchronize(stream_.get()), "copying KV blocks");
  }

  int device_;
  int64_t kv_blocks_;
  StreamOwner stream_;
  DeviceWeights weights_;
  DeviceBuffer cache_, arrays_, activations_;
  PinnedBuffer host_arrays_, host_drawn_;
  std::vector<float> host_logits_;
  size_t piece_bytes_ = 0, pools_ = 0;
  DeviceModel model_;
  std::unique_ptr<RankGroup> group_;
  std::unique_ptr<CudaKernels> kernels_;
  GraphCache graphs_;
};

void tell_error(const char* text, char* error, size_t bytes) {
  if (error == nullptr || bytes == 0) return;
  std::strncpy(error, text, bytes - 1);
  error[bytes - 1] = '\0';
}

}  // namespace
}  // namespace drydock::runtime::cuda

extern "C" __attribute__((visibility("default"))) bool drydock_check_gpu(int device, char* error, size_t error_bytes) {
  try {
    drydock::runtime::cuda::check_there(device);
    return true;
  } catch (const std::exception& failure) {
    drydock::runtime::cuda::tell_error(failure.what(), error, error_bytes);
  }
  return false;
}

extern "C" __attribute__((visibility("default"))) drydock::runtime::Engine* drydock_open_engine(
    const char* model_dir, const drydock::runtime::EngineOptions* options, char* error, size_t error_bytes) {
  try {
    return new drydock::runtime::cuda::CudaEngine(model_dir, *options);
  } catch (const std::bad_alloc&) {
    drydock::runtime::cuda::tell_error("out of memory", error, error_bytes);
  } catch (const std::exception& failure) {
    drydock::runtime::cuda::tell_error(failure.what(), error, error_bytes);
  } catch (...) {
    drydock::runtime::cuda::tell_error("an unknown failure", error, error_bytes);
  }
  return nullptr;
}
