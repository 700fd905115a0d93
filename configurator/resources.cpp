#include "configurator/resources.h"

namespace drydock::configurator {
namespace {

std::filesystem::path or_shipped(const std::filesystem::path& given, const char* shipped) {
  return given.empty() ? models::data_dir() / shipped : given;
}

}  // namespace

Resources::Resources(const std::filesystem::path& database, const std::filesystem::path& calibration)
    : database_(perfdb::Database::open(or_shipped(database, "perf.db"), perfdb::Access::read)),
      backends_(simulator::read_backend_models(or_shipped(calibration, "calibration.json"))) {}

const models::Architecture& Resources::model(const std::string& name) {
  const std::scoped_lock lock(mutex_);
  auto& slot = models_[name];
  if (!slot) slot = std::make_unique<models::Architecture>(models::find_model(name));
  return *slot;
}

const models::System& Resources::system(const std::string& name) {
  const std::scoped_lock lock(mutex_);
  auto& slot = systems_[name];
  if (!slot) slot = std::make_unique<models::System>(models::find_system(name));
  return *slot;
}

void Resources::set_price(const std::string& name, double price) {
  const std::scoped_lock lock(mutex_);
  system(name);
  systems_[name]->price_per_gpu_hour = price;
}

const perfdb::KernelTimes& Resources::times(const std::string& system_name, models::Backend backend) {
  const std::scoped_lock lock(mutex_);
  auto& slot = times_[{system_name, backend}];
  if (!slot)
    slot = std::make_unique<perfdb::KernelTimes>(database_, system(system_name).hardware, models::name(backend));
  return *slot;
}

const simulator::BackendModel& Resources::backend(models::Backend backend) const {
  return backends_[static_cast<size_t>(backend)];
}

}  // namespace drydock::configurator
