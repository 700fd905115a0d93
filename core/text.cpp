#include "core/text.h"

#include <algorithm>
#include <numeric>

namespace drydock::core {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string nearest(std::string_view text, const std::vector<std::string>& names) {
  const std::string wanted = lower_case(text.substr(0, 256));
  size_t best = std::max<size_t>(2, wanted.size() / 3) + 1;  // farther than that is no suggestion
  std::string found;
  for (const std::string& candidate : names)
    if (wanted.size() >= 3 && lower_case(candidate).starts_with(wanted))
      return candidate;  // cut short rather than mistyped
  for (const std::string& candidate : names)
    if (const size_t distance = edit_distance(wanted, lower_case(candidate)); distance < best) {
      best = distance;
      found = candidate;
    }
  return found;
}

std::string suggestion(std::string_view text, const std::vector<std::string>& names) {
  const std::string name = nearest(text, names);
  return name.empty() ? "" : ", did you mean '" + name + "'?";
}

}  // namespace drydock::core
