#pragma once
// Speculative decoding: what a step yields when drafts are accepted with given probabilities.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace drydock::scheduler {

// Where drafts come from: a small model, the model's own multi-token heads, an EAGLE head, or text seen before.
enum class DraftMethod : uint8_t { draft, mtp, eagle, ngram };
std::string_view name(DraftMethod method);
std::optional<DraftMethod> parse_draft_method(std::string_view text);

inline constexpr int kMaxDrafts = 64;

// A chain of drafts: draft i is accepted with `acceptance[i]`, given that all before it were.
struct Speculation {
  DraftMethod method = DraftMethod::draft;
  std::vector<double> acceptance;  // 1 to kMaxDrafts probabilities

  int drafts() const { return static_cast<int>(acceptance.size()); }

  // Tokens a step yields on average, the one the target model adds included: 1 + sum_i prod_{j <= i} p_j. For p the
  // same everywhere that is (1 - p^(k+1)) / (1 - p) (Leviathan et al. 2023, "Fast Inference from Transformers via
  // Speculative Decoding", eq. 1).
  double expected_tokens() const;

  // Drafts accepted in one step, 0 to drafts(), for `uniform` in [0, 1): the largest n with uniform < prod_{j <= n}
  // p_j, so that P(n >= i) = prod_{j <= i} p_j. A step then yields n + 1 tokens.
  int accepted(double uniform) const;
};

// Reads "mtp:k=3,p=0.8" or "k=3,p=0.9/0.8/0.6" (method `draft`): k drafts, one p for all or one for each.
// Throws core::Error on anything else.
Speculation parse_speculation(std::string_view text);

// One drafted token of a tree. `parent` is the index of an earlier node, or -1 for a child of the last accepted token;
// `acceptance` is the chance that this node is the one accepted, given that its parent was: the sum over one parent's
// children is at most 1.
struct DraftNode {
  int parent = -1;
  double acceptance = 0;
};

// 1 + sum over nodes of the product of acceptances along the node's path (Miao et al. 2024, SpecInfer).
// Throws core::Error when a parent does not come before its child or a probability is not in [0, 1].
double expected_tokens(std::span<const DraftNode> tree);

// How much faster decoding gets: expected tokens x plain step time / (verify time + draft time), times in one unit.
// Throws core::Error when a time is negative or verify + draft is 0.
double speedup(double expected_tokens, double plain_step_us, double verify_us, double draft_us);

}  // namespace drydock::scheduler
