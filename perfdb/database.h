#pragma once
// One SQLite file of measurements, fitted surfaces and what is known of their origin. Schema: docs/perfdb.md.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/op.h"

namespace drydock::perfdb {

inline constexpr int kSchemaVersion = 1;           // PRAGMA user_version
inline constexpr int kApplicationId = 0x44727964;  // PRAGMA application_id, "Dryd"

// Where a set of measurements comes from; rows of one campaign share it.
struct Origin {
  std::string system;   // "h200_sxm"
  std::string backend;  // "trtllm", "vllm", "sglang", "drydock", or "nccl" for engine-independent communication
  std::string version;  // of the backend
  std::string gpu, driver, clocks;
  std::string kernel;  // implementation, e.g. "deepgemm"
  std::string date;    // ISO 8601
  std::string source;  // who measured: "drydock profile", "aiconfigurator-core 0.12.0"

  auto operator<=>(const Origin&) const = default;
};

struct Measurement {
  core::Op op;
  Origin origin;
  double latency_us = 0;  // median of one launch
  double spread_us = 0;   // interquartile range; 0: not known
  int64_t samples = 0;    // 0: not known
};

// A fitted efficiency surface, stored as an opaque text that perfdb/surface.h reads.
struct StoredSurface {
  std::string system, backend, version;
  core::OpKind kind{};
  core::Dtype dtype{}, kv_dtype{};
  std::string variant;  // distinguishes surfaces of one kind and dtype, e.g. the model shape of an MoE; may be empty
  std::string body;
};

enum class Access { read, write, create };  // create: write, made when it is not there

// Readers open read-only. A connection belongs to one thread.
class Database {
 public:
  // Runs PRAGMA integrity_check (quick_check over 64 MiB) and compares the schema; undoes what a killed writer left.
  // Throws core::Error in one line when the file is missing, a folder, corrupt, of a newer version or not ours.
  static Database open(const std::filesystem::path& file, Access access);
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  std::filesystem::path file() const;

  // Each of these is one transaction: after a kill the file holds all of it or none.
  // `rows` calls its argument once per measurement; an equal op and origin is replaced. Returns how many were written.
  int64_t write(const std::function<void(const std::function<void(const Measurement&)>&)>& rows);
  void write(const std::vector<StoredSurface>& surfaces);
  // Adds the rows and surfaces of `other`; where both have an op of one origin, or a surface, that of `other` stands.
  // Returns how many were written.
  int64_t merge(const std::filesystem::path& other);

  struct Filter {
    std::optional<std::string> system, backend, version;
    std::optional<core::OpKind> kind;
  };
  // In the order of system, backend, kind, key, date and the rest of the origin. Throws core::Error naming the op of a
  // row that no measurement can be.
  void read(const Filter& filter, const std::function<void(const Measurement&)>& row) const;
  // All surfaces of one system and backend; of every one where an argument is empty.
  std::vector<StoredSurface> surfaces(std::string_view system, std::string_view backend) const;

  struct Content {  // a line of `drydock db info`
    std::string system, backend, version, source;
    core::OpKind kind{};
    int64_t measurements = 0, surfaces = 0;
  };
  std::vector<Content> contents() const;

 private:
  struct Impl;
  explicit Database(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::perfdb
