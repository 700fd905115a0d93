// Shipped systems, and systems of the user's own.
#include <doctest/doctest.h>

#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "models/catalogue.h"
#include "models/system.h"

using namespace drydock;
using core::Dtype;
using models::System;

namespace {

double rate(const System& s, Dtype dtype) { return s.hardware.flops_per_s[static_cast<size_t>(dtype)]; }

// Writes the shipped H200 with one field replaced (null: removed) and returns what reading it says.
std::string error_with(const std::string& field, const core::Json& value) {
  core::Json json = core::read_json(models::data_dir() / "systems" / "h200_sxm.json");
  if (value.is_null())
    json.erase(field);
  else
    json[field] = value;
  const auto file = std::filesystem::temp_directory_path() / "drydock_system_test.json";
  core::write_file(file, json.dump());
  std::string error;
  try {
    models::find_system(file.string());
  } catch (const core::Error& e) {
    error = e.what();
  }
  std::filesystem::remove(file);
  return error;
}

bool mentions(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("every system of the contract is shipped and plausible") {
  const std::vector<std::string> wanted = {"a100_pcie", "a100_sxm", "b200_sxm",  "b300_sxm",           "gb200",
                                           "gb300",     "gh200",    "h100_pcie", "h100_sxm",           "h200_sxm",
                                           "h20",       "l40s",     "l4",        "rtx_pro_6000_server"};
  CHECK(models::system_names().size() == wanted.size());
  for (const std::string& name : wanted) {
    CAPTURE(name);
    const System s = models::find_system(name);
    CHECK(s.name() == name);
    CHECK(s.gpu.starts_with("NVIDIA "));
    CHECK(s.source.size() > 10);
    CHECK_FALSE(s.price_per_gpu_hour);
    // Tensor cores do 1024 to 8192 dense bf16 FLOP a cycle and SM, at 1 to 2.6 GHz.
    const double per_sm = rate(s, Dtype::bf16) / s.hardware.sms;
    CHECK(per_sm > 1e12);
    CHECK(per_sm < 2.2e13);
    // Each halving of the width doubles the dense rate, within the rounding of datasheets; Blackwell Ultra triples fp4.
    if (rate(s, Dtype::fp8) > 0) CHECK(rate(s, Dtype::fp8) == doctest::Approx(2 * rate(s, Dtype::bf16)).epsilon(0.02));
    if (rate(s, Dtype::nvfp4) > 0) CHECK(rate(s, Dtype::nvfp4) >= 1.99 * rate(s, Dtype::fp8));
    CHECK((rate(s, Dtype::fp8) > 0) == (s.hardware.sm_version >= 89));
    CHECK((rate(s, Dtype::nvfp4) > 0) == (s.hardware.sm_version >= 100));
    CHECK(s.memory_bytes > 20e9);
    CHECK(s.power_w > 50);
  }
}

TEST_CASE("datasheet figures of two systems") {
  const System h100 = models::find_system("h100_sxm");
  CHECK(h100.hardware.sms == 132);
  CHECK(rate(h100, Dtype::bf16) == 989.4e12);  // dense, half of the 1979 with sparsity
  CHECK(rate(h100, Dtype::fp8) == 1978.9e12);
  CHECK(h100.hardware.nvlink_bytes_per_s == 450e9);  // NVLink 4: 900 GB/s both ways
  CHECK(h100.hardware.nvlink_domain == 8);
  CHECK(h100.power_w == 700);
  CHECK(h100.memory_bytes == 81559.0 * 1024 * 1024);  // MiB, as the driver reports

  const System gb200 = models::find_system("gb200");
  CHECK(gb200.hardware.nvlink_domain == 72);
  CHECK(gb200.hardware.gpus_per_node == 4);
  CHECK(gb200.gpus_per_rack == 72);
  CHECK(rate(gb200, Dtype::nvfp4) == 10e15);  // 720 PFLOP/s dense over 72 GPUs
}

TEST_CASE("system names resolve in any case, a typo suggests the nearest") {
  CHECK(models::find_system("H200_SXM").name() == "h200_sxm");
  CHECK(models::find_system("h200-sxm").name() == "h200_sxm");
  const auto error_of = [](std::string_view name) {
    try {
      models::find_system(name);
    } catch (const core::Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(mentions(error_of("h200_smx"), "did you mean 'h200_sxm'"));
  CHECK(mentions(error_of("b201_sxm"), "did you mean 'b200_sxm'"));
  CHECK(mentions(error_of("tpu_v7"), "drydock systems"));
  CHECK(mentions(error_of("no_such_file.json"), "no_such_file.json"));
  CHECK(mentions(error_of(""), "system"));
}

TEST_CASE("a system of the user's own, with a price") {
  core::Json json = core::read_json(models::data_dir() / "systems" / "h200_sxm.json");
  json["name"] = "ours";
  json["price_per_gpu_hour"] = 2.5;
  const auto file = std::filesystem::temp_directory_path() / "drydock_own_system_test.json";
  core::write_file(file, json.dump());
  const System s = models::find_system(file.string());
  std::filesystem::remove(file);
  CHECK(s.name() == "ours");
  CHECK(s.price_per_gpu_hour == 2.5);
}

TEST_CASE("a wrong field is named together with the file") {
  CHECK(error_with("power_w", 700).empty());  // the unchanged file reads
  CHECK(mentions(error_with("sms", nullptr), "field 'sms': missing"));
  CHECK(mentions(error_with("sms", nullptr), "drydock_system_test.json"));
  CHECK(mentions(error_with("sms", "many"), "'sms'"));
  CHECK(mentions(error_with("memory_bytes", -1), "'memory_bytes'"));
  CHECK(mentions(error_with("memory_bytes", 141), "'memory_bytes'"));                   // gigabytes by mistake
  CHECK(mentions(error_with("flops_per_s", {{"bf16", 989.4}}), "'flops_per_s.bf16'"));  // teraflops by mistake
  CHECK(mentions(error_with("flops_per_s", {{"fp8", 1e15}}), "'flops_per_s.bf16': missing"));
  CHECK(mentions(error_with("flops_per_s", {{"bf17", 1e15}}), "'flops_per_s.bf17'"));
  CHECK(mentions(error_with("nvlink_bytes_per_s", 0), "'nvlink_bytes_per_s'"));
  CHECK(mentions(error_with("power_w", 1e9), "'power_w'"));
  CHECK(mentions(error_with("price_per_gpu_hour", 0), "'price_per_gpu_hour'"));
  CHECK(mentions(error_with("gpus_per_rack", 4), "'gpus_per_rack'"));
  CHECK(mentions(error_with("nvlink_byte_per_s", 1e9), "did you mean 'nvlink_bytes_per_s'"));
}
