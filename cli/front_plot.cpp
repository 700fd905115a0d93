#include "cli/front_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/terminal.h"

namespace drydock::cli {
namespace {

using configurator::Ranked;

constexpr int kPlotWidth = 64, kPlotHeight = 11, kPlotTicks = 4;
constexpr size_t kMostMarked = 9;  // plans, by one digit each

double user_speed(const Ranked& r) { return r.plan.prediction->tokens_per_s_per_user.value; }
double gpu_rate(const Ranked& r) { return r.plan.prediction->tokens_per_s_per_gpu.value; }

// The next of 1, 2, 2.5, 5 times a power of ten whose multiple by `kPlotTicks` is not below `most`.
double tick_for(double most) {
  const double least = std::max(most, 1e-9) / kPlotTicks, unit = std::pow(10, std::floor(std::log10(least)));
  for (const double step : {1.0, 2.0, 2.5, 5.0})
    if (step * unit >= least) return step * unit;
  return 10 * unit;
}

class Canvas {
 public:
  Canvas(double most_x, double most_y) : most_x_(most_x), most_y_(most_y) {}

  // Later marks lie on top; a point that meets the targets is not hidden by one that does not.
  void mark(double x, double y, char with) {
    const int column = std::clamp(static_cast<int>(std::lround(x / most_x_ * (kPlotWidth - 1))), 0, kPlotWidth - 1);
    const int row = std::clamp(static_cast<int>(std::lround(y / most_y_ * (kPlotHeight - 1))), 0, kPlotHeight - 1);
    char& cell = rows_[static_cast<size_t>(kPlotHeight - 1 - row)][static_cast<size_t>(column)];
    if (!(cell == '#' && with == 'o')) cell = with;
  }

  std::string text() const {
    std::string out;
    for (int i = 0; i < kPlotHeight; ++i) {
      const double value = most_y_ * (kPlotHeight - 1 - i) / (kPlotHeight - 1);
      const std::string& row = rows_[static_cast<size_t>(i)];
      out += fmt::format("  {:>8} |{}\n", i % 5 == 0 ? fmt::format("{:.6g}", value) : "", painted(row));
    }
    std::string ticks(kPlotWidth + 12, ' ');
    for (int i = 0; i <= kPlotTicks; ++i) {
      const std::string label = fmt::format("{:.6g}", most_x_ * i / kPlotTicks);
      const int middle = 12 + (kPlotWidth - 1) * i / kPlotTicks, from = middle - static_cast<int>(label.size()) / 2;
      ticks.replace(static_cast<size_t>(from), label.size(), label);
    }
    return out + fmt::format("           +{}\n{}\n", std::string(kPlotWidth, '-'),
                             ticks.substr(0, ticks.find_last_not_of(' ') + 1));
  }

 private:
  static std::string painted(const std::string& row) {
    std::string out;
    for (const char c : row.substr(0, row.find_last_not_of(' ') + 1))
      out += c == ' '   ? std::string(1, c)
             : c == '#' ? styled(Style::good, "#")
             : c == 'o' ? styled(Style::quiet, "o")
                        : styled(Style::strong, std::string(1, c));
    return out;
  }

  double most_x_, most_y_;
  std::vector<std::string> rows_ = std::vector<std::string>(kPlotHeight, std::string(kPlotWidth, ' '));
};

}  // namespace

std::string front_text(const std::vector<Ranked>& front, const std::vector<Ranked>& plans) {
  if (front.size() < 3) return "";
  double most_user = 0, most_gpu = 0;
  for (const auto* list : {&front, &plans})
    for (const Ranked& r : *list)
      most_user = std::max(most_user, user_speed(r)), most_gpu = std::max(most_gpu, gpu_rate(r));
  Canvas canvas(kPlotTicks * tick_for(most_user), kPlotTicks * tick_for(most_gpu));
  for (const Ranked& r : front) canvas.mark(user_speed(r), gpu_rate(r), r.meets_slo ? '#' : 'o');
  for (size_t i = std::min(plans.size(), kMostMarked); i-- > 0;)
    canvas.mark(user_speed(plans[i]), gpu_rate(plans[i]), static_cast<char>('1' + i));
  return "tokens/s/GPU over tokens/s/user: the front by closed forms (# meets the targets, o does not),\n" +
         std::string("and the plans above by their numbers\n") + canvas.text();
}

}  // namespace drydock::cli
