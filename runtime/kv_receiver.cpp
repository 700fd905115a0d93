#include "runtime/kv_receiver.h"

#include <algorithm>

#include "core/error.h"

namespace drydock::runtime {
namespace {

constexpr size_t kPieceBytes = 2u << 20;
constexpr int64_t kWindow = 4;  // pieces under way: the credit
constexpr int kTries = 3;
constexpr std::chrono::milliseconds kSlow{500}, kAvoid{1000};
constexpr std::chrono::seconds kPatience{60};  // a step of a slow engine may be under way

struct Unwanted {};

std::chrono::nanoseconds in_ns(double us) { return std::chrono::nanoseconds(static_cast<int64_t>(us * 1e3)); }

}  // namespace

KvReceiver::KvReceiver(KvConnect connect, size_t block_bytes, Hooks hooks)
    : connect_(std::move(connect)), block_bytes_(block_bytes), hooks_(std::move(hooks)), thread_([this] { run(); }) {}

KvReceiver::~KvReceiver() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void KvReceiver::add(KvJob job) {
  {
    const std::scoped_lock lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_all();
}

void KvReceiver::forget(Attempt attempt) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(jobs_, [attempt](const KvJob& job) { return job.attempt == attempt; });
  if (current_ == attempt) wanted_ = false;
}

KvTotals KvReceiver::totals() const {
  const std::scoped_lock lock(mutex_);
  return totals_;
}

void KvReceiver::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!due_.empty() && due_.begin()->first <= Clock::now()) {
      const Attempt attempt = due_.begin()->second;
      due_.erase(due_.begin());
      lock.unlock();
      hooks_.done(attempt, true, "");
      lock.lock();
    } else if (!jobs_.empty()) {
      const KvJob job = std::move(jobs_.front());
      jobs_.pop_front();
      current_ = job.attempt;
      wanted_ = true;
      lock.unlock();
      try {
        receive(job);
      } catch (const Unwanted&) {
        peers_.erase(job.source.address);  // answers are still to come there
      }
      lock.lock();
      current_ = 0;
    } else if (!due_.empty()) {
      wake_.wait_until(lock, due_.begin()->first);
    } else {
      wake_.wait(lock);
    }
  }
}

KvPeer& KvReceiver::peer(const std::string& address) {
  const auto found = peers_.find(address);
  if (found != peers_.end() && !found->second->ended()) return *found->second;
  // A worker that comes anew has another address: nobody would ask by the old one again, and let its connection go.
  std::erase_if(peers_, [](const auto& one) { return one.second->ended(); });
  std::unique_ptr<KvPeer> made = connect_(address);
  return *(peers_[address] = std::move(made));
}

// Who was silent once would be so for each of the jobs that wait for it, while others' jobs wait behind them.
bool KvReceiver::avoided(const std::string& address) {
  std::erase_if(avoid_, [now = Clock::now()](const auto& one) { return one.second <= now; });
  return avoid_.contains(address);
}

// What came before a connection broke need not come again.
void KvReceiver::receive(const KvJob& job) {
  const Clock::time_point begin = Clock::now();
  int64_t have = 0;
  std::string reason;
  if (avoided(job.source.address)) return fail(job, "it was silent a moment ago");
  for (int tried = 0; tried < kTries; ++tried) {
    const Clock::time_point try_begin = Clock::now();
    const int64_t had = have;
    const bool fresh = !peers_.contains(job.source.address);
    try {
      const Got got = receive_rest(job, peer(job.source.address), have);
      if (got == Got::elsewhere) return;
      if (got == Got::not_held) return fail(job, "its KV is held no longer");
      {
        const std::scoped_lock lock(mutex_);
        ++totals_.transfers;
        totals_.bytes += job.blocks * static_cast<int64_t>(block_bytes_);
        totals_.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
      }
      return hooks_.done(job.attempt, true, "");
    } catch (const core::Error& error) {
      reason = error.what();
      peers_.erase(job.source.address);
      const Clock::time_point now = Clock::now();
      if (now - try_begin > kSlow) avoid_[job.source.address] = now + kAvoid;
      if (fresh && have == had) break;
      if (stopping_) return;
    }
  }
  fail(job, reason);
}

void KvReceiver::fail(const KvJob& job, const std::string& reason) {
  {
    const std::scoped_lock lock(mutex_);
    ++totals_.failed;
  }
  hooks_.done(job.attempt, false, "KV from " + job.source.address + ": " + reason);
}

// A peer whose step takes long is waited for as long as somebody wants what it has.
KvPiece KvReceiver::next_piece(KvPeer& peer) {
  for (const Clock::time_point limit = Clock::now() + kPatience;;) {
    if (std::optional<KvPiece> piece = peer.next()) return std::move(*piece);
    if (!wanted_ || stopping_) throw Unwanted();
    if (Clock::now() > limit) throw core::Error("it does not come to an end with its step");
  }
}

// `have`: blocks that are here, counted on.
KvReceiver::Got KvReceiver::receive_rest(const KvJob& job, KvPeer& peer, int64_t& have) {
  const int64_t per_piece =
      job.sized ? std::max<int64_t>(1, static_cast<int64_t>(kPieceBytes / block_bytes_)) : job.blocks;
  int64_t asked = have, under_way = 0;
  while (have < job.blocks) {
    for (; under_way < kWindow && asked < job.blocks; ++under_way) {
      const int64_t count = std::min(per_piece, job.blocks - asked);
      peer.ask({job.source.attempt, asked, count, hooks_.link_free_us()});
      asked += count;
    }
    const KvPiece piece = next_piece(peer);
    --under_way;
    if (piece.held) check(job, piece, have);
    const bool timed = piece.held && !job.sized;
    if (timed) {
      hooks_.link_taken_us(piece.link_us);
      const std::scoped_lock lock(mutex_);
      due_.emplace(Clock::now() + in_ns(piece.wait_us), job.attempt);
      ++totals_.transfers;
      totals_.seconds += piece.wait_us * 1e-6;
    }
    if (!piece.held || timed || !hooks_.write(job.attempt, have, piece.bytes)) {
      for (; under_way > 0; --under_way) next_piece(peer);  // leaves the connection clean for the next job
      return piece.held ? Got::elsewhere : Got::not_held;
    }
    have += piece.blocks;
  }
  return Got::all;
}

void KvReceiver::check(const KvJob& job, const KvPiece& piece, int64_t have) const {
  const bool whole = piece.bytes.size() == (job.sized ? static_cast<size_t>(piece.blocks) * block_bytes_ : 0);
  if (piece.attempt != job.source.attempt || piece.first_block != have || piece.blocks < 1 ||
      piece.blocks > job.blocks - have || !whole)
    throw core::Error("a piece of KV that was not asked for");
}

}  // namespace drydock::runtime
