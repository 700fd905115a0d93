#include <doctest/doctest.h>

#include <algorithm>
#include <list>
#include <map>

#include "core/random.h"
#include "scheduler/kv_blocks.h"

using namespace drydock;
using scheduler::BlockId;
using scheduler::KvBlocks;

TEST_CASE("blocks are handed out until there are none, all or nothing") {
  KvBlocks kv(4, false);
  std::vector<BlockId> a, b;
  CHECK(kv.allocate(3, a));
  CHECK(!kv.allocate(2, b));
  CHECK(b.empty());
  CHECK(kv.available() == 1);
  CHECK(kv.allocate(1, b));
  kv.release(a);
  CHECK(a.empty());
  CHECK(kv.available() == 3);
  CHECK_NOTHROW(kv.check());
}

TEST_CASE("a released prefix is found again until its blocks are needed, its tail going first") {
  KvBlocks kv(4, true);
  std::vector<BlockId> a;
  const uint64_t prefix[] = {11, 22, 33};
  REQUIRE(kv.allocate(3, a));
  for (size_t i = 0; i < 3; ++i) kv.publish(a[i], prefix[i]);
  CHECK(kv.match(prefix).blocks == 3);
  CHECK(kv.match(prefix).idle == 0);
  kv.release(a);
  CHECK(kv.match(prefix).idle == 3);
  CHECK(kv.available() == 4);
  std::vector<BlockId> b;
  REQUIRE(kv.allocate(2, b));  // the free one, and the last of the prefix
  CHECK(kv.match(prefix).blocks == 2);
  std::vector<BlockId> c;
  kv.share(std::span(prefix).first(2), c);
  CHECK(kv.available() == 0);
  std::vector<BlockId> d;
  kv.share(std::span(prefix).first(1), d);  // two owners of one block
  kv.release(c);
  CHECK(kv.available() == 1);  // the first block is still held
  CHECK_NOTHROW(kv.check());
}

TEST_CASE("the first block of a hash stays its block") {
  KvBlocks kv(2, true);
  std::vector<BlockId> a, b;
  REQUIRE(kv.allocate(1, a));
  REQUIRE(kv.allocate(1, b));
  kv.publish(a[0], 7);
  kv.publish(b[0], 7);
  kv.release(b);  // not cached: its content is already
  CHECK(kv.cached() == 0);
  kv.release(a);
  CHECK(kv.cached() == 1);
  CHECK_NOTHROW(kv.check());
}

namespace {

// The same rules with ordered containers and no cleverness.
struct Naive {
  explicit Naive(int64_t blocks) : free(blocks) {}
  int64_t free;
  std::map<uint64_t, int> holders;  // of published hashes
  std::list<uint64_t> idle;         // least recently held first

  int64_t available() const { return free + static_cast<int64_t>(idle.size()); }
  int64_t match(std::span<const uint64_t> hashes) const {
    int64_t n = 0;
    for (const uint64_t h : hashes) {
      if (!holders.contains(h)) break;
      ++n;
    }
    return n;
  }
  void take(int64_t count) {
    for (; count > 0; --count) {
      if (free > 0) {
        --free;
        continue;
      }
      holders.erase(idle.front());
      idle.pop_front();
    }
  }
};

struct Owner {
  std::vector<BlockId> held;
  std::vector<uint64_t> hashes;  // of the first blocks; 0: nobody's content
};

}  // namespace

TEST_CASE("random use agrees with a naive model, and no block is ever lost") {
  core::Random random(5);
  KvBlocks kv(40, true);
  Naive naive(40);
  std::vector<Owner> owners;
  for (int i = 0; i < 20'000; ++i) {
    if (owners.empty() || (random.uniform() < 0.5 && owners.size() < 12)) {
      // A prefix of one of three texts.
      const uint64_t text = 1 + random.next() % 3;
      std::vector<uint64_t> hashes;
      for (uint64_t b = 0; b < 1 + random.next() % 9; ++b) hashes.push_back(text * 100 + b);
      const auto found = kv.match(hashes);
      REQUIRE(found.blocks == naive.match(hashes));
      const auto shared = static_cast<size_t>(found.blocks);
      const auto fresh = static_cast<int64_t>(hashes.size() - shared);
      if (kv.available() - found.idle < fresh) continue;
      Owner o;
      kv.share(std::span(hashes).first(shared), o.held);
      for (size_t b = 0; b < shared; ++b)
        if (naive.holders[hashes[b]]++ == 0) naive.idle.remove(hashes[b]);
      REQUIRE(kv.allocate(fresh, o.held));
      naive.take(fresh);
      o.hashes.assign(hashes.begin(), hashes.begin() + static_cast<long>(shared));
      for (size_t b = shared; b < hashes.size(); ++b) {
        const bool known = naive.holders.contains(hashes[b]);
        kv.publish(o.held[b], hashes[b]);
        if (!known) naive.holders[hashes[b]] = 1;
        o.hashes.push_back(known ? 0 : hashes[b]);
      }
      owners.push_back(std::move(o));
    } else {
      const size_t at = random.next() % owners.size();
      Owner o = std::move(owners[at]);
      owners.erase(owners.begin() + static_cast<long>(at));
      for (size_t b = o.hashes.size(); b-- > 0;) {
        if (o.hashes[b] == 0)
          ++naive.free;
        else if (--naive.holders[o.hashes[b]] == 0)
          naive.idle.push_back(o.hashes[b]);
      }
      kv.release(o.held);
    }
    REQUIRE(kv.available() == naive.available());
    REQUIRE_NOTHROW(kv.check());
  }
}
