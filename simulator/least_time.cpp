// A lower bound on the time that requests take, whatever the schedule.
#include <algorithm>
#include <cmath>

#include "simulator/step_grid.h"
#include "simulator/step_price.h"

namespace drydock::simulator {

// A step of m tokens takes at least g0 + g1 m for every line below the price at all points of the grid, between which
// it is linear. A request whose tokens are spread over n >= n_min steps (shares of steps that it has with others count
// as shares) takes at least g0 n_min + g1 tokens when g0, g1 >= 0. The best such line is found among those through two
// points. Decode attention and the output head are priced at the batch where a sequence's share is cheapest, drafts at
// the cheapest number of tokens. Two-batch overlap hides some communication but no compute: own work at m tokens,
// experts twice and communication once at m / 2 are never beaten.
double TablePrice::least_us(const Demand& d) {
  const int stages = timer_->stages();
  const double decodes = std::max(1.0, d.max_decodes / stages);
  const double per_decode = static_cast<double>(options_.decode_tokens);
  const double tokens = d.prompt_tokens + d.decode_steps * per_decode;
  const double steps = std::max(d.decode_steps / decodes, tokens / d.max_tokens);
  const BackendModel& backend = timer_->backend();
  const double least_scale = options_.slowdown * std::min(1.0, backend.prompt_kernels);
  std::vector<std::pair<double, double>> price;  // of a step, by tokens; never less for more tokens
  double drafting = INFINITY;                    // of a step, output head aside
  const double most = std::max(d.max_tokens, decodes * per_decode);
  for (size_t level = 1; level + 1 < kTokenLevels; ++level) {
    const Tokens t = token_node(level);
    drafting = std::min(drafting, options_.draft_layers * (t.own + t.experts + t.exchange));
    const double mean = d.alone ? std::max(1.0, token_at(level) / attention_dp_) : token_at(level);
    const Tokens together = tokens_us(mean);
    double kernels = t.own + together.experts + together.exchange;
    if (options_.two_batch_overlap && attention_dp_ > 1 && mean >= 2) {
      const Tokens half = tokens_us(mean / 2);
      kernels = std::min(kernels, t.own + 2 * half.experts + half.exchange);
    }
    price.emplace_back(token_at(level), kernels * least_scale + gap_us_ + backend.step_host_us());
    if (token_at(level) >= most) break;
  }
  for (size_t i = price.size(); i-- > 1;) price[i - 1].second = std::min(price[i - 1].second, price[i].second);
  const auto intercept = [&](double slope) {
    double least = INFINITY;
    for (const auto& [m, us] : price) least = std::min(least, us - slope * m);
    return least;
  };
  double best = price.front().second * steps;
  for (size_t i = 1; i < price.size(); i += 4)
    for (size_t j = i - 1;; j = 0) {
      const double slope = (price[i].second - price[j].second) / (price[i].first - price[j].first);
      if (const double base = intercept(slope); base >= 0 && slope >= 0)
        best = std::max(best, base * steps + slope * tokens);
      if (j == 0) break;
    }
  double per_sequence = INFINITY, head = INFINITY;
  for (size_t level = 0; level + 1 < kSequenceLevels; ++level) {
    const double n = half_octave_at(level);
    per_sequence = std::min(per_sequence, decode_attention(n, d.context).us / n);
    head = std::min(head, (head_us(n) + options_.draft_heads * head_us(n)) / n);
    if (n >= decodes) break;
  }
  const double decoding =
      d.decode_steps > 0 ? d.decode_steps * (per_sequence + head + drafting / decodes + backend.sequence_host_us()) : 0;
  return best + decoding * least_scale + (d.prompt_tokens > 0 ? backend.prompt_step_us() : 0);
}

}  // namespace drydock::simulator
