#pragma once
// How a decode worker gets the KV of prompts that others computed: piece by piece, a few under way, begun again where
// it broke off.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/messages.h"
#include "runtime/worker.h"

namespace drydock::runtime {

struct KvJob {
  Attempt attempt = 0;
  KvTicket source;
  int64_t blocks = 0;  // of the sequence
  bool sized = false;  // the KV has bytes; else its transfer takes a predicted time
};

struct KvTotals {
  int64_t transfers = 0, failed = 0, bytes = 0;
  double seconds = 0;
};

// Has a thread of its own. Jobs are done one after the other; predicted times run side by side.
class KvReceiver {
 public:
  struct Hooks {
    std::function<double()> link_free_us;       // of the worker's link, from now
    std::function<void(double)> link_taken_us;  // until then, from now
    // Puts a piece in its place and returns when it is there; false: it is not wanted any more.
    std::function<bool(Attempt, int64_t first_block, std::span<const std::byte>)> write;
    std::function<void(Attempt, bool came, const std::string& reason)> done;
  };
  KvReceiver(KvConnect connect, size_t block_bytes, Hooks hooks);
  ~KvReceiver();
  KvReceiver(const KvReceiver&) = delete;
  KvReceiver& operator=(const KvReceiver&) = delete;

  void add(KvJob job);
  // Nobody wants it any more: it is dropped without a word, and who holds it is not waited for.
  void forget(Attempt attempt);
  KvTotals totals() const;

 private:
  void run();
  void receive(const KvJob& job);
  enum class Got : uint8_t { all, not_held, elsewhere };  // elsewhere: not this thread's any more
  Got receive_rest(const KvJob& job, KvPeer& peer, int64_t& have);
  KvPiece next_piece(KvPeer& peer);
  void fail(const KvJob& job, const std::string& reason);
  void check(const KvJob& job, const KvPiece& piece, int64_t have) const;
  KvPeer& peer(const std::string& address);
  bool avoided(const std::string& address);

  KvConnect connect_;
  size_t block_bytes_;
  Hooks hooks_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<KvJob> jobs_;
  std::multimap<Clock::time_point, Attempt> due_;  // transfers that take a predicted time
  KvTotals totals_;
  Attempt current_ = 0;             // whose KV is being received; 0: none's
  std::atomic<bool> wanted_{true};  // current_
  std::atomic<bool> stopping_{false};
  std::map<std::string, std::unique_ptr<KvPeer>> peers_;
  std::map<std::string, Clock::time_point> avoid_;  // who was silent, and until when it is not asked
  std::thread thread_;
};

}  // namespace drydock::runtime
