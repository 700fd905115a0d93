// Collectives between processes: each rank is one, made by fork.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/element.h"
#include "kernels/reference.h"
#include "kernels/shared_group.h"

namespace drydock::tests {
namespace {

using namespace kernels;
using cpu::SharedGroup;

constexpr std::chrono::milliseconds kPatient{20'000};

float number_of(int rank, int64_t i) {
  const uint64_t bits = core::mix(static_cast<uint64_t>(rank * 1'000'003 + i));
  return static_cast<float>(bits >> 40U) * 0x1p-24F - 0.5F;
}

template <typename T>
std::vector<T> part_of(int rank, int64_t count) {
  std::vector<T> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(from_float<T>(number_of(rank, i)));
  return out;
}

template <typename T>
Matrix matrix_of(std::vector<T>& data, int64_t rows) {
  const auto cols = static_cast<int64_t>(data.size()) / rows;
  return {data.data(),  sizeof(T) == 4 ? core::Dtype::fp32 : core::Dtype::bf16, rows, cols, cols, nullptr,
          Scaling::none};
}

// Every rank's process runs use(group); the codes that they end with: 0 where it is true, 3 after core::Error.
std::vector<int> ends_of(int ranks, std::chrono::milliseconds limit, const std::function<bool(SharedGroup&)>& use) {
  const int memory = SharedGroup::create(ranks);
  std::vector<pid_t> pids;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      int code = 1;
      try {
        SharedGroup group(::dup(memory), rank, limit);
        code = use(group) ? 0 : 1;
      } catch (const core::Error&) {
        code = 3;
      }
      ::_exit(code);
    }
    pids.push_back(pid);
  }
  ::close(memory);
  std::vector<int> out;
  for (const pid_t pid : pids) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    out.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  }
  return out;
}

// Whether a rank's sums are those in double up to rounding, and everybody's are the same bits. The sum in fp32 rounds
// once an addition, by 2^-24 of what is at most ranks / 2; bf16 adds one rounding by 2^-8 of that.
template <typename T>
bool sums_right(SharedGroup& group, int64_t rows, int64_t count, cpu::Threads& threads) {
  std::vector<std::vector<T>> parts;
  std::vector<Matrix> matrices;
  for (int r = 0; r < group.ranks(); ++r) parts.push_back(part_of<T>(r, count));
  for (auto& part : parts) matrices.push_back(matrix_of(part, rows));
  const std::vector<double> want = reference::all_reduce(matrices);
  std::vector<T> own = parts[static_cast<size_t>(group.rank())];
  group.all_reduce(matrix_of(own, rows), threads);
  const double ranks = group.ranks(), unit = sizeof(T) == 4 ? 0 : 0x1p-8;
  for (size_t i = 0; i < own.size(); ++i)
    if (std::abs(double{to_float(own[i])} - want[i]) > ranks / 2 * (ranks * 0x1p-24 + unit)) return false;
  std::vector<T> first = own;
  group.broadcast(first.data(), static_cast<int64_t>(first.size() * sizeof(T)), 0);
  return std::memcmp(first.data(), own.data(), own.size() * sizeof(T)) == 0;
}

template <typename T>
bool gathers_right(SharedGroup& group, int64_t rows, int64_t cols, cpu::Threads& threads) {
  std::vector<std::vector<T>> parts;
  std::vector<Matrix> matrices;
  for (int r = 0; r < group.ranks(); ++r) parts.push_back(part_of<T>(r, rows * cols));
  for (auto& part : parts) matrices.push_back(matrix_of(part, rows));
  const std::vector<double> want = reference::all_gather(matrices);
  std::vector<T> whole(want.size());
  Matrix out = matrix_of(whole, rows);
  if (group.rank() == 1) out.data = nullptr;  // it only gives
  group.all_gather(matrices[static_cast<size_t>(group.rank())], out, threads);
  for (size_t i = 0; group.rank() != 1 && i < whole.size(); ++i)
    if (double{to_float(whole[i])} != want[i]) return false;
  return true;
}

}  // namespace

TEST_CASE("processes sum, gather and broadcast, each with the same bits") {
  for (const int ranks : {2, 3, 5}) {
    CAPTURE(ranks);
    const auto ends = ends_of(ranks, kPatient, [](SharedGroup& group) {
      cpu::Threads threads(2);
      bool right = true;
      // Below, at and above a slot of 256 KiB (65536 fp32), of which four ranks and more sum parts from 32 KiB on.
      for (const int64_t count : {1, 7, 8'192, 65'536, 65'538, 200'001}) {
        right = right && sums_right<float>(group, 1, count, threads);
        right = right && sums_right<Bf16>(group, 1, count, threads);
      }
      right = right && gathers_right<float>(group, 3, 11, threads) && gathers_right<Bf16>(group, 1, 5, threads);
      return right && gathers_right<float>(group, 5, 30'011, threads);  // rows go on from slot to slot
    });
    CHECK(ends == std::vector<int>(static_cast<size_t>(ranks), 0));
  }
}

TEST_CASE("many collectives in a row, by ranks that come late in turn") {
  const auto ends = ends_of(3, kPatient, [](SharedGroup& group) {
    cpu::Threads threads(1);
    for (int round = 0; round < 2'000; ++round) {
      if (round % 500 == 100 * group.rank()) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      std::vector<float> value{static_cast<float>(round + group.rank())};
      group.all_reduce(matrix_of(value, 1), threads);
      if (value[0] != static_cast<float>(3 * round + 3)) return false;  // whole numbers: exact
    }
    return true;
  });
  CHECK(ends == std::vector<int>(3, 0));
}

TEST_CASE("a rank that is killed ends the others' waiting, as does one that hangs up or does something else") {
  std::vector<float> data(1000);
  const auto killed = ends_of(3, std::chrono::milliseconds(200), [&](SharedGroup& group) {
    cpu::Threads threads(1);
    for (int round = 0; round < 10; ++round) {
      if (group.rank() == 1 && round == 5) ::raise(SIGKILL);
      group.all_reduce(matrix_of(data, 1), threads);
    }
    return true;
  });
  CHECK(killed == std::vector<int>{3, -SIGKILL, 3});

  const auto begin = std::chrono::steady_clock::now();
  const auto failed = ends_of(3, kPatient, [&](SharedGroup& group) {
    cpu::Threads threads(1);
    if (group.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      group.fail();
      return true;
    }
    group.all_reduce(matrix_of(data, 1), threads);
    return true;
  });
  CHECK(failed == std::vector<int>{3, 3, 0});
  CHECK(std::chrono::steady_clock::now() - begin < kPatient);

  const auto differ = ends_of(2, kPatient, [&](SharedGroup& group) {
    cpu::Threads threads(1);
    std::vector<float> own(group.rank() == 0 ? 10 : 20);
    group.all_reduce(matrix_of(own, 1), threads);
    return true;
  });
  CHECK(differ == std::vector<int>{3, 3});
}

TEST_CASE("what is no group's memory is refused, and so are groups that can't be") {
  CHECK_THROWS_AS(SharedGroup::create(1), core::Error);
  CHECK_THROWS_AS(SharedGroup::create(65), core::Error);
  CHECK_THROWS_AS(SharedGroup(-1, 0), core::Error);
  CHECK_THROWS_AS(SharedGroup(::open("/dev/null", O_RDWR | O_CLOEXEC), 0), core::Error);
  const int memory = SharedGroup::create(2);
  CHECK(::ftruncate(memory, 0) != 0);  // sealed
  CHECK((::fcntl(memory, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK_THROWS_AS(SharedGroup(::dup(memory), 2), core::Error);
  SharedGroup group(memory, 0, std::chrono::milliseconds(20));
  cpu::Threads threads(1);
  std::vector<float> data(4);
  Matrix gaps = matrix_of(data, 2);
  gaps.stride = 5;
  CHECK_THROWS_AS(group.all_reduce(gaps, threads), core::Error);
  CHECK_THROWS_WITH_AS(group.all_reduce(matrix_of(data, 2), threads), doctest::Contains("rank 1 has not come"),
                       core::Error);
}

}  // namespace drydock::tests
