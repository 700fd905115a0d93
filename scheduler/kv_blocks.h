#pragma once
// The KV cache as blocks: who holds which, and which full ones can be found again by their hash.
#include <cstdint>
#include <span>
#include <vector>

namespace drydock::scheduler {

using BlockId = uint32_t;

// Blocks are free, held by one or more owners, or cached: held by nobody, but still full of a known prefix. Cached
// blocks are taken for new content when nothing is free, the least recently held first. As in vLLM's KVCacheManager and
// SGLang's radix cache. Every operation takes time in the blocks it touches, and none allocates memory but `held`
// growing.
class KvBlocks {
 public:
  // 0 < blocks < 2^31. Without `caches`, published hashes are forgotten. `counted`: blocks have no content, so that
  // they are only counted, and who holds some is given block 0 for each.
  KvBlocks(int64_t blocks, bool caches, bool counted = false);

  int64_t total() const { return total_; }
  int64_t available() const {  // free or cached
    return total_ - counted_ - static_cast<int64_t>(blocks_.size()) + static_cast<int64_t>(free_.size()) + cached_;
  }
  int64_t cached() const { return cached_; }
  bool caches() const { return caches_; }

  // How many of the first `hashes` are in the cache, and how many of these are held by nobody: taking them makes
  // available() so much smaller.
  struct Match {
    int64_t blocks = 0, idle = 0;
  };
  Match match(std::span<const uint64_t> hashes) const;

  // Appends the cached blocks of `hashes`, all of which must match, to `held`.
  void share(std::span<const uint64_t> hashes, std::vector<BlockId>& held);

  // Appends `count` blocks of unknown content to `held`, or does nothing and returns false.
  bool allocate(int64_t count, std::vector<BlockId>& held);

  // From now on `block`, which is held and full, can be found by `hash`. The first block of a hash stays its block.
  void publish(BlockId block, uint64_t hash);

  // Gives back all of `held`, the last first, so that the tail of a prefix leaves the cache before its head.
  void release(std::vector<BlockId>& held) { release_tail(held, 0); }
  // Gives back all but the first `kept`.
  void release_tail(std::vector<BlockId>& held, size_t kept);

  int64_t holds() const;  // of all blocks by all owners together; O(blocks)
  // Throws std::logic_error when a block is lost, counted twice or out of its list. For tests; O(blocks).
  void check() const;

 private:
  static constexpr BlockId kNone = UINT32_MAX;
  struct Block {
    uint64_t hash = 0;
    uint32_t holders = 0;
    bool hashed = false;
    BlockId older = kNone, newer = kNone;  // neighbours in the list of cached blocks
  };
  struct Entry {
    uint64_t hash = 0;
    BlockId block = kNone;
  };

  size_t slot_of(uint64_t hash) const;
  BlockId find(uint64_t hash) const;
  void forget(uint64_t hash);
  void unlink(BlockId id);
  BlockId evict();

  bool caches_;
  bool only_counts_;
  int64_t total_, counted_ = 0;  // counted_: held, where blocks are only counted
  std::vector<Block> blocks_;    // those ever used
  std::vector<BlockId> free_;    // of those
  std::vector<Entry> index_;     // open addressing, linear probing, a power of two long, at most half full
  size_t mask_ = 0;
  BlockId oldest_ = kNone, newest_ = kNone;
  int64_t cached_ = 0;
};

}  // namespace drydock::scheduler
