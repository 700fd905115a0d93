#include "runtime/ranked_engine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "runtime/cuda_engine.h"
#include "runtime/exit_codes.h"
#include "runtime/model_config.h"
#include "runtime/rank_messages.h"
#include "runtime/spawn.h"
#include "runtime/weights.h"

namespace drydock::runtime {
namespace {

constexpr std::chrono::hours kLoadLimit{1};  // reading the weights
constexpr std::chrono::seconds kSetupLimit{60};
constexpr std::chrono::milliseconds kEndLimit{3000};     // for a rank's process to end by itself
constexpr std::chrono::milliseconds kNoticeLimit{1000};  // to learn that it has

pid_t start_rank_program(const std::string& name, int rank, int socket, int memory) {
  const std::vector<int> descriptors = memory < 0 ? std::vector<int>{socket} : std::vector<int>{socket, memory};
  return spawn(own_program(), {"rank", fmt::format("{}:{}", name, rank)}, {}, descriptors,
               fmt::format("{} rank {}", name, rank));
}

RankSetup setup_of(const RankedOptions& o, int rank, int threads) {
  return {.cuda = o.cuda,
          .model_dir = o.model_dir.string(),
          .dtype = o.engine.dtype,
          .kv_blocks = o.engine.kv_blocks,
          .block_tokens = o.engine.block_tokens,
          .threads = threads,
          .device = o.engine.device + rank,
          .rank = rank,
          .ranks = o.engine.share.ranks,
          .random_weights = o.engine.random_weights};
}

// The process of one rank, and the socket to it.
struct Follower {
  int rank = 0;
  RankLink link;
  std::atomic<pid_t> pid{-1};
  std::string ending;  // how it ended, under the engine's mutex

  Follower(int r, Socket socket) : rank(r), link(std::move(socket)) {}

  // Waits until the process is gone, and kills it when it is not after `limit`.
  int bury(std::chrono::milliseconds limit) {
    int status = 0;
    const pid_t child = pid.exchange(-1);
    if (child <= 0) return 0;
    for (const auto until = Clock::now() + limit; Clock::now() < until;) {
      if (::waitpid(child, &status, WNOHANG) != 0) return status;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ::kill(child, SIGKILL);
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return status;
  }
};

// Whole KV blocks are rows, one for each layer, k and v, and token; a rank's part of a row are its heads.
void place_heads(std::span<const std::byte> part, size_t part_row, size_t ranks, size_t rank,
                 std::span<std::byte> whole) {
  for (size_t from = 0, to = rank * part_row; from < part.size(); from += part_row, to += ranks * part_row)
    std::memcpy(whole.data() + to, part.data() + from, part_row);
}
void take_heads(std::span<const std::byte> whole, size_t part_row, size_t ranks, size_t rank,
                std::span<std::byte> part) {
  for (size_t to = 0, from = rank * part_row; to < part.size(); to += part_row, from += ranks * part_row)
    std::memcpy(part.data() + to, whole.data() + from, part_row);
}

class RankedEngine : public Engine {
 public:
  explicit RankedEngine(const RankedOptions& o) : name_(o.name), ranks_(static_cast<size_t>(o.engine.share.ranks)) {
    const ModelConfig own = share_of(read_model_config(o.model_dir), {0, o.engine.share.ranks});
    part_row_ = static_cast<size_t>(own.kv_width()) * (o.engine.dtype == core::Dtype::fp32 ? 4 : 2);
    try {
      begin(o);
    } catch (const std::exception& error) {
      if (meeting_) fail(error.what());
      end();
      throw;
    }
  }
  ~RankedEngine() override { end(); }

  int64_t vocabulary() const override { return engine_->vocabulary(); }

  void step(std::span<const RankWork> ranks, StepResult& result) override {
    if (ranks.size() != 1) throw core::Error("engine: tensor-parallel ranks have one rank of attention");
    if (ranks[0].empty()) return engine_->step(ranks, result);
    guarded([&] {
      encode(ranks[0], message_);
      tell_all(RankMessage::step, message_);
      engine_->step(ranks, result);
      check_whole();  // a GPU that stopped waiting for a rank has computed something, and nobody knows what
    });
  }

  void when_lost(std::function<void(const std::string&)> lost) override {
    std::unique_lock lock(mutex_);
    told_ = std::move(lost);
    if (reason_.empty() || !told_) return;
    const auto tell = std::exchange(told_, nullptr);
    lock.unlock();
    tell(reason_);
  }

  void idle() override { engine_->idle(); }

  size_t kv_block_bytes() const override { return engine_->kv_block_bytes() * ranks_; }

  void read_kv(int, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    check_size(blocks, out.size());
    guarded([&] {
      tell_all(RankMessage::read_kv, encode_blocks(blocks, {}));
      Bytes part(out.size() / ranks_);
      engine_->read_kv(0, blocks, part);
      place_heads(part, part_row_, ranks_, 0, out);
      for (const auto& f : followers_) {
        const Bytes theirs = f->link.expect(RankMessage::kv, Clock::now() + RankLink::kPatience);
        if (theirs.size() != part.size()) throw core::Error("a rank's KV is of another size");
        place_heads(theirs, part_row_, ranks_, static_cast<size_t>(f->rank), out);
      }
    });
  }

  void write_kv(int, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    check_size(blocks, in.size());
    guarded([&] {
      Bytes part(in.size() / ranks_);
      for (const auto& f : followers_) {
        take_heads(in, part_row_, ranks_, static_cast<size_t>(f->rank), part);
        f->link.send(RankMessage::write_kv, encode_blocks(blocks, part));
      }
      take_heads(in, part_row_, ranks_, 0, part);
      engine_->write_kv(0, blocks, part);
    });
  }

 private:
  void begin(const RankedOptions& o) {
    const int all_threads =
        o.engine.threads > 0 ? o.engine.threads : static_cast<int>(std::thread::hardware_concurrency());
    EngineOptions own = o.engine;
    own.threads = std::max(1, all_threads / own.share.ranks);
    Socket memory;  // a descriptor
    if (!o.cuda) memory = Socket(kernels::cpu::SharedGroup::create(own.share.ranks));
    for (int rank = 1; rank < own.share.ranks; ++rank) start(o, rank, memory.fd());
    watch();
    meeting_ = true;
    for (const auto& f : followers_) f->link.send(RankMessage::setup, encode(setup_of(o, f->rank, own.threads)));
    meeting_ = false;
    if (!o.cuda)
      own.share.group = std::make_shared<kernels::cpu::SharedGroup>(::fcntl(memory.fd(), F_DUPFD_CLOEXEC, 0), 0);
    own.share.meet = [this, cuda = o.cuda] { return meet(cuda); };
    engine_ = o.cuda ? open_cuda_engine(o.model_dir, own) : make_cpu_engine(o.model_dir, own);
    const std::scoped_lock lock(mutex_);
    can_abort_ = true;
    if (lost_) throw core::Error("engine: a rank was lost");
  }

  void start(const RankedOptions& o, int rank, int memory) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw core::Error("tensor parallelism: no descriptor is left for a rank");
    const Socket theirs(ends[1]);
    followers_.push_back(std::make_unique<Follower>(rank, Socket(ends[0])));
    followers_.back()->pid =
        o.start ? o.start(rank, theirs.fd(), memory) : start_rank_program(o.name, rank, theirs.fd(), memory);
  }

  // All ranks have loaded, and may meet.
  std::string meet(bool cuda) {
    meeting_ = true;
    for (const auto& f : followers_) f->link.expect(RankMessage::loaded, Clock::now() + kLoadLimit);
    const std::string id = cuda ? new_cuda_group() : std::string();
    tell_all(RankMessage::meet, std::as_bytes(std::span(id)));
    return id;
  }

  void tell_all(RankMessage kind, std::span<const std::byte> body) {
    for (const auto& f : followers_) f->link.send(kind, body);
  }

  void check_size(std::span<const int32_t> blocks, size_t bytes) const {
    if (bytes != blocks.size() * kv_block_bytes())
      throw core::Error(fmt::format("engine: {} bytes for {} KV blocks of {}", bytes, blocks.size(), kv_block_bytes()));
  }

  // ---- ends -------------------------------------------------------------------------------------------------------

  void watch() {
    std::vector<int> fds;
    for (const auto& f : followers_) fds.push_back(f->link.fd());
    watch_ = std::make_unique<HangupWatch>(std::move(fds), [this](size_t i) { gone(*followers_[i]); });
  }

  // On the watch's thread. A rank's process closes its socket by ending.
  void gone(Follower& f) {
    {
      const std::scoped_lock lock(mutex_);
      if (lost_) return;
      lost_ = true;
      if (can_abort_) engine_->abort();
      noticed_.notify_all();
    }
    const int status = f.bury(kEndLimit);
    std::unique_lock lock(mutex_);
    reason_ = fmt::format("rank {} of {} ended with {} {}", f.rank, name_, WIFSIGNALED(status) ? "signal" : "code",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    const auto tell = std::exchange(told_, nullptr);
    lock.unlock();
    if (tell) tell(reason_);
  }

  void check_whole() {
    const std::scoped_lock lock(mutex_);
    if (lost_) throw core::Error("engine: a rank was lost");
  }

  // What fails on one rank fails on all: none can go on without the others.
  template <typename Use>
  void guarded(Use&& use) {
    if (over_) throw core::Error("engine: it has lost a rank");
    try {
      check_whole();
      use();
    } catch (const std::exception& error) {
      fail(error.what());
    }
  }

  // Ends all ranks. Throws a rank's own words, else how one ended, else what this one has seen.
  [[noreturn]] void fail(const std::string& seen) {
    std::string words;
    for (const auto& f : followers_)
      if (words = f->link.last_words(); !words.empty()) {
        words = fmt::format("rank {} of {}: {}", f->rank, name_, words);
        break;
      }
    {
      std::unique_lock lock(mutex_);
      noticed_.wait_for(lock, kNoticeLimit, [this] { return lost_; });
    }
    end();
    throw core::Error(!words.empty() ? words : !reason_.empty() ? reason_ : seen);
  }

  void end() {
    over_ = true;
    watch_.reset();
    for (const auto& f : followers_) f->link.close();  // by which they end
    for (const auto& f : followers_) f->bury(kEndLimit);
  }

  std::string name_;
  size_t ranks_, part_row_ = 0;
  std::vector<std::unique_ptr<Follower>> followers_;
  std::unique_ptr<Engine> engine_;
  Bytes message_;
  bool over_ = false, meeting_ = false;  // meeting: what fails now may be another rank's fault

  std::mutex mutex_;
  std::condition_variable noticed_;
  bool can_abort_ = false, lost_ = false;
  std::string reason_;  // how the rank that was lost ended; set once, a moment after lost_
  std::function<void(const std::string&)> told_;
  std::unique_ptr<HangupWatch> watch_;
};

// What another rank's process does with its engine.
class FollowingRank {
 public:
  FollowingRank(RankLink& link, Socket memory) : link_(link), memory_(std::move(memory)) {}

  void run() {
    const RankSetup setup = decode_rank_setup(link_.expect(RankMessage::setup, Clock::now() + kSetupLimit));
    engine_ = setup.cuda ? open_cuda_engine(setup.model_dir, options_of(setup))
                         : make_cpu_engine(setup.model_dir, options_of(setup));
    for (;;) take(link_.receive(Clock::time_point::max()));
  }

 private:
  EngineOptions options_of(const RankSetup& setup) {
    EngineOptions o{
        .dtype = setup.dtype,
        .kv_blocks = setup.kv_blocks,
        .block_tokens = setup.block_tokens,
        .threads = setup.threads,
        .random_weights = setup.random_weights,
        .device = setup.device,
        .share = {.rank = setup.rank, .ranks = setup.ranks, .group = nullptr, .meet = [this] { return meet(); }}};
    if (!setup.cuda)
      o.share.group =
          std::make_shared<kernels::cpu::SharedGroup>(::fcntl(memory_.fd(), F_DUPFD_CLOEXEC, 0), setup.rank);
    return o;
  }

  std::string meet() {
    link_.send(RankMessage::loaded, {});
    const Bytes id = link_.expect(RankMessage::meet, Clock::now() + kLoadLimit);
    return {reinterpret_cast<const char*>(id.data()), id.size()};
  }

  void take(const RankLink::Message& message) {
    switch (message.kind) {
      case RankMessage::step:
        decode_rank_work(message.body, received_);
        return engine_->step({&received_.work, 1}, result_);
      case RankMessage::read_kv: {
        const auto blocks = decode_blocks(message.body).blocks;
        Bytes bytes(blocks.size() * engine_->kv_block_bytes());
        engine_->read_kv(0, blocks, bytes);
        return link_.send(RankMessage::kv, bytes);
      }
      case RankMessage::write_kv: {
        const BlockBytes got = decode_blocks(message.body);
        return engine_->write_kv(0, got.blocks, got.bytes);
      }
      default:
        throw core::Error("a message that ranks do not take");
    }
  }

  RankLink& link_;
  Socket memory_;
  std::unique_ptr<Engine> engine_;
  ReceivedWork received_;
  StepResult result_;
};

}  // namespace

std::unique_ptr<Engine> make_ranked_engine(const RankedOptions& options) {
  return std::make_unique<RankedEngine>(options);
}

void follow_first_rank(int socket, int memory) {
  RankLink link{Socket(socket)};
  const HangupWatch watch({link.fd()}, [](size_t) { ::_exit(kExitStopped); });
  FollowingRank rank(link, Socket(memory));
  try {
    rank.run();
  } catch (const std::exception& error) {
    try {
      link.send(RankMessage::failed, encode_text(error.what()));
    } catch (const core::Error&) {
      // Nobody is left to be told.
    }
  }
  // At once: a GPU may wait for ranks that are no more, and nothing here outlives the process.
  ::_exit(kExitEngineFailed);
}

}  // namespace drydock::runtime
