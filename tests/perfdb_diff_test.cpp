#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/random.h"
#include "perfdb/diff.h"

using namespace drydock;
using namespace drydock::perfdb;
namespace fs = std::filesystem;

namespace {

const Origin kOrigin = {"h200_sxm", "trtllm", "1.0", "H200", "570", "1980", "cublas", "2026-01-01", "test"};

core::Op diff_gemm(int64_t m) {
  return core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8, {m, 64, 64});
}
core::Op attention(int64_t context) {
  return core::make_op(core::OpKind::decode_attention, core::Dtype::bf16, core::Dtype::fp8, {1, context, 8, 1, 128, 0});
}

// Two databases in a folder that goes away with the test.
struct Pair {
  Pair() : folder(fs::temp_directory_path() / ("drydock_diff_" + std::to_string(::getpid()))) {
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  ~Pair() { fs::remove_all(folder); }
  Diff of(const std::vector<Measurement>& base, const std::vector<Measurement>& now) const {
    return diff(filled("base.db", base), filled("new.db", now), 0.03);
  }
  Database filled(const char* name, const std::vector<Measurement>& rows) const {
    fs::remove(folder / name);
    Database database = Database::open(folder / name, Access::create);
    database.write([&](const auto& add) {
      for (const Measurement& m : rows) add(m);
    });
    return database;
  }

  fs::path folder;
};

// 24 GEMMs and 24 attentions, 0.5 % of noise from run to run.
std::vector<Measurement> run_of(uint64_t seed, double gemm_factor = 1, Origin origin = kOrigin) {
  core::Random random(seed);
  std::vector<Measurement> out;
  for (int64_t i = 1; i <= 24; ++i) {
    const auto base_us = static_cast<double>(10 + i);
    out.push_back({diff_gemm(i), origin, base_us * gemm_factor * (1 + 0.005 * random.normal()), 0.02 * base_us, 20});
    origin.kernel = "xqa";
    out.push_back({attention(i), origin, base_us * (1 + 0.005 * random.normal()), 0.02 * base_us, 20});
    origin.kernel = kOrigin.kernel;
  }
  return out;
}

}  // namespace

TEST_CASE("two runs of the same code differ by noise alone") {
  const Pair pair;
  const Diff d = pair.of(run_of(1), run_of(2));
  CHECK(!d.slower);
  CHECK(d.paired == 48);
  CHECK(d.systems.size() == 1);
  REQUIRE(d.families.size() == 2);
  CHECK(d.families[0].rows.size() == 24);
  CHECK(d.only_base.empty());
  CHECK(d.only_new.empty());
  CHECK(d.differences.empty());
}

TEST_CASE("a family that got slower comes first, its slowest op first") {
  const Pair pair;
  std::vector<Measurement> now = run_of(2, 1.08);
  now[10].latency_us *= 1.5;  // gemm(6)
  const Diff d = pair.of(run_of(1), now);
  CHECK(d.slower);
  CHECK(op_name(d.families[0]) == "gemm/fp8");
  CHECK(d.families[0].kernel == "cublas");
  CHECK(d.families[0].judgement.verdict == Verdict::slower);
  // Medians of 24 ratios with 0.7 % of noise each are known to 0.2 %.
  CHECK(std::expm1(d.families[0].judgement.log_ratio) == doctest::Approx(0.08).epsilon(0.1));
  CHECK(d.families[0].rows[0].op == diff_gemm(6));
  CHECK(d.families[0].rows[0].judgement.verdict == Verdict::slower);
  CHECK(op_name(d.families[1]) == "decode_attention/bf16+fp8");
  CHECK(d.families[1].judgement.verdict == Verdict::unchanged);
}

TEST_CASE("only rows of one system, backend and kernel are a pair; the rest is listed") {
  const Pair pair;
  const auto with = [](std::string Origin::*field, const char* text) {
    Origin o = kOrigin;
    o.*field = text;
    return Measurement{diff_gemm(1), o, 10, 0.2, 20};
  };
  const Measurement plain{diff_gemm(1), kOrigin, 10, 0.2, 20};
  for (const auto field : {&Origin::system, &Origin::backend, &Origin::kernel}) {
    const Diff d = pair.of({plain, with(field, "other")}, {plain, with(field, "another")});
    CHECK(d.paired == 1);
    REQUIRE(d.only_base.size() == 1);
    CHECK(d.only_base[0].origin.*field == "other");
    REQUIRE(d.only_new.size() == 1);
    CHECK(d.only_new[0].origin.*field == "another");
  }
  for (const auto field : {&Origin::version, &Origin::date, &Origin::source}) {
    const Diff d = pair.of({plain}, {with(field, "2027-01-01")});
    CHECK(d.paired == 1);
    CHECK(d.differences.empty());
  }
  CHECK(pair.of({plain}, {with(&Origin::kernel, "other")}).paired == 0);
}

TEST_CASE("of several campaigns in one database the latest counts") {
  const Pair pair;
  Measurement old{diff_gemm(1), kOrigin, 10, 0.2, 20}, late = old;
  late.origin.date = "2026-02-01";
  late.latency_us = 20;
  const Diff d = pair.of({late, old}, {old});
  REQUIRE(d.paired == 1);
  CHECK(d.families[0].rows[0].base_us == 20);
  CHECK(d.families[0].rows[0].new_us == 10);
}

TEST_CASE("what the rows were measured on is compared") {
  const Pair pair;
  Origin other = kOrigin;
  other.driver = "575";
  other.clocks = "";
  const Diff d = pair.of(run_of(1), run_of(2, 1, other));
  REQUIRE(d.differences.size() == 2);
  CHECK(d.differences[0].field == "clocks");
  CHECK(d.differences[0].base_text == "1980");
  CHECK(d.differences[0].new_text == "");
  CHECK(d.differences[0].rows == 48);
  CHECK(d.differences[1].field == "driver");
  CHECK(d.differences[1].system == "h200_sxm");
}

TEST_CASE("systems are judged apart") {
  const Pair pair;
  Origin other = kOrigin;
  other.system = "h100_sxm";
  std::vector<Measurement> base = run_of(1), now = run_of(2);
  for (const Measurement& m : run_of(3, 1, other)) base.push_back(m);
  for (const Measurement& m : run_of(4, 1.2, other)) now.push_back(m);
  const Diff d = pair.of(base, now);
  REQUIRE(d.systems.size() == 2);
  CHECK(d.systems[0].system == "h100_sxm");
  CHECK(d.families.size() == 4);
  CHECK(d.families[0].system == "h100_sxm");
  CHECK(op_name(d.families[0]) == "gemm/fp8");
  CHECK(d.families[0].judgement.verdict == Verdict::slower);
  CHECK(d.families[1].judgement.verdict == Verdict::unchanged);
}

TEST_CASE("rows without spread or samples are compared with what rows vary by elsewhere") {
  const Pair pair;
  std::vector<Measurement> base = run_of(1), now = run_of(2), slow = run_of(2, 1.1);
  for (std::vector<Measurement>* rows : {&base, &now, &slow})
    for (Measurement& m : *rows) m.spread_us = 0, m.samples = 0;
  CHECK(!pair.of(base, now).slower);
  CHECK(pair.of(base, slow).slower);
}

TEST_CASE("the same rows in another order give the same answer") {
  const Pair pair;
  std::vector<Measurement> base = run_of(1), now = run_of(2, 1.05);
  const Diff a = pair.of(base, now);
  std::reverse(base.begin(), base.end());
  std::reverse(now.begin(), now.end());
  const Diff b = pair.of(base, now);
  REQUIRE(a.families.size() == b.families.size());
  for (size_t i = 0; i < a.families.size(); ++i) {
    CHECK(a.families[i].judgement.slower_rate == b.families[i].judgement.slower_rate);
    for (size_t r = 0; r < a.families[i].rows.size(); ++r) CHECK(a.families[i].rows[r].op == b.families[i].rows[r].op);
  }
}

TEST_CASE("of the bundled runtime ops pair, whichever kernel was the fastest") {
  const Pair pair;
  Origin ours = kOrigin;
  ours.backend = "drydock";
  const std::vector<Measurement> base = run_of(1, 1, ours);
  std::vector<Measurement> now = run_of(2, 1, ours);
  for (size_t i = 0; i < now.size(); i += 3) now[i].origin.kernel = "another";
  const Diff same = pair.of(base, now);
  CHECK(same.paired == 48);
  CHECK(same.families.size() == 2);  // of GEMMs and of attentions
  CHECK(same.families[0].kernel == "");
  // Of an engine's tables a kernel is what was asked for.
  std::vector<Measurement> theirs = run_of(2);
  theirs[0].origin.kernel = "another";
  CHECK(pair.of(run_of(1), theirs).only_new.size() == 1);
}
