#include "cli/sweep_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "cli/answer.h"
#include "cli/command.h"
#include "core/csv.h"
#include "models/plan.h"

namespace drydock::cli {
namespace {

using configurator::SweepStore;
using core::Json;

constexpr size_t kSweepColumns = 100;

// A plan's figures as the targets are held against: at the percentile where there is one.
struct SweepFigures {
  models::Plan plan;
  core::Figure ttft_ms, tpot_ms;
  std::string workers, batch;
};

SweepFigures figures_of(const Json& plan) {
  SweepFigures out{models::parse_plan(plan.dump(), "stored plan"), {}, {}, {}, {}};
  if (!out.plan.prediction) throw core::Error("stored plan: field 'prediction': missing");
  const models::Prediction& p = *out.plan.prediction;
  out.ttft_ms = p.tail ? p.tail->ttft_ms : p.ttft_ms;
  out.tpot_ms = p.tail ? p.tail->tpot_ms : p.tpot_ms;
  for (const models::Pool& pool : out.plan.pools) {
    out.workers += (out.workers.empty() ? "" : " + ") + pool_text(pool);
    out.batch += (out.batch.empty() ? "" : "/") + std::to_string(pool.max_batch);
  }
  return out;
}

// The plan that met the targets, or the nearest.
const Json* stored_plan(const Json& answer) {
  for (const char* field : {"plan", "nearest"})
    if (answer.contains(field)) return &answer[field];
  return nullptr;
}

std::string cut_cell(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most - 1;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // a character of several bytes is kept whole
  return text.substr(0, end) + "~";
}

// Names differ at both ends.
std::string cut_middle(const std::string& text, size_t most) {
  if (text.size() <= most || most < 5) return cut_cell(text, most);
  const size_t tail = (most - 1) / 2;
  size_t begin = text.size() - tail;
  while (begin < text.size() && (text[begin] & 0xC0) == 0x80) ++begin;
  return cut_cell(text, most - tail) + text.substr(begin);
}

// The name that tells a model from its neighbours: what follows the last slash.
std::string last_part(const std::string& name) {
  const size_t at = name.find_last_of('/');
  return at == std::string::npos || at + 1 == name.size() ? name : name.substr(at + 1);
}

// One list of the sweep: its field there, its field in an answer and its heading.
struct SweepAxis {
  const char *list, *field, *heading;
};
constexpr SweepAxis kSweepAxes[] = {{"models", "model", "model"},       {"systems", "system", "system"},
                                    {"precision", "precision", "prec"}, {"backend", "backend", "asked"},
                                    {"gpus", "gpus", "at most"},        {"workloads", "workload", "workload"},
                                    {"slos", "slo", "targets"}};

std::string axis_text(const Json& answer, const SweepAxis& axis) {
  const Json& value = answer.at(axis.field);
  std::string text = value.is_string() ? last_part(value.get<std::string>()) : value.dump();
  if (std::string_view(axis.field) == "system" && answer.contains("decode_system"))
    text += "+" + last_part(answer["decode_system"].get<std::string>());
  return text;
}

// Those with a choice.
std::vector<SweepAxis> varying(const Json& sweep) {
  std::vector<SweepAxis> out;
  for (const SweepAxis& axis : kSweepAxes)
    if (sweep.at(axis.list).size() > 1) out.push_back(axis);
  return out;
}

// Cuts the cells of the first columns, the widest column first, until these have room beside the figures.
void fit_axes(std::vector<std::vector<std::string>>& rows, size_t axes) {
  constexpr size_t kAxesRoom = 50;
  std::vector<size_t> widths(axes);
  for (const auto& row : rows)
    for (size_t i = 0; i < axes; ++i) widths[i] = std::max(widths[i], row[i].size());
  while (std::accumulate(widths.begin(), widths.end(), 2 * axes) > kAxesRoom)
    --*std::max_element(widths.begin(), widths.end());
  for (auto& row : rows)
    for (size_t i = 0; i < axes; ++i) row[i] = cut_middle(row[i], widths[i]);
}

std::string constants_text(const Json& sweep, const Json& first) {
  std::string out;
  for (const SweepAxis& axis : kSweepAxes)
    if (sweep.at(axis.list).size() == 1 && std::string_view(axis.field) != "backend")
      out += fmt::format("{}{} {}", out.empty() ? "" : ", ", axis.heading, cut_cell(axis_text(first, axis), 40));
  return out.empty() ? "" : out + "\n";
}

// Adds the figures' cells, and returns the text of the last column.
std::string put_figures(const Json& answer, std::vector<std::string>& cells) {
  if (answer.value("status", "") != "met") {
    cells.insert(cells.end(), 4, "-");
    return answer.value("status", "") + ": " + answer.value("reason", "");
  }
  const SweepFigures f = figures_of(answer.at("plan"));
  cells.insert(cells.end(), {std::to_string(f.plan.gpus()), human(f.plan.prediction->tokens_per_s_per_gpu.value),
                             human(f.ttft_ms.value), human(f.tpot_ms.value)});
  return fmt::format("{} {}", models::name(f.plan.backend), f.workers);
}

// The lines of `text`, each with its own last column in what room there is left.
std::string with_last_column(const std::string& text, const std::vector<std::string>& last) {
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  size_t widest = 0;
  for (const std::string& line : lines) widest = std::max(widest, line.size());
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i)
    out += lines[i] + std::string(widest + 2 - lines[i].size(), ' ') +
           cut_cell(last[i], kSweepColumns - std::min(kSweepColumns - 10, widest + 2)) + "\n";
  return out;
}

void csv_figure(std::string& line, const core::Figure& f) {
  line += fmt::format(",{:.6g},{:.6g},{:.6g}", f.value, f.low, f.high);
}

std::string csv_row(const Json& answer) {
  std::string line = answer.at("item").dump();
  const auto add = [&](const std::string& text) { line += "," + core::csv_field(text); };
  for (const char* field : {"model", "system", "decode_system", "precision", "backend"})
    add(answer.value(field, std::string()));
  line += "," + answer.at("gpus").dump();
  for (const char* field : {"workload", "slo", "status", "reason"}) add(answer.value(field, std::string()));
  add(answer.contains("binding") ? answer["binding"].value("target", std::string()) : "");
  line += answer.contains("binding") ? fmt::format(",{:.6g}", answer["binding"].value("share_of_target", 0.0)) : ",";
  const Json* plan = stored_plan(answer);
  constexpr int kPlanColumns = 24;
  if (!plan) return line + std::string(kPlanColumns, ',') + "\n";
  const SweepFigures f = figures_of(*plan);
  const models::Prediction& p = *f.plan.prediction;
  line += fmt::format(",{},{},{}", models::name(f.plan.backend), models::name(f.plan.mode), f.plan.gpus());
  add(f.workers);
  add(f.batch);
  line += p.tail ? fmt::format(",{:g}", p.tail->percentile) : ",";
  for (const core::Figure& figure :
       {f.ttft_ms, f.tpot_ms, p.tokens_per_s_per_gpu, p.tokens_per_s_per_user, p.requests_per_s})
    csv_figure(line, figure);
  if (p.cost_per_million_tokens)
    csv_figure(line, *p.cost_per_million_tokens);
  else
    line += ",,,";
  return line + "\n";
}

}  // namespace

std::string sweep_table(const SweepStore& store) {
  const Json& sweep = store.sweep();
  const std::vector<SweepAxis> axes = varying(sweep);
  std::vector<std::vector<std::string>> rows(1);
  std::vector<std::string> last{"plan, or why there is none"};
  std::string right, out;
  for (const SweepAxis& axis : axes) {
    rows[0].emplace_back(axis.heading);
    right += std::string_view(axis.field) == "gpus" ? 'r' : 'l';
  }
  for (const char* name : {"GPUs", "tok/s/GPU", "TTFT", "TPOT"}) rows[0].emplace_back(name), right += 'r';
  store.each([&](int64_t, const Json& answer) {
    if (rows.size() == 1) out = constants_text(sweep, answer);
    std::vector<std::string>& cells = rows.emplace_back();
    for (const SweepAxis& axis : axes) cells.push_back(axis_text(answer, axis));
    last.push_back(put_figures(answer, cells));
  });
  fit_axes(rows, axes.size());
  Table table(rows[0], right);
  for (size_t i = 1; i < rows.size(); ++i) table.row(rows[i]);
  return out + with_last_column(table.text(""), last);
}

std::string sweep_csv(const SweepStore& store) {
  std::string out =
      "item,model,system,decode_system,precision,backend_asked,gpus_asked,workload,slo,status,reason,binding,"
      "share_of_target,backend,mode,gpus,workers,max_batch,percentile";
  for (const char* figure : {"ttft_ms", "tpot_ms", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "requests_per_s",
                             "cost_per_million_tokens"})
    out += fmt::format(",{0},{0}_low,{0}_high", figure);
  out += "\n";
  store.each([&](int64_t, const Json& answer) { out += csv_row(answer); });
  return out;
}

Json sweep_answers_json(const SweepStore& store) {
  Json items = Json::array();
  store.each([&](int64_t, const Json& answer) { items.push_back(answer); });
  return {{"sweep", store.sweep()}, {"basis", store.basis()}, {"answered", store.count()}, {"items", std::move(items)}};
}

Json sweep_counts(const SweepStore& store) {
  Json counts = {{"met", 0}, {"missed", 0}, {"impossible", 0}, {"refused", 0}};
  store.each([&](int64_t, const Json& answer) {
    const std::string status = answer.value("status", "");
    if (counts.contains(status)) counts[status] = counts[status].get<int64_t>() + 1;
  });
  return counts;
}

std::string sweep_counts_text(const Json& counts) {
  std::string out;
  for (const auto& [status, n] : counts.items())
    if (n.get<int64_t>() > 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", n.get<int64_t>(), status);
  return out.empty() ? "none answered" : out;
}

}  // namespace drydock::cli
