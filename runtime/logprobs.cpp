#include "runtime/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace drydock::runtime {

GeneratedToken with_logprobs(Token token, const float* logits, int64_t vocabulary, int32_t alternatives) {
  GeneratedToken out;
  out.token = token;
  if (alternatives < 0) return out;
  const float most = *std::max_element(logits, logits + vocabulary);
  double sum = 0;
  for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(double{logits[i]} - double{most});
  const double whole = double{most} + std::log(sum);
  const auto logprob = [&](Token t) { return static_cast<float>(double{logits[t]} - whole); };
  out.logprob = logprob(token);
  std::vector<Token> order(static_cast<size_t>(vocabulary));
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min<int64_t>(alternatives, vocabulary);
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](Token a, Token b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (int64_t i = 0; i < count; ++i)
    out.top.push_back({order[static_cast<size_t>(i)], logprob(order[static_cast<size_t>(i)])});
  return out;
}

}  // namespace drydock::runtime
