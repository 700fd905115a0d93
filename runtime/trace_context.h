#pragma once
// The `traceparent` header of W3C Trace Context (Recommendation, 2021), with which OpenTelemetry ties requests
// together.
#include <string>
#include <string_view>

#include "core/random.h"

namespace drydock::runtime {

// "00-<32 hex digits>-<16 hex digits>-<2 hex digits>", lower case, neither id all zeros; of later versions only these
// first four fields are looked at.
bool valid_trace_parent(std::string_view text);
// A new one, not sampled.
std::string new_trace_parent(core::Random& random);
// Of a valid one.
std::string_view trace_id(std::string_view trace_parent);

// `prefix` and 24 random letters and digits.
std::string new_id(std::string_view prefix, core::Random& random);

}  // namespace drydock::runtime
