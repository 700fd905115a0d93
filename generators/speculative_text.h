#pragma once
// A plan's `speculative`, such as "mtp:k=3,p=0.8", as far as an engine's flags need it. scheduler/speculation.h, which
// this folder does not see, reads the acceptances too.
#include <optional>
#include <string>
#include <string_view>

namespace drydock::generators {

struct SpeculationText {
  std::string method;  // "draft", "mtp", "eagle" or "ngram"
  int drafts = 0;
};

// nullopt when empty. Throws core::Error naming the field when the method or the drafts can't be read.
std::optional<SpeculationText> speculation_text(std::string_view text);

}  // namespace drydock::generators
