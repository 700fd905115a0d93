#pragma once
// What a sweep has answered so far: one SQLite file a shard, each answer a transaction of its own.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "core/json.h"

namespace drydock::configurator {

inline constexpr int kSweepVersion = 1;                 // PRAGMA user_version
inline constexpr int kSweepApplicationId = 0x44725377;  // PRAGMA application_id, "DrSw"

// Whether the file is a sweep's. False for anything else, a missing file included.
bool is_sweep_file(const std::filesystem::path& file);

// Belongs to one thread.
class SweepStore {
 public:
  // Opens a file for reading; undoes what a killed writer left half done. Throws core::Error naming the file.
  static SweepStore read(const std::filesystem::path& file);
  // Opens or makes a file for the answers to `sweep`, which rest on `basis`. Throws core::Error when it holds those of
  // another sweep or on another basis.
  static SweepStore write(const std::filesystem::path& file, const core::Json& sweep, const core::Json& basis);
  // Adds the answers of `from` to those of `into`, which is made when it is not there. Returns how many were new.
  // Throws core::Error when the two are of different sweeps, or disagree about an item.
  static int64_t merge(const std::filesystem::path& into, const std::filesystem::path& from);

  SweepStore(SweepStore&&) noexcept;
  SweepStore& operator=(SweepStore&&) noexcept;
  ~SweepStore();

  const core::Json& sweep() const;  // as sweep_json() writes it
  const core::Json& basis() const;
  int64_t count() const;  // of answers
  std::set<int64_t> done() const;
  // After it returns the answer survives a kill. `wall_ms` is kept beside it and in no export.
  void put(int64_t item, std::string_view answer, double wall_ms);
  // Every answer, by item.
  void each(const std::function<void(int64_t item, const core::Json& answer)>& row) const;

 private:
  struct Impl;
  explicit SweepStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::configurator
