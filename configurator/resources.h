#pragma once
// Everything a prediction rests on besides the question: kernel times, backends' figures, models and systems, each
// loaded once.
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "models/catalogue.h"
#include "perfdb/kernel_times.h"
#include "simulator/backend_model.h"

namespace drydock::configurator {

// References it hands out live as long as it does. Safe to use from many threads.
class Resources {
 public:
  // Empty paths: perf.db and calibration.json of the data folder. Throws core::Error naming the file.
  explicit Resources(const std::filesystem::path& database = {}, const std::filesystem::path& calibration = {});

  const models::Architecture& model(const std::string& name);
  const models::System& system(const std::string& name);
  // Replaces the price of a system, per GPU and hour.
  void set_price(const std::string& system, double price);
  const perfdb::KernelTimes& times(const std::string& system, models::Backend backend);
  const simulator::BackendModel& backend(models::Backend backend) const;
  const std::vector<simulator::BackendModel>& backends() const { return backends_; }
  // For all that is asked from now on, and for engines that are there: the models change where they are. Nothing may be
  // asked meanwhile.
  void set_backends(const std::vector<simulator::BackendModel>& backends) { backends_ = backends; }
  const perfdb::Database& database() const { return database_; }

 private:
  perfdb::Database database_;
  std::vector<simulator::BackendModel> backends_;
  std::recursive_mutex mutex_;
  std::map<std::string, std::unique_ptr<models::Architecture>> models_;
  std::map<std::string, std::unique_ptr<models::System>> systems_;
  std::map<std::pair<std::string, models::Backend>, std::unique_ptr<perfdb::KernelTimes>> times_;
};

}  // namespace drydock::configurator
