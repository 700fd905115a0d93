#include "simulator/metrics.h"

#include <algorithm>
#include <cmath>

namespace drydock::simulator {
namespace {

// Buckets: ratio 1.02 from 1e-6 up; a value is told as its bucket's geometric middle, within 1 %.
const double kLogRatio = std::log(1.02);
constexpr double kLeast = 1e-6;
constexpr size_t kBuckets = 2200;  // up to 8e12

constexpr size_t kBatches = 20;
constexpr double kStudent = 2.093;  // 97.5 % quantile of Student's t with 19 degrees of freedom

double half_width(const std::vector<double>& figures) {
  double mean = 0, squares = 0;
  for (const double f : figures) mean += f / kBatches;
  for (const double f : figures) squares += (f - mean) * (f - mean);
  return kStudent * std::sqrt(squares / (kBatches - 1) / kBatches);
}

template <typename Figure>
double by_batches(const std::vector<double>& values, const Figure& figure) {
  const size_t each = values.size() / kBatches;
  std::vector<double> figures;
  for (size_t b = 0; b < kBatches; ++b) {
    const auto from = values.begin() + static_cast<long>(b * each);
    figures.push_back(figure(std::vector<double>(from, from + static_cast<long>(each))));
  }
  return half_width(figures);
}

}  // namespace

void LogHistogram::add(double value, double count) {
  if (buckets_.empty()) buckets_.resize(kBuckets, 0);
  const double at = value <= kLeast ? 0 : std::log(value / kLeast) / kLogRatio;
  buckets_[std::min(kBuckets - 1, static_cast<size_t>(at))] += count;
  count_ += count;
  sum_ += value * count;
  most_ = std::max(most_, value);
}

void LogHistogram::merge(const LogHistogram& other) {
  if (other.buckets_.empty()) return;
  if (buckets_.empty()) buckets_.resize(kBuckets, 0);
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  most_ = std::max(most_, other.most_);
}

double LogHistogram::quantile(double q) const {
  double below = 0;
  for (size_t i = 0; i < buckets_.size(); ++i)
    if ((below += buckets_[i]) >= q * count_ && buckets_[i] > 0)
      return std::min(most_, kLeast * std::exp((static_cast<double>(i) + 0.5) * kLogRatio));
  return most_;
}

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<long>(at);
  std::nth_element(values.begin(), below, values.end());
  if (below + 1 == values.end()) return *below;
  return *below + (at - std::floor(at)) * (*std::min_element(below + 1, values.end()) - *below);
}

double mean_half_width(const std::vector<double>& values) {
  if (values.size() < 2 * kBatches) return 0;
  return by_batches(values, [](const std::vector<double>& batch) {
    double sum = 0;
    for (const double v : batch) sum += v;
    return sum / static_cast<double>(batch.size());
  });
}

double quantile_half_width(const std::vector<double>& values, double q) {
  if (values.size() < 20 * kBatches) return INFINITY;
  return by_batches(values, [q](std::vector<double> batch) { return quantile(batch, q); });
}

Distribution distribution(const std::vector<double>& values) {
  Distribution d;
  d.count = static_cast<int64_t>(values.size());
  if (values.empty()) return d;
  for (const double v : values) d.mean += v;
  d.mean /= static_cast<double>(values.size());
  std::vector<double> sorted = values;
  d.p50 = quantile(sorted, 0.5);
  d.p90 = quantile(sorted, 0.9);
  d.p95 = quantile(sorted, 0.95);
  d.p99 = quantile(sorted, 0.99);
  d.most = *std::max_element(values.begin(), values.end());
  d.mean_half_width = mean_half_width(values);
  return d;
}

double Recorder::tpot_ms_of(const RequestRecord& r) const {
  const auto steps = static_cast<double>(r.output_tokens - 1);
  if (steps <= 0) return 0;
  // The last token comes when it comes; the first with the first chunk of the stream.
  const auto held = static_cast<double>(std::min(options_.client.stream_interval, r.output_tokens) - 1);
  const double us = (r.last_us - r.first_us) / steps;
  return us * std::max(steps - held, steps / 2) / steps * 1e-3;
}

double Recorder::ttft_ms_of(const RequestRecord& r) const {
  const auto steps = static_cast<double>(std::max<int64_t>(1, r.output_tokens - 1));
  const auto held = static_cast<double>(std::min(options_.client.stream_interval, r.output_tokens) - 1);
  return (r.first_us - r.arrival_us + held * (r.last_us - r.first_us) / steps) * 1e-3 + options_.client.outside_ms;
}

void Recorder::done(const RequestRecord& r) {
  if (r.warmup || skipped_++ < options_.skip) return;
  first_us_ = std::min(first_us_, r.arrival_us);
  last_us_ = std::max(last_us_, r.last_us);
  if (options_.keep_records) records_.push_back(r);
  if (r.lost || r.rejected) return;
  const double ttft = ttft_ms_of(r), tpot = tpot_ms_of(r);
  const double latency = (r.last_us - r.arrival_us) * 1e-3 + options_.client.outside_ms;
  ttft_.push_back(ttft);
  if (r.output_tokens > 1) tpot_.push_back(tpot);  // one token has none
  latency_.push_back(latency);
  queue_.push_back((r.started_us - r.arrival_us) * 1e-3);
  output_tokens_ += static_cast<double>(r.output_tokens);
  prompt_tokens_ += static_cast<double>(r.prompt_tokens);
  judge(ttft, tpot, latency);
}

void Recorder::judge(double ttft, double tpot, double latency) {
  const Targets& t = options_.targets;
  const bool late_ttft = t.ttft_ms && ttft > *t.ttft_ms, late_tpot = t.tpot_ms && tpot > *t.tpot_ms;
  const bool late = t.latency_ms && latency > *t.latency_ms;
  good_ += !late_ttft && !late_tpot && !late;
  late_ttft_ += late_ttft;
  late_tpot_ += late_tpot;
  late_latency_ += late;
  if (options_.expected_requests > 0 && t.quantile) {
    hopeless_ |= std::max({late_ttft_, late_tpot_, late_latency_}) > late_allowed();
    first_tokens_late_ |= late_ttft_ > late_allowed();
    enough_ |= hopeless_;
  }
  if (options_.precision > 0 && requests() >= next_check_) {
    enough_ |= precise();
    next_check_ = requests() * 3 / 2;
  }
}

// The quantile lies between two of the sorted values; when the lower one is late, so is the quantile.
int64_t Recorder::late_allowed() const {
  const double at = *options_.targets.quantile * static_cast<double>(options_.expected_requests - 1);
  return options_.expected_requests - 1 - static_cast<int64_t>(at);
}

void Recorder::look(const RequestRecord& r, double now_us) {
  const Targets& t = options_.targets;
  if (r.warmup || r.lost || r.rejected) return;
  const double waited_ms = (now_us - r.arrival_us) * 1e-3 + options_.client.outside_ms;
  pending_.latency += t.latency_ms && waited_ms > *t.latency_ms;
  if (r.first_us < 0) {
    pending_.ttft += t.ttft_ms && waited_ms > *t.ttft_ms;
    return;
  }
  pending_.ttft += t.ttft_ms && (r.first_us - r.arrival_us) * 1e-3 + options_.client.outside_ms > *t.ttft_ms;
  const auto steps = static_cast<double>(r.output_tokens - 1);
  const auto held = static_cast<double>(std::min(options_.client.stream_interval, r.output_tokens) - 1);
  const double counted_ms = (now_us - r.first_us) * 1e-3 * std::max(steps - held, steps / 2) / std::max(steps, 1.0);
  pending_.tpot += t.tpot_ms && steps > 0 && counted_ms > *t.tpot_ms * steps;
}

bool Recorder::end_look() {
  if (options_.expected_requests <= 0 || !options_.targets.quantile) return false;
  const int64_t may_be_skipped = std::max<int64_t>(0, options_.skip - skipped_);
  const int64_t late =
      std::max({late_ttft_ + pending_.ttft, late_tpot_ + pending_.tpot, late_latency_ + pending_.latency});
  if (late - may_be_skipped > late_allowed()) hopeless_ = enough_ = true;
  first_tokens_late_ |= late_ttft_ + pending_.ttft - may_be_skipped > late_allowed();
  return hopeless_;
}

bool Recorder::precise() const {
  if (options_.precision <= 0) return true;
  if (requests() < kFewestToJudge) return false;
  const auto known = [&](const std::vector<double>& values) {
    const Distribution d = distribution(values);
    if (d.mean <= 0) return true;
    if (d.mean_half_width > options_.precision * d.mean) return false;
    if (!options_.targets.quantile) return true;
    std::vector<double> copy = values;
    return quantile_half_width(values, *options_.targets.quantile) <=
           options_.precision * quantile(copy, *options_.targets.quantile);
  };
  return known(ttft_) && known(tpot_);
}

}  // namespace drydock::simulator
