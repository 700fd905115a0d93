#include "perfdb/surface.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "core/error.h"

namespace drydock::perfdb {
namespace {

constexpr float kStep = 0.004f;  // of the logarithm: 0.2 % at worst, range exp(+-8.2)
constexpr int kZero = 2048, kMost = 4095;
constexpr size_t kMaxKnots = 64, kMaxValues = 1u << 16;

// 64 printable digits, '?' to '~': no separator or quote among them. A digit up to 2 kReach is the step from the value
// before plus kReach; the other two announce two digits, of 12 bits.
constexpr char kFirstDigit = '?';
constexpr int kReach = 30;
constexpr int kAbsolute = 62, kSkip = 63;  // a value; how many knots have no sample

void append(std::string& text, int announced, int number) {
  for (const int digit : {announced, number / 64, number % 64}) text += static_cast<char>(kFirstDigit + digit);
}

void append(std::string& text, const std::vector<float>& numbers) {
  char buffer[32];
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) text += ',';
    text.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, numbers[i]).ptr);
  }
}

// Walks `name=a,b,c;` fields in a fixed order.
class Reader {
 public:
  Reader(std::string_view text, std::string_view origin) : rest_(text), origin_(origin) {}

  std::string_view field(std::string_view name) {
    if (rest_.substr(0, name.size()) != name || rest_.size() <= name.size() || rest_[name.size()] != '=')
      fail(name, "is not where it should be");
    rest_.remove_prefix(name.size() + 1);
    const size_t end = std::min(rest_.find(';'), rest_.size());
    const std::string_view value = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return value;
  }

  std::vector<float> numbers(std::string_view name) {
    std::string_view text = field(name);
    std::vector<float> out;
    while (!text.empty()) {
      float value = 0;
      const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (status != std::errc{} || !std::isfinite(value)) fail(name, "has a number that does not parse");
      out.push_back(value);
      text.remove_prefix(static_cast<size_t>(end - text.data()));
      if (!text.empty() && text.front() != ',') fail(name, "must be numbers with commas");
      if (!text.empty()) text.remove_prefix(1);
      if (out.size() > kMaxKnots) fail(name, "has over 64 numbers");
    }
    return out;
  }

  bool done() const { return rest_.empty(); }

  [[noreturn]] void fail(std::string_view field, std::string_view reason) const {
    std::string text(origin_);
    text.append(": surface: field '").append(field).append("' ").append(reason).append("; fit the surfaces again");
    throw core::Error(text);
  }

 private:
  std::string_view rest_, origin_;
};

void read_knots(Reader& reader, Surface& surface) {
  const std::vector<float> axes = reader.numbers("axes");
  if (axes.size() != 1 || !(axes[0] >= 1 && axes[0] <= kMaxAxes)) reader.fail("axes", "must be 1 to 5");
  surface.axes = static_cast<int>(axes[0]);
  for (int axis = 0; axis < surface.axes; ++axis) {
    std::vector<float>& knots = surface.knots[axis] = reader.numbers("knots");
    if (knots.empty() || std::adjacent_find(knots.begin(), knots.end(), std::greater_equal<>()) != knots.end())
      reader.fail("knots", "must ascend");
  }
}

void read_bands(Reader& reader, Surface& surface) {
  const std::vector<float> bands = reader.numbers("bands");
  if (bands.size() != 2 * kBands) reader.fail("bands", "must be 8 numbers");
  for (int i = 0; i < kBands; ++i) {
    surface.bands[i] = {bands[2 * i], bands[2 * i + 1]};
    if (surface.bands[i].low > 0 || surface.bands[i].high < 0) reader.fail("bands", "must lie around 0");
  }
}

// Values are written with the first axis fastest: along it they vary least and runs without support are longest.
size_t written_knot(const Surface& surface, size_t place) {
  const size_t count = surface.knots[0].size();
  return place % count * surface.stride(0) + place / count;
}

void read_values(Reader& reader, Surface& surface) {
  size_t count = 1;
  for (int axis = 0; axis < surface.axes; ++axis) count *= surface.knots[axis].size();
  if (count > kMaxValues) reader.fail("knots", "make over 65536 lattice points");
  surface.values.assign(count, 0);
  surface.supported.assign(count, 0);
  const std::string_view text = reader.field("values");
  size_t at = 0, place = 0;
  const auto digit = [&] {
    const int value = at < text.size() ? text[at++] - kFirstDigit : -1;
    if (value < 0 || value > 63) reader.fail("values", "ends early or has a character that is no digit");
    return value;
  };
  int level = kZero;
  while (place < count) {
    const int first = digit();
    const int number = first < kAbsolute ? level + first - kReach : 64 * digit() + digit();
    if (first == kSkip) {
      place += static_cast<size_t>(number);
      continue;
    }
    level = number;
    const size_t knot = written_knot(surface, place++);
    surface.values[knot] = static_cast<float>(level - kZero) * kStep;
    surface.supported[knot] = 1;
  }
  if (place != count || at != text.size()) reader.fail("values", "has more or fewer than the knots take");
}

// Gives each unknown knot of a line the value of the nearest known one, the lower of two as near.
void fill_line(std::vector<float>& values, std::vector<uint8_t>& known, size_t first, size_t count, size_t stride) {
  std::array<float, kMaxKnots> found;
  std::array<size_t, kMaxKnots> place;
  size_t n = 0;
  for (size_t i = 0; i < count; ++i)
    if (known[first + i * stride]) {
      found[n] = values[first + i * stride];
      place[n++] = i;
    }
  if (n == 0 || n == count) return;
  for (size_t i = 0, near = 0; i < count; ++i) {
    while (near + 1 < n && place[near + 1] <= i) ++near;
    const bool next_nearer = place[near] < i && near + 1 < n && place[near + 1] - i < i - place[near];
    values[first + i * stride] = found[near + next_nearer];
    known[first + i * stride] = 1;
  }
}

// Knots without a sample take the value of the nearest one with along the last axis, then along the one before, ...
void fill_gaps(Surface& surface) {
  std::vector<uint8_t> known = surface.supported;
  for (int axis = surface.axes - 1; axis >= 0; --axis) {
    const size_t count = surface.knots[axis].size(), stride = surface.stride(axis);
    for (size_t start = 0; start < known.size(); start += count * stride)
      for (size_t line = start; line < start + stride; ++line) fill_line(surface.values, known, line, count, stride);
  }
}

}  // namespace

size_t Surface::stride(int axis) const {
  size_t product = 1;
  for (int later = axis + 1; later < axes; ++later) product *= knots[later].size();
  return product;
}

const Band& Surface::band(size_t knot) const {
  return bands[std::min<size_t>(knot / stride(0) * kBands / knots[0].size(), kBands - 1)];
}

Cell locate(const Surface& surface, const Coordinates& at) {
  Cell cell;
  cell.knot[0] = 0;
  cell.weight[0] = 1;
  cell.corners = 1;
  for (int axis = 0; axis < surface.axes; ++axis) {
    const std::vector<float>& knots = surface.knots[axis];
    const float x = std::clamp(at[axis], knots.front(), knots.back());
    cell.outside += std::abs(x - at[axis]);
    const auto count = static_cast<uint32_t>(knots.size());
    uint32_t below = 0;
    while (below + 2 < count && knots[below + 1] <= x) ++below;
    const float share = count == 1 ? 0 : (x - knots[below]) / (knots[below + 1] - knots[below]);
    for (int c = 0; c < cell.corners; ++c) cell.knot[c] = cell.knot[c] * count + below;
    if (share == 0) continue;
    for (int c = 0; c < cell.corners; ++c) {
      cell.knot[c + cell.corners] = cell.knot[c] + 1;
      cell.weight[c + cell.corners] = cell.weight[c] * share;
      cell.weight[c] *= 1 - share;
    }
    cell.corners *= 2;
  }
  return cell;
}

Correction evaluate(const Surface& surface, const Coordinates& at) {
  const Cell cell = locate(surface, at);
  Correction out;
  out.outside = cell.outside;
  for (int c = 0; c < cell.corners; ++c) {
    out.log_ratio += cell.weight[c] * surface.values[cell.knot[c]];
    out.support += cell.weight[c] * static_cast<float>(surface.supported[cell.knot[c]]);
  }
  out.band = surface.band(cell.knot[0]);
  return out;
}

std::string encode(const Surface& surface) {
  std::string text = "baseline=";
  (text += std::to_string(kBaselineVersion)) += ";axes=";
  (text += std::to_string(surface.axes)) += ';';
  for (int axis = 0; axis < surface.axes; ++axis) {
    text += "knots=";
    append(text, surface.knots[axis]);
    text += ';';
  }
  std::vector<float> bands;
  for (const Band& band : surface.bands) {
    bands.push_back(band.low);
    bands.push_back(band.high);
  }
  text += "bands=";
  append(text, bands);
  text += ";values=";
  int level = kZero;
  for (size_t i = 0; i < surface.values.size();) {
    int skipped = 0;
    while (i < surface.values.size() && !surface.supported[written_knot(surface, i)] && skipped < kMost) ++i, ++skipped;
    if (skipped > 0) {
      append(text, kSkip, skipped);
      continue;
    }
    const int next =
        std::clamp(static_cast<int>(std::lround(surface.values[written_knot(surface, i++)] / kStep)) + kZero, 0, kMost);
    if (std::abs(next - level) <= kReach)
      text += static_cast<char>(kFirstDigit + next - level + kReach);
    else
      append(text, kAbsolute, next);
    level = next;
  }
  return text;
}

Surface decode(std::string_view text, std::string_view origin) {
  Reader reader(text, origin);
  Surface surface;
  if (reader.field("baseline") != std::to_string(kBaselineVersion)) reader.fail("baseline", "is of another version");
  read_knots(reader, surface);
  read_bands(reader, surface);
  read_values(reader, surface);
  fill_gaps(surface);
  if (!reader.done()) reader.fail("values", "has text after it");
  return surface;
}

}  // namespace drydock::perfdb
