#pragma once
// What the first rank of a tensor-parallel engine and the others say to each other, over a socket between processes of
// one program on one machine.
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/dtype.h"
#include "runtime/engine.h"
#include "runtime/socket.h"
#include "runtime/wire.h"

namespace drydock::runtime {

enum class RankMessage : uint32_t {
  setup = 1,  // to a rank that has begun: RankSetup
  loaded,     // from it: all is made but what the ranks have in common
  meet,       // to it: all are; what GPUs' communicators are made by
  step,       // to it: RankWork
  read_kv,    // to it: blocks
  kv,         // from it: their bytes
  write_kv,   // to it: blocks and bytes
  failed,     // from it, the last: why, as text
};

// How a rank makes its engine.
struct RankSetup {
  bool cuda = false;
  std::string model_dir;
  core::Dtype dtype = core::Dtype::bf16;
  int64_t kv_blocks = 0, block_tokens = 0;
  int threads = 0, device = 0, rank = 0, ranks = 1;
  std::optional<uint64_t> random_weights;
};

Bytes encode(const RankSetup& setup);
RankSetup decode_rank_setup(std::span<const std::byte> body);  // this and the others: core::Error on what is none

// Work and what its spans and pointers lead to.
struct ReceivedWork {
  RankWork work;
  std::vector<Token> tokens;
  std::vector<int32_t> blocks;
  std::vector<Sampling> samplings;
};
void encode(const RankWork& work, Bytes& out);  // out is written anew
void decode_rank_work(std::span<const std::byte> body, ReceivedWork& out);

struct BlockBytes {
  std::vector<int32_t> blocks;
  std::span<const std::byte> bytes;  // of the body
};
Bytes encode_blocks(std::span<const int32_t> blocks, std::span<const std::byte> bytes);
BlockBytes decode_blocks(std::span<const std::byte> body);

// One end of the socket. A thread at a time.
class RankLink {
 public:
  static constexpr size_t kMostBytes = 64u << 20;  // of a message
  static constexpr std::chrono::seconds kPatience{30};

  explicit RankLink(Socket socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.fd(); }
  void close() { socket_ = Socket(); }

  struct Message {
    RankMessage kind{};
    Bytes body;
  };
  // Both throw core::Error when the other process has ended, and after `deadline`, or kPatience.
  void send(RankMessage kind, std::span<const std::byte> body);
  Message receive(Clock::time_point deadline);
  // Throws the text of `failed`, and on any other message than `kind`.
  Bytes expect(RankMessage kind, Clock::time_point deadline);
  // The text of `failed`, if that has come, or comes at once; else empty. Passes over other messages.
  std::string last_words();

 private:
  Socket socket_;
  std::string words_;
};

// A thread that calls gone(i) once when whoever is at the other end of fds[i] has closed it, or ended.
class HangupWatch {
 public:
  HangupWatch(std::vector<int> fds, std::function<void(size_t)> gone);
  ~HangupWatch();  // joins: no call from then on
  HangupWatch(const HangupWatch&) = delete;
  HangupWatch& operator=(const HangupWatch&) = delete;

 private:
  void run(std::vector<int> fds, const std::function<void(size_t)>& gone) const;

  Socket stop_;  // an event
  std::thread thread_;
};

}  // namespace drydock::runtime
