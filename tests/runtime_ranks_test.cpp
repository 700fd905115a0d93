// Tensor parallelism on processors: each rank but the first is a process, made by fork instead of by starting drydock.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <thread>

#include "core/error.h"
#include "runtime/rank_messages.h"
#include "runtime/ranked_engine.h"
#include "runtime/wire_bytes.h"
#include "tests/runtime_engine_bed.h"

namespace drydock::tests {
namespace {

using namespace runtime;

// What a rank's process does with its descriptors, which are 3 and 4 as spawn() has them.
using RankBody = void (*)(int socket, int memory);

StartRank by_fork(
    std::vector<pid_t>* pids = nullptr, RankBody body = [](int s, int m) { follow_first_rank(s, m); }) {
  return [pids, body](int, int socket, int memory) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const int high_socket = ::fcntl(socket, F_DUPFD, 10), high_memory = ::fcntl(memory, F_DUPFD, 10);
      ::dup2(high_socket, 3), ::dup2(high_memory, 4);
      ::closefrom(5);
      body(3, 4);
      ::_exit(1);
    }
    if (pids != nullptr) pids->push_back(pid);
    return pid;
  };
}

RankedOptions ranked(const std::string& golden, int ranks, StartRank start) {
  RankedOptions o;
  o.name = "worker/0";
  o.model_dir = golden_dir(golden);
  o.engine = {.dtype = core::Dtype::fp32,
              .kv_blocks = kBedBlocks,
              .block_tokens = kBedBlockTokens,
              .threads = ranks,
              .random_weights = 7,
              .device = 0,
              .share = {.rank = 0, .ranks = ranks, .group = nullptr, .meet = {}}};
  o.start = std::move(start);
  return o;
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

bool gone(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

}  // namespace

TEST_CASE("two processes compute one's greedy tokens and transformers' logits") {
  const size_t descriptors = open_descriptors();
  for (const char* name : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(name);
    const Golden golden = read_golden(name);
    std::vector<pid_t> pids;
    {
      const auto engine = make_ranked_engine(ranked(name, 2, by_fork(&pids)));
      Sequence sequence(golden.prompt, 3, 60);
      CHECK(generate(*engine, sequence, 200) == golden.greedy);
      // All logits after the prompt, which goes in again as a chunk, beside a sequence that decodes.
      Sequence text(golden.prompt, 70, 40);
      text.sampling.logprobs = 512;
      RankWork work;
      work.prompts.push_back(text.work(text.left(), 1));
      work.decodes.push_back(sequence.work(1, 1));
      StepResult result;
      engine->step({&work, 1}, result);
      REQUIRE(result.tokens.size() == 2);
      std::vector<double> exact = golden.logits.back();
      double sum = 0;
      for (const double logit : exact) sum += std::exp(logit);
      for (const TokenLogprob& t : result.tokens[0].top)
        REQUIRE(std::abs(double{t.logprob} - (exact[static_cast<size_t>(t.token)] - std::log(sum))) < 1e-4);
    }
    REQUIRE(pids.size() == 1);
    CHECK(gone(pids[0]));
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("KV blocks of two ranks are whole: one rank goes on with them, and they with its") {
  const Golden golden = read_golden("llama3");
  const auto one = golden_engine("llama3"), two = make_ranked_engine(ranked("llama3", 2, by_fork()));
  REQUIRE(one->kv_block_bytes() == two->kv_block_bytes());
  const auto half = static_cast<int64_t>(golden.greedy.size() / 2);
  for (const bool from_one : {true, false}) {
    CAPTURE(from_one);
    Engine &first = from_one ? *one : *two, &second = from_one ? *two : *one;
    Sequence sequence(golden.prompt, 3, 60);
    std::vector<Token> answer = generate(first, sequence, half);
    std::vector<std::byte> bytes(sequence.blocks.size() * one->kv_block_bytes()), again(bytes.size());
    first.read_kv(0, sequence.blocks, bytes);
    for (int32_t& block : sequence.blocks) block += 50;
    second.write_kv(0, sequence.blocks, bytes);
    second.read_kv(0, sequence.blocks, again);
    CHECK(bytes == again);
    const std::vector<Token> rest = generate(second, sequence, static_cast<int64_t>(golden.greedy.size()) - half);
    answer.insert(answer.end(), rest.begin(), rest.end());
    CHECK(answer == golden.greedy);
  }
}

TEST_CASE("a rank that is killed loses the engine: at once when idle, and in a step") {
  const size_t descriptors = open_descriptors();
  const Golden golden = read_golden("qwen3");
  for (const bool idle : {true, false}) {
    CAPTURE(idle);
    std::vector<pid_t> pids;
    std::promise<std::string> lost;
    const auto engine = make_ranked_engine(ranked("qwen3", 2, by_fork(&pids)));
    engine->when_lost([&](const std::string& reason) { lost.set_value(reason); });
    Sequence sequence(golden.prompt, 3, 60);
    generate(*engine, sequence, 3);
    std::jthread killer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(idle ? 0 : 20));
      ::kill(pids[0], SIGKILL);
    });
    auto told = lost.get_future();
    if (idle) {
      REQUIRE(told.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
      CHECK(told.get() == "rank 1 of worker/0 ended with signal 9");
    }
    const auto on_and_on = [&] {
      for (;;) {
        sequence = Sequence(golden.prompt, 3, 60);
        generate(*engine, sequence, 100);
      }
    };
    CHECK_THROWS_WITH_AS(on_and_on(), "rank 1 of worker/0 ended with signal 9", core::Error);
    CHECK_THROWS_AS(generate(*engine, sequence, 1), core::Error);
    CHECK(gone(pids[0]));
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("what a rank says before it fails is what is said") {
  const auto failing = [](int socket, int) {
    RankLink link{Socket(socket)};
    link.receive(Clock::now() + std::chrono::seconds(10));
    link.send(RankMessage::failed, encode_text("not enough memory"));
    ::_exit(6);
  };
  CHECK_THROWS_WITH_AS(make_ranked_engine(ranked("llama3", 2, by_fork(nullptr, failing))),
                       "rank 1 of worker/0: not enough memory", core::Error);
  const auto silent = [](int, int) { ::_exit(9); };
  CHECK_THROWS_WITH_AS(make_ranked_engine(ranked("llama3", 2, by_fork(nullptr, silent))),
                       "rank 1 of worker/0 ended with code 9", core::Error);
  // Two heads of keys and values for four ranks.
  CHECK_THROWS_WITH_AS(make_ranked_engine(ranked("llama3", 4, by_fork())),
                       doctest::Contains("'num_key_value_heads': 2 can't be divided among 4 ranks"), core::Error);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);  // nobody is left to be waited for
}

TEST_CASE("a rank ends when the first one's process does") {
  std::array<int, 2> pipe{};
  REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
  const pid_t first = ::fork();
  if (first == 0) {
    std::vector<pid_t> pids;
    const auto engine = make_ranked_engine(ranked("llama3", 2, by_fork(&pids)));
    static_cast<void>(::write(pipe[1], &pids[0], sizeof(pid_t)));
    ::pause();
  }
  pid_t other = 0;
  REQUIRE(::read(pipe[0], &other, sizeof other) == sizeof other);
  ::close(pipe[0]), ::close(pipe[1]);
  CHECK(!gone(other));
  ::kill(first, SIGKILL);
  ::waitpid(first, nullptr, 0);
  // It is nobody's child now: whoever takes it in may let it be a zombie for a while.
  const auto ended = [&] {
    std::ifstream stat("/proc/" + std::to_string(other) + "/stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {});
    return text.empty() || text.find(") Z") != std::string::npos;
  };
  for (int i = 0; i < 5000 && !ended(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(ended());
}

TEST_CASE("what ranks are told is read as it was written, and nothing else is") {
  const std::vector<Token> tokens = {5, 6, 7, 8};
  const std::vector<int32_t> blocks = {1, 9};
  const Sampling sampling{.temperature = 0.5F, .top_p = 0.9F, .top_k = 4, .seed = 11, .logprobs = 2};
  RankWork work;
  work.prompts.push_back({std::span(tokens).first(3), 8, blocks, 1, &sampling, 2});
  work.decodes.push_back({std::span(tokens).last(1), 30, std::span(blocks).first(1), 1, nullptr, 4});
  Bytes body;
  encode(work, body);
  ReceivedWork got;
  decode_rank_work(body, got);
  REQUIRE(got.work.prompts.size() == 1);
  REQUIRE(got.work.decodes.size() == 1);
  const SequenceWork &p = got.work.prompts[0], &d = got.work.decodes[0];
  CHECK(std::vector<Token>(p.tokens.begin(), p.tokens.end()) == std::vector<Token>{5, 6, 7});
  CHECK(std::vector<int32_t>(p.blocks.begin(), p.blocks.end()) == blocks);
  CHECK((p.context == 8 && p.outputs == 1 && p.answered == 2));
  CHECK((p.sampling->temperature == 0.5F && p.sampling->top_p == 0.9F && p.sampling->top_k == 4));
  CHECK((p.sampling->seed == 11 && p.sampling->logprobs == 2));
  CHECK((d.tokens.size() == 1 && d.tokens[0] == 8 && d.blocks.size() == 1 && d.blocks[0] == 1));
  CHECK((d.context == 30 && d.sampling->temperature == 0));

  RankSetup setup{.cuda = true,
                  .model_dir = "/m",
                  .dtype = core::Dtype::bf16,
                  .kv_blocks = 7,
                  .block_tokens = 32,
                  .threads = 3,
                  .device = 5,
                  .rank = 1,
                  .ranks = 4,
                  .random_weights = 12};
  const Bytes words = encode(setup);
  const RankSetup back = decode_rank_setup(words);
  CHECK((back.cuda && back.model_dir == "/m" && back.kv_blocks == 7 && back.block_tokens == 32 && back.threads == 3));
  CHECK((back.device == 5 && back.rank == 1 && back.ranks == 4 && back.random_weights == 12));
  setup.rank = 4;
  CHECK_THROWS_AS(decode_rank_setup(encode(setup)), core::Error);

  for (size_t length = 0; length < body.size(); ++length)
    CHECK_THROWS_AS(decode_rank_work(std::span(body).first(length), got), core::Error);
  for (size_t length = 0; length < words.size(); ++length)
    CHECK_THROWS_AS(decode_rank_setup(std::span(words).first(length)), core::Error);
  for (const size_t place : {size_t{0}, size_t{4}, size_t{32}, size_t{36}}) {  // counts of sequences, tokens, blocks
    Bytes wrong = body;
    for (size_t i = 0; i < 4; ++i) wrong[place + i] = std::byte{0xFF};
    CHECK_THROWS_AS(decode_rank_work(wrong, got), core::Error);
  }
}

}  // namespace drydock::tests
