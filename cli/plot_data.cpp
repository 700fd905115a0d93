#include "cli/plot_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "simulator/metrics.h"

namespace drydock::cli {
namespace {

using core::Csv;
using core::Json;

constexpr double kMostPlotMs = 1e12, kMostSeconds = 1e10, kMostCount = 1e15;
constexpr size_t kMostDots = 2000, kMostSamples = 800, kWindows = 60, kMostNames = 200;
constexpr int kSteps = 100;  // of a curve of quantiles

// Every so many-th of n things, so that at most `most` are left.
size_t stride_for(size_t n, size_t most) { return std::max<size_t>(1, (n + most - 1) / most); }

std::vector<double> curve_of(std::vector<double> values) {
  std::vector<double> out;
  if (values.empty()) return out;
  std::sort(values.begin(), values.end());
  for (int i = 0; i <= kSteps; ++i) {
    const double at = static_cast<double>(values.size() - 1) * i / kSteps;
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    out.push_back(values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]));
  }
  return out;
}

// ---- requests.csv

struct RequestRow {
  double arrival_s, ttft, tpot, latency, queue;
};

std::vector<RequestRow> served_rows(const Csv& csv, std::map<std::string, int64_t>& statuses) {
  const size_t arrival = csv.column("arrival_s"), ttft = csv.column("ttft_ms"), tpot = csv.column("tpot_ms"),
               latency = csv.column("latency_ms"), queue = csv.column("queue_ms"), status = csv.column("status");
  std::vector<RequestRow> out;
  for (size_t i = 0; i < csv.rows(); ++i) {
    const std::string& how = csv.cell(i, status);
    if (statuses.size() >= kMostNames && !statuses.contains(how))
      throw core::Error(csv.origin() + ": line " + std::to_string(csv.line(i)) +
                        ": column 'status': want ok, warmup, lost or rejected, found '" + how.substr(0, 40) + "'");
    ++statuses[how];
    const auto at = csv.number(i, arrival, 0, kMostSeconds);
    const auto first = csv.number(i, ttft, 0, kMostPlotMs), each = csv.number(i, tpot, 0, kMostPlotMs),
               all = csv.number(i, latency, 0, kMostPlotMs), wait = csv.number(i, queue, 0, kMostPlotMs);
    if (how == "ok" && at && first) out.push_back({*at, *first, each.value_or(0), all.value_or(0), wait.value_or(0)});
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const RequestRow& a, const RequestRow& b) { return a.arrival_s < b.arrival_s; });
  return out;
}

// Median and 95th percentile of the requests that arrived in each of kWindows equal spans.
Json windows_of(const std::vector<RequestRow>& rows) {
  Json out = Json::array();
  if (rows.empty()) return out;
  const double from = rows.front().arrival_s, span = std::max(1e-9, rows.back().arrival_s - from) / kWindows;
  size_t at = 0;
  for (size_t w = 0; w < kWindows; ++w) {
    std::vector<double> ttft, tpot;
    for (const double end = from + span * static_cast<double>(w + 1);
         at < rows.size() && (rows[at].arrival_s < end || w + 1 == kWindows); ++at)
      ttft.push_back(rows[at].ttft), tpot.push_back(rows[at].tpot);
    if (ttft.empty()) continue;
    out.push_back({{"t", from + span * (static_cast<double>(w) + 0.5)},
                   {"rate", static_cast<double>(ttft.size()) / span},
                   {"ttft_p50", simulator::quantile(ttft, 0.5)},
                   {"ttft_p95", simulator::quantile(ttft, 0.95)},
                   {"tpot_p50", simulator::quantile(tpot, 0.5)},
                   {"tpot_p95", simulator::quantile(tpot, 0.95)}});
  }
  return out;
}

Json requests_json(const Csv& csv) {
  csv.require({"arrival_s", "queue_ms", "ttft_ms", "tpot_ms", "latency_ms", "status"});
  std::map<std::string, int64_t> statuses;
  const std::vector<RequestRow> rows = served_rows(csv, statuses);
  if (rows.empty()) throw core::Error(csv.origin() + ": has no request with status ok to show");
  Json curves = Json::object(), dots = Json::array();
  const auto curve = [&](const char* name, double RequestRow::*figure) {
    std::vector<double> values;
    for (const RequestRow& row : rows) values.push_back(row.*figure);
    curves[name] = curve_of(std::move(values));
  };
  curve("ttft_ms", &RequestRow::ttft);
  curve("tpot_ms", &RequestRow::tpot);
  curve("latency_ms", &RequestRow::latency);
  curve("queue_ms", &RequestRow::queue);
  for (size_t i = 0; i < rows.size(); i += stride_for(rows.size(), kMostDots))
    dots.push_back(Json::array({rows[i].arrival_s, rows[i].ttft, rows[i].tpot}));
  return {{"kind", "requests"}, {"rows", csv.rows()},          {"shown", rows.size()}, {"statuses", statuses},
          {"curves", curves},   {"windows", windows_of(rows)}, {"dots", dots}};
}

// ---- timeline.csv

constexpr const char* kStates[] = {"alive", "starting", "waiting", "running", "kv_share"};

// "prefill" of "prefill_kv_share"; pools in the order of their columns.
std::vector<std::string> pools_of(const Csv& csv) {
  std::vector<std::string> out;
  for (const std::string& column : csv.columns())
    if (column.ends_with("_kv_share")) out.push_back(column.substr(0, column.size() - std::string("_kv_share").size()));
  return out;
}

Json timeline_json(const Csv& csv) {
  const size_t time = csv.column("time_s"), stride = stride_for(csv.rows(), kMostSamples);
  if (csv.rows() == 0) throw core::Error(csv.origin() + ": has no sample to show");
  Json times = Json::array(), pools = Json::array();
  double before = 0;
  for (size_t i = 0; i < csv.rows(); ++i) {
    const auto at = csv.number(i, time, 0, kMostSeconds);
    if (!at || *at < before)
      throw core::Error(csv.origin() + ": line " + std::to_string(csv.line(i)) +
                        ": column 'time_s': want a time that is not before the row above");
    before = *at;
    if (i % stride == 0) times.push_back(*at);
  }
  for (const std::string& name : pools_of(csv)) {
    Json pool = {{"name", name}};
    for (const char* state : kStates) {
      const size_t column = csv.column(name + "_" + state);
      Json values = Json::array();
      for (size_t i = 0; i < csv.rows(); i += stride) {  // the most within the samples that one stands for
        double most = 0;
        for (size_t k = i; k < std::min(i + stride, csv.rows()); ++k)
          most = std::max(most, csv.number(k, column, 0, kMostCount).value_or(0));
        values.push_back(most);
      }
      pool[state] = values;
    }
    pools.push_back(pool);
  }
  return {{"kind", "timeline"}, {"rows", csv.rows()}, {"stride", stride}, {"times", times}, {"pools", pools}};
}

// ---- predictions beside measurements

struct Pair {
  size_t row;
  double measured, predicted, low, high;
};

std::vector<Pair> pairs_of(const Csv& csv, const std::string& figure) {
  const size_t measured = csv.column(figure + "_ms"), predicted = csv.column("predicted_" + figure + "_ms"),
               low = csv.column("predicted_" + figure + "_low_ms"),
               high = csv.column("predicted_" + figure + "_high_ms");
  std::vector<Pair> out;
  for (size_t i = 0; i < csv.rows(); ++i) {
    const auto m = csv.number(i, measured, 0, kMostPlotMs), p = csv.number(i, predicted, 0, kMostPlotMs),
               l = csv.number(i, low, 0, kMostPlotMs), h = csv.number(i, high, 0, kMostPlotMs);
    if (m && p && *m > 0 && *p > 0) out.push_back({i, *m, *p, l.value_or(*p), h.value_or(*p)});
  }
  return out;
}

Json errors_of(const std::vector<Pair>& pairs) {
  std::vector<double> sizes, signs;
  double in_band = 0, within = 0;
  for (const Pair& p : pairs) {
    const double error = p.predicted / p.measured - 1;
    sizes.push_back(std::abs(error)), signs.push_back(error);
    in_band += p.low <= p.measured && p.measured <= p.high;
    within += std::abs(error) < 0.2;
  }
  const double n = std::max<double>(1, static_cast<double>(pairs.size()));
  return {{"rows", pairs.size()},
          {"mape", std::accumulate(sizes.begin(), sizes.end(), 0.0) / n},
          {"median", simulator::quantile(sizes, 0.5)},
          {"bias", simulator::quantile(signs, 0.5)},
          {"within20", within / n},
          {"in_band", in_band / n}};
}

// Values of a column as indices into their names; the names past kMostNames are one.
class Names {
 public:
  Names(const Csv& csv, size_t column) : csv_(csv), column_(column) {}
  int of(size_t row) {
    const std::string name = csv_.cell(row, column_).substr(0, 200);
    const auto found = index_.find(name);
    if (found != index_.end()) return found->second;
    if (list_.size() == kMostNames) list_.push_back("others");
    if (list_.size() > kMostNames) return static_cast<int>(kMostNames);
    list_.push_back(name);
    return index_[name] = static_cast<int>(list_.size()) - 1;
  }
  const Json& list() const { return list_; }

 private:
  const Csv& csv_;
  size_t column_;
  std::map<std::string, int> index_;
  Json list_ = Json::array();
};

Json accuracy_json(const Csv& csv) {
  csv.require({"ttft_ms", "tpot_ms"});
  std::vector<std::pair<std::string, Names>> groups;
  for (const char* column : {"backend", "system", "mode", "model"})
    if (const auto at = csv.find(column)) groups.emplace_back(column, Names(csv, *at));
  Json figures = Json::array();
  for (const char* figure : {"ttft", "tpot"}) {
    const std::vector<Pair> pairs = pairs_of(csv, figure);
    Json points = Json::array();
    for (size_t i = 0; i < pairs.size(); i += stride_for(pairs.size(), kMostDots)) {
      const Pair& p = pairs[i];
      Json of = Json::array();
      for (auto& [column, names] : groups) of.push_back(names.of(p.row));
      points.push_back(Json::array({csv.line(p.row), p.measured, p.predicted, p.low, p.high, of}));
    }
    figures.push_back({{"name", figure}, {"errors", errors_of(pairs)}, {"points", points}});
  }
  if (figures[0]["points"].empty() && figures[1]["points"].empty())
    throw core::Error(csv.origin() + ": has no row with a measured and a predicted time above 0");
  Json columns = Json::array();
  for (auto& [column, names] : groups) columns.push_back({{"column", column}, {"names", names.list()}});
  return {{"kind", "accuracy"}, {"rows", csv.rows()}, {"figures", figures}, {"groups", columns}};
}

}  // namespace

Json plot_json(const Csv& csv) {
  if (csv.find("predicted_ttft_ms")) return accuracy_json(csv);
  if (csv.find("time_s") && !pools_of(csv).empty()) return timeline_json(csv);
  if (csv.find("arrival_s") && csv.find("status")) return requests_json(csv);
  throw core::Error(csv.origin() +
                    ": line 1: want the columns of requests.csv (arrival_s, ttft_ms, status, ...), of timeline.csv "
                    "(time_s, worker_kv_share, ...) or of `drydock validate --out` (ttft_ms, predicted_ttft_ms, ...)");
}

}  // namespace drydock::cli
