#include <doctest/doctest.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "perfdb/csv_exchange.h"

using namespace drydock;
using namespace drydock::perfdb;
namespace fs = std::filesystem;

namespace {

const auto kQuiet = [](int64_t) {};

struct Scratch {
  fs::path dir = fs::temp_directory_path() / ("drydock_csv_" + std::to_string(::getpid()));
  Scratch() { fs::create_directories(dir); }
  ~Scratch() { fs::remove_all(dir); }
};

std::string import_error(const Scratch& scratch, const std::string& text) {
  core::write_file(scratch.dir / "in.csv", text);
  fs::remove(scratch.dir / "x.db");
  Database database = Database::open(scratch.dir / "x.db", Access::create);
  try {
    import_csv(database, scratch.dir / "in.csv", kQuiet);
  } catch (const core::Error& error) {
    database.read({}, [](const Measurement&) { FAIL("a row of a file that was refused"); });
    return std::string(error.what()).substr((scratch.dir / "in.csv").string().size());
  }
  return "";
}

}  // namespace

TEST_CASE("export after import gives the same file, whatever the order of columns and rows") {
  const Scratch scratch;
  const std::string ordered =
      std::string(kCsvHeader) +
      "\nh200_sxm,trtllm,1.0,\"H200, SXM\",570,1980,cublas,2026-01-01,me,\"gemm/bf16/m=1,n=2,k=3\",4.25,0.5,9\n"
      "h200_sxm,trtllm,1.0,\"H200, SXM\",570,1980,cublas,2026-01-01,me,\"gemm/fp8/m=1,n=2,k=3\",0.1,0,0\n";
  core::write_file(
      scratch.dir / "in.csv",
      "\xEF\xBB\xBFop,latency_us,system,backend,version,gpu,driver,clocks,kernel,date,source,spread_us,samples\r\n"
      "\"gemm/fp8/m=1,n=2,k=3\",0.1,h200_sxm,trtllm,1.0,\"H200, SXM\",570,1980,cublas,2026-01-01,me,,\r\n"
      "\"gemm/bf16/m=1,n=2,k=3\",4.25,h200_sxm,trtllm,1.0,\"H200, SXM\",570,1980,cublas,2026-01-01,me,0.5,9\r\n");
  Database database = Database::open(scratch.dir / "a.db", Access::create);
  CHECK(import_csv(database, scratch.dir / "in.csv", kQuiet) == 2);
  CHECK(export_csv(database, scratch.dir / "out.csv") == 2);
  CHECK(core::read_file(scratch.dir / "out.csv") == ordered);
}

TEST_CASE("a bad row stops the import, names its line, and leaves the database as it was") {
  const Scratch scratch;
  const std::string head = "system,backend,op,latency_us\n", good = "a,b,\"gemm/fp8/m=1,n=2,k=3\",5\n";
  CHECK(import_error(scratch, "system,op,latency_us\n") == ": line 1: missing column backend");
  CHECK(import_error(scratch, head + good + "a,b,\"gemm/fp8/m=1,n=2\",5\n")
            .starts_with(": line 3: column 'op': op key 'gemm/fp8/m=1,n=2'"));
  CHECK(import_error(scratch, head + good + good + "a,b,\"gemm/fp8/m=1,n=2,k=3\",nan\n").find(": line 4: ") !=
        std::string::npos);
  CHECK(import_error(scratch, head + "a,b,\"gemm/fp8/m=1,n=2,k=3\",0\n") != "");
  CHECK(import_error(scratch, head + "a,b,\"gemm/fp8/m=1,n=2,k=3\",\n").ends_with("column 'latency_us' is empty"));
  CHECK(import_error(scratch, head + ",b,\"gemm/fp8/m=1,n=2,k=3\",1\n")
            .ends_with("system and backend must not be empty"));
}

TEST_CASE("a file longer than one reading chunk keeps every row and counts its lines") {
  const Scratch scratch;
  std::string text = "system,backend,op,latency_us\n";
  constexpr int kRows = 120'000;  // some 5 MB
  for (int m = 1; m <= kRows; ++m) text += "a,b,\"gemm/fp8/m=" + std::to_string(m) + ",n=2,k=3\",5\n";
  core::write_file(scratch.dir / "in.csv", text);
  Database database = Database::open(scratch.dir / "a.db", Access::create);
  CHECK(import_csv(database, scratch.dir / "in.csv", kQuiet) == kRows);
  CHECK(import_error(scratch, text + "a,b,\"gemm/fp8/m=1,n=2,k=3\",x\n")
            .starts_with(": line 120002: column 'latency_us'"));
  CHECK(import_error(scratch, text + "a,b,5\n") == ": line 120002: 3 fields; the header has 4");
  CHECK(import_error(scratch, text + "a,b,\"").starts_with(": line 120002: "));
  CHECK(import_error(scratch, text + "a\tb,b,\"gemm/fp8/m=1,n=2,k=3\",5\n")
            .starts_with(": line 120002: column 'system'"));
  CHECK(import_error(scratch, text + std::string(3 << 20, 'x')) == ": line 120002 is over 1 MiB");
  CHECK(import_error(scratch, std::string(3 << 20, 'x')).starts_with(": line 1 is over 1 MiB"));
}

TEST_CASE("an export that can't be written leaves nothing") {
  const Scratch scratch;
  const Database database = Database::open(scratch.dir / "a.db", Access::create);
  CHECK_THROWS_AS(export_csv(database, scratch.dir / "none" / "out.csv"), core::Error);
  CHECK_THROWS_AS(export_csv(database, scratch.dir), core::Error);
  CHECK(std::distance(fs::directory_iterator(scratch.dir), fs::directory_iterator()) == 1);
}
