#pragma once
// Log-probabilities of drawn tokens, for answers that ask for them.
#include <cstdint>

#include "runtime/generation.h"

namespace drydock::runtime {

// `token` as drawn from a row of `vocabulary` logits, with the `alternatives` most likely tokens (equals by lower id);
// below 0: without log-probabilities.
GeneratedToken with_logprobs(Token token, const float* logits, int64_t vocabulary, int32_t alternatives);

}  // namespace drydock::runtime
