#include "cli/db_diff_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/junit.h"

namespace drydock::cli {
namespace {

using core::Json;
using perfdb::Diff;
using perfdb::FamilyDiff;
using perfdb::Judgement;
using perfdb::RowDiff;
using perfdb::Verdict;

constexpr size_t kMostRows = 20;       // shown of those that changed most
constexpr size_t kMostFamilies = 200;  // of those that did not change
constexpr size_t kMostName = 46, kMostKey = 58;

std::string change(double log_ratio) { return fmt::format("{:+.1f}%", std::expm1(log_ratio) * 100); }
std::string width(double log_ratio) { return fmt::format("{:.1f}%", std::expm1(log_ratio) * 100); }
std::string verdict_text(const Judgement& j) {
  if (j.verdict == Verdict::slower) return "SLOWER";
  return j.verdict == Verdict::faster ? "faster" : "";
}

// Cuts between characters, so that what is left is still UTF-8.
std::string cut(std::string text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most - 3;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

// Only what tells families of this table apart.
std::string family_name(const Diff& diff, const FamilyDiff& f) {
  const auto all_have = [&](const std::string FamilyDiff::*field) {
    return std::all_of(diff.families.begin(), diff.families.end(),
                       [&](const FamilyDiff& other) { return other.*field == f.*field; });
  };
  std::string name = perfdb::op_name(f);
  if (!f.kernel.empty()) name += " " + f.kernel;
  if (!all_have(&FamilyDiff::backend)) name += " " + f.backend;
  if (!all_have(&FamilyDiff::system)) name += " " + f.system;
  return name;
}

struct WorstRow {
  const FamilyDiff* family;
  const RowDiff* row;
};

// Those beyond noise, slower ones first.
std::vector<WorstRow> worst_rows(const Diff& diff) {
  std::vector<WorstRow> out;
  for (const FamilyDiff& family : diff.families)
    for (const RowDiff& row : family.rows)
      if (row.judgement.verdict != Verdict::unchanged) out.push_back({&family, &row});
  std::stable_sort(out.begin(), out.end(), [](const WorstRow& a, const WorstRow& b) {
    return a.row->judgement.beyond_drift > b.row->judgement.beyond_drift;
  });
  return out;
}

struct Counts {
  size_t systems = 0, families = 0, faster = 0, rows = 0;
};

Counts counts_of(const Diff& diff) {
  Counts out;
  for (const auto& s : diff.systems) out.systems += s.judgement.all.verdict == Verdict::slower;
  for (const FamilyDiff& f : diff.families) {
    out.families += f.judgement.verdict == Verdict::slower;
    out.faster += f.judgement.verdict == Verdict::faster;
    for (const RowDiff& r : f.rows) out.rows += r.judgement.verdict == Verdict::slower;
  }
  return out;
}

std::string plural(size_t count, const char* one, const char* more) {
  return fmt::format("{} {}", count, count == 1 ? one : more);
}

std::string summary_line(const DiffReport& r) {
  const Counts c = counts_of(r.diff);
  std::string text = r.diff.slower ? "REGRESSION: " : "No regression: ";
  if (c.systems > 0) text += "everything on " + plural(c.systems, "system", "systems") + ", ";
  text += fmt::format("{} of {} and {} of {} slower by {:.4g}% or more beyond noise",
                      plural(c.families, "family", "families"), r.diff.families.size(), plural(c.rows, "op", "ops"),
                      r.diff.paired, r.threshold * 100);
  return text + (c.faster > 0 ? fmt::format("; {} faster", plural(c.faster, "family", "families")) : "");
}

std::string system_line(const perfdb::SystemDiff& s) {
  const auto& j = s.judgement;
  std::string text = fmt::format("{}: everything {}, noise {} between families and {} between ops", s.system,
                                 change(j.all.log_ratio), width(j.between_families), width(j.between_rows));
  if (j.all.verdict == Verdict::slower) text += "; EVERYTHING SLOWER: the machine, or what all kernels share";
  return text;
}

std::string pairing_line(const DiffReport& r) {
  return fmt::format("{} in both, {} only in the first, {} only in the second",
                     plural(static_cast<size_t>(r.diff.paired), "op", "ops"), r.diff.only_base.size(),
                     r.diff.only_new.size());
}

struct FigureRow {
  const char *name, *field;
  double (*of)(const simulator::Summary&);
};
const FigureRow kFigures[] = {
    {"TTFT mean ms", "ttft_mean_ms", [](const simulator::Summary& s) { return s.ttft_ms.mean; }},
    {"TTFT p95 ms", "ttft_p95_ms", [](const simulator::Summary& s) { return s.ttft_ms.p95; }},
    {"TPOT mean ms", "tpot_mean_ms", [](const simulator::Summary& s) { return s.tpot_ms.mean; }},
    {"TPOT p95 ms", "tpot_p95_ms", [](const simulator::Summary& s) { return s.tpot_ms.p95; }},
    {"tokens/s/GPU", "tokens_per_s_per_gpu", [](const simulator::Summary& s) { return s.output_tokens_per_s_per_gpu; }},
};

// "12.3456" as the tables show a figure and how it changed.
std::vector<std::string> figure_cells(const FigureRow& figure, const EndToEnd& e) {
  const double base = figure.of(e.base), now = figure.of(e.now);
  return {figure.name, human(base), human(now), base > 0 ? fmt::format("{:+.1f}%", (now / base - 1) * 100) : "-"};
}

std::string saturated_line(const EndToEnd& e) {
  if (!e.base.saturated && !e.now.saturated) return "";
  return fmt::format("Saturated {}: requests come faster than they are served; want a lower --rate.\n",
                     e.base.saturated && e.now.saturated ? "before and after"
                     : e.base.saturated                  ? "before"
                                                         : "after");
}

std::vector<std::string> family_cells(const Diff& diff, const FamilyDiff& f) {
  const Judgement& j = f.judgement;
  return {family_name(diff, f), std::to_string(f.rows.size()),
          change(j.log_ratio),  change(j.beyond_drift),
          width(j.noise),       verdict_text(j)};
}

std::vector<std::string> row_cells(const RowDiff& r) {
  return {human(r.base_us), human(r.new_us), change(r.judgement.log_ratio), verdict_text(r.judgement), core::key(r.op)};
}

std::string families_text(const Diff& diff) {
  Table table({"family", "ops", "change", "beyond drift", "noise", ""}, "lrrrrl");
  size_t left_out = 0;
  for (size_t i = 0; i < diff.families.size(); ++i) {
    if (i >= kMostFamilies && diff.families[i].judgement.verdict == Verdict::unchanged) {
      ++left_out;
      continue;
    }
    std::vector<std::string> cells = family_cells(diff, diff.families[i]);
    cells.front() = cut(cells.front(), kMostName);
    table.row(cells);
  }
  return table.text() + (left_out > 0 ? fmt::format("  {} more, unchanged; --json has all\n", left_out) : "");
}

std::string rows_text(const Diff& diff) {
  const std::vector<WorstRow> worst = worst_rows(diff);
  if (worst.empty()) return "";
  Table table({"us before", "after", "change", "", "op"}, "rrrll");
  for (size_t i = 0; i < std::min(worst.size(), kMostRows); ++i) {
    std::vector<std::string> cells = row_cells(*worst[i].row);
    cells.back() = cut(cells.back(), kMostKey);
    table.row(cells);
  }
  return "\nSingle ops beyond noise:\n" + table.text() +
         (worst.size() > kMostRows ? fmt::format("  {} more; --json has all\n", worst.size() - kMostRows) : "");
}

std::string end_to_end_text(const EndToEnd& e) {
  Table table({"", "before", "after", "change"}, "lrrr");
  for (const FigureRow& figure : kFigures) table.row(figure_cells(figure, e));
  return fmt::format("\n{}\n{}\n{}{}", cut(e.plan, 100), cut(e.load, 100), table.text(), saturated_line(e));
}

// A cell of a Markdown table: code, so that nothing in it is markup but what ends the cell or the code.
std::string code(std::string text) {
  std::replace(text.begin(), text.end(), '`', '\'');
  std::string out;
  for (const char c : text) (out += c == '|' ? "\\" : "") += c;
  return "`" + out + "`";
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) out += " " + cell + " |";
  return out + "\n";
}

Json judgement_json(const Judgement& j) {
  return {{"verdict", perfdb::name(j.verdict)},
          {"change", std::expm1(j.log_ratio)},
          {"beyond_drift", std::expm1(j.beyond_drift)},
          {"noise", std::expm1(j.noise)},
          {"slower_rate", j.slower_rate},
          {"faster_rate", j.faster_rate}};
}

Json family_json(const FamilyDiff& f) {
  Json out = {{"op", perfdb::op_name(f)}, {"system", f.system}, {"backend", f.backend}, {"kernel", f.kernel}};
  out.update(judgement_json(f.judgement));
  Json rows = Json::array();
  for (const RowDiff& r : f.rows) {
    Json row = {{"op", core::key(r.op)}, {"base_us", r.base_us}, {"new_us", r.new_us}};
    row.update(judgement_json(r.judgement));
    rows.push_back(std::move(row));
  }
  out["rows"] = std::move(rows);
  return out;
}

Json lonely_json(const std::vector<perfdb::Measurement>& rows) {
  Json out = Json::array();
  for (const perfdb::Measurement& m : rows)
    out.push_back({{"op", core::key(m.op)},
                   {"system", m.origin.system},
                   {"backend", m.origin.backend},
                   {"kernel", m.origin.kernel},
                   {"latency_us", m.latency_us}});
  return out;
}

Json end_to_end_json(const EndToEnd& e) {
  Json out = {{"plan", e.plan}, {"load", e.load}};
  for (const FigureRow& figure : kFigures)
    out[figure.field] = {{"before", figure.of(e.base)}, {"after", figure.of(e.now)}};
  out["saturated"] = {{"before", e.base.saturated}, {"after", e.now.saturated}};
  return out;
}

}  // namespace

std::string differences_text(const Diff& diff) {
  constexpr size_t kMost = 3, kMostText = 60;
  std::string out;
  for (size_t i = 0; i < std::min(diff.differences.size(), kMost); ++i) {
    const perfdb::OriginDifference& d = diff.differences[i];
    out +=
        fmt::format("{}{} '{}' against '{}' in {} of {}", out.empty() ? "" : "; ", d.field, cut(d.base_text, kMostText),
                    cut(d.new_text, kMostText), plural(static_cast<size_t>(d.rows), "row", "rows"), d.system);
  }
  return diff.differences.size() > kMost ? out + fmt::format("; {} more", diff.differences.size() - kMost) : out;
}

std::string diff_text(const DiffReport& r) {
  std::string out = fmt::format("{}\n{} -> {}\n{}\n", summary_line(r), r.base_file, r.new_file, pairing_line(r));
  for (const perfdb::SystemDiff& s : r.diff.systems) out += system_line(s) + "\n";
  if (!r.diff.differences.empty()) out += "Allowed to differ: " + differences_text(r.diff) + "\n";
  out += "\n" + families_text(r.diff) + rows_text(r.diff);
  return r.end_to_end ? out + end_to_end_text(*r.end_to_end) : out;
}

std::string diff_markdown(const DiffReport& r) {
  std::string out = fmt::format("### Kernel times\n\n**{}**\n\n{}\n\n", summary_line(r), pairing_line(r));
  for (const perfdb::SystemDiff& s : r.diff.systems) out += "- " + system_line(s) + "\n";
  if (!r.diff.differences.empty()) out += "- allowed to differ: " + code(differences_text(r.diff)) + "\n";
  out += "\n" + markdown_row({"family", "ops", "change", "beyond drift", "noise", ""}) + "|---|--:|--:|--:|--:|---|\n";
  for (size_t i = 0; i < std::min(r.diff.families.size(), kMostFamilies); ++i) {
    std::vector<std::string> cells = family_cells(r.diff, r.diff.families[i]);
    cells.front() = code(cells.front());
    out += markdown_row(cells);
  }
  const std::vector<WorstRow> worst = worst_rows(r.diff);
  if (!worst.empty())
    out += "\n" + markdown_row({"us before", "after", "change", "", "op"}) + "|--:|--:|--:|---|---|\n";
  for (size_t i = 0; i < std::min(worst.size(), kMostRows); ++i) {
    std::vector<std::string> cells = row_cells(*worst[i].row);
    cells.back() = code(cells.back());
    out += markdown_row(cells);
  }
  if (!r.end_to_end) return out;
  out += fmt::format("\n{}, {}\n\n", code(r.end_to_end->plan), r.end_to_end->load) +
         markdown_row({"", "before", "after", "change"}) + "|---|--:|--:|--:|\n";
  for (const FigureRow& figure : kFigures) out += markdown_row(figure_cells(figure, *r.end_to_end));
  return out + (saturated_line(*r.end_to_end).empty() ? "" : "\n" + saturated_line(*r.end_to_end));
}

std::string diff_junit(const DiffReport& r) {
  std::vector<JunitCase> cases;
  for (const perfdb::SystemDiff& s : r.diff.systems) {
    const bool failed = s.judgement.all.verdict == Verdict::slower;
    const std::string line = system_line(s);
    cases.push_back({s.system, "everything", line, failed ? line : ""});
  }
  for (const FamilyDiff& f : r.diff.families) {
    JunitCase one{f.system + "." + f.backend, perfdb::op_name(f) + (f.kernel.empty() ? "" : " " + f.kernel), "", ""};
    one.output =
        fmt::format("{} as measured, {} beyond drift, noise {}, {}\n", change(f.judgement.log_ratio),
                    change(f.judgement.beyond_drift), width(f.judgement.noise), plural(f.rows.size(), "op", "ops"));
    size_t slower = 0;
    for (const RowDiff& row : f.rows) {
      if (row.judgement.verdict != Verdict::slower) continue;
      if (++slower <= kMostRows)
        one.output += fmt::format("{}: {} -> {} us, {}\n", core::key(row.op), human(row.base_us), human(row.new_us),
                                  change(row.judgement.log_ratio));
    }
    if (f.judgement.verdict == Verdict::slower)
      one.failure = change(f.judgement.beyond_drift) + ", slower beyond noise";
    else if (slower > 0)
      one.failure = plural(slower, "op", "ops") + " slower beyond noise";
    cases.push_back(std::move(one));
  }
  return junit_xml("drydock db diff", cases);
}

Json diff_json(const DiffReport& r) {
  Json systems = Json::array(), families = Json::array(), differences = Json::array();
  for (const perfdb::SystemDiff& s : r.diff.systems)
    systems.push_back({{"system", s.system},
                       {"verdict", perfdb::name(s.judgement.all.verdict)},
                       {"change", std::expm1(s.judgement.all.log_ratio)},
                       {"drift", std::expm1(s.judgement.drift)},
                       {"noise_between_families", std::expm1(s.judgement.between_families)},
                       {"noise_between_ops", std::expm1(s.judgement.between_rows)}});
  for (const FamilyDiff& f : r.diff.families) families.push_back(family_json(f));
  for (const perfdb::OriginDifference& d : r.diff.differences)
    differences.push_back(
        {{"system", d.system}, {"field", d.field}, {"base", d.base_text}, {"new", d.new_text}, {"rows", d.rows}});
  Json out = {{"base", r.base_file},
              {"new", r.new_file},
              {"threshold", r.threshold},
              {"regression", r.diff.slower},
              {"paired", r.diff.paired},
              {"systems", systems},
              {"families", families},
              {"only_base", lonely_json(r.diff.only_base)},
              {"only_new", lonely_json(r.diff.only_new)},
              {"differences", differences}};
  if (r.end_to_end) out["end_to_end"] = end_to_end_json(*r.end_to_end);
  return out;
}

}  // namespace drydock::cli
