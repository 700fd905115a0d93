#include "scheduler/speculation.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "core/error.h"
#include "core/text.h"

namespace drydock::scheduler {
namespace {

constexpr std::string_view kDraftNames[] = {"draft", "mtp", "eagle", "ngram"};

core::Error bad(std::string_view text, const std::string& reason) {
  return core::Error("speculation '" + std::string(text.substr(0, 80)) + "': " + reason +
                     "; want METHOD:k=DRAFTS,p=ACCEPTANCE, such as mtp:k=3,p=0.8 or k=3,p=0.9/0.8/0.6");
}

// The text up to `mark`, which is taken off `text` together with the mark; all of it when there is no mark.
std::string_view take(std::string_view& text, char mark) {
  const size_t end = std::min(text.find(mark), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return head;
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

DraftMethod read_method(std::string_view text, std::string_view whole) {
  if (const auto method = parse_draft_method(text)) return *method;
  throw bad(whole, "unknown method '" + std::string(text.substr(0, 40)) + "'" +
                       core::suggestion(text, {std::begin(kDraftNames), std::end(kDraftNames)}));
}

int read_drafts(std::string_view value, std::string_view whole) {
  const auto drafts = number<int>(value);
  if (!drafts || *drafts < 1 || *drafts > kMaxDrafts)
    throw bad(whole, "k must be a whole number from 1 to " + std::to_string(kMaxDrafts));
  return *drafts;
}

std::vector<double> read_acceptance(std::string_view value, std::string_view whole) {
  const auto count = static_cast<size_t>(std::count(value.begin(), value.end(), '/')) + 1;
  if (count > kMaxDrafts) throw bad(whole, "more than " + std::to_string(kMaxDrafts) + " values of p");
  std::vector<double> out;
  for (size_t i = 0; i < count; ++i) {
    const auto p = number<double>(take(value, '/'));
    if (!p || !(*p >= 0 && *p <= 1)) throw bad(whole, "every p must be a number from 0 to 1");
    out.push_back(*p);
  }
  return out;
}

}  // namespace

std::string_view name(DraftMethod method) { return kDraftNames[static_cast<size_t>(method)]; }

std::optional<DraftMethod> parse_draft_method(std::string_view text) {
  const auto found = std::find(std::begin(kDraftNames), std::end(kDraftNames), text);
  if (found == std::end(kDraftNames)) return std::nullopt;
  return static_cast<DraftMethod>(found - std::begin(kDraftNames));
}

double Speculation::expected_tokens() const {
  double sum = 1, path = 1;
  for (const double p : acceptance) sum += path *= p;
  return sum;
}

int Speculation::accepted(double uniform) const {
  double path = 1;
  for (int i = 0; i < drafts(); ++i)
    if (uniform >= (path *= acceptance[static_cast<size_t>(i)])) return i;
  return drafts();
}

Speculation parse_speculation(std::string_view text) {
  Speculation out;
  std::string_view rest = text;
  if (text.find(':') != std::string_view::npos) out.method = read_method(take(rest, ':'), text);
  std::optional<int> drafts;
  while (!rest.empty()) {
    std::string_view value = take(rest, ',');
    const std::string_view key = take(value, '=');
    if (key == "k" && !drafts)
      drafts = read_drafts(value, text);
    else if (key == "p" && out.acceptance.empty())
      out.acceptance = read_acceptance(value, text);
    else
      throw bad(text, "unknown or repeated field '" + std::string(key.substr(0, 40)) + "'");
  }
  if (!drafts) throw bad(text, "k is missing");
  if (out.acceptance.empty()) throw bad(text, "p is missing");
  if (out.acceptance.size() == 1) out.acceptance.resize(static_cast<size_t>(*drafts), out.acceptance[0]);
  if (out.drafts() != *drafts)
    throw bad(text, std::to_string(out.drafts()) + " values of p for k=" + std::to_string(*drafts));
  return out;
}

double expected_tokens(std::span<const DraftNode> tree) {
  std::vector<double> path(tree.size());
  double sum = 1;
  for (size_t i = 0; i < tree.size(); ++i) {
    const auto [parent, p] = tree[i];
    if (parent < -1 || parent >= static_cast<int>(i))
      throw core::Error("draft tree: node " + std::to_string(i) + " has parent " + std::to_string(parent) +
                        "; want -1 or an earlier node");
    if (!(p >= 0 && p <= 1))
      throw core::Error("draft tree: node " + std::to_string(i) + ": acceptance must be from 0 to 1");
    path[i] = p * (parent < 0 ? 1 : path[static_cast<size_t>(parent)]);
    sum += path[i];
  }
  return sum;
}

double speedup(double expected_tokens, double plain_step_us, double verify_us, double draft_us) {
  if (!(plain_step_us >= 0 && verify_us >= 0 && draft_us >= 0 && verify_us + draft_us > 0))
    throw core::Error("speculation: step times must not be negative, and verify plus draft must be over 0 us");
  return expected_tokens * plain_step_us / (verify_us + draft_us);
}

}  // namespace drydock::scheduler
