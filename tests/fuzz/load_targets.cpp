// Targets for what says which requests come, and how they are served.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "core/random.h"
#include "scheduler/autoscaler.h"
#include "scheduler/expert_placement.h"
#include "scheduler/speculation.h"
#include "simulator/lengths.h"
#include "simulator/trace.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"
#include "tests/simulator_bed.h"

namespace drydock::fuzz {
namespace {

namespace fs = std::filesystem;

// The input as a file, for readers that want one.
class InputFile {
 public:
  explicit InputFile(std::string_view input)
      : path_(fs::temp_directory_path() / ("drydock_fuzz_" + std::to_string(::getpid()) + ".txt")) {
    std::ofstream(path_, std::ios::binary) << input;
  }
  ~InputFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void check_arrival(const simulator::Arrival& a, double before_us, int64_t hash_tokens) {
  expect(std::isfinite(a.at_us) && a.at_us >= before_us, "requests come in order of time");
  expect(a.prompt_tokens >= 1 && a.prompt_tokens <= simulator::kMostTokens, "a prompt has a possible length");
  expect(a.output_tokens >= 1 && a.output_tokens <= simulator::kMostTokens, "an output has a possible length");
  if (hash_tokens > 0)
    expect(static_cast<int64_t>(a.hashes.size()) <= (a.prompt_tokens + hash_tokens - 1) / hash_tokens,
           "no more hashes than blocks");
}

void take_all(const simulator::TraceOptions& options) {
  const auto trace = simulator::open_trace(options);
  double before_us = 0;
  while (trace->next_us() != simulator::kNever) {
    const simulator::Arrival a = trace->take();
    check_arrival(a, before_us, trace->hash_tokens());
    before_us = a.at_us;
  }
  expect(trace->done(), "a trace without a next request is done");
  expect(options.skip_bad || trace->bad_lines() == 0, "bad lines are passed over only when asked");
}

// Lengths cut down to what the cluster holds, mostly, and times to hours, so that the replay stays short.
class Tamed : public simulator::Load {
 public:
  explicit Tamed(simulator::Load& load) : load_(load) {}
  double next_us() const override {
    return load_.next_us() == simulator::kNever ? simulator::kNever : std::min(load_.next_us(), 1e10);
  }
  simulator::Arrival take() override {
    simulator::Arrival a = load_.take();
    a.at_us = std::min(a.at_us, 1e10);
    a.prompt_tokens = std::min<int64_t>(a.prompt_tokens, 40'000);
    a.output_tokens = std::min<int64_t>(a.output_tokens, 4'000);
    a.hashes = a.hashes.first(std::min(a.hashes.size(), static_cast<size_t>((a.prompt_tokens + 511) / 512)));
    ++taken;
    return a;
  }
  bool done() const override { return load_.done(); }
  int64_t hash_tokens() const override { return load_.hash_tokens(); }

  int64_t taken = 0;

 private:
  simulator::Load& load_;
};

struct Tally : simulator::Observer {
  int64_t closed = 0;
  void done(const simulator::RequestRecord& r) override {
    ++closed;
    expect(r.rejected || (r.last_us >= r.first_us && r.first_us >= r.arrival_us), "an answer takes its time");
  }
};

simulator::PoolSpec tiny_pool(simulator::Stage stage, simulator::StepPrice& price, bool hashes) {
  auto policy = scheduler::vllm(2048, 8);
  policy.prefix_cache = hashes && stage != simulator::Stage::decode;
  simulator::PoolSpec pool = simulator::pool_of(stage, policy, price, 2, 64);
  pool.block_tokens = 512;
  return pool;
}

void serve(const simulator::TraceOptions& options, bool apart) {
  const auto trace = simulator::open_trace(options);
  Tamed load(*trace);
  simulator::KinkedPrice price;
  simulator::ClusterSpec spec;
  using simulator::Stage;
  const bool hashes = trace->hash_tokens() > 0;
  spec.pools.push_back(tiny_pool(apart ? Stage::prefill : Stage::whole, price, hashes));
  if (apart) spec.pools.push_back(tiny_pool(Stage::decode, price, hashes));
  spec.router.block_tokens = 512;
  Tally tally;
  const simulator::ClusterTotals totals = simulator::Cluster(spec).run(load, tally);
  expect(tally.closed == load.taken && totals.unfinished == 0, "every request ends");
}

}  // namespace

void trace(std::string_view input) {
  const InputFile file(input);
  using simulator::TraceFormat;
  for (const std::optional<TraceFormat> format :
       {std::optional<TraceFormat>(), std::optional(TraceFormat::mooncake), std::optional(TraceFormat::azure),
        std::optional(TraceFormat::burstgpt)})
    for (const bool skip_bad : {false, true})
      refusable([&] {
        simulator::TraceOptions options;
        options.path = file.path();
        options.format = format;
        options.skip_bad = skip_bad;
        take_all(options);
      });
}

void load(std::string_view input) {
  const InputFile file(input);
  for (const bool apart : {false, true})
    refusable([&] {
      simulator::TraceOptions options;
      options.path = file.path();
      options.skip_bad = true;
      options.most_requests = 50;
      serve(options, apart);
    });
}

void lengths(std::string_view input) {
  if (input.starts_with("empirical")) return;  // it would read any file
  refusable([&] {
    const auto distribution = simulator::LengthDistribution::parse(input, "--lengths");
    core::Random random(1, 1);
    for (int i = 0; i < 20; ++i) {
      const simulator::RequestLengths l = distribution.sample(random);
      expect(l.prompt_tokens >= 1 && l.prompt_tokens <= simulator::kMostTokens, "a prompt has a possible length");
      expect(l.output_tokens >= 1 && l.output_tokens <= simulator::kMostTokens, "an output has a possible length");
    }
    expect(distribution.mean_prompt() >= 1 && distribution.mean_output() >= 1, "lengths have a mean");
  });
}

void speculation(std::string_view input) {
  refusable([&] {
    const scheduler::Speculation s = scheduler::parse_speculation(input);
    expect(s.drafts() >= 1 && s.drafts() <= scheduler::kMaxDrafts, "as many drafts as are allowed");
    const double tokens = s.expected_tokens();
    expect(tokens >= 1 && tokens <= s.drafts() + 1 + 1e-9,
           "a step yields one token, and at most those drafted beside it");
  });
}

void policy(std::string_view input) {
  const InputFile file(input);
  refusable([&] { scheduler::read_scaling_policy(file.path()); });
}

void histogram(std::string_view input) {
  constexpr int kLayers = 2, kExperts = 8;
  const InputFile file(input);
  refusable([&] {
    const scheduler::ExpertWeights weights = scheduler::read_expert_histogram(file.path(), kLayers, kExperts);
    expect(weights.size() == 1 || weights.size() == kLayers, "a row for each layer, or one for all");
    for (const auto& layer : weights) expect(layer.size() == kExperts, "a weight for each expert");
    for (const auto& placed : scheduler::rebalance(weights, {12, 4, 2, 4})) {
      expect(placed.expert_of_slot.size() == 12, "every slot has an expert");
      const auto loads = scheduler::gpu_loads(weights[0], placed, 4);
      expect(std::isfinite(scheduler::imbalance(loads)), "loads are numbers");
    }
  });
}

}  // namespace drydock::fuzz
