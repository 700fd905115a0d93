#include "configurator/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <tuple>

#include "configurator/parallel.h"
#include "configurator/predict.h"
#include "configurator/space.h"

namespace drydock::configurator {
namespace {

using models::Parallelism;
using models::Pool;
using models::Role;
using simulator::Engine;

constexpr int64_t kMostBatchPerRank = 512;
constexpr size_t kMostPrefillPoints = 12, kMostDecodePoints = 32;  // of one backend, best first, after filtering

// Engines of one shape to be priced in one role.
struct Task {
  models::Backend backend;
  Role role;
  const models::System* system;
  const std::string* system_name;  // as the question has it: a name or a file
  Parallelism parallelism;
  int64_t max_tokens;
  std::shared_ptr<const simulator::ExpertLoad> experts;
};

// One side of a disaggregated deployment: an engine at one batch.
struct Point {
  const Task* task;
  std::shared_ptr<Engine> engine;
  int64_t batch;
  double ms;    // of a prompt batch, or per output token
  double rate;  // requests/s of one instance
  double per_gpu() const { return rate / task->parallelism.gpus(); }
};

struct Outcome {
  std::vector<Priced> priced;
  std::vector<Point> points;
  Counts counts;
};

void drop(Counts& counts, int64_t& which, const std::string& reason, int64_t n = 1) {
  counts.enumerated += n;
  which += n;
  counts.reasons[reason] += n;
}

void add(Counts& into, const Counts& from) {
  into.enumerated += from.enumerated;
  into.illegal += from.illegal;
  into.out_of_memory += from.out_of_memory;
  into.overloaded += from.overloaded;
  into.priced += from.priced;
  for (const auto& [reason, n] : from.reasons) into.reasons[reason] += n;
}

// All of 1..64, then steps of a thirty-second and more, and the most.
std::vector<int> worker_counts(int most) {
  std::vector<int> out;
  for (int n = 1; n < most; n += std::max(1, n / 32)) out.push_back(n);
  if (most > 0) out.push_back(most);
  return out;
}

class Pricer {
 public:
  Pricer(const Question& question, Resources& resources)
      : question_(question),
        resources_(resources),
        architecture_(resources.model(question.model)),
        hardware_(resources.system(question.system).hardware),
        speculation_(simulator::speculation_of(question.speculative, architecture_, "--speculative")) {
    simulator::check_experts(question.experts, architecture_, "experts");
    for (const models::Backend backend : backends())
      precisions_[static_cast<size_t>(backend)] =
          deployed_precision(architecture_, question.precision, question.kv_precision, backend, hardware_);
  }

  Pricing run() {
    make_tasks();
    std::vector<Outcome> outcomes(tasks_.size());
    in_parallel(tasks_.size(), [&](size_t i) { price(tasks_[i], outcomes[i]); });
    Pricing all;
    all.counts = rejected_;
    for (Outcome& outcome : outcomes) {
      add(all.counts, outcome.counts);
      std::move(outcome.priced.begin(), outcome.priced.end(), std::back_inserter(all.priced));
    }
    for (const models::Backend backend : backends()) join(backend, outcomes, all);
    return all;
  }

 private:
  std::vector<models::Backend> backends() const {
    if (question_.backend) return {*question_.backend};
    return {models::Backend::trtllm, models::Backend::vllm, models::Backend::sglang};
  }

  const models::Precision& precision(models::Backend backend) const {
    return precisions_[static_cast<size_t>(backend)];
  }

  const std::string& decode_system() const {
    return question_.decode_system.empty() ? question_.system : question_.decode_system;
  }

  void make_tasks() {
    for (const models::Backend backend : backends()) {
      if (question_.mode != ModeChoice::disagg) make_tasks(backend, Role::worker, question_.system, question_.gpus);
      if (question_.mode != ModeChoice::agg && question_.gpus > 1) {
        make_tasks(backend, Role::prefill, question_.system, question_.gpus - 1);
        make_tasks(backend, Role::decode, decode_system(), question_.gpus - 1);
      }
    }
  }

  void make_tasks(models::Backend backend, Role role, const std::string& system_name, int gpus) {
    const models::System& system = resources_.system(system_name);
    resources_.times(system_name, backend);  // loaded here, so that threads only read
    const int64_t usual = resources_.backend(backend).max_tokens;
    for (const Parallelism& p : parallelisms(architecture_, system, question_.gpus, gpus)) {
      auto reason = models::why_illegal(architecture_, precision(backend), p);
      if (!reason) reason = models::why_not_on(backend, p, system.hardware.gpus_per_node);
      if (!reason) reason = simulator::why_no_slots(question_.experts, p);
      if (reason) {
        drop(rejected_, rejected_.illegal, *reason);
        continue;
      }
      const auto experts = expert_load(p, system);
      const auto budgets =
          role == Role::decode ? std::vector<int64_t>{usual} : token_budgets(question_.workload, usual);
      for (const int64_t budget : budgets) tasks_.push_back({backend, role, &system, &system_name, p, budget, experts});
    }
  }

  // One for all tasks alike: it remembers what it was asked.
  std::shared_ptr<const simulator::ExpertLoad> expert_load(const Parallelism& p, const models::System& system) {
    if (!question_.experts.uneven()) return nullptr;
    auto& known = expert_loads_[{&system, p.ep, p.tp * p.attention_dp}];
    if (!known) known = simulator::expert_load(question_.experts, architecture_, p, system, "experts");
    return known;
  }

  void price(const Task& task, Outcome& out) {
    auto engine =
        std::make_shared<Engine>(architecture_, precision(task.backend), task.parallelism, *task.system,
                                 resources_.times(*task.system_name, task.backend), resources_.backend(task.backend),
                                 task.max_tokens, simulator::engine_options(speculation_, task.experts, task.role));
    const int64_t slots = engine->slots(question_.workload);
    if (slots < 1)
      return drop(out.counts, out.counts.out_of_memory,
                  "weights and buffers leave no room for the KV cache of one request");
    const int64_t most = std::min(slots, kMostBatchPerRank * task.parallelism.attention_dp);
    switch (task.role) {
      case Role::worker:
        return price_workers(task, engine, most, out);
      case Role::prefill:
        return price_prefill(task, std::move(engine), most, out);
      case Role::decode:
        return price_decode(task, std::move(engine), most, out);
    }
  }

  Pool pool_of(const Task& task, const Engine& engine, int replicas, int64_t batch) const {
    return {task.role,
            *task.system_name,
            task.parallelism,
            replicas,
            batch,
            task.max_tokens,
            static_cast<int64_t>(engine.kv_tokens()) / models::kKvBlockTokens};
  }

  void keep(const Task& task, const std::shared_ptr<Engine>& engine, int replicas, int64_t batch, Outcome& out) const {
    ++out.counts.enumerated;
    const auto served = simulator::aggregated(*engine, replicas, batch, question_.workload);
    if (!served) {
      ++out.counts.overloaded;
      ++out.counts.reasons["the rate is more than so many workers can serve"];
      return;
    }
    ++out.counts.priced;
    out.priced.push_back(
        {task.backend, models::Mode::agg, {pool_of(task, *engine, replicas, batch)}, {engine}, {}, *served});
  }

  void price_workers(const Task& task, const std::shared_ptr<Engine>& engine, int64_t most, Outcome& out) const {
    const int most_workers = question_.gpus / task.parallelism.gpus();
    const models::Workload& w = question_.workload;
    if (w.rate || w.concurrency) {
      for (const int replicas : worker_counts(most_workers)) {
        const double each = w.concurrency ? std::ceil(*w.concurrency / replicas) : static_cast<double>(most);
        keep(task, engine, replicas, std::min(most, static_cast<int64_t>(each)), out);
      }
      return;
    }
    const int64_t wanted = kMostBatchPerRank * task.parallelism.attention_dp;
    for (const int64_t batch : batches(wanted)) {
      if (batch <= most)
        keep(task, engine, most_workers, batch, out);
      else
        drop(out.counts, out.counts.out_of_memory, "the KV cache of so many requests does not fit");
    }
  }

  void price_prefill(const Task& task, std::shared_ptr<Engine> engine, int64_t most, Outcome& out) const {
    for (const int64_t batch : {1, 2, 4, 8, 16, 32}) {
      const int64_t prompts = batch * task.parallelism.attention_dp;
      if (batch > 1 && batch * question_.workload.isl > 4 * task.max_tokens) break;
      if (prompts > most) break;
      const Engine::Prefill p = engine->prefill(question_.workload, prompts);
      out.points.push_back({&task, engine, prompts, p.batch_ms.value, p.requests_per_s.value});
    }
  }

  void price_decode(const Task& task, std::shared_ptr<Engine> engine, int64_t most, Outcome& out) const {
    for (const int64_t batch : batches(most)) {
      const Engine::Decode d = engine->decode(question_.workload, static_cast<double>(batch));
      out.points.push_back({&task, engine, batch, d.tpot_ms.value, d.requests_per_s.value});
    }
  }

  // The points of one side worth pairing: within the target, none better in time, rate per GPU and size at once.
  static std::vector<Point> front(std::vector<Point> points, std::optional<double> target_ms, size_t most) {
    const auto within = [&](const Point& p) { return !target_ms || p.ms <= *target_ms; };
    if (std::any_of(points.begin(), points.end(), within))
      std::erase_if(points, [&](const Point& p) { return !within(p); });
    std::stable_sort(points.begin(), points.end(),
                     [](const Point& a, const Point& b) { return a.per_gpu() > b.per_gpu(); });
    std::vector<Point> out;
    for (const Point& p : points) {
      if (out.size() >= most) break;
      const bool beaten = std::any_of(out.begin(), out.end(), [&](const Point& q) {
        return q.ms <= p.ms && q.task->parallelism.gpus() <= p.task->parallelism.gpus();
      });
      if (!beaten) out.push_back(p);
    }
    return out;
  }

  static std::vector<Point> points_of(const std::vector<Outcome>& outcomes, models::Backend backend, Role role) {
    std::vector<Point> out;
    for (const Outcome& outcome : outcomes)
      for (const Point& p : outcome.points)
        if (p.task->backend == backend && p.task->role == role) out.push_back(p);
    return out;
  }

  // How many workers of each side: those that waste the least of the slower side, all in `gpus`.
  std::vector<std::pair<int, int>> matched(const Point& p, const Point& d) const {
    const int p_gpus = p.task->parallelism.gpus(), d_gpus = d.task->parallelism.gpus();
    const models::Workload& w = question_.workload;
    struct Match {
      double worth;
      int prefill, decode;
    };
    std::vector<Match> all;
    const int most_decode = (question_.gpus - p_gpus) / d_gpus;
    for (const int decode : worker_counts(most_decode)) {
      const double asked = w.rate ? *w.rate : decode * d.rate;
      const int balanced = static_cast<int>(std::ceil(std::min(asked, decode * d.rate) / p.rate));
      for (const int prefill : {balanced - 1, balanced, balanced + 1}) {
        const int used = prefill * p_gpus + decode * d_gpus;
        if (prefill < 1 || used > question_.gpus) continue;
        const double rate = std::min(prefill * p.rate, decode * d.rate);
        if (w.rate && rate < *w.rate) continue;
        if (w.concurrency && decode > 1 && static_cast<double>((decode - 1) * d.batch) >= *w.concurrency) continue;
        const double useful = w.rate ? *w.rate : rate;
        all.push_back({useful / used, prefill, decode});
      }
    }
    // Of equal ones the larger: asked for as much as it can, a deployment uses the GPUs there are.
    std::stable_sort(all.begin(), all.end(), [](const Match& a, const Match& b) {
      return a.worth != b.worth ? a.worth > b.worth : a.decode > b.decode;
    });
    const size_t kept = w.rate || w.concurrency ? 4 : 2;
    std::vector<std::pair<int, int>> out;
    for (const Match& m : all)
      if (out.size() < kept) out.emplace_back(m.prefill, m.decode);
    return out;
  }

  void join(models::Backend backend, const std::vector<Outcome>& outcomes, Pricing& all) {
    const auto prefills = front(points_of(outcomes, backend, Role::prefill), question_.slo.ttft_ms, kMostPrefillPoints);
    const auto decodes = front(points_of(outcomes, backend, Role::decode), question_.slo.tpot_ms, kMostDecodePoints);
    std::vector<Outcome> joined(prefills.size() * decodes.size());
    in_parallel(joined.size(),
                [&](size_t i) { pair(prefills[i / decodes.size()], decodes[i % decodes.size()], joined[i]); });
    for (Outcome& outcome : joined) {
      add(all.counts, outcome.counts);
      std::move(outcome.priced.begin(), outcome.priced.end(), std::back_inserter(all.priced));
    }
  }

  void pair(const Point& p, const Point& d, Outcome& out) const {
    const core::Figure transfer =
        simulator::kv_transfer_ms(architecture_, precision(p.task->backend), p.task->parallelism, d.task->parallelism,
                                  *p.task->system, *d.task->system, static_cast<double>(question_.workload.isl));
    for (const auto& [prefill, decode] : matched(p, d)) {
      ++out.counts.enumerated;
      const auto served = simulator::disaggregated(*p.engine, prefill, p.batch, *d.engine, decode, d.batch, transfer,
                                                   question_.workload);
      if (!served) {
        ++out.counts.overloaded;
        ++out.counts.reasons["the rate is more than so many workers can serve"];
        continue;
      }
      ++out.counts.priced;
      out.priced.push_back(
          {p.task->backend,
           models::Mode::disagg,
           {pool_of(*p.task, *p.engine, prefill, p.batch), pool_of(*d.task, *d.engine, decode, d.batch)},
           {p.engine, d.engine},
           transfer,
           *served});
    }
  }

  const Question& question_;
  Resources& resources_;
  const models::Architecture& architecture_;
  const core::Hardware& hardware_;
  std::optional<scheduler::Speculation> speculation_;
  std::map<std::tuple<const models::System*, int, int>, std::shared_ptr<const simulator::ExpertLoad>> expert_loads_;
  std::array<models::Precision, models::kBackends> precisions_;
  std::vector<Task> tasks_;
  Counts rejected_;
};

}  // namespace

Pricing price_candidates(const Question& question, Resources& resources) { return Pricer(question, resources).run(); }

}  // namespace drydock::configurator
