#include <algorithm>
#include <cmath>

#include "kernels/reference.h"

namespace drydock::kernels::reference {
namespace {

std::vector<double> row_logits(const Sample& op, int64_t row) {
  std::vector<double> logits(static_cast<size_t>(op.logits.cols));
  for (int64_t i = 0; i < op.logits.cols; ++i) {
    logits[i] = element(op.logits, row, i);
    if (std::isnan(logits[i])) logits[i] = -INFINITY;
  }
  return logits;
}

// The largest first; of equals the lowest index.
std::vector<int32_t> ranked(const std::vector<double>& logits) {
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return order;
}

}  // namespace

std::vector<double> chances(const Sample& op, int64_t row) {
  const std::vector<double> logits = row_logits(op, row);
  std::vector<int32_t> order = ranked(logits);
  std::vector<double> out(logits.size());
  const bool greedy = op.temperatures[row] == 0;
  if (greedy) order.resize(1);
  if (const auto k = static_cast<size_t>(op.top_k[row]); k > 0 && k < order.size()) order.resize(k);
  double all = 0, reached = 0, kept = 0;
  const double temperature = greedy ? 1 : double{op.temperatures[row]};
  for (const int32_t i : order)
    all += out[i] = i == order[0] ? 1 : std::exp((logits[i] - logits[order[0]]) / temperature);
  for (const int32_t i : order) {
    // Below the set's edge everything is out.
    if (reached >= op.top_p[row] * all) out[i] = 0;
    kept += out[i];
    reached += out[i];
  }
  for (double& x : out) x /= kept;
  return out;
}

std::vector<int32_t> sample(const Sample& op) {
  std::vector<int32_t> tokens;
  for (int64_t row = 0; row < op.logits.rows; ++row) {
    const std::vector<double> p = chances(op, row);
    const double u = philox_uniform(op.seeds[row], op.counters[row]);
    double below = 0;
    int32_t token = -1;
    for (size_t i = 0; i < p.size() && below <= u; ++i) {
      if (p[i] > 0) token = static_cast<int32_t>(i);
      below += p[i];
    }
    tokens.push_back(token);
  }
  return tokens;
}

}  // namespace drydock::kernels::reference
