#include "simulator/lengths.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>

#include "core/csv.h"
#include "core/error.h"
#include "simulator/option_check.h"

namespace drydock::simulator {
namespace {

using core::Error;

constexpr std::string_view kForms =
    "want fixed:2000,500 or uniform:1600-2000,400-500 or lognormal:2000/0.8,500/1.2 or empirical:file.csv";

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The part of `text` before `mark`, which is then removed with the mark; nullopt: no mark there.
std::optional<std::string_view> cut(std::string_view& text, char mark) {
  const size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at + 1);
  return part;
}

// "1600-2000" as two numbers.
template <typename Number>
std::optional<std::pair<Number, Number>> parse_pair(std::string_view text, char mark) {
  const auto first = cut(text, mark);
  if (!first) return std::nullopt;
  const auto a = parse_number<Number>(*first), b = parse_number<Number>(text);
  if (!a || !b) return std::nullopt;
  return std::pair(*a, *b);
}

double normal_below(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

std::optional<LengthDistribution> parse_fixed(std::string_view body) {
  const auto tokens = parse_pair<int64_t>(body, ',');
  if (!tokens) return std::nullopt;
  return LengthDistribution::fixed(tokens->first, tokens->second);
}

std::optional<LengthDistribution> parse_uniform(std::string_view body) {
  const auto first = cut(body, ',');
  if (!first) return std::nullopt;
  const auto prompt = parse_pair<int64_t>(*first, '-'), output = parse_pair<int64_t>(body, '-');
  if (!prompt || !output) return std::nullopt;
  return LengthDistribution::uniform({prompt->first, prompt->second}, {output->first, output->second});
}

std::optional<LengthDistribution> parse_lognormal(std::string_view body) {
  const auto first = cut(body, ',');
  if (!first) return std::nullopt;
  const auto second = cut(body, ',');
  const auto prompt = parse_pair<double>(*first, '/'), output = parse_pair<double>(second.value_or(body), '/');
  const auto most = second ? parse_number<int64_t>(body) : 1'000'000;
  if (!prompt || !output || !most) return std::nullopt;
  return LengthDistribution::lognormal({prompt->first, prompt->second}, {output->first, output->second}, *most);
}

std::optional<LengthDistribution> parse_kind(std::string_view kind, std::string_view body) {
  if (kind == "fixed") return parse_fixed(body);
  if (kind == "uniform") return parse_uniform(body);
  if (kind == "lognormal") return parse_lognormal(body);
  return std::nullopt;
}

void check_pairs(const std::vector<RequestLengths>& pairs) {
  if (pairs.empty()) throw Error("empirical lengths: no pairs; want at least one");
  for (const RequestLengths& pair : pairs)
    for (const int64_t tokens : {pair.prompt_tokens, pair.output_tokens})
      if (tokens < 1 || tokens > kMostTokens)
        throw Error("empirical lengths: want tokens from 1 to " + std::to_string(kMostTokens) + ", found " +
                    std::to_string(tokens));
}

}  // namespace

int64_t LengthDistribution::Side::sample(core::Random& random) const {
  if (cv == 0) return low == high ? low : random.integer(low, high);
  for (;;) {
    const double drawn = random.lognormal(mean, cv);
    if (drawn >= static_cast<double>(low) - 0.5 && drawn < static_cast<double>(high) + 0.5)
      return std::max(low, static_cast<int64_t>(drawn + 0.5));
  }
}

// E[X | a < X < b] = mean (N(y(b) - s) - N(y(a) - s)) / (N(y(b)) - N(y(a))), y(x) = (ln x - m) / s, N the normal
// distribution; m and s are those of ln X.
double LengthDistribution::Side::true_mean() const {
  if (cv == 0) return (static_cast<double>(low) + static_cast<double>(high)) / 2;
  const double s = std::sqrt(std::log1p(cv * cv)), m = std::log(mean) - s * s / 2;
  const double a = (std::log(static_cast<double>(low) - 0.5) - m) / s;
  const double b = (std::log(static_cast<double>(high) + 0.5) - m) / s;
  const double drawn = mean * (normal_below(b - s) - normal_below(a - s)) / (normal_below(b) - normal_below(a));
  return std::clamp(drawn, static_cast<double>(low), static_cast<double>(high));  // tokens are rounded, X is not
}

LengthDistribution::LengthDistribution(Side prompt, Side output)
    : prompt_(prompt), output_(output), mean_prompt_(prompt.true_mean()), mean_output_(output.true_mean()) {}

LengthDistribution::Side LengthDistribution::uniform_side(Range range, std::string_view what) {
  if (range.low < 1 || range.high > kMostTokens || range.low > range.high)
    throw Error(std::string(what) + " tokens: want a length or low-high from 1 to " + std::to_string(kMostTokens) +
                ", found " + std::to_string(range.low) +
                (range.low == range.high ? "" : "-" + std::to_string(range.high)));
  return {range.low, range.high, 0, 0};
}

LengthDistribution::Side LengthDistribution::lognormal_side(Moments moments, int64_t most, std::string_view what) {
  if (most < 1 || most > kMostTokens)
    throw Error("longest " + std::string(what) + ": want 1 to " + std::to_string(kMostTokens) + " tokens, found " +
                std::to_string(most));
  if (!(moments.mean >= 1 && moments.mean <= static_cast<double>(most)))
    throw Error(std::string(what) + " tokens: want a mean from 1 to " + std::to_string(most) + ", found " +
                number_text(moments.mean));
  if (!(moments.cv >= 0 && moments.cv <= 10))
    throw Error(std::string(what) + " tokens: want a cv from 0 to 10, found " + number_text(moments.cv));
  if (moments.cv < 1e-6) {  // less than rounding shows
    const int64_t tokens = std::llround(moments.mean);
    return {tokens, tokens, 0, 0};
  }
  return {1, most, moments.mean, moments.cv};
}

LengthDistribution LengthDistribution::fixed(int64_t prompt_tokens, int64_t output_tokens) {
  return uniform({prompt_tokens, prompt_tokens}, {output_tokens, output_tokens});
}

LengthDistribution LengthDistribution::uniform(Range prompt, Range output) {
  return {uniform_side(prompt, "prompt"), uniform_side(output, "output")};
}

LengthDistribution LengthDistribution::lognormal(Moments prompt, Moments output, int64_t most) {
  return {lognormal_side(prompt, most, "prompt"), lognormal_side(output, most, "output")};
}

LengthDistribution LengthDistribution::empirical(std::vector<RequestLengths> pairs) {
  check_pairs(pairs);
  double prompts = 0, outputs = 0;
  for (const RequestLengths& pair : pairs) {
    prompts += static_cast<double>(pair.prompt_tokens);
    outputs += static_cast<double>(pair.output_tokens);
  }
  LengthDistribution result{Side{}, Side{}};
  result.mean_prompt_ = prompts / static_cast<double>(pairs.size());
  result.mean_output_ = outputs / static_cast<double>(pairs.size());
  result.pairs_ = std::make_shared<const std::vector<RequestLengths>>(std::move(pairs));
  return result;
}

LengthDistribution LengthDistribution::read(const std::filesystem::path& csv) {
  const core::Csv table = core::Csv::read(csv);
  table.require({"prompt_tokens", "output_tokens"});
  const size_t columns[] = {table.column("prompt_tokens"), table.column("output_tokens")};
  std::vector<RequestLengths> pairs(table.rows());
  for (size_t row = 0; row < table.rows(); ++row)
    for (const bool output : {false, true}) {
      const auto tokens = table.integer(row, columns[output], 1, kMostTokens);
      if (!tokens)
        throw Error(csv.string() + ": line " + std::to_string(table.line(row)) + ": an empty length; want tokens");
      (output ? pairs[row].output_tokens : pairs[row].prompt_tokens) = *tokens;
    }
  if (pairs.empty()) throw Error(csv.string() + ": no rows; want at least one pair of lengths");
  return empirical(std::move(pairs));
}

RequestLengths LengthDistribution::sample(core::Random& random) const {
  if (pairs_) return (*pairs_)[static_cast<size_t>(random.integer(0, static_cast<int64_t>(pairs_->size()) - 1))];
  const int64_t prompt_tokens = prompt_.sample(random);
  return {prompt_tokens, output_.sample(random)};
}

LengthDistribution LengthDistribution::parse(std::string_view spec, std::string_view origin) {
  std::string_view body = spec;
  const auto kind = cut(body, ':');
  if (kind == "empirical" && !body.empty()) return read(body);
  try {
    if (const auto parsed = kind ? parse_kind(*kind, body) : std::nullopt) return *parsed;
  } catch (const Error& error) {
    throw Error(std::string(origin) + ": " + error.what());
  }
  throw Error(std::string(origin) + ": '" + std::string(spec.substr(0, 80)) + "' is no distribution of lengths; " +
              std::string(kForms));
}

}  // namespace drydock::simulator
