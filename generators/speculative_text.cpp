#include "generators/speculative_text.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"

namespace drydock::generators {

std::optional<SpeculationText> speculation_text(std::string_view text) {
  if (text.empty()) return std::nullopt;
  constexpr int kMostDrafts = 64;  // scheduler::kMaxDrafts
  constexpr std::array<std::string_view, 4> kMethods = {"draft", "mtp", "eagle", "ngram"};
  SpeculationText out{"draft", 0};
  std::string_view rest = text;
  if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
    out.method = rest.substr(0, colon);
    rest.remove_prefix(colon + 1);
  }
  if (const size_t at = rest.find("k="); at != std::string_view::npos)
    std::from_chars(rest.data() + at + 2, rest.data() + rest.size(), out.drafts);
  if (std::find(kMethods.begin(), kMethods.end(), out.method) == kMethods.end() || out.drafts < 1 ||
      out.drafts > kMostDrafts)
    throw core::Error("plan: field 'speculative': '" + std::string(text.substr(0, 60)) +
                      "': want METHOD:k=DRAFTS,p=ACCEPTANCE with draft, mtp, eagle or ngram and 1 to 64 drafts");
  return out;
}

}  // namespace drydock::generators
