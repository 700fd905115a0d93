#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "perfdb/features.h"
#include "perfdb/fit.h"
#include "perfdb/kernel_times.h"

namespace drydock::perfdb {
namespace {

using core::Dtype;
using core::Op;
using core::OpKind;
using core::Provenance;

core::Hardware h200(const char* name = "h200_sxm") {
  core::Hardware hardware;
  hardware.name = name;
  hardware.architecture = "hopper";
  hardware.sm_version = 90;
  hardware.sms = 132;
  hardware.memory_bytes_per_s = 4.8e12;
  hardware.flops_per_s[static_cast<size_t>(Dtype::bf16)] = 989.4e12;
  hardware.flops_per_s[static_cast<size_t>(Dtype::fp8)] = 1978.9e12;
  hardware.flops_per_s[static_cast<size_t>(Dtype::fp8_block)] = 1978.9e12;
  hardware.nvlink_bytes_per_s = 450e9;
  hardware.nvlink_domain = 8;
  hardware.pcie_bytes_per_s = 64e9;
  hardware.network_bytes_per_s = 50e9;
  return hardware;
}

Op gemm(int64_t m, int64_t n, int64_t k, Dtype dtype = Dtype::bf16) {
  return core::make_op(OpKind::gemm, dtype, dtype, {m, n, k});
}

// A database of one surface: every GEMM of `backend` takes `factor` times the baseline.
class OneSurface {
 public:
  explicit OneSurface(double factor, const char* backend = "trtllm", const char* system = "h200_sxm")
      : folder_(std::filesystem::temp_directory_path() / ("drydock_kt_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::vector<Sample> samples;
    for (int64_t m = 1; m <= 1024; m *= 2)
      for (int64_t n = 512; n <= 8192; n *= 2)
        for (int64_t k = 512; k <= 8192; k *= 2)
          samples.push_back({gemm(m, n, k), factor * baseline_us(gemm(m, n, k), h200(system))});
    database().write(fit_surfaces(samples, h200(system), backend, "1.2").surfaces);
  }
  OneSurface(const OneSurface&) = delete;
  OneSurface& operator=(const OneSurface&) = delete;
  ~OneSurface() { std::filesystem::remove_all(folder_); }

  Database database() const { return Database::open(folder_ / "test.db", Access::create); }

  void measure(const Op& op, double latency_us, double spread_us) const {
    Measurement row;
    row.op = op;
    row.origin.system = "h200_sxm";
    row.origin.backend = "trtllm";
    row.origin.version = "1.2";
    row.latency_us = latency_us;
    row.spread_us = spread_us;
    database().write([&](const auto& add) { add(row); });
  }

 private:
  std::filesystem::path folder_;
};

bool ordered(const KernelTime& time) {
  return time.low_us > 0 && time.low_us <= time.latency_us && time.latency_us <= time.high_us &&
         std::isfinite(time.high_us);
}

}  // namespace

TEST_CASE("inside a surface of its own the answer is interpolated") {
  const OneSurface files(1.25);
  const KernelTimes times(files.database(), h200(), "trtllm");
  const KernelTime time = times.of(gemm(96, 3000, 700));
  // The surface is flat at ln 1.25, stored in steps of 0.004: within 0.2 %, and the fit adds as much at most.
  CHECK(time.latency_us == doctest::Approx(1.25 * baseline_us(gemm(96, 3000, 700), h200())).epsilon(0.005));
  CHECK(time.provenance == Provenance::interpolated);
  CHECK(ordered(time));
  CHECK(times.version() == "1.2");
  CHECK(times.borrowed_from().empty());
}

TEST_CASE("beyond the surface the roofline is followed with a wider band") {
  const OneSurface files(1.25);
  const KernelTimes times(files.database(), h200(), "trtllm");
  const Op far = gemm(16384, 8192, 8192);
  const KernelTime time = times.of(far), inside = times.of(gemm(1024, 8192, 8192));
  CHECK(time.provenance == Provenance::extrapolated);
  CHECK(time.latency_us == doctest::Approx(1.25 * baseline_us(far, h200())).epsilon(0.005));
  // Four octaves out at 0.1 each.
  CHECK(std::log(time.high_us / time.latency_us) ==
        doctest::Approx(std::log(inside.high_us / inside.latency_us) + 0.4).epsilon(0.01));
}

TEST_CASE("no answer is faster than 0.7 of the roofline") {
  const OneSurface files(0.1);
  const KernelTimes times(files.database(), h200(), "trtllm");
  const Op op = gemm(1024, 8192, 8192);
  CHECK(times.of(op).latency_us == doctest::Approx(0.7 * core::roofline_us(op, h200())));
}

TEST_CASE("a measured op is answered as measured, its neighbours are not") {
  const OneSurface files(1.25);
  files.measure(gemm(64, 4096, 4096), 77.0, 2.0);
  const KernelTimes times(files.database(), h200(), "trtllm");
  const KernelTime time = times.of(gemm(64, 4096, 4096));
  CHECK(time.latency_us == 77.0);
  CHECK(time.provenance == Provenance::measured);
  // An interquartile range of 2 is a 10..90 % range of 3.8.
  CHECK(time.low_us == doctest::Approx(75.1));
  CHECK(time.high_us == doctest::Approx(78.9));
  CHECK(times.of(gemm(65, 4096, 4096)).provenance == Provenance::interpolated);
  CHECK(KernelTimes(files.database(), h200(), "vllm").of(gemm(64, 4096, 4096)).provenance == Provenance::extrapolated);
}

TEST_CASE("substitutes are extrapolated, with wider bands the less alike they are") {
  const OneSurface files(1.25);
  const auto width = [](const KernelTime& time) { return time.high_us / time.low_us; };
  const KernelTimes own(files.database(), h200(), "trtllm"), other(files.database(), h200(), "vllm");
  const KernelTimes borrowed(files.database(), h200("h20"), "trtllm");
  const Op op = gemm(64, 4096, 4096);
  CHECK(other.of(op).provenance == Provenance::extrapolated);
  CHECK(other.of(op).latency_us == doctest::Approx(own.of(op).latency_us));
  CHECK(borrowed.of(op).provenance == Provenance::extrapolated);
  CHECK(borrowed.borrowed_from() == "h200_sxm");
  CHECK(width(own.of(op)) < width(borrowed.of(op)));
  CHECK(width(borrowed.of(op)) < width(other.of(op)));
  CHECK(width(other.of(op)) < width(other.of(gemm(64, 4096, 4096, Dtype::fp8))));
  CHECK(other.version().empty());
}

TEST_CASE("the arithmetic of decode attention does not matter, the format of its cache does") {
  const KernelTimes times(h200());
  const auto decode = [&](Dtype arithmetic, Dtype cache) {
    return times.of(core::make_op(OpKind::decode_attention, arithmetic, cache, {256, 8192, 8, 1, 128, 0})).latency_us;
  };
  CHECK(decode(Dtype::fp8, Dtype::fp8) == decode(Dtype::bf16, Dtype::fp8));
  CHECK(decode(Dtype::bf16, Dtype::fp8) < 0.6 * decode(Dtype::bf16, Dtype::bf16));
}

TEST_CASE("without any table the stated efficiencies answer") {
  const KernelTimes times(h200());
  const Op op = core::make_op(OpKind::elementwise, Dtype::bf16, Dtype::bf16, {1000000, 4096, 4096});
  // 8.192e9 bytes at 0.8 of 4.8e12 bytes/s, plus 1.5 us.
  CHECK(times.of(op).latency_us == doctest::Approx(8.192e9 / (0.8 * 4.8e12) * 1e6 + 1.5));
  CHECK(times.of(op).provenance == Provenance::analytic);
  CHECK(times.of(gemm(1, 4096, 4096)).provenance == Provenance::analytic);
  CHECK(times.version().empty());
}

TEST_CASE("a group over the network is limited by it") {
  const KernelTimes times(h200());
  const auto reduce = [](int64_t gpus) {
    return core::make_op(OpKind::all_reduce, Dtype::bf16, Dtype::bf16, {int64_t{1} << 30, gpus});
  };
  CHECK(times.of(reduce(16)).provenance == Provenance::analytic);
  // An eighth of 2 (15 / 16) GiB through a 50 GB/s port at 0.85: 5922 us, and the node's own links on top.
  CHECK(times.of(reduce(16)).latency_us > 5900);
  CHECK(times.of(reduce(16)).latency_us > 1.5 * times.of(reduce(8)).latency_us);
}

TEST_CASE("an op that does nothing takes no time") {
  const KernelTimes times(h200());
  for (const Op& op : {gemm(0, 4096, 4096), core::make_op(OpKind::all_reduce, Dtype::bf16, Dtype::bf16, {4096, 1}),
                       core::make_op(OpKind::moe_dispatch, Dtype::fp8, Dtype::fp8, {8, 7168, 8, 256, 1}),
                       core::make_op(OpKind::send_recv, Dtype::bf16, Dtype::bf16, {0, 2})}) {
    const KernelTime time = times.of(op);
    CHECK(time.latency_us == 0);
    CHECK(time.low_us == 0);
    CHECK(time.high_us == 0);
  }
  CHECK(
      times.of(core::make_op(OpKind::prefill_attention, Dtype::bf16, Dtype::bf16, {1, 8, 0, 8, 1, 128, 0})).latency_us >
      0);
  CHECK(times.of(core::make_op(OpKind::decode_attention, Dtype::bf16, Dtype::bf16, {1, 0, 8, 1, 128, 0})).latency_us >
        0);
}

#ifdef DRYDOCK_SOURCE_DIR
namespace {

const std::filesystem::path kShipped = std::filesystem::path(DRYDOCK_SOURCE_DIR) / "perfdb/data/perf.db";

// One op of each kind as a function of how much work there is.
std::vector<Op> ops_of(int64_t n) {
  constexpr Dtype b = Dtype::bf16, f = Dtype::fp8;
  return {gemm(n, 5120, 5120),
          gemm(n, 5120, 5120, f),
          gemm(n, 7168, 2048, Dtype::fp8_block),
          core::make_op(OpKind::batched_gemm, b, b, {n, 512, 128, 16}),
          core::make_op(OpKind::moe, Dtype::fp8_block, Dtype::fp8_block, {n, 7168, 2048, 256, 8, 8}),
          core::make_op(OpKind::moe, Dtype::mxfp4, Dtype::mxfp4, {n, 2880, 2880, 128, 4, 1}),
          core::make_op(OpKind::moe, f, f, {n, 3584, 1280, 96, 6, 4}),
          core::make_op(OpKind::prefill_attention, b, b, {1, n, 0, 8, 1, 128, 0}),
          core::make_op(OpKind::prefill_attention, f, f, {1, n, 4096, 8, 1, 128, 0}),
          core::make_op(OpKind::prefill_attention, b, b, {1, n, 0, 64, 8, 64, 128}),
          core::make_op(OpKind::decode_attention, b, b, {n, 4096, 8, 1, 128, 0}),
          core::make_op(OpKind::decode_attention, b, f, {n, 1024, 32, 8, 128, 0}),
          core::make_op(OpKind::mla_prefill, b, b, {1, n, 0, 16, 192, 128}),
          core::make_op(OpKind::mla_decode, b, f, {n, 4096, 16, 512, 64}),
          core::make_op(OpKind::gated_delta, b, b, {1, n, 16, 32, 128, 128}),
          core::make_op(OpKind::all_reduce, b, b, {n * 10240, 4}),
          core::make_op(OpKind::all_gather, b, b, {n * 10240, 8}),
          core::make_op(OpKind::all_to_all, b, b, {n * 10240, 8}),
          core::make_op(OpKind::moe_dispatch, f, f, {n, 7168, 8, 256, 8}),
          core::make_op(OpKind::moe_combine, b, b, {n, 7168, 8, 256, 8}),
          core::make_op(OpKind::index_score, f, f, {1, n, n + 8192, 64, 128}),
          core::make_op(OpKind::sparse_mla, b, b, {n, 2048, 16, 512, 64})};
}

}  // namespace

TEST_CASE("shipped surfaces: sane bands, nothing faster than physics, more work takes no less time") {
  const Database database = Database::open(kShipped, Access::read);
  for (const std::string& system : {std::string("h200_sxm"), std::string("h100_sxm"), std::string("h20")})
    for (const std::string& backend : {std::string("trtllm"), std::string("vllm"), std::string("sglang")}) {
      const core::Hardware hardware = h200(system.c_str());
      const KernelTimes times(database, hardware, backend);
      CHECK(times.borrowed_from().empty() == (hardware.name != "h20"));
      std::vector<double> before;
      for (int64_t n = 1; n <= 16384; n *= 2) {
        const std::vector<Op> ops = ops_of(n);
        for (size_t i = 0; i < ops.size(); ++i) {
          const KernelTime time = times.of(ops[i]);
          INFO(system << " " << backend << " " << core::key(ops[i]) << " " << time.latency_us);
          CHECK(ordered(time));
          CHECK(time.latency_us >= 0.699 * core::roofline_us(ops[i], hardware));
          // Doubling the work may pick a better kernel: in the tables by 29 % at most on these shapes (NCCL's
          // all_to_all is slower at 40 KiB than at 80 KiB; fp8 GEMMs of one row are slower than of two).
          if (n > 1) CHECK(time.latency_us > 0.70 * before[i]);
          before.resize(ops.size());
          before[i] = time.latency_us;
        }
      }
    }
}
#endif

}  // namespace drydock::perfdb
