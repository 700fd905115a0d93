#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "core/file.h"
#include "runtime/weights.h"
#include "tests/runtime_engine_bed.h"
#include "tests/runtime_weights_bed.h"

using namespace drydock;
using namespace drydock::runtime;
using core::Dtype;
using tests::generate;
using tests::golden_engine;
using tests::run;
using tests::Sequence;

namespace {

constexpr int64_t kAll = 512;  // the golden models' vocabulary

// Of every token, by id.
std::vector<double> all_logprobs(const GeneratedToken& drawn) {
  std::vector<double> out(kAll, -1e9);
  for (const TokenLogprob& one : drawn.top) out[static_cast<size_t>(one.token)] = one.logprob;
  return out;
}

std::vector<double> log_softmax(const std::vector<double>& logits) {
  double sum = 0;
  for (const double x : logits) sum += std::exp(x);
  std::vector<double> out;
  for (const double x : logits) out.push_back(x - std::log(sum));
  return out;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

double root_mean_square(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

std::vector<GeneratedToken> prompt_draws(Engine& engine, const tests::Golden& golden) {
  Sequence sequence(golden.prompt, 3, 6);
  sequence.sampling.logprobs = kAll;
  return run(engine, sequence, sequence.left());
}

}  // namespace

TEST_CASE("fp32: logits of transformers to 1e-4, and its greedy tokens for 200 steps") {
  for (const char* model : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(model);
    const tests::Golden golden = tests::read_golden(model);
    const auto engine = golden_engine(model);
    CHECK(engine->vocabulary() == kAll);
    const auto draws = prompt_draws(*engine, golden);
    REQUIRE(draws.size() == golden.prompt.size());
    for (size_t i = 0; i < golden.places.size(); ++i)
      CHECK(largest_difference(all_logprobs(draws[static_cast<size_t>(golden.places[i])]),
                               log_softmax(golden.logits[i])) < 1e-4);
    Sequence sequence(golden.prompt, 20, 30);
    CHECK(generate(*engine, sequence, 200) == golden.greedy);
    Sequence text(golden.text, 60, 25);
    std::vector<Token> after;
    for (const GeneratedToken& drawn : run(*engine, text, text.left())) after.push_back(drawn.token);
    CHECK(after == golden.likeliest_after);
    // A model that only ever repeats itself would be a poor witness.
    CHECK(std::set<Token>(after.begin(), after.end()).size() > 50);
  }
}

TEST_CASE("bf16: logits as near as its rounding lets them be") {
  // About ten roundings to bf16 (2^-9 relative, uniform: 2^-9 / sqrt 3 of each) lie on the way through a layer, and the
  // weights are rounded too: 2 * 10 * layers independent errors of 2^-9 / sqrt 3 on logits of standard deviation 1.
  // Norms and attention may enlarge what they get wrong already: five times that is allowed.
  for (const char* model : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(model);
    const tests::Golden golden = tests::read_golden(model);
    const auto engine = golden_engine(model, Dtype::bf16);
    const auto draws = prompt_draws(*engine, golden);
    const double layers = model == std::string("qwen3") ? 2 : 3;
    const double expected = std::sqrt(20 * layers) * 0x1p-9 / std::sqrt(3.0);
    for (size_t i = 0; i < golden.places.size(); ++i) {
      const double error =
          root_mean_square(all_logprobs(draws[static_cast<size_t>(golden.places[i])]), log_softmax(golden.logits[i]));
      CHECK(error < 5 * expected);
      CHECK(error > expected / 30);  // it is bf16 that is computed
    }
  }
}

TEST_CASE("prompts in chunks, beside others, give what whole prompts give") {
  for (const char* model : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(model);
    const tests::Golden golden = tests::read_golden(model);
    const auto engine = golden_engine(model, Dtype::fp32, 2);
    const std::vector<Token> other(golden.prompt.rbegin(), golden.prompt.rend());
    Sequence a(golden.prompt, 0, 30), b(other, 30, 30), alone(other, 60, 30);
    const std::vector<Token> want_b = generate(*engine, alone, 20);
    std::vector<Token> got_a, got_b = {run(*engine, b).front().token};
    b.take(got_b.back());
    // `a` comes in chunks of 1, 5, 16 and 15 while `b` decodes; then both decode, `b` given first.
    for (const int64_t chunk : {1, 5, 16, 15}) {
      RankWork work;
      work.prompts.push_back(a.work(chunk, chunk == 15 ? 1 : 0));
      work.decodes.push_back(b.work(1, 1));
      StepResult result;
      engine->step({&work, 1}, result);
      a.cached += chunk, b.cached += 1;
      REQUIRE(result.tokens.size() == (chunk == 15 ? 2 : 1));
      if (chunk == 15) got_a.push_back(result.tokens.front().token);
      got_b.push_back(result.tokens.back().token);
      b.take(got_b.back());
    }
    a.take(got_a.back());
    while (got_b.size() < 20) {
      RankWork work;
      work.decodes = {b.work(1, 1), a.work(1, 1)};
      StepResult result;
      engine->step({&work, 1}, result);
      ++a.cached, ++b.cached;
      b.take(result.tokens[0].token), a.take(result.tokens[1].token);
      got_b.push_back(result.tokens[0].token), got_a.push_back(result.tokens[1].token);
    }
    CHECK(got_b == want_b);
    CHECK(std::equal(got_a.begin(), got_a.end(), golden.greedy.begin()));
  }
}

TEST_CASE("a shared prefix's blocks, and blocks moved to another engine, go on the same") {
  const tests::Golden golden = tests::read_golden("qwen3");
  const auto first = golden_engine("qwen3"), second = golden_engine("qwen3");
  Sequence whole(golden.prompt, 0, 30);
  run(*first, whole);
  // 32 tokens are four whole blocks; the rest is computed into blocks of its own.
  Sequence shared(golden.prompt, 60, 30);
  std::copy_n(whole.blocks.begin(), 4, shared.blocks.begin());
  shared.cached = 32;
  CHECK(generate(*first, shared, 30) == std::vector<Token>(golden.greedy.begin(), golden.greedy.begin() + 30));

  Sequence moved(golden.prompt, 90, 30);
  const std::span from(whole.blocks.data(), 5), to(moved.blocks.data(), 5);
  // 2 layers, keys and values, 8 tokens of 2 heads of 32 numbers of 4 bytes.
  REQUIRE(first->kv_block_bytes() == 2 * 2 * 8 * 2 * 32 * 4);
  CHECK(static_cast<size_t>(kv_block_bytes(tests::golden_dir("qwen3"), Dtype::fp32, 8)) == first->kv_block_bytes());
  std::vector<std::byte> wire(5 * first->kv_block_bytes());
  first->read_kv(0, from, wire);
  second->write_kv(0, to, wire);
  moved.cached = 36;  // the last token is computed again
  CHECK(generate(*second, moved, 30) == std::vector<Token>(golden.greedy.begin(), golden.greedy.begin() + 30));
  CHECK_THROWS_WITH_AS(first->read_kv(0, from, std::span(wire).first(10)),
                       doctest::Contains("10 bytes for 5 KV blocks"), core::Error);
  const std::vector<int32_t> beyond = {128};
  CHECK_THROWS_AS(first->read_kv(0, beyond, std::span(wire).first(first->kv_block_bytes())), core::Error);
}

TEST_CASE("draws depend on seed and position alone") {
  const tests::Golden golden = tests::read_golden("llama3");
  const auto one = golden_engine("llama3"), two = golden_engine("llama3", Dtype::fp32, 2);
  Sequence a(golden.prompt, 0, 30), b(golden.prompt, 40, 30), c(golden.prompt, 80, 30);
  a.sampling = b.sampling = {.temperature = 0.9F, .top_p = 0.95F, .top_k = 50, .seed = 5};
  c.sampling = a.sampling, c.sampling.seed = 6;
  const std::vector<Token> drawn = generate(*one, a, 60);
  CHECK(drawn == generate(*two, b, 60));
  CHECK(drawn != generate(*two, c, 60));
  // Log-probabilities are of the untempered softmax, best first, and only where asked for.
  Sequence d(golden.prompt, 80, 30);
  d.sampling = a.sampling;
  CHECK(run(*one, d).front().top.empty());
  d.cached = 36, d.sampling.logprobs = 3;
  const GeneratedToken told = run(*one, d).front();
  const std::vector<double> want = log_softmax(golden.logits.back());
  REQUIRE(told.top.size() == 3);
  CHECK(told.logprob == doctest::Approx(want[static_cast<size_t>(told.token)]).epsilon(1e-4));
  CHECK(told.top[0].logprob == doctest::Approx(*std::max_element(want.begin(), want.end())).epsilon(1e-4));
  CHECK(told.top[0].logprob > told.top[1].logprob);
}

namespace {

Sequence bad_sequence() { return Sequence({1, 2, 3}, 0, 2); }

void refuse(Engine& engine, const Sequence& sequence, int64_t outputs, const char* why) {
  RankWork work;
  work.prompts.push_back(sequence.work(sequence.left(), outputs));
  StepResult result;
  CHECK_THROWS_WITH_AS(engine.step({&work, 1}, result), doctest::Contains(why), core::Error);
}

}  // namespace

TEST_CASE("work that is none is refused, and none is done in no time") {
  const auto engine = golden_engine("qwen3");
  Sequence s = bad_sequence();
  s.tokens[1] = 512;
  refuse(*engine, s, 1, "a token is not in the vocabulary");
  s = bad_sequence(), s.blocks = {128};
  refuse(*engine, s, 1, "a KV block is not in the cache");
  s = bad_sequence(), s.blocks = {};
  refuse(*engine, s, 1, "too few KV blocks");
  s = bad_sequence();
  refuse(*engine, s, 4, "more outputs than it has tokens");
  s = Sequence(std::vector<Token>(513, 1), 0, 70);
  refuse(*engine, s, 1, "max_position_embeddings");
  const RankWork nothing;
  StepResult result;
  result.tokens.resize(3);
  engine->step({&nothing, 1}, result);
  CHECK(result.tokens.empty());
}

namespace {

// Tests' own writer of safetensors: what a WeightSource reads, as a checkpoint in two shards with an index.
class RecordingSource : public WeightSource {
 public:
  void read(const WeightPart& part, core::Dtype dtype, void* out) const override {
    source_->read(part, dtype, out);
    if (part.row == 0 && part.col == 0) parts_.push_back(part);
  }
  const std::vector<WeightPart>& parts() const { return parts_; }

 private:
  std::unique_ptr<WeightSource> source_ = random_weights(7);
  mutable std::vector<WeightPart> parts_;
};

void write_shard(const std::filesystem::path& file, const std::vector<WeightPart>& parts) {
  core::Json header = core::Json::object();
  std::string data;
  const auto source = random_weights(7);
  for (WeightPart part : parts) {
    part.row = part.col = 0, part.rows = part.all_rows, part.cols = part.all_cols;
    std::string bytes(static_cast<size_t>(part.rows * part.cols * 4), '\0');
    source->read(part, core::Dtype::fp32, bytes.data());
    core::Json shape = core::Json::array();
    if (!part.vector) shape.push_back(part.rows);
    shape.push_back(part.cols);
    header[part.name] = {
        {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << text << data;
}

}  // namespace

TEST_CASE("weights from a sharded checkpoint are the weights") {
  const auto dir = std::filesystem::temp_directory_path() / "drydock_sharded_checkpoint";
  std::filesystem::create_directories(dir);
  std::filesystem::copy_file(tests::golden_dir("qwen3_moe") / "config.json", dir / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  const RecordingSource source;
  tests::HeapWeights memory;
  kernels::cpu::Threads threads(1);
  load_weights(read_model_config(dir), {}, Dtype::fp32, source, memory, threads);
  core::Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", core::Json::object()}};
  std::vector<WeightPart> shards[2];
  for (const WeightPart& part : source.parts()) {
    const bool second = part.name.find("layers.2.") != std::string::npos;
    shards[second].push_back(part);
    index["weight_map"][part.name] = second ? "model-2.safetensors" : "model-1.safetensors";
  }
  write_shard(dir / "model-1.safetensors", shards[0]);
  write_shard(dir / "model-2.safetensors", shards[1]);
  core::write_file(dir / "model.safetensors.index.json", index.dump());

  EngineOptions options;
  options.dtype = Dtype::fp32, options.kv_blocks = 30, options.block_tokens = 8, options.threads = 1;
  const auto engine = make_cpu_engine(dir, options);
  const tests::Golden golden = tests::read_golden("qwen3_moe");
  Sequence sequence(golden.prompt, 0, 30);
  CHECK(generate(*engine, sequence, 40) == std::vector<Token>(golden.greedy.begin(), golden.greedy.begin() + 40));
  std::filesystem::remove(dir / "model-2.safetensors");
  CHECK_THROWS_WITH_AS(make_cpu_engine(dir, options), doctest::Contains("model-2.safetensors"), core::Error);
  std::filesystem::remove_all(dir);
}

TEST_CASE("ranks of a tensor-parallel group hold their parts") {
  // Rank 1 of 2 of a dense layer: the second half of q's, k's and v's rows, of o's columns, of the feed-forward's
  // width.
  const ModelConfig whole = read_model_config(tests::golden_dir("qwen3"));
  const auto source = random_weights(7);
  kernels::cpu::Threads threads(1);
  tests::HeapWeights memory;
  const Weights all = load_weights(whole, {}, Dtype::fp32, *source, memory, threads);
  const Weights half = load_weights(whole, {1, 2}, Dtype::fp32, *source, memory, threads);
  const auto at = [](const kernels::Matrix& m, int64_t r, int64_t c) {
    return static_cast<const float*>(m.data)[r * m.stride + c];
  };
  const LayerWeights &a = all.layers[1], &b = half.layers[1];
  REQUIRE(b.qkv.rows == a.qkv.rows / 2);
  CHECK(at(b.qkv, 0, 5) == at(a.qkv, 64, 5));         // q: 4 heads of 32
  CHECK(at(b.qkv, 64, 5) == at(a.qkv, 128 + 32, 5));  // k: 2 heads
  CHECK(at(b.qkv, 96, 5) == at(a.qkv, 192 + 32, 5));  // v
  CHECK(at(b.output, 7, 0) == at(a.output, 7, 64));
  CHECK(at(b.gate_up, 0, 1) == at(a.gate_up, 80, 1));
  CHECK(at(b.gate_up, 80, 1) == at(a.gate_up, 160 + 80, 1));
  CHECK(at(b.down, 3, 0) == at(a.down, 3, 80));
  CHECK_THROWS_WITH_AS(share_of(whole, {0, 3}), doctest::Contains("num_attention_heads"), core::Error);
}
