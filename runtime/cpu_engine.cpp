#include "runtime/cpu_engine.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "core/error.h"
#include "runtime/cpu_kernels.h"
#include "runtime/logprobs.h"

namespace drydock::runtime {
namespace {

namespace cpu = kernels::cpu;

// Pages of zeros, in huge pages where there are some: weights are read from end to end at every step.
class HostPages {
 public:
  explicit HostPages(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
      throw core::Error(fmt::format("engine: {} MB of memory can't be had: {}", bytes >> 20U, std::strerror(errno)));
    ::madvise(data, bytes, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(data);
  }
  HostPages(HostPages&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  HostPages& operator=(HostPages&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
    return *this;
  }
  HostPages(const HostPages&) = delete;
  HostPages& operator=(const HostPages&) = delete;
  ~HostPages() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }

  std::byte* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

class HostWeights : public WeightMemory {
 public:
  void* put(size_t bytes, const std::function<void(std::byte*)>& write) override {
    constexpr size_t kOwnPages = size_t{1} << 20U;  // smaller ones share
    if (bytes >= kOwnPages) {
      pages_.emplace_back(bytes);
      write(pages_.back().data());
      return pages_.back().data();
    }
    const size_t aligned = (bytes + 63) / 64 * 64;
    if (shared_left_ < aligned) {
      pages_.emplace_back(2 * kOwnPages);
      shared_ = pages_.back().data(), shared_left_ = 2 * kOwnPages;
    }
    std::byte* const at = shared_;
    shared_ += aligned, shared_left_ -= aligned;
    write(at);
    return at;
  }

 private:
  std::vector<HostPages> pages_;
  std::byte* shared_ = nullptr;
  size_t shared_left_ = 0;
};

class CpuEngine : public Engine {
 public:
  CpuEngine(const std::filesystem::path& model_dir, const EngineOptions& options)
      : threads_(options.threads),
        group_(options.share.group),
        kernels_(threads_, group_.get()),
        kv_blocks_(options.kv_blocks),
        cache_(0),
        scratch_(0) {
    if (options.dtype != core::Dtype::bf16 && options.dtype != core::Dtype::fp32)
      throw core::Error("engine: the CPU computes in bf16 or fp32, not " + std::string(core::name(options.dtype)));
    const WeightShare share{options.share.rank, options.share.ranks};
    if ((group_ ? group_->ranks() : 1) != share.ranks || (group_ && group_->rank() != share.rank))
      throw core::Error("engine: ranks that have no group");
    if (options.kv_blocks <= 0 || options.kv_blocks > INT32_MAX)
      throw core::Error("engine: kv_blocks has to be above 0");
    const ModelConfig whole = read_model_config(model_dir);
    model_.config = share_of(whole, share);
    model_.draws = share.rank == 0;
    model_.dtype = options.dtype;
    model_.block_tokens = options.block_tokens;
    const auto source =
        options.random_weights ? random_weights(*options.random_weights) : checkpoint_weights(model_dir);
    model_.weights = load_weights(whole, share, options.dtype, *source, weights_, threads_);
    lay_out_cache();
    if (options.share.meet) options.share.meet();
  }

  int64_t vocabulary() const override { return model_.config.vocabulary; }

  ~CpuEngine() override {
    if (!computer_.joinable()) return;
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    computer_.join();
  }

  void step(std::span<const RankWork> ranks, StepResult& result) override {
    const auto begin = std::chrono::steady_clock::now();
    wait_for_all();
    Part& part = parts_.front();
    prepare(ranks, part);
    compute(part);
    std::swap(result, part.result);
    result.us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
  }

  // Steps that are launched are computed by a thread of the engine's own.
  bool overlaps() const override { return true; }

  void launch(std::span<const RankWork> ranks) override {
    prepare(ranks, parts_[launched_ % parts_.size()]);
    if (!computer_.joinable()) computer_ = std::thread([this] { run(); });
    {
      const std::scoped_lock lock(mutex_);
      ++launched_;
    }
    changed_.notify_all();
  }

  void wait(StepResult& result) override {
    Part& part = parts_[waited_ % parts_.size()];
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return computed_ > waited_; });
    ++waited_;
    if (part.failure) std::rethrow_exception(part.failure);
    std::swap(result, part.result);
  }

  void abort() noexcept override {
    if (group_) group_->fail();
  }

  size_t kv_block_bytes() const override { return piece_bytes_ * 2 * model_.cache.size(); }

  void read_kv(int, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    for_each_piece(blocks, out.size(),
                   [&](std::byte* cached, size_t at) { std::memcpy(out.data() + at, cached, piece_bytes_); });
  }
  void write_kv(int, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    for_each_piece(blocks, in.size(),
                   [&](std::byte* cached, size_t at) { std::memcpy(cached, in.data() + at, piece_bytes_); });
  }

 private:
  void lay_out_cache() {
    const ModelConfig& c = model_.config;
    const size_t element = model_.dtype == core::Dtype::fp32 ? 4 : 2;
    piece_bytes_ = static_cast<size_t>(model_.block_tokens * c.kv_width()) * element;
    const size_t pool = piece_bytes_ * static_cast<size_t>(kv_blocks_);
    cache_ = HostPages(pool * 2 * c.layers.size());
    // Touched now: a huge page that a step were the first to write would cost it a millisecond.
    threads_.parallel_for(static_cast<int64_t>(cache_.size()), [&](int64_t begin, int64_t end) {
      std::memset(cache_.data() + begin, 0, static_cast<size_t>(end - begin));
    });
    for (size_t i = 0; i < c.layers.size(); ++i)
      model_.cache.push_back({cache_.data() + 2 * i * pool, cache_.data() + (2 * i + 1) * pool});
  }

  // A step from its work to its result.
  struct Part {
    HostPages arrays{0};
    StepExtents extents;
    std::vector<int32_t> logprobs;  // Sampling's, of each output
    StepResult result;
    std::exception_ptr failure;
  };

  // Twice what is asked for, so that a slowly growing batch does not fault new pages in at every step.
  static void reserve(HostPages& pages, size_t bytes) {
    if (pages.size() < bytes) pages = HostPages(2 * bytes);
  }

  void prepare(std::span<const RankWork> ranks, Part& part) {
    if (ranks.size() != 1) throw core::Error("engine: a CPU engine has one rank of attention");
    const RankWork& work = ranks[0];
    part.extents = extents_of(work, vocabulary(), kv_blocks_, model_.block_tokens, model_.config.longest);
    if (part.extents.followed > prepared_outputs_)
      throw core::Error("engine: a sequence follows an output that the step before does not have");
    prepared_outputs_ = part.extents.outputs;
    size_t bytes = 0;
    StepArrays::at(nullptr, part.extents, bytes);
    reserve(part.arrays, bytes);
    fill_step(work, part.extents, 0, StepArrays::at(part.arrays.data(), part.extents, bytes));
    part.logprobs.clear();
    for_each_sequence(work, [&](const SequenceWork& s) {
      part.logprobs.insert(part.logprobs.end(), static_cast<size_t>(s.outputs),
                           s.sampling != nullptr ? s.sampling->logprobs : -1);
    });
  }

  void compute(Part& part) {
    const auto begin = std::chrono::steady_clock::now();
    const StepExtents& extents = part.extents;
    part.result.tokens.clear();
    part.result.us = 0;
    if (extents.tokens() == 0) return;
    size_t bytes = 0;
    Activations::at(nullptr, model_.config, model_.dtype, extents.tokens(), extents.outputs, bytes);
    reserve(scratch_, bytes);
    Activations activations =
        Activations::at(scratch_.data(), model_.config, model_.dtype, extents.tokens(), extents.outputs, bytes);
    if (extents.followed > 0)
      activations.before = drawn_.data(), activations.drawn_before = static_cast<int64_t>(drawn_.size());
    forward(model_, extents, StepArrays::at(part.arrays.data(), extents, bytes), activations, kernels_);
    if (model_.draws) {
      drawn_.assign(activations.drawn, activations.drawn + extents.outputs);
      tell(part, activations);
    }
    part.result.us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
  }

  void tell(Part& part, const Activations& activations) const {
    const auto* logits = static_cast<const float*>(activations.logits.data);
    for (int64_t output = 0; output < part.extents.outputs; ++output)
      part.result.tokens.push_back(with_logprobs(activations.drawn[output], logits + output * vocabulary(),
                                                 vocabulary(), part.logprobs[static_cast<size_t>(output)]));
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || launched_ > computed_; });
      if (stopping_) return;
      Part& part = parts_[computed_ % parts_.size()];
      lock.unlock();
      part.failure = nullptr;
      try {
        compute(part);
      } catch (...) {
        part.failure = std::current_exception();
      }
      lock.lock();
      ++computed_;
      changed_.notify_all();
    }
  }

  void wait_for_all() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return computed_ == launched_; });
  }

  // use(piece of the cache, its place among the bytes of `blocks`).
  template <typename Use>
  void for_each_piece(std::span<const int32_t> blocks, size_t bytes, Use&& use) {
    wait_for_all();
    if (bytes != blocks.size() * kv_block_bytes())
      throw core::Error(fmt::format("engine: {} bytes for {} KV blocks of {}", bytes, blocks.size(), kv_block_bytes()));
    size_t at = 0;
    for (const int32_t block : blocks) {
      if (block < 0 || block >= kv_blocks_) throw core::Error("engine: a KV block is not in the cache");
      for (const LayerCache& layer : model_.cache)
        for (void* pool : {layer.k, layer.v}) {
          use(static_cast<std::byte*>(pool) + static_cast<size_t>(block) * piece_bytes_, at);
          at += piece_bytes_;
        }
    }
  }

  cpu::Threads threads_;
  std::shared_ptr<cpu::SharedGroup> group_;
  CpuKernels kernels_;
  int64_t kv_blocks_;
  HostWeights weights_;
  HostPages cache_, scratch_;
  size_t piece_bytes_ = 0;
  DeviceModel model_;

  std::array<Part, 2> parts_;     // by the number of the step
  std::vector<int32_t> drawn_;    // by the step that was computed last
  int64_t prepared_outputs_ = 0;  // of the step that was prepared last
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t launched_ = 0, computed_ = 0, waited_ = 0;  // steps; under mutex_
  bool stopping_ = false;
  std::thread computer_;
};

}  // namespace

std::unique_ptr<Engine> make_cpu_engine(const std::filesystem::path& model_dir, const EngineOptions& options) {
  return std::make_unique<CpuEngine>(model_dir, options);
}

void check_ranks(const std::filesystem::path& model_dir, int ranks) {
  share_of(read_model_config(model_dir), {0, ranks});
}

int64_t kv_block_bytes(const std::filesystem::path& model_dir, core::Dtype dtype, int64_t block_tokens) {
  const ModelConfig config = read_model_config(model_dir);
  return static_cast<int64_t>(config.layers.size()) * 2 * block_tokens * config.kv_width() *
         (dtype == core::Dtype::fp32 ? 4 : 2);
}

}  // namespace drydock::runtime
