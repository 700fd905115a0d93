#include "scheduler/kv_blocks.h"

#include <bit>
#include <cassert>
#include <stdexcept>

namespace drydock::scheduler {

// Memory is touched as blocks are first used: most simulations never use them all.
KvBlocks::KvBlocks(int64_t blocks, bool caches, bool counted) : caches_(caches), only_counts_(counted), total_(blocks) {
  assert(blocks > 0 && blocks < INT32_MAX && !(caches && counted));
  if (!caches) return;
  index_.resize(std::bit_ceil(2 * static_cast<size_t>(blocks)));
  mask_ = index_.size() - 1;
}

// Fibonacci hashing spreads hashes that are small consecutive numbers, as traces have them. Knuth, TAOCP 3, 6.4.
size_t KvBlocks::slot_of(uint64_t hash) const {
  return static_cast<size_t>((hash * 0x9E3779B97F4A7C15ull) >> 20) & mask_;
}

BlockId KvBlocks::find(uint64_t hash) const {
  for (size_t at = slot_of(hash); index_[at].block != kNone; at = (at + 1) & mask_)
    if (index_[at].hash == hash) return index_[at].block;
  return kNone;
}

// Entries behind the gap move up, so that no tombstones are left. Knuth, TAOCP 3, 6.4, algorithm R.
void KvBlocks::forget(uint64_t hash) {
  size_t gap = slot_of(hash);
  while (index_[gap].hash != hash || index_[gap].block == kNone) gap = (gap + 1) & mask_;
  for (size_t at = (gap + 1) & mask_; index_[at].block != kNone; at = (at + 1) & mask_) {
    const size_t home = slot_of(index_[at].hash);
    if (((at - home) & mask_) < ((at - gap) & mask_)) continue;
    index_[gap] = index_[at];
    gap = at;
  }
  index_[gap] = {};
}

KvBlocks::Match KvBlocks::match(std::span<const uint64_t> hashes) const {
  Match out;
  if (!caches_) return out;
  for (const uint64_t hash : hashes) {
    const BlockId id = find(hash);
    if (id == kNone) break;
    ++out.blocks;
    out.idle += blocks_[id].holders == 0;
  }
  return out;
}

void KvBlocks::unlink(BlockId id) {
  Block& block = blocks_[id];
  (block.older == kNone ? oldest_ : blocks_[block.older].newer) = block.newer;
  (block.newer == kNone ? newest_ : blocks_[block.newer].older) = block.older;
  block.older = block.newer = kNone;
  --cached_;
}

void KvBlocks::share(std::span<const uint64_t> hashes, std::vector<BlockId>& held) {
  for (const uint64_t hash : hashes) {
    const BlockId id = find(hash);
    assert(id != kNone);
    if (blocks_[id].holders++ == 0) unlink(id);
    held.push_back(id);
  }
}

BlockId KvBlocks::evict() {
  const BlockId id = oldest_;
  unlink(id);
  forget(blocks_[id].hash);
  blocks_[id].hashed = false;
  return id;
}

bool KvBlocks::allocate(int64_t count, std::vector<BlockId>& held) {
  if (count > available()) return false;
  if (only_counts_) {
    counted_ += count;
    held.resize(held.size() + static_cast<size_t>(count));
    return true;
  }
  for (; count > 0; --count) {
    BlockId id;
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
      blocks_[id].holders = 1;
    } else if (static_cast<int64_t>(blocks_.size()) < total_) {
      id = static_cast<BlockId>(blocks_.size());
      blocks_.emplace_back().holders = 1;
    } else {
      id = evict();
      blocks_[id].holders = 1;
    }
    held.push_back(id);
  }
  return true;
}

void KvBlocks::publish(BlockId id, uint64_t hash) {
  Block& block = blocks_[id];
  assert(block.holders > 0);
  if (!caches_ || block.hashed || find(hash) != kNone) return;
  block.hash = hash;
  block.hashed = true;
  size_t at = slot_of(hash);
  while (index_[at].block != kNone) at = (at + 1) & mask_;
  index_[at] = {hash, id};
}

void KvBlocks::release_tail(std::vector<BlockId>& held, size_t kept) {
  if (only_counts_ && held.size() > kept) {
    counted_ -= static_cast<int64_t>(held.size() - kept);
    held.resize(kept);
  }
  while (held.size() > kept) {
    const BlockId id = held.back();
    held.pop_back();
    Block& block = blocks_[id];
    assert(block.holders > 0);
    if (--block.holders > 0) continue;
    if (!block.hashed) {
      free_.push_back(id);
      continue;
    }
    block.older = newest_;
    (newest_ == kNone ? oldest_ : blocks_[newest_].newer) = id;
    newest_ = id;
    ++cached_;
  }
}

int64_t KvBlocks::holds() const {
  int64_t sum = counted_;
  for (const Block& block : blocks_) sum += block.holders;
  return sum;
}

void KvBlocks::check() const {
  const auto expect = [](bool holds, const char* what) {
    if (!holds) throw std::logic_error(what);
  };
  std::vector<int> seen(blocks_.size(), 0);
  for (const BlockId id : free_) {
    expect(blocks_[id].holders == 0 && !blocks_[id].hashed, "a free block is held or hashed");
    ++seen[id];
  }
  int64_t listed = 0;
  for (BlockId id = oldest_, before = kNone; id != kNone; before = id, id = blocks_[id].newer) {
    expect(blocks_[id].older == before && blocks_[id].holders == 0, "the list of cached blocks is torn");
    expect(find(blocks_[id].hash) == id, "a cached block is not found by its hash");
    ++seen[id];
    ++listed;
  }
  expect(listed == cached_, "cached blocks are miscounted");
  for (size_t i = 0; i < blocks_.size(); ++i)
    expect(seen[i] + (blocks_[i].holders > 0 ? 1 : 0) == 1, "a block is lost or in two places");
}

}  // namespace drydock::scheduler
