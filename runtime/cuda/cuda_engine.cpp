// The CUDA engine, and the plug-in's entry point for it (runtime/cuda_engine.h).
#include "runtime/cuda_engine.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>

#include "core/error.h"
#include "kernels/cuda/block_copy.h"
#include "kernels/cuda/collective.h"
#include "runtime/cuda/cuda_kernels.h"
#include "runtime/cuda/graph_cache.h"
#include "runtime/cuda/stream_owner.h"
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
    const ModelConfig whole = read_model_config(model_dir);
    const WeightShare share{options.share.rank, options.share.ranks};
    model_.config = share_of(whole, share);
    model_.draws = share.rank == 0;
    model_.dtype = core::Dtype::bf16;
    model_.block_tokens = options.block_tokens;
    const auto source =
        options.random_weights ? random_weights(*options.random_weights) : checkpoint_weights(model_dir);
    kernels::cpu::Threads threads(options.threads);
    model_.weights = load_weights(whole, share, core::Dtype::bf16, *source, weights_, threads);
    weights_.loaded();
    lay_out_cache();
    const std::string id = options.share.meet ? options.share.meet() : std::string();
    if (share.ranks > 1) group_ = std::make_unique<kernels::cuda::Communicator>(id, share.rank, share.ranks);
    kernels_ = std::make_unique<CudaKernels>(stream_.get(), group_.get());
  }

  ~CudaEngine() override { cudaStreamSynchronize(stream_.get()); }

  void abort() noexcept override {
    if (group_) group_->abort();
  }

  int64_t vocabulary() const override { return model_.config.vocabulary; }

  void step(std::span<const RankWork> ranks, StepResult& result) override {
    launch(ranks);
    wait(result);
  }

  bool overlaps() const override { return true; }

  void launch(std::span<const RankWork> ranks) override {
    check(cudaSetDevice(device_), "choosing the GPU");
    Part& part = parts_[launched_ % parts_.size()];
    part.began = std::chrono::steady_clock::now();
    enqueue(ranks, part);
    check(cudaEventRecord(part.drawn_here.get(), stream_.get()), "a step");
    ++launched_;
  }

  void wait(StepResult& result) override {
    check(cudaSetDevice(device_), "choosing the GPU");
    const Part& part = parts_[waited_++ % parts_.size()];
    check(cudaEventSynchronize(part.drawn_here.get()), "a step");
    tell(part, result);
    const auto now = std::chrono::steady_clock::now();
    result.us = std::chrono::duration<double, std::micro>(now - std::max(part.began, ended_)).count();
    ended_ = now;
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

  // ---- a step -----------------------------------------------------------------------------------------------------

  // What is to be launched: padded: extents are padded_extents.
  struct Launch {
    StepExtents extents;
    bool padded = false;
  };

  // What of a step is on the host until its result is told.
  struct Part {
    PinnedBuffer arrays, drawn, logits;  // logits: rows of outputs that ask for log-probabilities
    std::vector<int32_t> logprobs;       // Sampling's, of each output that is told
    EventOwner drawn_here;
    std::chrono::steady_clock::time_point began;
  };

  void enqueue(std::span<const RankWork> ranks, Part& part) {
    if (ranks.size() != 1) throw core::Error("engine: a CUDA engine has one rank of attention");
    const StepExtents exact =
        extents_of(ranks[0], vocabulary(), kv_blocks_, model_.block_tokens, model_.config.longest);
    if (exact.followed > launched_outputs_)
      throw core::Error("engine: a sequence follows an output that the step before does not have");
    launched_outputs_ = exact.outputs;
    part.logprobs.clear();
    if (exact.tokens() == 0) return;
    const bool decodes = exact.chunks == 0 && exact.outputs == exact.singles;
    const Launch step{decodes ? padded_extents(exact, model_.block_tokens) : exact, decodes};
    size_t array_bytes = 0;
    StepArrays::at(nullptr, step.extents, array_bytes);
    make_room(step, array_bytes);
    grow(part.arrays, array_bytes);
    fill_step(ranks[0], step.extents, static_cast<int32_t>(kv_blocks_),
              StepArrays::at(part.arrays.data(), step.extents, array_bytes));
    check(cudaMemcpyAsync(arrays_.data(), part.arrays.data(), array_bytes, cudaMemcpyHostToDevice, stream_.get()),
          "copying to the GPU");
    start(step);
    if (model_.draws) fetch(ranks[0], step, part);
  }

  template <typename Memory>
  static void grow(Memory& memory, size_t bytes) {  // what was there is lost
    if (memory.size() >= bytes) return;
    memory = {};
    memory = Memory(bytes + bytes / 2);
  }

  // Grows what the step needs; graphs hold pointers to it, and a step that is under way uses it.
  void make_room(const Launch& step, size_t array_bytes) {
    const size_t drawn_bytes = static_cast<size_t>(step.extents.outputs) * sizeof(int32_t);
    size_t activation_bytes = 0;
    Activations::at(nullptr, model_.config, model_.dtype, step.extents.tokens(), step.extents.outputs,
                    activation_bytes);
    if (arrays_.size() < array_bytes || activations_.size() < activation_bytes || drawn_.size() < drawn_bytes) {
      check(cudaStreamSynchronize(stream_.get()), "a step");
      grow(arrays_, array_bytes);
      grow(activations_, activation_bytes);
      keep_drawn(drawn_bytes);
      graphs_.clear();
    }
    if (step.padded && graphs_.knows(step.extents)) return;  // its kernels have what they need
    kernels_->begin_measuring();
    compute(step);
    if (kernels_->reserve()) graphs_.clear();
  }

  // The next step may follow what is drawn.
  void keep_drawn(size_t bytes) {
    if (drawn_.size() >= bytes) return;
    DeviceBuffer larger(bytes + bytes / 2);
    if (drawn_.size() > 0)
      check(cudaMemcpy(larger.data(), drawn_.data(), drawn_.size(), cudaMemcpyDeviceToDevice), "copying draws");
    std::swap(drawn_, larger);
  }

  void start(const Launch& step) {
    if (step.padded)
      graphs_.run(step.extents, [&] { compute(step); });
    else
      compute(step);
  }

  void compute(const Launch& step) {
    size_t bytes = 0;
    const StepArrays arrays = StepArrays::at(arrays_.data(), step.extents, bytes);
    forward(model_, step.extents, arrays, activations_of(step), *kernels_);
  }

  // Draws have a place that is the same in every step, where the next one takes them from; a graph does so always, as
  // it serves steps that follow and steps that do not.
  Activations activations_of(const Launch& step) const {
    const StepExtents& extents = step.extents;
    size_t bytes = 0;
    Activations a =
        Activations::at(activations_.data(), model_.config, model_.dtype, extents.tokens(), extents.outputs, bytes);
    a.drawn = reinterpret_cast<int32_t*>(drawn_.data());
    if (step.padded || extents.followed > 0) a.before = a.drawn;
    a.drawn_before = static_cast<int64_t>(drawn_.size() / sizeof(int32_t));
    return a;
  }

  // Enqueues the copies of what is told of the step. Logits leave the GPU only for answers that ask for
  // log-probabilities.
  void fetch(const RankWork& work, const Launch& step, Part& part) {
    for_each_sequence(work, [&](const SequenceWork& s) {
      part.logprobs.insert(part.logprobs.end(), static_cast<size_t>(s.outputs),
                           s.sampling != nullptr ? s.sampling->logprobs : -1);
    });
    const size_t row_bytes = static_cast<size_t>(vocabulary()) * sizeof(float);
    const auto rows = std::count_if(part.logprobs.begin(), part.logprobs.end(), [](int32_t n) { return n >= 0; });
    grow(part.drawn, part.logprobs.size() * sizeof(int32_t));
    grow(part.logits, static_cast<size_t>(rows) * row_bytes);
    const auto copy = [&](std::byte* to, const void* from, size_t bytes) {
      if (bytes == 0) return;
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()), "copying from the GPU");
    };
    copy(part.drawn.data(), drawn_.data(), part.logprobs.size() * sizeof(int32_t));
    const Activations activations = activations_of(step);
    const auto* logits = static_cast<const std::byte*>(activations.logits.data);
    size_t row = 0;
    for (size_t output = 0; output < part.logprobs.size(); ++output)
      if (part.logprobs[output] >= 0)
        copy(part.logits.data() + row++ * row_bytes, logits + output * row_bytes, row_bytes);
  }

  void tell(const Part& part, StepResult& result) const {
    result.tokens.clear();
    const auto* drawn = reinterpret_cast<const int32_t*>(part.drawn.data());
    const auto* logits = reinterpret_cast<const float*>(part.logits.data());
    int64_t row = 0;
    for (size_t output = 0; output < part.logprobs.size(); ++output) {
      const int32_t alternatives = part.logprobs[output];
      result.tokens.push_back(
          alternatives < 0 ? GeneratedToken{drawn[output], 0, {}}
                           : with_logprobs(drawn[output], logits + row++ * vocabulary(), vocabulary(), alternatives));
    }
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
  DeviceBuffer cache_, arrays_, activations_, drawn_;
  std::array<Part, 2> parts_;  // by the number of the step
  uint64_t launched_ = 0, waited_ = 0;
  int64_t launched_outputs_ = 0;  // of the step launched last
  std::chrono::steady_clock::time_point ended_;
  size_t piece_bytes_ = 0, pools_ = 0;
  DeviceModel model_;
  std::unique_ptr<kernels::cuda::Communicator> group_;
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

extern "C" __attribute__((visibility("default"))) int drydock_new_group(char* id, size_t id_bytes, char* error,
                                                                        size_t error_bytes) {
  try {
    const std::string made = drydock::kernels::cuda::Communicator::new_id();
    if (made.size() > id_bytes) throw drydock::core::Error("an id of a group is longer than was thought");
    std::memcpy(id, made.data(), made.size());
    return static_cast<int>(made.size());
  } catch (const std::exception& failure) {
    drydock::runtime::cuda::tell_error(failure.what(), error, error_bytes);
  }
  return -1;
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
