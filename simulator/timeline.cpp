#include "simulator/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace drydock::simulator {

void Timeline::add(double at_us, std::vector<PoolState> pools) {
  sums_.resize(pools.size());
  for (size_t p = 0; p < pools.size(); ++p) {
    sums_[p].kv += pools[p].kv_share;
    sums_[p].kv_peak = std::max(sums_[p].kv_peak, pools[p].kv_share);
    // From the last time to now the state was in between the two; until the first one it was as then.
    const PoolState& before = last_.empty() ? pools[p] : last_[p];
    sums_[p].worker_us += (before.alive + before.starting) * (at_us - last_us_);
  }
  last_ = pools;
  last_us_ = at_us;
  if (told_++ % stride_ != 0) return;
  samples_.push_back({at_us, std::move(pools)});
  if (samples_.size() <= kMostSamples) return;
  for (size_t i = 0; 2 * i < samples_.size(); ++i)
    if (i > 0) samples_[i] = std::move(samples_[2 * i]);
  samples_.resize((samples_.size() + 1) / 2);
  stride_ *= 2;
}

void Timeline::close(double end_us) {
  for (size_t p = 0; p < last_.size(); ++p)
    sums_[p].worker_us += (last_[p].alive + last_[p].starting) * std::max(0.0, end_us - last_us_);
  last_us_ = end_us;
}

double Timeline::kv_mean(size_t pool) const {
  return pool < sums_.size() && told_ > 0 ? sums_[pool].kv / static_cast<double>(told_) : 0;
}

std::string timeline_csv(const Timeline& timeline, const std::vector<std::string>& pools) {
  std::string out = "time_s";
  for (const std::string& pool : pools)
    out += fmt::format(",{0}_alive,{0}_starting,{0}_waiting,{0}_running,{0}_kv_share", pool);
  out += "\n";
  for (const Timeline::Sample& sample : timeline.samples()) {
    out += fmt::format("{:.6f}", sample.at_us * 1e-6);
    for (const PoolState& p : sample.pools)
      out += fmt::format(",{},{},{},{},{:.6f}", p.alive, p.starting, p.waiting, p.running, p.kv_share);
    out += "\n";
  }
  return out;
}

}  // namespace drydock::simulator
