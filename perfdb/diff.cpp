#include "perfdb/diff.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace drydock::perfdb {
namespace {

// Ordered so that a family's ops follow one another.
struct DiffKey {
  std::string system, backend, kernel;
  core::Op op;

  auto family() const { return std::tie(system, backend, kernel, op.kind, op.dtype, op.kv_dtype); }
  auto operator<=>(const DiffKey&) const = default;
};
using Rows = std::map<DiffKey, Measurement>;

// The bundled runtime takes the fastest kernel of an op: which one that was is an outcome, no question of its own.
std::string compared_kernel(const Origin& origin) { return origin.backend == "drydock" ? "" : origin.kernel; }

Rows rows_of(const Database& database) {
  Rows out;
  database.read({}, [&](const Measurement& m) {
    const auto [row, is_new] =
        out.try_emplace(DiffKey{m.origin.system, m.origin.backend, compared_kernel(m.origin), m.op}, m);
    const bool of_same_day = row->second.origin.date == m.origin.date && row->second.origin.kernel != m.origin.kernel;
    if (!is_new && (!of_same_day || m.latency_us < row->second.latency_us)) row->second = m;
  });
  return out;
}

// Standard error of the median as a share of it: 1.2533 is sqrt(pi / 2), by which a median of normal samples is less
// certain than their mean, 1.349 their interquartile range over their standard deviation. 0: not known.
double relative_error(const Measurement& m) {
  if (m.spread_us <= 0 || m.samples < 2) return 0;
  return 1.2533 * m.spread_us / 1.349 / std::sqrt(static_cast<double>(m.samples)) / m.latency_us;
}

RowShift shift_of(const Measurement& base, const Measurement& now) {
  const double a = relative_error(base), b = relative_error(now);
  return {std::log(now.latency_us / base.latency_us), a > 0 && b > 0 ? std::hypot(a, b) : 0};
}

class Pairing {
 public:
  Pairing(const Rows& base, const Rows& now) {
    auto a = base.begin();
    auto b = now.begin();
    while (a != base.end() || b != now.end()) {
      if (b == now.end() || (a != base.end() && a->first < b->first))
        out_.only_base.push_back((a++)->second);
      else if (a == base.end() || b->first < a->first)
        out_.only_new.push_back((b++)->second);
      else {
        pair(a->first, a->second, b->second);
        ++a, ++b;
      }
    }
    for (auto& [key, difference] : differences_) out_.differences.push_back(std::move(difference));
  }

  Diff judged(double threshold) {
    const ShiftJudgement judgement = judge_shifts(shifts_, out_.systems.size(), threshold);
    for (size_t i = 0; i < out_.systems.size(); ++i) out_.systems[i].judgement = judgement.machines[i];
    for (size_t i = 0; i < out_.families.size(); ++i) {
      FamilyDiff& family = out_.families[i];
      family.judgement = judgement.families[i];
      for (size_t r = 0; r < family.rows.size(); ++r) family.rows[r].judgement = judgement.rows[i][r];
      sort(family.rows);
    }
    sort(out_.families);
    out_.slower = judgement.slower();
    return std::move(out_);
  }

 private:
  void pair(const DiffKey& key, const Measurement& base, const Measurement& now) {
    if (out_.systems.empty() || out_.systems.back().system != key.system) out_.systems.push_back({key.system, {}});
    if (!last_ || last_->family() != key.family()) {
      out_.families.push_back(
          {key.system, key.backend, key.kernel, key.op.kind, key.op.dtype, key.op.kv_dtype, {}, {}});
      shifts_.push_back({out_.systems.size() - 1, {}});
    }
    last_ = &key;
    out_.families.back().rows.push_back({key.op, base.latency_us, now.latency_us, {}});
    shifts_.back().rows.push_back(shift_of(base, now));
    ++out_.paired;
    compare(key.system, "gpu", base.origin.gpu, now.origin.gpu);
    compare(key.system, "driver", base.origin.driver, now.origin.driver);
    compare(key.system, "clocks", base.origin.clocks, now.origin.clocks);
  }

  void compare(const std::string& system, const char* field, const std::string& base, const std::string& now) {
    if (base == now) return;
    OriginDifference& difference = differences_[{system, field, base, now}];
    difference = {system, field, base, now, difference.rows + 1};
  }

  template <typename Judged>
  static void sort(std::vector<Judged>& judged) {
    std::stable_sort(judged.begin(), judged.end(), [](const Judged& a, const Judged& b) {
      const bool a_slower = a.judgement.verdict == Verdict::slower, b_slower = b.judgement.verdict == Verdict::slower;
      return a_slower != b_slower ? a_slower : a.judgement.beyond_drift > b.judgement.beyond_drift;
    });
  }

  Diff out_;
  std::vector<FamilyRows> shifts_;
  const DiffKey* last_ = nullptr;
  std::map<std::tuple<std::string, std::string, std::string, std::string>, OriginDifference> differences_;
};

}  // namespace

Diff diff(const Database& base, const Database& now, double threshold) {
  const Rows base_rows = rows_of(base), new_rows = rows_of(now);
  return Pairing(base_rows, new_rows).judged(threshold);
}

std::string op_name(const FamilyDiff& family) {
  const std::string key = core::key(core::Op{family.kind, family.dtype, family.kv_dtype, {}});
  return key.substr(0, key.find('/', key.find('/') + 1));
}

}  // namespace drydock::perfdb
