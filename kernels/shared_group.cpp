#include "kernels/shared_group.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <thread>

#include "core/error.h"
#include "kernels/convert.h"

namespace drydock::kernels::cpu {
namespace {

constexpr uint64_t kGroupMagic = 0x31505247594B4344;  // of this layout
constexpr int64_t kSlotBytes = 256 << 10;             // of one rank in one buffer: they lie in the second-level caches
constexpr int kMeetingSpins = 2000;
constexpr int64_t kSharedFrom = 32 << 10;  // bytes from which each of four and more ranks sums a part
constexpr int64_t kSumAtOnce = 1024;       // elements, in fp32 in the first-level cache

// The words that ranks meet at are apart, so that writing one does not disturb another's reader.
constexpr size_t kLine = 64;
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

[[noreturn]] void group_error(const std::string& what) { throw core::Error("tensor parallelism: " + what); }
std::string system_words() { return std::strerror(errno); }

int64_t group_element_bytes(core::Dtype dtype) {
  if (dtype == core::Dtype::fp32) return 4;
  if (dtype == core::Dtype::bf16) return 2;
  group_error("fp32 or bf16 is summed and gathered, not " + std::string(core::name(dtype)));
}

int64_t whole_bytes(const Matrix& m) {
  if (m.stride != m.cols && m.rows > 1) group_error("rows with gaps between them");
  return m.rows * m.cols * group_element_bytes(m.dtype);
}

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* limit) {
  return ::syscall(SYS_futex, &word, operation, value, limit, nullptr, 0);
}

void rest_a_moment() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Meetings are counted round and round; ranks are at most one apart.
bool reached(uint32_t count, uint32_t wanted) { return static_cast<int32_t>(count - wanted) >= 0; }

}  // namespace

struct SharedGroup::Shared {
  struct alignas(kLine) Place {
    std::atomic<uint32_t> arrived;  // meetings that the rank has come to
    std::atomic<uint32_t> waiting;  // ranks that sleep until it comes to the next
    std::atomic<uint64_t> tags[2];  // what it came for, in even and odd meetings
  };
  uint64_t magic;
  int32_t ranks;
  std::atomic<uint32_t> failed;
  std::array<Place, kMostSharedRanks> places;
  // (2 buffers, ranks, kSlotBytes) follow.
};

int SharedGroup::create(int ranks) {
  if (ranks < 2 || ranks > kMostSharedRanks)
    group_error(std::to_string(ranks) + " ranks on processors; 2 to " + std::to_string(kMostSharedRanks) +
                " are right");
  const int descriptor = ::memfd_create("drydock ranks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) group_error("shared memory can't be had: " + system_words());
  const auto bytes = static_cast<off_t>(sizeof(Shared) + static_cast<size_t>(2 * ranks * kSlotBytes));
  // Sealed: a rank that cut it short would end the others by SIGBUS.
  if (::ftruncate(descriptor, bytes) != 0 ||
      ::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const std::string words = system_words();
    ::close(descriptor);
    group_error("shared memory can't be had: " + words);
  }
  Shared head{};
  head.magic = kGroupMagic, head.ranks = ranks;
  if (::pwrite(descriptor, &head, sizeof head, 0) != static_cast<ssize_t>(sizeof head)) {
    const std::string words = system_words();
    ::close(descriptor);
    group_error("shared memory can't be written: " + words);
  }
  return descriptor;
}

SharedGroup::SharedGroup(int descriptor, int rank, std::chrono::milliseconds limit) : rank_(rank), limit_(limit) {
  struct stat status {};
  const bool there = ::fstat(descriptor, &status) == 0 && status.st_size > static_cast<off_t>(sizeof(Shared));
  bytes_ = static_cast<size_t>(status.st_size);
  void* const at = there ? ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
                         : static_cast<void*>(MAP_FAILED);
  ::close(descriptor);
  if (at == MAP_FAILED) group_error("no shared memory of a group");
  shared_ = static_cast<Shared*>(at);
  ranks_ = shared_->ranks;
  const bool sound = shared_->magic == kGroupMagic && ranks_ >= 2 && ranks_ <= kMostSharedRanks && rank >= 0 &&
                     rank < ranks_ &&
                     bytes_ >= sizeof(Shared) + static_cast<size_t>(2 * ranks_) * static_cast<size_t>(kSlotBytes);
  if (!sound) {
    ::munmap(at, bytes_);
    group_error("no shared memory of a group with rank " + std::to_string(rank));
  }
  // Where ranks share processors, who spins keeps the one it waits for from coming.
  if (static_cast<int>(std::thread::hardware_concurrency()) >= ranks_) spins_ = kMeetingSpins;
}

SharedGroup::~SharedGroup() { ::munmap(shared_, bytes_); }

std::byte* SharedGroup::slot(int rank) const {
  const size_t index = static_cast<size_t>(buffer_ * ranks_ + rank);
  return reinterpret_cast<std::byte*>(shared_ + 1) + index * static_cast<size_t>(kSlotBytes);
}

void SharedGroup::fail() noexcept {
  shared_->failed = 1;
  for (Shared::Place& place : shared_->places) futex(place.arrived, FUTEX_WAKE, INT_MAX, nullptr);
}

// Returns once all ranks are here: what each wrote into its slot before is there for the others. Slots of a buffer are
// written anew two calls later, when everybody has been to a meeting of the call between, and so has left this one.
void SharedGroup::meet(uint64_t tag) {
  if (shared_->failed != 0) group_error("a rank of the group was lost");
  Shared::Place& own = shared_->places[static_cast<size_t>(rank_)];
  ++meetings_;
  own.tags[meetings_ & 1].store(tag, std::memory_order_relaxed);
  own.arrived.store(meetings_);  // in one order with `waiting`: either the sleeper sees it, or it is woken
  if (own.waiting.load() > 0) futex(own.arrived, FUTEX_WAKE, INT_MAX, nullptr);
  for (int r = 0; r < ranks_; ++r) {
    wait_for(r);
    const uint64_t theirs = shared_->places[static_cast<size_t>(r)].tags[meetings_ & 1].load(std::memory_order_relaxed);
    if (theirs == tag) continue;
    fail();
    group_error("rank " + std::to_string(r) + " does something else than rank " + std::to_string(rank_));
  }
}

void SharedGroup::wait_for(int rank) {
  Shared::Place& other = shared_->places[static_cast<size_t>(rank)];
  for (int spin = 0; spin < spins_; ++spin) {
    if (reached(other.arrived.load(std::memory_order_acquire), meetings_)) return;
    rest_a_moment();
  }
  const auto until = std::chrono::steady_clock::now() + limit_;
  constexpr timespec kLookAgain{0, 50'000'000};
  other.waiting.fetch_add(1);
  uint32_t seen = other.arrived.load();
  bool late = false;
  while (!reached(seen, meetings_) && shared_->failed == 0 && !late) {
    futex(other.arrived, FUTEX_WAIT, seen, &kLookAgain);
    seen = other.arrived.load();
    late = std::chrono::steady_clock::now() > until;
  }
  other.waiting.fetch_sub(1);
  if (reached(seen, meetings_)) return;
  const bool failed = shared_->failed != 0;
  fail();
  group_error(failed ? "a rank of the group was lost"
                     : "rank " + std::to_string(rank) + " has not come for " + std::to_string(limit_.count()) + " ms");
}

void SharedGroup::for_each_piece(int64_t bytes, const std::function<void(int64_t, int64_t)>& use) {
  for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
    buffer_ ^= 1;
    use(begin, std::min(kSlotBytes, bytes - begin));
  }
}

// Elements [begin, begin + count) of all slots, added in the order of ranks.
void SharedGroup::sum(std::byte* out, core::Dtype dtype, int64_t begin, int64_t count) const {
  std::array<float, kSumAtOnce> total, next;
  const int64_t element = group_element_bytes(dtype);
  for (int64_t done = 0; done < count; done += kSumAtOnce) {
    const int64_t now = std::min(kSumAtOnce, count - done), at = (begin + done) * element;
    widen(slot(0) + at, dtype, now, 1, total.data());
    for (int r = 1; r < ranks_; ++r) {
      widen(slot(r) + at, dtype, now, 1, next.data());
      for (int64_t i = 0; i < now; ++i) total[static_cast<size_t>(i)] += next[static_cast<size_t>(i)];
    }
    narrow(total.data(), now, 1, dtype, out + done * element);
  }
}

// Few ranks, or few bytes: everybody sums everything. Else everybody sums its part in its own slot, where nobody else
// reads that part before the second meeting, and takes the others' parts from theirs: 3 times the bytes instead of one
// time a rank.
void SharedGroup::all_reduce(const Matrix& matrix, Threads& threads) {
  const int64_t element = group_element_bytes(matrix.dtype);
  auto* const data = static_cast<std::byte*>(matrix.data);
  for_each_piece(whole_bytes(matrix), [&](int64_t begin, int64_t bytes) {
    const uint64_t tag = (uint64_t{1} << 56) | static_cast<uint64_t>(bytes);
    const int64_t count = bytes / element;
    std::byte* const own = slot(rank_);
    threads.parallel_for(bytes, [&](int64_t first, int64_t last) {
      std::memcpy(own + first, data + begin + first, static_cast<size_t>(last - first));
    });
    meet(tag);
    if (ranks_ < 4 || bytes < kSharedFrom)
      return threads.parallel_for(count, [&](int64_t first, int64_t last) {
        sum(data + begin + first * element, matrix.dtype, first, last - first);
      });
    const auto part = [&](int rank) { return count * rank / ranks_; };
    const int64_t mine = part(rank_);
    threads.parallel_for(part(rank_ + 1) - mine, [&](int64_t first, int64_t last) {
      sum(own + (mine + first) * element, matrix.dtype, mine + first, last - first);
    });
    meet(tag);
    for (int r = 0; r < ranks_; ++r)
      std::memcpy(data + begin + part(r) * element, slot(r) + part(r) * element,
                  static_cast<size_t>((part(r + 1) - part(r)) * element));
  });
}

void SharedGroup::all_gather(const Matrix& own, const Matrix& whole, Threads& threads) {
  const int64_t row = own.cols * group_element_bytes(own.dtype);
  if (whole.data != nullptr && (whole.dtype != own.dtype || whole.rows != own.rows || whole.cols != own.cols * ranks_))
    group_error("parts are gathered into a matrix of another shape");
  auto* const out = static_cast<std::byte*>(whole.data);
  if (out != nullptr) whole_bytes(whole);
  for_each_piece(whole_bytes(own), [&](int64_t begin, int64_t bytes) {
    std::memcpy(slot(rank_), static_cast<const std::byte*>(own.data) + begin, static_cast<size_t>(bytes));
    meet((uint64_t{2} << 56) | static_cast<uint64_t>(bytes));
    if (out == nullptr) return;
    threads.parallel_for(ranks_, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        for (int64_t at = begin; at < begin + bytes;) {  // to the row's end, or the piece's
          const int64_t length = std::min(row - at % row, begin + bytes - at);
          std::memcpy(out + (at / row * ranks_ + r) * row + at % row, slot(static_cast<int>(r)) + (at - begin),
                      static_cast<size_t>(length));
          at += length;
        }
    });
  });
}

void SharedGroup::broadcast(void* data, int64_t bytes, int root) {
  if (root < 0 || root >= ranks_) group_error("nobody is rank " + std::to_string(root));
  for_each_piece(bytes, [&](int64_t begin, int64_t length) {
    std::byte* const at = static_cast<std::byte*>(data) + begin;
    if (rank_ == root) std::memcpy(slot(root), at, static_cast<size_t>(length));
    meet((uint64_t{3} << 56) | static_cast<uint64_t>(root) << 48 | static_cast<uint64_t>(length));
    if (rank_ != root) std::memcpy(at, slot(root), static_cast<size_t>(length));
  });
}

}  // namespace drydock::kernels::cpu
