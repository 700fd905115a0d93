#include "cli/fault_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/random.h"
#include "core/text.h"

namespace drydock::cli {
namespace {

using simulator::Failure;

constexpr double kLoadBytesPerS = 2e9;
constexpr uint64_t kFailureStream = 0xFA11;
// Random failures are drawn ahead: as many a worker, and in all, as any run will see.
constexpr int kMostFailures = 200'000, kMostFailuresPerWorker = 5'000;

// "prefill/0" of the plan.
void read_worker(std::string_view text, const char* flag, const models::Plan& plan, Failure& out) {
  std::vector<std::string> names;
  for (const models::Pool& pool : plan.pools) names.emplace_back(models::name(pool.role));
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  const size_t slash = std::min(text.find('/'), text.size());
  const std::string pool(text.substr(0, slash));
  const auto at = std::find(names.begin(), names.end(), pool);
  if (at == names.end())
    throw core::Error(fmt::format("{} '{}': the plan has no pool '{}', only {}{}", flag, text.substr(0, 60),
                                  pool.substr(0, 40), known, core::suggestion(pool, names)));
  out.pool = static_cast<int>(at - names.begin());
  const int replicas = plan.pools[static_cast<size_t>(out.pool)].replicas;
  const std::string_view index = slash < text.size() ? text.substr(slash + 1) : "";
  const auto [end, status] = std::from_chars(index.data(), index.data() + index.size(), out.worker);
  if (status != std::errc{} || end != index.data() + index.size() || out.worker < 0 || out.worker >= replicas)
    throw core::Error(
        fmt::format("{} '{}': pool '{}' has workers 0 to {}", flag, text.substr(0, 60), pool, replicas - 1));
}

core::Error want(const char* flag, const std::string& text, const char* example) {
  return core::Error(fmt::format("{} '{}': want {}", flag, text.substr(0, 60), example));
}

// The part after the last "+", as a time; nothing: `otherwise`.
double cut_length(std::string& text, const char* flag, double otherwise) {
  const size_t plus = text.find('+');
  if (plus == std::string::npos) return otherwise;
  const double us = parse_span_us(std::string_view(text).substr(plus + 1), flag);
  text.resize(plus);
  return us;
}

// "0s" is a time here.
double moment_us(std::string_view text, const char* flag) {
  return text == "0" || text == "0s" ? 0 : parse_span_us(text, flag);
}

Failure parse_fail(const std::string& text, const models::Plan& plan, const std::vector<double>& start_up) {
  Failure out;
  const size_t at = text.find('@');
  if (at == std::string::npos) throw want("--fail", text, "POOL/INDEX@TIME such as prefill/0@30s");
  read_worker(std::string_view(text).substr(0, at), "--fail", plan, out);
  std::string when = text.substr(at + 1);
  out.restart_us = cut_length(when, "--fail", start_up[static_cast<size_t>(out.pool)]);
  out.at_us = moment_us(when, "--fail");
  return out;
}

Failure parse_slow(const std::string& text, const models::Plan& plan) {
  Failure out;
  out.kind = Failure::Kind::slows;
  const size_t at = text.find('@'), times = text.find('x', at == std::string::npos ? 0 : at);
  if (at == std::string::npos || times == std::string::npos)
    throw want("--slow", text, "POOL/INDEX@TIMExFACTOR such as worker/0@10sx2");
  read_worker(std::string_view(text).substr(0, at), "--slow", plan, out);
  std::string factor = text.substr(times + 1);
  out.restart_us = cut_length(factor, "--slow", simulator::kNever);
  out.at_us = moment_us(std::string_view(text).substr(at + 1, times - at - 1), "--slow");
  out.slowdown = parse_positive(factor, "--slow", 1000);
  return out;
}

void add_random(std::vector<Failure>& out, double mtbf_us, const models::Plan& plan,
                const std::vector<double>& start_up, uint64_t seed) {
  int workers = 0;
  for (const models::Pool& pool : plan.pools) workers += pool.replicas;
  const int each = std::clamp(kMostFailures / std::max(1, workers), 1, kMostFailuresPerWorker);
  uint64_t stream = kFailureStream;
  for (size_t p = 0; p < plan.pools.size(); ++p)
    for (int worker = 0; worker < plan.pools[p].replicas; ++worker) {
      core::Random random(seed, stream++);
      double at_us = 0;
      for (int i = 0; i < each; ++i) {
        at_us += random.exponential(mtbf_us);
        out.push_back({Failure::Kind::dies, static_cast<int>(p), worker, at_us, start_up[p], 1});
        at_us += start_up[p];
      }
    }
}

}  // namespace

std::vector<double> start_up_us(const LoadOptions& o, const simulator::Deployment& deployment) {
  std::vector<double> out;
  for (const simulator::Part& part : deployment.parts)
    out.push_back(o.start_up.empty() ? part.engine->memory().weights / kLoadBytesPerS * 1e6
                                     : parse_span_us(o.start_up, "--start-up"));
  return out;
}

std::vector<Failure> faults(const LoadOptions& o, const models::Plan& plan, const std::vector<double>& start_up,
                            uint64_t seed) {
  std::vector<Failure> out;
  for (const std::string& text : o.fail) out.push_back(parse_fail(text, plan, start_up));
  for (const std::string& text : o.slow) out.push_back(parse_slow(text, plan));
  if (!o.mtbf.empty()) add_random(out, parse_span_us(o.mtbf, "--mtbf"), plan, start_up, seed);
  return out;
}

bool any_faults(const LoadOptions& o) { return !o.fail.empty() || !o.slow.empty() || !o.mtbf.empty(); }

}  // namespace drydock::cli
